import { assert, describe, it } from "@effect/vitest"
import { Effect, Hash, Schema } from "effect"
import { Eviction, Item } from "../../src/store/Eviction.ts"

class Key extends Item {
  readonly hash: number
  readonly key: number
  constructor(key: number) {
    super()
    this.key = key
    this.hash = Hash.number(key)
  }
}

/** A cache of keys that counts its hits. */
const cacheOf = (capacity: number) => {
  const eviction = new Eviction<Key>(capacity)
  const held = new Map<number, Key>()
  let hits = 0
  const request = (key: number) => {
    const item = held.get(key)
    if (item !== undefined) {
      hits++
      if (item.frequency < 3) item.frequency++
      return
    }
    const added = new Key(key)
    held.set(key, added)
    const evicted = eviction.add(added, () => false)
    if (evicted !== undefined) held.delete(evicted.key)
  }
  return { eviction, held, request, hits: () => hits }
}

describe("Eviction", () => {
  it.effect.prop(
    "holds what it says it holds, and never more than its capacity",
    [
      Schema.Literals([1, 2, 3, 7, 20]),
      Schema.Array(Schema.Literals([...Array(40).keys()] as [number, ...Array<number>]))
    ],
    ([capacity, requests]) =>
      Effect.sync(() => {
        const { eviction, held, request } = cacheOf(capacity)
        for (const [i, key] of requests.entries()) {
          request(key)
          assert.isTrue(held.has(key))
          assert.isAtMost(held.size, capacity)
          assert.strictEqual(eviction.size, held.size)
          if (i % 5 === 4) {
            const [item] = held.values()
            eviction.remove(item!)
            held.delete(item!.key)
          }
        }
      }),
    { arbitrary: { runs: 200 } }
  )

  it("keeps what is asked for again while a scan goes by", () => {
    const { held, request } = cacheOf(100)
    for (let round = 0; round < 3; round++) for (let key = 0; key < 50; key++) request(key)
    for (let key = 1000; key < 11_000; key++) request(key)
    const kept = [...Array(50).keys()].filter((key) => held.has(key))
    assert.lengthOf(kept, 50)
  })

  it("answers more of a skewed traffic than least-recently-used does", () => {
    // Zipf over 5,000 keys, by a generator of fixed seed.
    let seed = 42
    const random = () => (seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0) / 2 ** 32
    const sums: Array<number> = []
    for (let i = 0; i < 5000; i++) sums.push((sums[i - 1] ?? 0) + 1 / (i + 1))
    const traffic = Array.from({ length: 50_000 }, () => {
      const at = random() * sums.at(-1)!
      let [low, high] = [0, sums.length - 1]
      while (low < high) {
        const middle = (low + high) >> 1
        if (sums[middle]! < at) low = middle + 1
        else high = middle
      }
      return low
    })
    const { request, hits } = cacheOf(250)
    const recent = new Map<number, true>()
    let recentHits = 0
    for (const key of traffic) {
      request(key)
      if (recent.delete(key)) recentHits++
      else if (recent.size >= 250) recent.delete(recent.keys().next().value!)
      recent.set(key, true)
    }
    assert.isAbove(hits(), recentHits * 1.1)
  })

  it("lets what is dead go first, when its turn comes", () => {
    const eviction = new Eviction<Key>(3)
    const items = [1, 2, 3].map((key) => new Key(key))
    for (const item of items) eviction.add(item, () => false)
    items[0]!.frequency = 3
    const evicted = eviction.add(new Key(4), (item) => item.key === 1)
    assert.strictEqual(evicted?.key, 1)
  })
})
