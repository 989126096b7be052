/**
 * The store over Redis: entries that every process shares, fresh by the one rule.
 *
 * What is kept under which name is told in `redis/names.ts`, how freshness is judged in `redis/Cell.ts` and
 * `redis/Mirror.ts`, what happens when Redis is away in `redis/Link.ts` and `redis/FarStore.ts`. All of that is loaded
 * when a store is opened, and not before. Memory in front of it is `TieredStore`.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { CachemeError } from "../CachemeError.ts"
import { Store } from "../Store.ts"
import type * as Compression from "./redis/compression.ts"
import type { RedisOptions } from "./redis/redisSettings.ts"

/** Options of the store over Redis. */
export interface Options extends RedisOptions, Compression.Options {
  /** What every name begins with: caches with another prefix share nothing. Default `CM:`. */
  readonly prefix?: string | undefined
  /**
   * How long another process waits for a lookup whose process has died: leases are renewed while lookups run. Default
   * 5 seconds, at least 100 milliseconds.
   */
  readonly lease?: Duration.Input | undefined
  /**
   * How many distinct tags the log of invalidations remembers, about 100 bytes each, in Redis and in every process.
   * Entries older than the oldest of them are misses. An integer from 16 to 10,000,000; default 200,000.
   */
  readonly logCapacity?: number | undefined
  /** How many names a step looks at when a pattern gives memory back. An integer of at least 1; default 1000. */
  readonly scanCount?: number | undefined
  /** Freezes what is read, because callers share it. Default true unless `NODE_ENV` is `production`. */
  readonly freeze?: boolean | undefined
}

/**
 * A `Store` in Redis, 6.2 or later, by ioredis.
 *
 * **Details**
 *
 * A read is one command. A write's invalidation is one script, whatever the number of entries. Redis that cannot be
 * reached is no error: everything computes, what could not be invalidated is kept until it can, and the store comes back
 * by itself. The layer fails with `CachemeError`: `InvalidSetting` for a bad option, `StoreUnavailable` for a server
 * that cannot be used (wrong password, too old, a Cluster), or, with `required`, for one that cannot be reached.
 *
 * **Example** (A cache that every process shares)
 *
 * ```ts
 * import { Cacheme, RedisStore } from "cacheme"
 * import { Layer } from "effect"
 *
 * const Shared = Cacheme.layer().pipe(Layer.provide(RedisStore.layer({ url: "redis://localhost" })))
 * ```
 */
export const layer = (options: Options): Layer.Layer<Store, CachemeError> =>
  Layer.effect(Store, make(options))

/** Makes a `Store` in Redis: see {@link layer}. */
export const make = (options: Options): Effect.Effect<Store["Service"], CachemeError, Scope.Scope> =>
  Effect.gen(function* () {
    const FarSettings = yield* Effect.promise(() => import("./redis/farSettings.ts"))
    const FarStore = yield* Effect.promise(() => import("./redis/FarStore.ts"))
    return yield* FarStore.make(yield* FarSettings.make(options))
  })
