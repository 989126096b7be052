/**
 * The store over Redis: entries that every process shares, fresh by the one rule.
 *
 * What is kept under which name is told in `redis/names.ts`, how freshness is judged in `redis/Cell.ts` and
 * `redis/Mirror.ts`, what happens when Redis is away in `redis/Link.ts` and `redis/FarStore.ts`. Memory in front of it
 * is `TieredStore`.
 */
import type * as Config from "effect/Config"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { CachemeError } from "../CachemeError.ts"
import { isDuration } from "../Node.ts"
import * as Settings from "../Settings.ts"
import { Store } from "../Store.ts"
import * as Compression from "./redis/compression.ts"
import * as FarStore from "./redis/FarStore.ts"
import * as Names from "./redis/names.ts"
import * as RedisSettings from "./redis/redisSettings.ts"

/** Options of the store over Redis. */
export interface Options extends RedisSettings.RedisOptions, Compression.Options {
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

const logExpected = "an integer from 16 to 10000000"
const scanExpected = "an integer of at least 1"
const leaseExpected = `a Duration of at least 100 milliseconds, such as "5 seconds"`

const isLogCapacity = (n: number) => Number.isInteger(n) && n >= 16 && n <= 10_000_000
const isScanCount = (n: number) => Number.isInteger(n) && n >= 1
const isLease = (input: unknown): input is Duration.Input =>
  isDuration(input) && Duration.toMillis(Duration.fromInputUnsafe(input)) >= 100

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
  Effect.flatMap(settings(options), FarStore.make)

/** Checks options and fills in the defaults. Fails with `InvalidSetting`. */
export const settings = (
  options: Options
): Effect.Effect<Omit<FarStore.FarSettings, "near"> & { readonly near: undefined }, CachemeError> =>
  Effect.gen(function* () {
    const { lease = "5 seconds", logCapacity = 200_000, scanCount = 1000 } = options
    const { freeze = Settings.freezesByDefault() } = options
    const { prefix } = yield* Settings.make({ prefix: options.prefix })
    const redis = yield* RedisSettings.make(options)
    const compression = yield* Compression.make(options)
    if (!isLease(lease)) return yield* Settings.invalid("lease", lease, leaseExpected)
    if (!isLogCapacity(logCapacity)) return yield* Settings.invalid("logCapacity", logCapacity, logExpected)
    if (!isScanCount(scanCount)) return yield* Settings.invalid("scanCount", scanCount, scanExpected)
    if (typeof freeze !== "boolean") return yield* Settings.invalid("freeze", freeze, "true or false")
    return {
      redis,
      names: Names.make(prefix),
      lease: Duration.toMillis(Duration.fromInputUnsafe(lease)),
      logCapacity,
      compression,
      scanCount,
      freeze,
      near: undefined
    }
  })

const integer = (name: string, expected: string, isRight: (n: number) => boolean) =>
  Settings.variable(name, expected, (text) =>
    /^\d+$/.test(text) && isRight(Number(text)) ? Number(text) : undefined
  )

/**
 * The options from `CACHEME_REDIS_…`, `CACHEME_LEASE`, `CACHEME_LOG_CAPACITY`, `CACHEME_SCAN_COUNT`,
 * `CACHEME_COMPRESSION` and `CACHEME_COMPRESSION_THRESHOLD`; `undefined` where `CACHEME_REDIS_URL` is not set.
 */
export const fromConfig: Effect.Effect<Options | undefined, CachemeError | Config.ConfigError> = Effect.gen(
  function* () {
    const redis = yield* RedisSettings.fromConfig
    const options = {
      lease: yield* Settings.variable("CACHEME_LEASE", leaseExpected, (text) => {
        const input = text as Duration.Input
        return isLease(input) ? input : undefined
      }),
      logCapacity: yield* integer("CACHEME_LOG_CAPACITY", logExpected, isLogCapacity),
      scanCount: yield* integer("CACHEME_SCAN_COUNT", scanExpected, isScanCount),
      compression: yield* Settings.variable("CACHEME_COMPRESSION", Compression.expected, Compression.parse),
      compressionThreshold: yield* integer(
        "CACHEME_COMPRESSION_THRESHOLD",
        "an integer of zero or more, in bytes",
        () => true
      )
    }
    return redis === undefined ? undefined : { ...redis, ...options }
  }
)
