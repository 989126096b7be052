/**
 * The caches that we compare with over Redis, each set up as its documentation recommends: in Redis alone (`far`), or
 * with memory in front of it (`tiered`), where messages tell the other processes' memories what to forget, if the cache
 * has such messages.
 *
 * What is missing, and why: lru-cache and cachified have no Redis of their own. Over Redis alone cacheable cannot be, it
 * always has a memory in front. With memory in front async-cache-dedupe cannot be, it keeps entries in one storage;
 * and its lookups of one key are joined in a process, not among processes, as those of all peers. Of the others only
 * bentocache and async-cache-dedupe take tags where they look up: cacheable has them where a value is set, without
 * joining lookups, layered-loader has groups, which an entry is in one of.
 */
import { NodeRedis } from "@effect/platform-node"
import KeyvRedis, { createKeyv } from "@keyv/redis"
import { createCache as createDedupe } from "async-cache-dedupe"
import { BentoCache, bentostore } from "bentocache"
import { memoryDriver } from "bentocache/drivers/memory"
import { redisBusDriver, redisDriver } from "bentocache/drivers/redis"
import { createCache as createManager } from "cache-manager"
import { Cacheable, CacheableMemory } from "cacheable"
import { type Duration, Effect, Exit, Layer, ManagedRuntime, type Schema, Scope } from "effect"
import { Persistable, PersistedCache, Persistence } from "effect/persistence"
import { Redis } from "ioredis"
import { Keyv } from "keyv"
import { createNotificationPair, Loader, RedisCache } from "layered-loader"

/** What is looked up. */
export interface Source {
  readonly lookUp: (key: string) => Promise<any>
  readonly tagsOf: (key: string) => Array<string>
  /** The key of a value, for the cache that asks for many of them. */
  readonly keyOf: (value: any) => string
  /** For the cache whose values have a schema. */
  readonly schema: Schema.Codec<any>
}

/** A cache over Redis. What it cannot do is left out. */
export interface RedisPeer {
  readonly name: string
  readonly get: (key: string) => Promise<any>
  /** Makes a key stale. */
  readonly forget: (key: string) => Promise<unknown>
  /** Makes every entry stale that carries a tag. */
  readonly forgetTag?: (tag: string) => Promise<unknown>
  /** Answers many keys. */
  readonly getMany?: (keys: ReadonlyArray<string>) => Promise<ReadonlyArray<any>>
}

const capacity = 200_000
const hour = 3_600_000

/** Each cache in Redis alone. `space` keeps caches apart that should share nothing. */
export const makeFarPeers = async (
  url: string,
  { lookUp, tagsOf, keyOf, schema }: Source,
  space = "far"
): Promise<ReadonlyArray<RedisPeer>> => {
  const bento = new BentoCache({
    default: "redis",
    prefix: `${space}:bento`,
    stores: { redis: bentostore().useL2Layer(redisDriver({ connection: connectionOf(url) })) }
  })
  const dedupe = createDedupe({
    ttl: 3600,
    storage: {
      type: "redis",
      options: { client: new Redis(url), invalidation: { referencesTTL: 3600 } }
    } as never
  }).define(`${space}:value`, { references: (key: string) => tagsOf(key) }, lookUp) as unknown as Record<
    string,
    (...args: ReadonlyArray<unknown>) => Promise<any>
  >
  const loader = new Loader<any>({
    asyncCache: new RedisCache(new Redis(url), { json: true, ttlInMsecs: hour, prefix: `${space}:loader` }),
    cacheKeyFromValueResolver: keyOf,
    dataSourceGetOneFn: lookUp,
    dataSourceGetManyFn: async (keys) =>
      (await Promise.all(keys.map(lookUp))).filter((value) => value !== undefined)
  })
  const manager = createManager({ ttl: hour, stores: [createKeyv(url, { namespace: `${space}:manager` })] })
  const { get, forget, getMany } = await persisted(url, { lookUp, schema }, space, "0 millis")
  return [
    bentoPeer("bentocache", bento, lookUp, tagsOf),
    {
      name: "async-cache-dedupe",
      get: (key) => dedupe[`${space}:value`]!(key),
      forget: (key) => dedupe["clear"]!(`${space}:value`, key),
      forgetTag: (tag) => dedupe["invalidateAll"]!(tag)
    },
    {
      name: "layered-loader",
      get: (key) => loader.get(key),
      forget: (key) => loader.invalidateCacheFor(key),
      getMany: (keys) => loader.getMany([...keys])
    },
    managerPeer(manager, lookUp),
    // Its memory can't be left out, but be told to keep nothing.
    { name: "Effect PersistedCache", get, forget, getMany }
  ]
}

