/**
 * The contract of a store: where entries live, and who decides whether one is fresh.
 *
 * One rule decides: an entry is fresh if and only if its lookup began after the last invalidation of every tag it
 * carries (its own key is one of them) and its time to live has not passed. A store keeps its own order of
 * invalidations; a **position** in it is taken before a lookup starts and comes back with the answer, so that an
 * invalidation in between wins, whoever learns of it first.
 */
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type { CachemeError } from "./CachemeError.ts"
import type { Entry, Reason } from "./Entry.ts"
import type { Invalidation, Report, Request } from "./Invalidation.ts"
import type { Any, NodeDefinition } from "./Node.ts"

/** A fresh answer. */
export interface Found {
  readonly exit: Exit.Exit<any, any>
  /** The ids of all it rests on, its own key first. */
  readonly ids: () => ReadonlyArray<string>
}

/** The right to store the answer of one lookup, taken before that lookup begins. */
export interface Fill {
  /** True when something this key is known to rest on was invalidated since: the answer cannot be stored. */
  readonly isOvertaken: () => boolean
  /** True when nothing at all was invalidated since. */
  readonly isQuiet: () => boolean
  /** Stores the answer unless one of its tags was invalidated since the lookup began; tells whether it did. */
  readonly store: (entry: Entry) => Effect.Effect<boolean>
  /** Gives the right back. Must be called once, after `store` or without it. */
  readonly end: Effect.Effect<void>
}

/** A store of entries. */
export class Store extends Context.Service<
  Store,
  {
    /** One word for the log line at start. */
    readonly label: string
    /** The fresh answer that can be given at once, without waiting: the hit. */
    readonly peek: (node: Any, clock: Clock.Clock) => Found | undefined
    /** Begins a fill. `known` are the ids the answer will rest on as far as its key tells. */
    readonly begin: (node: Any, known: ReadonlyArray<string>) => Effect.Effect<Fill>
    /** Makes every entry that the targets reach stale, before it completes. */
    readonly invalidate: (
      request: Request
    ) => Effect.Effect<{ readonly report: Report; readonly invalidation: Invalidation }, CachemeError>
    /** Why a key is, or is not, answered. */
    readonly explain: (node: Any) => Effect.Effect<Reason>
    /** What it holds of a node, or of all. */
    readonly size: (definition?: NodeDefinition) => number
    /** How many tags it keeps track of. */
    readonly tags: () => number
  }
>()("cacheme/Store") {}
