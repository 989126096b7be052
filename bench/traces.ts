/** Hit ratios on a trace: our order of eviction, lru-cache, and the optimum. */
import { Hash } from "effect"
import { LRUCache } from "lru-cache"
import { readFileSync } from "node:fs"
import { brotliDecompressSync } from "node:zlib"
import { Eviction, Item } from "../src/store/Eviction.ts"

/** The hits in a hundred requests, for each policy, with room for a part of the distinct keys, in per cent. */
export interface Ratios {
  readonly part: number
  readonly ratios: ReadonlyArray<{ readonly name: string; readonly ratio: number }>
}

/** Runs a trace through every policy. */
export const hitRatios = (file: string, tick: () => void): ReadonlyArray<Ratios> => {
  const bytes = brotliDecompressSync(readFileSync(file))
  const keys = Int32Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readInt32BE(i * 4))
  const distinct = new Set(keys).size
  const next = nextUses(keys)
  return [1, 5, 10].map((part) => {
    const capacity = Math.round((distinct * part) / 100)
    const run = (name: string, policy: (keys: Int32Array, capacity: number) => number) => {
      const ratio = (100 * policy(keys, capacity)) / keys.length
      tick()
      return { name, ratio }
    }
    return {
      part,
      ratios: [
        run("cacheme", s3fifo),
        run("lru-cache", lru),
        run("the optimum", (_, room) => belady(keys, next, room))
      ]
    }
  })
}

class Key extends Item {
  readonly key: number
  readonly hash: number
  constructor(key: number) {
    super()
    this.key = key
    // As the store does: a worse hash of neighbouring keys costs two hits in a hundred.
    this.hash = Hash.string(`row:${key}`)
  }
}

const s3fifo = (keys: Int32Array, capacity: number): number => {
  const eviction = new Eviction<Key>(capacity)
  const held = new Map<number, Key>()
  let hits = 0
  for (const key of keys) {
    const item = held.get(key)
    if (item !== undefined) {
      hits++
      if (item.frequency < 3) item.frequency++
      continue
    }
    const added = new Key(key)
    const evicted = eviction.add(added, () => false)
    if (evicted !== undefined) held.delete(evicted.key)
    held.set(key, added)
  }
  return hits
}

const lru = (keys: Int32Array, capacity: number): number => {
  const cache = new LRUCache<number, true>({ max: capacity })
  let hits = 0
  for (const key of keys) {
    if (cache.get(key) === true) hits++
    else cache.set(key, true)
  }
  return hits
}

/** For each request, the place of the next one of its key. */
const nextUses = (keys: Int32Array): Float64Array => {
  const last = new Map<number, number>()
  const next = new Float64Array(keys.length)
  for (let i = keys.length - 1; i >= 0; i--) {
    next[i] = last.get(keys[i]!) ?? Infinity
    last.set(keys[i]!, i)
  }
  return next
}

/** Evicts whoever is used again the latest: a heap by next use, in which outdated places are skipped. */
const belady = (keys: Int32Array, next: Float64Array, capacity: number): number => {
  const current = new Map<number, number>()
  const heap: Array<readonly [use: number, key: number]> = []
  const swap = (i: number, j: number) => {
    const item = heap[i]!
    heap[i] = heap[j]!
    heap[j] = item
  }
  const push = (use: number, key: number) => {
    let i = heap.push([use, key]) - 1
    while (i > 0 && heap[(i - 1) >> 1]![0] < heap[i]![0]) {
      swap(i, (i - 1) >> 1)
      i = (i - 1) >> 1
    }
  }
  const pop = () => {
    const top = heap[0]!
    const last = heap.pop()!
    if (heap.length > 0) {
      heap[0] = last
      for (let i = 0; ;) {
        let largest = i
        for (const child of [2 * i + 1, 2 * i + 2])
          if (child < heap.length && heap[child]![0] > heap[largest]![0]) largest = child
        if (largest === i) break
        swap(i, largest)
        i = largest
      }
    }
    return top
  }
  let hits = 0
  for (let i = 0; i < keys.length; i++) {
    const key = keys[i]!
    if (current.has(key)) hits++
    else if (current.size >= capacity) {
      for (;;) {
        const [use, victim] = pop()
        if (current.get(victim) === use) {
          current.delete(victim)
          break
        }
      }
    }
    current.set(key, next[i]!)
    push(next[i]!, key)
  }
  return hits
}
