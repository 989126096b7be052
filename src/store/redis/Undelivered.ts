/**
 * Invalidations that Redis has not acknowledged: kept, merged, and bounded. When there are too many they become one that
 * says more: everything.
 */
import type { Request, Targets } from "../../Invalidation.ts"

/** Beyond so many ids and patterns everything is invalidated instead. */
const limit = 100_000

/** So many attributions are told apart; what comes from more waits without one, so that hot keys are kept once. */
const attributions = 100

/** What waits for one cause and attribution. */
interface Waiting extends Readonly<Record<keyof Targets, Set<string>>> {
  readonly about: Omit<Request, keyof Targets>
}

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
  /** What is alike but for its targets is merged. */
  readonly #waiting = new Map<string, Waiting>()

  get isEmpty(): boolean {
    return this.count === 0
  }

  add({ keys, tags, patterns, ...about }: Request): void {
    this.count++
    this.#added++
    if (this.#isEverything) return
    if (keys.length + tags.length + patterns.length === 0) return
    const known = this.#alike(about)
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
      this.#waiting.clear()
    }
  }

  #alike(about: Waiting["about"]): Waiting {
    const { cause, actor, reason } = about
    const name = JSON.stringify([cause, actor, reason])
    const known = this.#waiting.get(name)
    if (known !== undefined) return known
    if (this.#waiting.size >= attributions && (actor ?? reason) !== undefined) return this.#alike({ cause })
    const added = { about, keys: new Set<string>(), tags: new Set<string>(), patterns: new Set<string>() }
    this.#waiting.set(name, added)
    return added
  }

  /** All that waits now, and a function that takes it off once it has been delivered, unless more has come since. */
  all(): { readonly delivery: Delivery; readonly delivered: () => void } {
    const added = this.#added
    const requests = Array.from(this.#waiting.values(), ({ about, keys, tags, patterns }) => ({
      ...about,
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
        this.#waiting.clear()
      }
    }
  }
}
