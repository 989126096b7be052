/**
 * The contract of a store: where entries live, and who decides whether one is fresh.
 *
 * One rule decides: an entry is fresh if and only if its lookup began after the last invalidation of every tag it
 * carries (its own key is one of them) and its time to live has not passed. A store keeps its own order of
 * invalidations; a **position** in it is taken before a lookup starts and comes back with the answer, so that an
 * invalidation in between wins, whoever learns of it first.
 */
import type * as Brand from "effect/Brand"
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type { CachemeError } from "./CachemeError.ts"
import type { Entry, Miss, Reason, Stale } from "./Entry.ts"
import type { Invalidation, Report, Request } from "./Invalidation.ts"
import type { Any, NodeDefinition } from "./Node.ts"

/** A point in the order in which a store applies invalidations; what is in it is the store's own affair. */
export type Position = (number | string) & Brand.Brand<"cacheme/Position">

/** What tells the time: a clock, or one moment of it for many looks. */
export type Now = Pick<Clock.Clock, "currentTimeMillisUnsafe">

/** In the place of the value of a failure. */
export const noValue = Symbol("cacheme/noValue")

/** The value of an answer, or {@link noValue}. */
export const valueOf = (exit: Exit.Exit<any, any>): unknown =>
  exit._tag === "Success" ? exit.value : noValue

/** A fresh answer. */
export interface Found {
  readonly exit: Exit.Exit<any, any>
  /** The value of the answer, for a hit, which needs no more; {@link noValue} where it is a failure. */
  readonly value: unknown
  /** The ids of all it rests on, its own key first. */
  readonly ids: () => ReadonlyArray<string>
  /** Milliseconds since the epoch; `Infinity` for never. */
  readonly expiresAt: number
  /** How long its lookup took, in milliseconds. */
  readonly took: number
}

/** What a store has for a key that has no fresh answer. */
export interface Held {
  readonly miss: Miss
  /** The answer that it keeps nevertheless. */
  readonly stale: Stale | undefined
  /** The id whose invalidation has ended the answer, if one has and that can be told. */
  readonly by?: string | undefined
}

/** What a store that several processes share answers for a key: a fresh answer, or what there is instead. */
export type Looked =
  | { readonly found: Found; readonly held?: undefined }
  | { readonly held: Held; readonly found?: undefined }

/** What became of an answer that was to be stored. */
export type Stored = "stored" | "overtaken" | "too large" | "failed"

/** The right to store the answer of one lookup, taken before that lookup begins. */
export interface Fill {
  /** True when something this key is known to rest on was invalidated since: the answer cannot be stored. */
  readonly isOvertaken: () => boolean
  /**
   * True when nothing at all was invalidated since, nor in time to be missing in the memoized answers that the lookup has
   * used (`Entry.answers`).
   */
  readonly isQuiet: (answers: ReadonlyArray<ReadonlyArray<string>>) => Effect.Effect<boolean>
  /** Stores the answer unless one of its tags was invalidated since the lookup began. */
  readonly store: (entry: Entry) => Effect.Effect<Stored>
  /**
   * Applies an invalidation of its own key and stores the answer in the same step, unless something it rests on was
   * invalidated between its position and now: its own invalidation is no reason to refuse it.
   */
  readonly replace: (request: Request, entry: Entry) => Effect.Effect<Applied, CachemeError>
  /** Gives up what the key holds, fresh or stale: a newer answer is known, which is not to be stored. */
  readonly discard: Effect.Effect<void>
  /** Notes that the lookup has ended with what is not to be stored: others need not wait for another one. */
  readonly noteUnstored: () => void
  /** Gives the right back. Must be called once, after `store` or without it. */
  readonly end: Effect.Effect<void>
}

/** A lookup that is about to begin. */
export interface Wanted {
  readonly node: Any
  /** The ids its answer will rest on, as far as its key tells. */
  readonly known: ReadonlyArray<string>
  /** True when it no longer waits for anybody: it looks up, whoever else does. */
  readonly isImpatient: boolean
  /** False for an answer that is there, and will not do. */
  readonly accepts: (found: Found) => boolean
}

