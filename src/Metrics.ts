/**
 * Numbers per node: plain counters that a hit raises by one, read when somebody asks.
 */
import type { NodeDefinition } from "./Node.ts"

/** The numbers of one node since its cache was made. */
export interface NodeStats {
  readonly node: string
  /** Times an answer was asked for through the cache; hits and misses together, and those that bypassed it. */
  readonly requests: number
  /** Answered from the cache. */
  readonly hits: number
  /** Not answered from the cache. */
  readonly misses: number
  /** Not asked of the cache: `skip`, the cache switched off, or inside a transaction that had to compute. */
  readonly bypassed: number
  /** Lookups run; fewer than misses where callers shared one. */
  readonly lookups: number
  /** Lookups that failed, in whatever way. */
  readonly failures: number
  /** Answers not stored because something they rest on was invalidated while they were looked up. */
  readonly overtaken: number
  /** Answers not stored because the node's schema does not accept them. */
  readonly rejected: number
  /** Answers not stored because `tags`, `valueTags` or `timeToLive` of the node threw or returned nonsense. */
  readonly faults: number
  /** Entries held, stale ones that were not noticed yet among them. */
  readonly entries: number
}

/** The counters behind {@link NodeStats}, and the definition they belong to. */
export class Counters {
  hits = 0
  misses = 0
  bypassed = 0
  lookups = 0
  failures = 0
  overtaken = 0
  rejected = 0
  faults = 0

  stats(definition: NodeDefinition, entries: number): NodeStats {
    return {
      node: definition.name,
      requests: this.hits + this.misses + this.bypassed,
      hits: this.hits,
      misses: this.misses,
      bypassed: this.bypassed,
      lookups: this.lookups,
      failures: this.failures,
      overtaken: this.overtaken,
      rejected: this.rejected,
      faults: this.faults,
      entries
    }
  }
}
