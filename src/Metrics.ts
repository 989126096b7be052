/**
 * Numbers per node: plain counters that a hit raises by one, read when somebody asks, by `Cacheme.stats` or as metrics.
 *
 * The metrics of Effect are registered once, as functions that read these counters, each with the attribute `node`:
 *
 * | metric | type | is |
 * |---|---|---|
 * | `cacheme_hits_total` | counter | answered from the cache, fresh |
 * | `cacheme_misses_total` | counter, by `cause` | no fresh answer: `absent`, `expired`, `invalidated`, `unreadable`, `away` |
 * | `cacheme_stale_total` | counter | of the misses, those given a stale answer |
 * | `cacheme_bypassed_total` | counter | not asked of the cache |
 * | `cacheme_lookups_total` | counter | lookups run |
 * | `cacheme_lookup_failures_total` | counter | lookups that failed |
 * | `cacheme_lookup_milliseconds_total` | counter | time spent in lookups |
 * | `cacheme_refused_total` | counter, by `cause` | answers not stored: `overtaken`, `rejected`, `faulty`, `tooLarge`, `failed` |
 * | `cacheme_collapsed_total` | counter | answers that rest on all rows of a table, because they rest on too many |
 * | `cacheme_evictions_total` | counter | entries that had to go for want of room |
 * | `cacheme_entries` | gauge | entries held |
 *
 * And of each table, with the attribute `table`:
 *
 * | metric | type | is |
 * |---|---|---|
 * | `cacheme_table_invalidated_total` | counter | keys looked up again because a tag of it was invalidated |
 * | `cacheme_table_needless_total` | counter | of these, those with the same answer as before |
 */
import type * as Context from "effect/Context"
import * as Metric from "effect/Metric"
import type { Miss } from "./Entry.ts"
import type { NodeDefinition } from "./Node.ts"

/** The numbers of one node since its cache was made. */
export interface NodeStats {
  readonly node: string
  /** Times an answer was asked for through the cache: hits, misses, and those that bypassed it. */
  readonly requests: number
  /** Answered from the cache, fresh. */
  readonly hits: number
  /** Asked for when there was no fresh answer. */
  readonly misses: number
  /** The misses by their cause. */
  readonly missesBy: Readonly<Record<Miss, number>>
  /** Of the misses, those that were given a stale answer, within a window. */
  readonly stale: number
  /** Not asked of the cache: `skip`, the cache switched off, or inside a transaction that had to compute. */
  readonly bypassed: number
  /** Lookups run; fewer than misses where callers shared one. A batch counts once. */
  readonly lookups: number
  /** Lookups that failed, in whatever way. */
  readonly failures: number
  /** How long lookups took, in milliseconds: the quantiles over the last 1,024. */
  readonly lookupTime: {
    readonly total: number
    readonly mean: number
    readonly p50: number
    readonly p99: number
  }
  /** Answers not stored, by cause. */
  readonly refused: Readonly<Record<Refusal, number>>
  /** Answers that rested on so many rows of a table that they were stored as resting on all of them. */
  readonly collapsed: number
  /** Entries held now. */
  readonly entries: number
  /** Entries that had to go for want of room. */
  readonly evictions: number
}

/** Why an answer was not stored. */
export type Refusal =
  /** Something it rests on was invalidated while it was looked up. */
  | "overtaken"
  /** The node's schema does not accept it. */
  | "rejected"
  /** `tags`, `valueTags` or `timeToLive` of the node threw or returned nonsense. */
  | "faulty"
  /** It is larger than all that the store may hold. */
  | "tooLarge"
  /** The store itself failed. */
  | "failed"

/** What only the store can tell of a node. */
export interface Holding {
  readonly entries: number
  readonly evictions: number
}

const sampleSize = 1024

/** The counters behind {@link NodeStats}. */
export class Counters {
  hits = 0
  stale = 0
  bypassed = 0
  lookups = 0
  failures = 0
  collapsed = 0
  readonly misses: Record<Miss, number> = { absent: 0, expired: 0, invalidated: 0, unreadable: 0, away: 0 }
  readonly refused: Record<Refusal, number> = { overtaken: 0, rejected: 0, faulty: 0, tooLarge: 0, failed: 0 }
  #milliseconds = 0
  #timed = 0
  readonly #sample: Array<number> = []

  /** Notes how long a lookup took. */
  took(milliseconds: number): void {
    this.#milliseconds += milliseconds
    this.#sample[this.#timed++ % sampleSize] = milliseconds
  }

