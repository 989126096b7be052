/**
 * The policy of time: when an answer that is fresh no more may be given all the same, and when one that is still fresh
 * is looked up again early.
 *
 * Three windows, all closed unless the user opens them; for each the nearest setting wins: the call's, the node's, the
 * cache's. An answer may be given **at once** while every reason why it is not fresh is within its window: aged out
 * within `whileRevalidate`, invalidated within `afterInvalidation`. It may be given **instead of an error** (or when the
 * lookup is slow) also when it has aged out within `ifError`. Nothing else opens a way to an answer that was
 * invalidated.
 */
import * as Duration from "effect/Duration"
import type { Stale, Windows } from "./Entry.ts"
import type { StaleOptions } from "./Node.ts"

/** The windows of one question, in milliseconds. */
export interface Freshness {
  readonly atOnce: Windows
  readonly onError: Windows
}

/** The windows that the nearest options open; what none of them says is closed. */
export const make = (nearestFirst: ReadonlyArray<StaleOptions | undefined>): Freshness => {
  const window = (name: keyof StaleOptions): number => {
    const input = nearestFirst.find((options) => options?.[name] !== undefined)?.[name]
    return input === undefined ? 0 : Duration.toMillis(Duration.fromInputUnsafe(input))
  }
  const [aged, invalidated] = [window("whileRevalidate"), window("afterInvalidation")]
  return { atOnce: { aged, invalidated }, onError: { aged: Math.max(aged, window("ifError")), invalidated } }
}

/** True while an answer may be given, by these windows. */
export const isWithin = (stale: Stale, windows: Windows): boolean => leftOf(stale, windows) > 0

/** For how many milliseconds more an answer may be given. */
export const leftOf = ({ agedFor, invalidatedFor }: Stale, { aged, invalidated }: Windows): number =>
  Math.max(
    0,
    Math.min(
      agedFor < 0 ? Infinity : aged - agedFor,
      invalidatedFor === -Infinity ? Infinity : invalidated - invalidatedFor
    )
  )

/**
 * True when a fresh answer should be looked up early. `chance` is uniform in (0, 1).
 *
 * @see Vattani et al., "Optimal Probabilistic Cache Stampede Prevention" (XFetch), VLDB 2015
 */
export const isDueEarly = (
  fresh: { readonly expiresAt: number; readonly took: number },
  ahead: number,
  now: number,
  chance: number
): boolean => fresh.expiresAt !== Infinity && now - fresh.took * ahead * Math.log(chance) >= fresh.expiresAt

/** A time to live, shortened by chance. */
export const jittered = (timeToLive: number, jitter: number, chance: number): number =>
  timeToLive === Infinity ? timeToLive : timeToLive * (1 - jitter * chance)
