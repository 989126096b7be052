/** What a store keeps for a key: the answer, the facts it rests on, and how long it stays good. */
import * as Exit from "effect/Exit"

/** An answer, ready to be stored. The position at which its lookup began is the fill's. */
export interface Entry {
  /** The answer, or a failure that its node allows to be cached. */
  readonly exit: Exit.Exit<unknown, unknown>
  /** The ids of the tags it carries beside its own key, which every entry rests on. */
  readonly tags: ReadonlyArray<string>
  /** Milliseconds from now; `Infinity` for ever. */
  readonly timeToLive: number
  /** How long its lookup took, in milliseconds. Default 0. */
  readonly took?: number | undefined
  /** How long it may still be of use once it has aged out, or been invalidated. Default not at all. */
  readonly keep?: Windows | undefined
  /** What each of the memoized answers rests on that its lookup has used, the answer's own key first. */
  readonly answers?: ReadonlyArray<ReadonlyArray<string>> | undefined
}

/** Two lengths of time, in milliseconds: for answers that have aged out, and for answers that were invalidated. */
export interface Windows {
  readonly aged: number
  readonly invalidated: number
}

/** What is stored for a key that a batched lookup had no answer for. It is no answer to a single lookup. */
export const absence: Exit.Exit<never, "absent"> = Exit.fail("absent")

/** An answer that is fresh no more. It may be used only where the user has opened a window for it. */
export interface Stale {
  readonly exit: Exit.Exit<any, any>
  /** The ids of all it rests on, its own key first. */
  readonly ids: () => ReadonlyArray<string>
  /** Milliseconds since its time to live passed; negative until then. */
  readonly agedFor: number
  /** Milliseconds since the first invalidation of something it rests on; `-Infinity` if there was none. */
  readonly invalidatedFor: number
}

/** Why a key has no fresh answer. */
export type Miss =
  | "absent"
  | "expired"
  | "invalidated"
  /** What lies under its name cannot be read: written by other code, or by nobody who should. */
  | "unreadable"
  /** The store cannot be asked. */
  | "away"

/** Why a key is, or is not, answered from the cache. */
export type Reason =
  | { readonly _tag: "Fresh"; readonly expiresIn: number; readonly tags: ReadonlyArray<string> }
  | { readonly _tag: "Absent" }
  | { readonly _tag: "NoAnswer" }
  | { readonly _tag: "Expired" }
  | {
      readonly _tag: "Invalidated"
      readonly by: string
      /** Why that was invalidated though less may have changed, if this process knows. */
      readonly because?: string | undefined
    }
  | { readonly _tag: "Unreadable" }
  | { readonly _tag: "Away" }
  | { readonly _tag: "Disabled" }
  | { readonly _tag: "Skipped" }
  | { readonly _tag: "InTransaction"; readonly because: string }

/** Why an entry rests on more of a table than its lookup has read, or on all of it. */
export interface Fallback {
  /** The table, as tags call it. */
  readonly table: string
  readonly because: string
  /** The properties of the columns that, declared as a key of the table's model, would make it precise. */
  readonly key?: ReadonlyArray<string> | undefined
}

/** Ids that an entry rests on, and the statement that they come from. */
export interface Source {
  /**
   * The statement, as it was sent. `undefined` for what was given by hand or came with another answer, and where the
   * lookup ran in another process, or so long ago that it is not known here any more.
   */
  readonly statement: string | undefined
  readonly ids: ReadonlyArray<string>
}

/** What an entry rests on, beside its own key and node. */
export interface Dependencies {
  readonly sources: ReadonlyArray<Source>
  /** Where it rests on more than was read, and why. */
  readonly fallbacks: ReadonlyArray<Fallback>
  /** What it depends on that no write tells of, such as the time: only its time to live bounds that. */
  readonly untold: ReadonlyArray<string>
  /** Tables of which its lookup has read so many rows that it rests on all rows of them. */
  readonly collapsed: ReadonlyArray<string>
  /** True when it rests on nothing else at all: only its time to live ends it, and whoever names it. */
  readonly isBare: boolean
}

/** What `Cacheme.explain` tells of a key. */
export interface Explanation {
  readonly node: string
  /** The canonical key: what `invalidate({ keys })` and patterns are matched against. */
  readonly key: string
  /** The name under which a shared store keeps it: the key behind the prefix. */
  readonly storedAs: string
  /** True when the next reader is answered at once, with a fresh answer or a stale one. */
  readonly answered: boolean
  readonly reason: Reason
  /** The windows in which a stale answer may still be given now, and for how many milliseconds more. */
  readonly stale: { readonly atOnce: number; readonly ifError: number }
  /** True while a lookup for this key is running. */
  readonly lookupRunning: boolean
  /** How often in a row a refresh in the background has failed, while another attempt is due. */
  readonly failedRefreshes: number
  /** What its entry rests on, or the last answer that was looked up here; `undefined` when there is none. */
  readonly dependencies: Dependencies | undefined
  /** All this as a sentence. */
  readonly message: string
}
