/**
 * Who acts, and why. It is told with every invalidation that a fiber publishes, here and in other processes, so that
 * whoever watches can say whose write ended an answer. It decides nothing.
 */
import * as Context from "effect/Context"

/** Who acts, and why, in words of the program's own. */
export interface Attribution {
  readonly actor?: string | undefined
  readonly reason?: string | undefined
}

/** Longer texts are cut: they travel with every message. */
const maxLength = 256

/** What the current fiber does is attributed to; empty by default. */
export const CurrentAttribution: Context.Reference<Attribution> = Context.Reference<Attribution>(
  "cacheme/Attribution",
  { defaultValue: () => ({}) }
)

/** An attribution as it travels: both are there, as texts that are not too long. */
export const bounded = ({ actor, reason }: Attribution): Required<Attribution> => ({
  actor: cut(actor),
  reason: cut(reason)
})

/** Of several writes that are told as one: all that differ, in the order of the writes. */
export const merged = (all: ReadonlyArray<Attribution>): Required<Attribution> =>
  bounded({
    actor: joined(all.map(({ actor }) => actor)),
    reason: joined(all.map(({ reason }) => reason))
  })

const joined = (texts: ReadonlyArray<string | undefined>): string | undefined => {
  const known = new Set(texts.filter((text) => text !== undefined))
  return known.size === 0 ? undefined : [...known].join(", ")
}

/** What is no text, in a program without types, is not told. Half of a character is none. */
const cut = (text: unknown): string | undefined =>
  typeof text === "string" ? text.slice(0, maxLength).replace(/[\uD800-\uDBFF]$/, "") : undefined