/** What a lookup that was about to begin has got. */
export type Acquired =
  /** The right to store what it finds, and, where that can be had, the right to look up on behalf of all. */
  | { readonly _tag: "Fill"; readonly fill: Fill }
  /** The answer, which somebody else has stored meanwhile. */
  | { readonly _tag: "Found"; readonly found: Found }
  /**
   * Another process is looking it up; the effect ends when that may have changed, and may be interrupted freely. It ends
   * with true when that lookup came to nothing that is stored: it is no use to wait for another one.
   */
  | { readonly _tag: "Elsewhere"; readonly woken: Effect.Effect<boolean> }

/** What a store that several processes share can do besides. */
export interface Shared {
  /** Asks for keys in one round trip, after `peek` had nothing: what every process can be given. */
  readonly look: (nodes: ReadonlyArray<Any>, now: Now) => Effect.Effect<ReadonlyArray<Looked>>
  /** Begins lookups, each on behalf of all processes, in one round trip. */
  readonly acquire: (wanted: ReadonlyArray<Wanted>, now: Now) => Effect.Effect<ReadonlyArray<Acquired>>
  /** How long a lookup is waited for whose process has died, in milliseconds. */
  readonly lease: number
  /** Tells of every invalidation that another process has applied; the returned function ends that. */
  readonly listen: (tell: (invalidation: Invalidation) => void) => () => void
  /** The name under which it keeps a key's entry. */
  readonly nameOf: (node: Any) => string
  /** How the store is. */
  readonly status: Effect.Effect<Status>
}

/** How a store that several processes share is. Times in milliseconds. */
export interface Status {
  /** `down`: it cannot be asked; everything computes. */
  readonly state: "up" | "down"
  /** Since when, in milliseconds since the epoch. */
  readonly since: number
  /** Why it is down. */
  readonly why: string | undefined
  /** Invalidations that wait for it. */
  readonly pending: number
  /** What it remembers of invalidations; `undefined` while it cannot be asked. */
  readonly log: Log | undefined
  /** Tags that this process remembers of the log. */
  readonly mirror: number
}

/** What a shared store remembers of invalidations. */
export interface Log {
  /** Distinct tags it remembers, and how many it may. */
  readonly rows: number
  readonly capacity: number
  /** How long ago the last invalidation was that it has forgotten: what is older than that is a miss. */
  readonly floorAge: number
  /** How long an entry can live at the present rate of invalidations: capacity by distinct tags invalidated in a time. */
  readonly effectiveTimeToLive: number
}

/** What an invalidation did, and the event to tell of. */
export interface Applied {
  readonly report: Report
  readonly invalidation: Invalidation
  /** What became of the answer that came with it, if one did. */
  readonly stored?: Stored | undefined
  /** Where giving memory back takes time: ends when it has been, with how many entries there were. */
  readonly swept?: Effect.Effect<number> | undefined
}

/** A store of entries. */
export class Store extends Context.Service<
  Store,
  {
    /** One word for the log line at start. */
    readonly label: string
    /** The fresh answer that can be given at once, without waiting: the hit. */
    readonly peek: (node: Any, now: Now) => Found | undefined
    /** Asked after `peek` had nothing: why not, and what is kept that is fresh no more. */
    readonly held: (node: Any, now: Now) => Held
    /**
     * Begins a fill. `known` are the ids the answer will rest on as far as its key tells. `since` is an earlier
     * position at which the answer was true; one that the store cannot check any more is overtaken.
     */
    readonly begin: (node: Any, known: ReadonlyArray<string>, since?: Position) => Effect.Effect<Fill>
    /** The position now. What is invalidated from here on is remembered for fills that begin at it. */
    readonly position: Effect.Effect<Position>
    /** Makes every entry that the targets reach stale, before it completes. */
    readonly invalidate: (request: Request) => Effect.Effect<Applied, CachemeError>
    /** Why a key is, or is not, answered. */
    readonly explain: (node: Any) => Effect.Effect<Reason>
    /** What it holds of a node, or of all. */
    readonly size: (definition?: NodeDefinition) => number
    /** How many entries of a node had to go for want of room. */
    readonly evictions: (definition: NodeDefinition) => number
    /** How many tags it keeps track of. */
    readonly tags: () => number
    /** What it can do because other processes share it; `undefined` for a store of this process alone. */
    readonly shared: Shared | undefined
  }
>()("cacheme/Store") {}
