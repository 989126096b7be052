/**
 * Invalidations that Redis has not acknowledged: kept, merged, and bounded. When there are too many they become one that
 * says more: everything.
 */
import type { Cause, Request, Targets } from "../../Invalidation.ts"

/** Beyond so many ids and patterns everything is invalidated instead. */
const limit = 100_000

/** What is to be delivered. */
export interface Delivery {
  readonly isEverything: boolean
  readonly requests: ReadonlyArray<Request>
}

/** The invalidations that wait. */
export class Undelivered {
  /** How many invalidations wait. */
  count = 0
  /** How many were ever added: two deliveries may be under way, so the count alone does not tell what came since. */
  #added = 0
  #isEverything = false
  #size = 0
  readonly #byCause = new Map<Cause, { readonly [K in keyof Targets]: Set<string> }>()

  get isEmpty(): boolean {
    return this.count === 0
  }

  add({ cause, keys, tags, patterns }: Request): void {
    this.count++
    this.#added++
    if (this.#isEverything) return
    let known = this.#byCause.get(cause)
    if (known === undefined)
      this.#byCause.set(cause, (known = { keys: new Set(), tags: new Set(), patterns: new Set() }))
    for (const [set, ids] of [
      [known.keys, keys],
      [known.tags, tags],
      [known.patterns, patterns]
    ] as const)
      for (const id of ids) {
        if (set.has(id)) continue
        set.add(id)
        this.#size++
      }
    if (this.#size > limit) {
      this.#isEverything = true
      this.#byCause.clear()
    }
  }

  /** All that waits now, and a function that takes it off once it has been delivered, unless more has come since. */
  all(): { readonly delivery: Delivery; readonly delivered: () => void } {
    const added = this.#added
    const requests = Array.from(this.#byCause, ([cause, { keys, tags, patterns }]) => ({
      cause,
      keys: [...keys],
      tags: [...tags],
      patterns: [...patterns]
    }))
    return {
      delivery: { isEverything: this.#isEverything, requests },
      delivered: () => {
        // What has come meanwhile is merged with what was delivered: all of it goes once more.
        if (this.#added !== added) return
        this.count = 0
        this.#size = 0
        this.#isEverything = false
        this.#byCause.clear()
      }
    }
  }
}
