/** The settings of the store over Redis: from code or from the environment, checked before anything is connected. */
import type * as Config from "effect/Config"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { CachemeError } from "../../CachemeError.ts"
import { declared } from "../../Declared.ts"
import { durationExpected, isDuration, isNear, nearExpected } from "../../Node.ts"
import * as Settings from "../../Settings.ts"
import type { Memory } from "../MemoryStore.ts"
import type * as RedisStore from "../RedisStore.ts"
import type * as TieredStore from "../TieredStore.ts"
import * as Compression from "./compression.ts"
import type { FarSettings, NearSettings } from "./FarStore.ts"
import * as Names from "./names.ts"
import * as RedisSettings from "./redisSettings.ts"

const logExpected = "an integer from 16 to 10000000"
const scanExpected = "an integer of at least 1"
const leaseExpected = `a Duration of at least 100 milliseconds, such as "5 seconds"`
const boundExpected = `a Duration of at least 10 milliseconds, such as "1 second"`

const isLogCapacity = (n: number) => Number.isInteger(n) && n >= 16 && n <= 10_000_000
const isScanCount = (n: number) => Number.isInteger(n) && n >= 1
const isAtLeast =
  (milliseconds: number) =>
  (input: unknown): input is Duration.Input =>
    isDuration(input) && millisOf(input) >= milliseconds
const isLease = isAtLeast(100)
const isBound = isAtLeast(10)

const millisOf = (input: Duration.Input): number => Duration.toMillis(Duration.fromInputUnsafe(input))

/** Checks options and fills in the defaults. Fails with `InvalidSetting`. */
export const make = (
  options: RedisStore.Options,
  near?: NearSettings
): Effect.Effect<FarSettings, CachemeError> =>
  Effect.gen(function* () {
    const { lease = "5 seconds", logCapacity = 200_000, scanCount = 1000 } = options
    const { freeze = Settings.isInDevelopment() } = options
    const { prefix } = yield* Settings.make({ prefix: options.prefix })
    const redis = yield* RedisSettings.make(options)
    const compression = yield* Compression.make(options)
    if (!isLease(lease)) return yield* Settings.invalid("lease", lease, leaseExpected)
    if (!isLogCapacity(logCapacity)) return yield* Settings.invalid("logCapacity", logCapacity, logExpected)
    if (!isScanCount(scanCount)) return yield* Settings.invalid("scanCount", scanCount, scanExpected)
    if (typeof freeze !== "boolean") return yield* Settings.invalid("freeze", freeze, "true or false")
    const names = Names.make(prefix)
    return {
      redis,
      names,
      declared,
      lease: millisOf(lease),
      logCapacity,
      compression,
      scanCount,
      freeze,
      near
    }
  })

/** Checks the options of memory in front, and fills in the defaults. Fails with `InvalidSetting`. */
export const makeNear = (
  { near = "validated", bound = "1 second", nearTimeToLive = Duration.infinity }: TieredStore.Options,
  memory: Memory
): Effect.Effect<NearSettings, CachemeError> =>
  Effect.gen(function* () {
    if (!isNear(near)) return yield* Settings.invalid("near", near, nearExpected)
    if (!isBound(bound)) return yield* Settings.invalid("bound", bound, boundExpected)
    if (!isDuration(nearTimeToLive))
      return yield* Settings.invalid("nearTimeToLive", nearTimeToLive, durationExpected)
    return { memory, mode: near, bound: millisOf(bound), timeToLive: millisOf(nearTimeToLive) }
  })

const integer = (name: string, expected: string, isRight: (n: number) => boolean) =>
  Settings.variable(name, expected, (text) =>
    /^\d+$/.test(text) && isRight(Number(text)) ? Number(text) : undefined
  )

const duration = (name: string, expected: string, isRight: (input: unknown) => input is Duration.Input) =>
  Settings.variable(name, expected, (text) => {
    const input: unknown = text
    return isRight(input) ? input : undefined
  })

/** The options from the environment: see `CachemeLive`; `undefined` where `CACHEME_REDIS_URL` is not set. */
export const fromConfig: Effect.Effect<TieredStore.Options | undefined, CachemeError | Config.ConfigError> =
  Effect.gen(function* () {
    const redis = yield* RedisSettings.fromConfig
    const memory = yield* Settings.capacityFromConfig
    const options = {
      lease: yield* duration("CACHEME_LEASE", leaseExpected, isLease),
      logCapacity: yield* integer("CACHEME_LOG_CAPACITY", logExpected, isLogCapacity),
      scanCount: yield* integer("CACHEME_SCAN_COUNT", scanExpected, isScanCount),
      compression: yield* Settings.variable("CACHEME_COMPRESSION", Compression.expected, Compression.parse),
      compressionThreshold: yield* integer(
        "CACHEME_COMPRESSION_THRESHOLD",
        Compression.expectedThreshold,
        () => true
      ),
      near: yield* Settings.variable("CACHEME_NEAR", nearExpected, (text) =>
        isNear(text) ? text : undefined
      ),
      bound: yield* duration("CACHEME_NEAR_BOUND", boundExpected, isBound),
      nearTimeToLive: yield* Settings.duration("CACHEME_NEAR_TIME_TO_LIVE")
    }
    return redis === undefined ? undefined : { ...redis, ...memory, ...options }
  })
