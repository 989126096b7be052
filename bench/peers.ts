/**
 * The caches that we compare with, each set up as its documentation recommends: in memory, a capacity and a time to
 * live where it has them, one lookup for a key.
 */
import { type CacheEntry, cachified } from "@epic-web/cachified"
import { createCache as createDedupe } from "async-cache-dedupe"
import { BentoCache, bentostore } from "bentocache"
import { memoryDriver } from "bentocache/drivers/memory"
import { createCache as createManager } from "cache-manager"
import { Cacheable } from "cacheable"
import { Loader } from "layered-loader"
import { LRUCache } from "lru-cache"

/** What is looked up. */
export interface Value {
  readonly id: number
  readonly version: number
}

/** A cache of Promises. What it cannot do is left out. */
export interface Peer {
  readonly name: string
  readonly get: (id: number) => Promise<Value>
  /** Makes a key stale. */
  readonly forget: (id: number) => Promise<unknown>
  /** Makes every entry stale that carries the tag "all". */
  readonly forgetTag?: () => Promise<unknown>
}

const capacity = 200_000
const hour = 3_600_000

/** Makes each cache over a lookup. */
export const makePeers = (lookup: (id: number) => Promise<Value>): ReadonlyArray<Peer> => {
  const lru = new LRUCache<number, Value>({ max: capacity, ttl: hour, fetchMethod: (id) => lookup(id) })
  const loader = new Loader<Value>({
    inMemoryCache: { cacheType: "lru-map", ttlInMsecs: hour, maxItems: capacity },
    dataSourceGetOneFn: (key) => lookup(Number(key))
  })
  const dedupe = createDedupe({
    ttl: 3600,
    storage: { type: "memory", options: { size: capacity } } as never
  }).define("value", { references: () => ["all"] }, (id: number) => lookup(id))
  const store = new LRUCache<string, CacheEntry>({ max: capacity })
  // Tags cost it half of its speed, so it is there with and without.
  const [bento, untagged] = [makeBento(), makeBento()]
  const manager = createManager({ ttl: hour })
  const cacheable = new Cacheable({ ttl: hour })
  return [
    {
      name: "lru-cache",
      get: (id) => lru.fetch(id) as Promise<Value>,
      forget: async (id) => lru.delete(id)
    },
    {
      name: "layered-loader",
      get: (id) => loader.get(String(id)) as Promise<Value>,
      forget: (id) => loader.invalidateCacheFor(String(id))
    },
    {
      name: "async-cache-dedupe",
      get: (id) => (dedupe as unknown as { value: (id: number) => Promise<Value> }).value(id),
      forget: (id) => dedupe.clear("value", id),
      forgetTag: () =>
        (dedupe as unknown as { invalidateAll: (tag: string) => Promise<void> }).invalidateAll("all")
    },
    {
      name: "cachified",
      get: (id) =>
        cachified({ key: String(id), cache: store as never, ttl: hour, getFreshValue: () => lookup(id) }),
      forget: async (id) => store.delete(String(id))
    },
    {
      name: "bentocache",
      get: (id) => bento.getOrSet({ key: String(id), factory: () => lookup(id), ttl: hour, tags: ["all"] }),
      forget: (id) => bento.delete({ key: String(id) }),
      forgetTag: () => bento.deleteByTag({ tags: ["all"] })
    },
    {
      name: "bentocache, without tags",
      get: (id) => untagged.getOrSet({ key: String(id), factory: () => lookup(id), ttl: hour }),
      forget: (id) => untagged.delete({ key: String(id) })
    },
    {
      name: "cache-manager",
      get: (id) => manager.wrap(String(id), () => lookup(id)),
      forget: (id) => manager.del(String(id))
    },
    {
      name: "cacheable",
      get: (id) => cacheable.getOrSet(String(id), () => lookup(id)) as Promise<Value>,
      forget: (id) => cacheable.delete(String(id))
    }
  ]
}

const makeBento = () =>
  new BentoCache({
    default: "memory",
    stores: {
      memory: bentostore().useL1Layer(memoryDriver({ maxItems: capacity, serialize: false }))
    }
  })
