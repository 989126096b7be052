/** What the checker and its worker processes say to each other. */
import type { Ask } from "./questions.ts"

/** Where entries are, and what is promised of them: the modes of a check. */
export const modes = ["far", "validated", "bounded", "memory"] as const
export type Mode = (typeof modes)[number]

/** What a worker is started with. */
export interface WorkerOptions {
  readonly name: string
  readonly modes: ReadonlyArray<Mode>
  /** The Redis that the cache uses, by way of this worker's proxy. */
  readonly url: string
  readonly truthUrl: string
  readonly seed: number
  /** Of a lease, and of what `bounded` may be late, in milliseconds. */
  readonly lease: number
  readonly bound: number
  readonly readers: number
  /** Between two writes of a writer: half of it at least, one and a half at most, in milliseconds. */
  readonly writeGap: number
  /** The name of a sabotage. */
  readonly sabotage: string | undefined
}

/** What happened in one mode, since it was last told. */
export interface Tally {
  reads: number
  readonly asked: Partial<Record<Ask, number>>
  /** Rows that were checked. */
  rows: number
  lookups: number
  hits: number
  writes: number
  /** Writes whose invalidation was accepted, and waits for the store. */
  pending: number
  /** Writes whose invalidation has failed. */
  undelivered: number
  violations: number
  /** Reads that failed. */
  failures: number
  /** The longest read, in milliseconds, without the time that the process was held. */
  longest: number
  /** How long the read that has waited longest has waited. */
  waiting: number
  /** Stories of violations and failures. */
  readonly stories: Array<string>
}

/** The prefix of the keys of a mode. */
export const prefixOf = (mode: Mode) => `check-${mode}:`

/** Says nothing happened. */
export const noTally = (): Tally => ({
  reads: 0,
  asked: {},
  rows: 0,
  lookups: 0,
  hits: 0,
  writes: 0,
  pending: 0,
  undelivered: 0,
  violations: 0,
  failures: 0,
  longest: 0,
  waiting: 0,
  stories: []
})

/** How many stories are kept of one mode. */
export const storiesKept = 5

/** Adds what happened to what had happened before. */
export const addTally = (to: Tally, more: Tally): void => {
  for (const name of [
    "reads",
    "rows",
    "lookups",
    "hits",
    "writes",
    "pending",
    "undelivered",
    "violations",
    "failures"
  ] as const)
    to[name] += more[name]
  for (const [ask, count] of Object.entries(more.asked)) {
    const name = ask as Ask
    to.asked[name] = (to.asked[name] ?? 0) + count
  }
  to.longest = Math.max(to.longest, more.longest)
  to.waiting = more.waiting
  to.stories.push(...more.stories.slice(0, storiesKept - to.stories.length))
}

/** To a worker. */
export type Order =
  /** Many readers at once of one key, in each mode. */
  | { readonly order: "herd"; readonly round: number; readonly callers: number }
  /** Invalidate that key, in each mode. */
  | { readonly order: "disperse"; readonly round: number }
  /** Tell when the next lookup has begun. */
  | { readonly order: "tellLookup" }
  | { readonly order: "stop" }

/** From a worker. */
export type News =
  | { readonly news: "ready" }
  | { readonly news: "tally"; readonly mode: Mode; readonly tally: Tally }
  /** `slow`: it took so long that a lease may have ended. */
  | {
      readonly news: "done"
      readonly order: "herd" | "disperse"
      readonly round: number
      readonly slow: boolean
    }
  | { readonly news: "lookup" }
  /** It cannot go on. */
  | { readonly news: "broken"; readonly reason: string }
