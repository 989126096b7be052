/**
 * An invalidation: which facts have changed, why, and when in the store's order it took effect.
 *
 * `Cacheme.invalidate` takes what a user can name (nodes, node classes, tags, key texts, globs); it is reduced here to
 * ids, which is all that travels: through the PubSub to the invalidator, and to whoever watches `Cacheme.events`.
 */
import * as Schema from "effect/Schema"
import type { Attribution } from "./Attribution.ts"
import { CachemeError, describe, InvalidTarget } from "./CachemeError.ts"
import type { Definition } from "./Definition.ts"
import * as Key from "./Key.ts"
import * as Node from "./Node.ts"
import * as Pattern from "./Pattern.ts"
import * as Tag from "./Tag.ts"

/** Why an invalidation happened. */
export const Cause = Schema.Literals([
  /** `Cacheme.invalidate` was called. */
  "call",
  /** An effect piped through `Cacheme.mutation` succeeded. */
  "mutation",
  /** `Cacheme.set` or `Cacheme.refresh` was called. */
  "replacement",
  /** A database write was committed. */
  "commit",
  /** A connection was lost when it could have committed, or a mutation was interrupted. */
  "unknown outcome"
])
export type Cause = typeof Cause.Type

/** What is invalidated, as ids. */
export interface Targets {
  /** Canonical keys; each takes the keys that lie within it along. */
  readonly keys: ReadonlyArray<string>
  /** Ids of tags. */
  readonly tags: ReadonlyArray<string>
  /** Redis-style globs over canonical keys. */
  readonly patterns: ReadonlyArray<string>
}

/** Targets, the cause, and who acts for which reason, on their way to the store. */
export interface Request extends Targets, Attribution {
  readonly cause: Cause
  /** Of ids that stand for more than is known to have changed: why. Not told to others; `explain` tells it here. */
  readonly because?: ReadonlyMap<string, string> | undefined
}

/** An invalidation that a store has applied. */
export class Invalidation extends Schema.Class<Invalidation>("cacheme/Invalidation")({
  keys: Schema.Array(Schema.String),
  tags: Schema.Array(Schema.String),
  patterns: Schema.Array(Schema.String),
  cause: Cause,
  /** Who acted: what {@link Cacheme.Attribution} was where it was published; 256 characters at most. */
  actor: Schema.optional(Schema.String),
  /** Why, in words of the program's own; 256 characters at most. */
  reason: Schema.optional(Schema.String),
  /** The point in the store's invalidation order at which it took effect; `undefined` while it waits for its store. */
  position: Schema.UndefinedOr(Schema.Int),
  /** Milliseconds since the epoch, by the clock of the process that applied it. */
  instant: Schema.Finite
}) {}

/** What an invalidation did. */
export interface Report {
  /**
   * Entries that were fresh and no longer are. Exact while a store in memory holds up to 1,024 entries; above that an
   * entry that several of the targets reach may be counted for each of them, because invalidating never walks a large
   * store. In a store that several processes share: how many keys a pattern has freed, and `undefined` where there was
   * no pattern, because nothing is walked then.
   */
  readonly entries: number | undefined
  /** The position at which it took effect; `undefined` while it waits, and where a store without room gave up its log. */
  readonly position: number | undefined
  /** Invalidations of this process that wait for a shared store that is away, this one among them: 0 in memory. */
  readonly pending: number
  /** True inside a database transaction: it takes effect when the transaction commits, and never if it does not. */
  readonly deferred: boolean
}

/** What a user can name to `Cacheme.invalidate`. */
export type Target =
  | Node.Any
  | Node.ClassAny
  | Tag.Tag
  | ReadonlyArray<Target>
  | {
      readonly keys?: ReadonlyArray<string> | undefined
      readonly tags?: Tag.Tags
      readonly pattern?: string | undefined
    }

/** Reduces a target to ids, and tells the definitions it names. Throws `InvalidTarget` for what names nothing. */
export const resolveUnsafe = (
  target: Target
): Targets & { readonly definitions: ReadonlyArray<Definition> } => {
  const keys = new Set<string>()
  const tags = new Set<string>()
  const patterns = new Set<string>()
  const definitions = new Set<Definition>()
  const visit = (item: Target): void => {
    if (Array.isArray(item)) return item.forEach(visit)
    if (Node.isNode(item)) {
      definitions.add(item[Node.TypeId])
      keys.add(item[Node.TypeId].id(item))
    } else if (Node.isClass(item)) {
      definitions.add(item[Node.TypeId])
      tags.add(Node.classId(item[Node.TypeId].name))
    } else if (Tag.isTag(item)) {
      definitions.add(item[Tag.TypeId])
      tags.add(item.id)
      for (const id of item.reaches ?? []) tags.add(id)
    } else if (isSelection(item)) {
      for (const key of item.keys ?? []) keys.add(checkKeyUnsafe(key))
      Tag.flattenUnsafe(item.tags).forEach(visit)
      if (item.pattern !== undefined) patterns.add(Pattern.makeUnsafe(item.pattern).glob)
    } else
      throw invalid(
        describe(item),
        "a node, a node class, a tag, an array of these, or { keys, tags, pattern }"
      )
  }
  visit(target)
  return { keys: [...keys], tags: [...tags], patterns: [...patterns], definitions: [...definitions] }
}

type Selection = Exclude<Target, ReadonlyArray<Target> | Node.Any | Node.ClassAny | Tag.Tag>

const isSelection = (item: unknown): item is Selection =>
  typeof item === "object" &&
  item !== null &&
  Object.keys(item).length > 0 &&
  Object.keys(item).every((key) => key === "keys" || key === "tags" || key === "pattern")

const checkKeyUnsafe = (key: unknown): string => {
  if (typeof key !== "string" || key.length === 0 || Key.isTooLong(key)) {
    throw invalid(`the key ${describe(key)}`, `a text of 1 to ${Key.maxBytes} bytes`)
  }
  return key
}

const invalid = (target: string, expected: string) =>
  new CachemeError({ reason: new InvalidTarget({ target, expected }) })