/** Each cache with memory in front. */
export const makeTieredPeers = async (
  url: string,
  { lookUp, tagsOf, keyOf, schema }: Source,
  space = "tiered"
): Promise<ReadonlyArray<RedisPeer>> => {
  const connection = connectionOf(url)
  const bento = new BentoCache({
    default: "tiered",
    prefix: `${space}:bento`,
    stores: {
      tiered: bentostore()
        // Its memory serializes, as it does by default: without, what comes from Redis breaks it.
        .useL1Layer(memoryDriver({ maxItems: capacity }))
        .useL2Layer(redisDriver({ connection }))
        .useBus(redisBusDriver({ connection }))
    }
  })
  const pair = createNotificationPair<any>({
    channel: `${space}:loader-notifications`,
    consumerRedis: new Redis(url),
    publisherRedis: new Redis(url)
  })
  const loader = new Loader<any>({
    inMemoryCache: { cacheType: "lru-map", ttlInMsecs: hour, maxItems: capacity },
    asyncCache: new RedisCache(new Redis(url), { json: true, ttlInMsecs: hour, prefix: `${space}:loader` }),
    notificationConsumer: pair.consumer,
    notificationPublisher: pair.publisher,
    cacheKeyFromValueResolver: keyOf,
    dataSourceGetOneFn: lookUp,
    dataSourceGetManyFn: async (keys) =>
      (await Promise.all(keys.map(lookUp))).filter((value) => value !== undefined)
  })
  await loader.init()
  const manager = createManager({
    ttl: hour,
    stores: [
      new Keyv({ store: new CacheableMemory({ ttl: hour, lruSize: capacity }) }),
      createKeyv(url, { namespace: `${space}:manager` })
    ]
  })
  const cacheable = new Cacheable({
    ttl: hour,
    namespace: `${space}:cacheable`,
    secondary: new KeyvRedis(url)
  })
  const { get, forget } = await persisted(url, { lookUp, schema }, space, "1 hour")
  return [
    bentoPeer("bentocache, tiered", bento, lookUp, tagsOf),
    {
      name: "layered-loader, tiered",
      get: (key) => loader.get(key),
      forget: (key) => loader.invalidateCacheFor(key),
      getMany: (keys) => loader.getMany([...keys])
    },
    { ...managerPeer(manager, lookUp), name: "cache-manager, tiered" },
    {
      name: "cacheable, tiered",
      get: (key) => cacheable.getOrSet(key, () => lookUp(key)),
      forget: (key) => cacheable.delete(key),
      getMany: async (keys) => {
        const values = await cacheable.getMany<any>([...keys])
        return fillIn(keys, values, lookUp, (found) =>
          cacheable.setMany(found.map(([key, value]) => ({ key, value })))
        )
      }
    },
    { name: "Effect PersistedCache, tiered", get, forget }
  ]
}

/** Where a server is. */
export const connectionOf = (url: string): { readonly host: string; readonly port: number } => {
  const { hostname, port } = new URL(url)
  return { host: hostname, port: Number(port) }
}

type AnyBento = BentoCache<any>

const bentoPeer = (
  name: string,
  bento: AnyBento,
  lookUp: Source["lookUp"],
  tagsOf: Source["tagsOf"]
): RedisPeer => ({
  name,
  get: (key) => {
    const tags = tagsOf(key)
    const options = { key, factory: () => lookUp(key), ttl: hour }
    return bento.getOrSet(tags.length === 0 ? options : { ...options, tags })
  },
  forget: (key) => bento.delete({ key }),
  forgetTag: (tag) => bento.deleteByTag({ tags: [tag] })
})

const managerPeer = (manager: ReturnType<typeof createManager>, lookUp: Source["lookUp"]): RedisPeer => ({
  name: "cache-manager",
  get: (key) => manager.wrap(key, () => lookUp(key)),
  forget: (key) => manager.del(key),
  getMany: async (keys) =>
    fillIn(keys, await manager.mget<any>([...keys]), lookUp, (found) =>
      manager.mset(found.map(([key, value]) => ({ key, value })))
    )
})

/** What a caller does whose cache gives many answers, but looks up none of the missing. */
const fillIn = async (
  keys: ReadonlyArray<string>,
  values: ReadonlyArray<any>,
  lookUp: Source["lookUp"],
  set: (found: ReadonlyArray<readonly [string, any]>) => Promise<unknown>
): Promise<ReadonlyArray<any>> => {
  const missing = keys.filter((_, i) => values[i] === undefined || values[i] === null)
  if (missing.length === 0) return values
  const found = await Promise.all(missing.map(async (key) => [key, await lookUp(key)] as const))
  const known = found.filter(([, value]) => value !== undefined)
  if (known.length > 0) await set(known)
  const byKey = new Map(found)
  return keys.map((key, i) => values[i] ?? byKey.get(key))
}

const persisted = async (
  url: string,
  { lookUp, schema }: Pick<Source, "lookUp" | "schema">,
  space: string,
  inMemoryTTL: Duration.Input
): Promise<Required<Omit<RedisPeer, "name" | "forgetTag">>> => {
  class Question extends Persistable.Class<{ payload: { key: string } }>()("Question", {
    primaryKey: ({ key }) => key,
    success: schema
  }) {}
  const { host, port } = connectionOf(url)
  const runtime = ManagedRuntime.make(
    Layer.provide(Persistence.layerRedis, NodeRedis.layer({ socket: { host, port } }))
  )
  const { cache, store } = await runtime.runPromise(
    Effect.gen(function* () {
      const options = { storeId: `${space}:effect`, timeToLive: () => "1 hour" as Duration.Input }
      const cache = yield* PersistedCache.make(({ key }: Question) => Effect.promise(() => lookUp(key)), {
        ...options,
        inMemoryCapacity: capacity,
        inMemoryTTL: () => inMemoryTTL
      })
      const store = yield* (yield* Persistence.Persistence).make(options)
      return { cache, store }
    }).pipe(Effect.provideService(Scope.Scope, Scope.makeUnsafe()))
  )
  const question = (key: string) => new Question({ key })
  return {
    get: (key) => runtime.runPromise(cache.get(question(key))),
    forget: (key) => runtime.runPromise(cache.invalidate(question(key))),
    getMany: (keys) =>
      runtime.runPromise(
        Effect.gen(function* () {
          const exits = yield* store.getMany(keys.map(question))
          const values = yield* Effect.forEach(exits, (exit) => exit ?? Effect.undefined)
          return yield* Effect.promise(() =>
            fillIn(keys, values, lookUp, (found) =>
              runtime.runPromise(
                store.setMany(found.map(([key, value]) => [question(key), Exit.succeed(value)] as const))
              )
            )
          )
        })
      )
  }
}
