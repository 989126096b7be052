/**
 * S3-FIFO: which entry goes when a bounded store is full.
 *
 * Three queues, first in first out. A newcomer enters the **small** queue (a tenth of the capacity). When it reaches
 * the end of it without having been asked for again it is gone, and only a fingerprint of its key is remembered by
 * the **ghost**; if it was asked for, it moves to the **main** queue, where each round without a request costs it one
 * of at most three points and the one without points goes. A key that comes back while its ghost is remembered enters
 * the main queue directly. So a scan over keys that nobody asks for twice washes through the small queue and leaves
 * the main one alone; a hit writes one small integer and touches no list.
 *
 * The queues are linked through the items themselves: taking one out of the middle is O(1) and leaves no dead slot.
 * The ghost is a table of fingerprints, two small integers each, made when the first item has to go.
 *
 * @see Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023
 */

/** What a queue links. */
export abstract class Item {
  queue: Queue | undefined = undefined
  previous: Item | undefined = undefined
  next: Item | undefined = undefined
  /** Raised by hits, up to 3: the last, beside what else a hit reads. */
  frequency = 0
  /** The hash of its key. */
  abstract readonly hash: number
}

class Queue {
  size = 0
  /** The newest. */
  first: Item | undefined
  /** The oldest: the next to be looked at. */
  last: Item | undefined

  push(item: Item): void {
    item.queue = this
    item.previous = undefined
    item.next = this.first
    if (this.first === undefined) this.last = item
    else this.first.previous = item
    this.first = item
    this.size++
  }

  remove(item: Item): void {
    if (item.previous === undefined) this.first = item.next
    else item.previous.next = item.next
    if (item.next === undefined) this.last = item.previous
    else item.next.previous = item.previous
    item.queue = item.previous = item.next = undefined
    this.size--
  }
}

/** The order of eviction of a store's items. */
export class Eviction<I extends Item> {
  readonly #capacity: number
  readonly #smallTarget: number
  readonly #small = new Queue()
  readonly #main = new Queue()
  #ghost: Ghost | undefined

  constructor(capacity: number) {
    this.#capacity = capacity
    this.#smallTarget = Math.max(1, Math.floor(capacity / 10))
  }

  /** How many items there are; never more than the capacity. */
  get size(): number {
    return this.#small.size + this.#main.size
  }

  /**
   * Takes an item in and returns the one that had to go for it, if any. `isDead` tells an item that is of no use any
   * more, which goes before all others when its turn comes.
   */
  add(item: I, isDead: (item: I) => boolean): I | undefined {
    const evicted = this.size >= this.#capacity ? this.evict(isDead) : undefined
    if (this.#ghost?.remembers(item.hash) === true) this.#main.push(item)
    else this.#small.push(item)
    return evicted
  }

  /** Takes an item out. */
  remove(item: I): void {
    item.queue?.remove(item)
  }

  /** Takes out the item whose turn it is to go. */
  evict(isDead: (item: I) => boolean): I | undefined {
    for (;;) {
      const fromSmall = this.#small.size >= this.#smallTarget || this.#main.size === 0
      const queue = fromSmall ? this.#small : this.#main
      const item = queue.last as I | undefined
      if (item === undefined) return undefined
      queue.remove(item)
      if (isDead(item)) return item
      if (item.frequency === 0) {
        if (fromSmall) (this.#ghost ??= new Ghost(this.#capacity - this.#smallTarget)).add(item.hash)
        return item
      }
      item.frequency = fromSmall ? 0 : item.frequency - 1
      this.#main.push(item)
    }
  }
}

/** Remembers the last so many hashes, approximately: a later hash may take the place of an earlier one. */
class Ghost {
  readonly #remembered: number
  readonly #mask: number
  readonly #hashes: Int32Array
  readonly #ages: Int32Array
  #age = 0

  constructor(remembered: number) {
    const slots = 2 ** Math.ceil(Math.log2(Math.max(2, remembered * 2)))
    this.#remembered = remembered
    this.#mask = slots - 1
    this.#hashes = new Int32Array(slots)
    this.#ages = new Int32Array(slots)
  }

  add(hash: number): void {
    const slot = this.#slot(hash)
    this.#hashes[slot] = hash
    this.#ages[slot] = this.#age = (this.#age + 1) | 0
  }

  remembers(hash: number): boolean {
    const slot = this.#slot(hash)
    return (
      this.#age !== 0 &&
      this.#hashes[slot] === hash &&
      ((this.#age - this.#ages[slot]!) | 0) < this.#remembered
    )
  }

  /** Spreads the hash (Fibonacci hashing), since neighbouring keys may have neighbouring hashes. */
  #slot(hash: number): number {
    const spread = Math.imul(hash, 0x9e3779b1)
    return (spread ^ (spread >>> 15)) & this.#mask
  }
}