  stats(node: string, { entries, evictions }: Holding): NodeStats {
    const misses = Object.values(this.misses).reduce((sum, count) => sum + count, 0)
    const sorted = this.#sample.toSorted((a, b) => a - b)
    const quantile = (q: number) => sorted[Math.max(0, Math.ceil(q * sorted.length) - 1)] ?? 0
    return {
      node,
      requests: this.hits + misses + this.bypassed,
      hits: this.hits,
      misses,
      missesBy: { ...this.misses },
      stale: this.stale,
      bypassed: this.bypassed,
      lookups: this.lookups,
      failures: this.failures,
      lookupTime: {
        total: this.#milliseconds,
        mean: this.#timed === 0 ? 0 : this.#milliseconds / this.#timed,
        p50: quantile(0.5),
        p99: quantile(0.99)
      },
      refused: { ...this.refused },
      collapsed: this.collapsed,
      entries,
      evictions
    }
  }

  /** Registers the metrics of a node; the returned function takes them out again. */
  register(definition: NodeDefinition, held: () => Holding, context: Context.Context<never>): () => void {
    const counter = (name: string, description: string, read: () => number, cause?: string) =>
      Metric.registerUnsafe(
        Metric.counter(`cacheme_${name}_total`, {
          description,
          incremental: true,
          attributes: attributes(cause)
        }),
        context,
        { get: () => ({ count: read(), incremental: true }), update() {}, modify() {} }
      )
    const attributes = (cause?: string) => ({
      node: definition.name,
      ...(cause === undefined ? {} : { cause })
    })
    const entries = Metric.gauge("cacheme_entries", { description: "Entries held", attributes: attributes() })
    const registered = [
      counter("hits", "Answered from the cache, fresh", () => this.hits),
      ...keysOf(this.misses).map((cause) =>
        counter("misses", "Asked for when there was no fresh answer", () => this.misses[cause], cause)
      ),
      counter("stale", "Misses that were given a stale answer", () => this.stale),
      counter("bypassed", "Not asked of the cache", () => this.bypassed),
      counter("lookups", "Lookups run", () => this.lookups),
      counter("lookup_failures", "Lookups that failed", () => this.failures),
      counter("lookup_milliseconds", "Time spent in lookups", () => this.#milliseconds),
      ...keysOf(this.refused).map((cause) =>
        counter("refused", "Answers not stored", () => this.refused[cause], cause)
      ),
      counter("collapsed", "Answers that rest on all rows of a table", () => this.collapsed),
      counter("evictions", "Entries that had to go for want of room", () => held().evictions),
      Metric.registerUnsafe(entries, context, {
        get: () => ({ value: held().entries }),
        update() {},
        modify() {}
      })
    ]
    return () => registered.forEach((registration) => registration.remove())
  }
}

/** What the invalidations of a table have cost here, since the cache was made. */
export interface TableStats {
  /** The table, as its tags call it: without the schema if that is `public`. */
  readonly table: string
  /** Keys that were looked up again because a tag of the table was invalidated. */
  readonly invalidated: number
  /**
   * Of these, those whose new answer was the same: what was written did not matter to them. Of the last 1,024 keys that
   * were looked up it is known; of others it is not counted.
   */
  readonly needless: number
}

/** The counters behind {@link TableStats}. */
export class TableCounters {
  #invalidated = 0
  #needless = 0
  readonly #table: string

  constructor(table: string) {
    this.#table = table
  }

  count(isNeedless: boolean): void {
    this.#invalidated++
    if (isNeedless) this.#needless++
  }

  stats(): TableStats {
    return { table: this.#table, invalidated: this.#invalidated, needless: this.#needless }
  }

  /** Registers the metrics of a table; the returned function takes them out again. */
  register(context: Context.Context<never>): () => void {
    const attributes = { table: this.#table }
    const counter = (name: string, description: string, read: () => number) =>
      Metric.registerUnsafe(
        Metric.counter(`cacheme_table_${name}_total`, { description, incremental: true, attributes }),
        context,
        { get: () => ({ count: read(), incremental: true }), update() {}, modify() {} }
      )
    const registered = [
      counter("invalidated", "Keys looked up again after an invalidation", () => this.#invalidated),
      counter("needless", "Keys looked up again with the same answer", () => this.#needless)
    ]
    return () => registered.forEach((registration) => registration.remove())
  }
}

const keysOf = <K extends string>(record: Record<K, unknown>): ReadonlyArray<K> =>
  Object.keys(record) as ReadonlyArray<any>
