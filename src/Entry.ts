/** What a store keeps for a key: the answer, the facts it rests on, and how long it stays good. */
import type * as Exit from "effect/Exit"

/** An answer, ready to be stored. The position at which its lookup began is the fill's. */
export interface Entry {
  /** The answer, or a failure that its node allows to be cached. */
  readonly exit: Exit.Exit<unknown, unknown>
  /** The ids of the tags it carries beside its own key, which every entry rests on. */
  readonly tags: ReadonlyArray<string>
  /** Milliseconds from now; `Infinity` for ever. */
  readonly timeToLive: number
}

/** Why a key is, or is not, answered from the cache. */
export type Reason =
  | { readonly _tag: "Fresh"; readonly expiresIn: number; readonly tags: ReadonlyArray<string> }
  | { readonly _tag: "Absent" }
  | { readonly _tag: "Expired" }
  | { readonly _tag: "Invalidated"; readonly by: string }
  | { readonly _tag: "Disabled" }
  | { readonly _tag: "Skipped" }
  | { readonly _tag: "InTransaction"; readonly because: string }

/** What `Cacheme.explain` tells of a key. */
export interface Explanation {
  readonly node: string
  /** The canonical key: what `invalidate({ keys })` and patterns are matched against. */
  readonly key: string
  /** The name under which a shared store keeps it: the key behind the prefix. */
  readonly storedAs: string
  readonly answered: boolean
  readonly reason: Reason
  /** The reason as a sentence. */
  readonly message: string
  /** True while a lookup for this key is running. */
  readonly lookupRunning: boolean
}
