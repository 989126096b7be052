/** Prints how many bytes an entry of one cache takes beside its value. Needs `--expose-gc`. */
import { Cache, Effect, Layer, Schema } from "effect"
import { Loader } from "layered-loader"
import { LRUCache } from "lru-cache"
import { Cacheme, MemoryStore, Node, Tag } from "../src/index.ts"

const count = 100_000
const value = { id: 1, version: 1 }
const used = () => {
  for (let i = 0; i < 4; i++) globalThis.gc?.()
  return process.memoryUsage().heapUsed
}

class Group extends Tag.Class<Group>()("group", { of: Schema.Int }) {}

const ours = (tags: number, isOwn = false) => {
  class Entry extends Node.Class<Entry>()("entry", {
    key: { id: Schema.Int },
    value: Schema.Any,
    timeToLive: "1 hour",
    tags: ({ id }) => Array.from({ length: tags }, (_, of) => new Group({ of: isOwn ? id : of }))
  }) {}
  const layer = Cacheme.layer({ freeze: false }).pipe(Layer.provide(MemoryStore.layer({ capacity: count })))
  return Effect.gen(function* () {
    const fill = (from: number, to: number) =>
      Effect.forEach(
        Array.from({ length: to - from }, (_, i) => from + i),
        (id) => Effect.succeed(value).pipe(Cacheme.memoize(new Entry({ id }))),
        { discard: true }
      )
    yield* fill(0, 100)
    const before = used()
    yield* fill(100, count)
    return used() - before
  }).pipe(Effect.provide(layer), Effect.runPromise)
}

const subjects: Record<string, () => Promise<number>> = {
  "no tag": () => ours(0),
  "1 tag": () => ours(1),
  "5 tags": () => ours(5),
  "1 tag of its own": () => ours(1, true),
  "lru-cache": async () => {
    const before = used()
    const cache = new LRUCache<number, object>({ max: count, ttl: 3_600_000 })
    for (let id = 0; id < count; id++) cache.set(id, value)
    const after = used() - before
    return cache.size === count ? after : Number.NaN
  },
  "layered-loader": async () => {
    const loader = new Loader<object>({
      inMemoryCache: { cacheType: "lru-map", ttlInMsecs: 3_600_000, maxItems: count },
      dataSourceGetOneFn: async () => value
    })
    for (let id = 0; id < 100; id++) await loader.get(String(id))
    const before = used()
    for (let id = 100; id < count; id++) await loader.get(String(id))
    const after = used() - before
    return (await loader.get("7")) === value ? after : Number.NaN
  },
  "Effect Cache": () =>
    Effect.gen(function* () {
      const cache = yield* Cache.make({
        capacity: count,
        timeToLive: "1 hour",
        lookup: (_: number) => Effect.succeed(value)
      })
      for (let id = 0; id < 100; id++) yield* Cache.get(cache, id)
      const before = used()
      for (let id = 100; id < count; id++) yield* Cache.get(cache, id)
      const after = used() - before
      return (yield* Cache.size(cache)) === count ? after : Number.NaN
    }).pipe(Effect.runPromise)
}

const subject = subjects[process.argv[2] ?? ""]
if (subject === undefined)
  throw new Error(`no subject ${process.argv[2]}: there are ${Object.keys(subjects).join(", ")}`)
console.log(Math.round((await subject()) / (count - 100)))
process.exit(0)
