/**
 * The store in two tiers: the memory of this process in front of Redis.
 *
 * Memory holds decoded answers, so that what many readers want is fetched and decoded once. How far it is believed is
 * its mode, for the layer or a node:
 *
 * | `near` | a read costs | another process's write is seen |
 * |---|---|---|
 * | `validated` | one tiny question, shared by all readers of the moment | at once |
 * | `bounded` | nothing but memory | after `bound` at the latest, also when messages are lost or the network is cut |
 *
 * A process sees its own writes at once in either. What a lookup uses is validated in either.
 */
import type * as Config from "effect/Config"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { CachemeError } from "../CachemeError.ts"
import { durationExpected, isDuration, isNear, type Near, nearExpected } from "../Node.ts"
import * as Settings from "../Settings.ts"
import { Store } from "../Store.ts"
import * as MemoryStore from "./MemoryStore.ts"
import * as FarStore from "./redis/FarStore.ts"
import * as RedisStore from "./RedisStore.ts"

/** Options of the store in two tiers; `capacity` and `bytes` are those of memory. */
export interface Options extends RedisStore.Options, MemoryStore.Options {
  /** How far memory is believed, where a node does not say. Default `validated`. */
  readonly near?: Near | undefined
  /** Where that is `bounded`: after how long another process's write is seen at the latest. Default 1 second. */
  readonly bound?: Duration.Input | undefined
  /** How long memory keeps an answer at most. Default as long as Redis. */
  readonly nearTimeToLive?: Duration.Input | undefined
}

const boundExpected = `a Duration of at least 10 milliseconds, such as "1 second"`

const isBound = (input: unknown): input is Duration.Input =>
  isDuration(input) && Duration.toMillis(Duration.fromInputUnsafe(input)) >= 10

/**
 * A `Store` in Redis with the memory of this process in front of it.
 *
 * **Details**
 *
 * See `RedisStore.layer` for what the layer fails with, and what happens when Redis is away.
 *
 * **Example** (Memory that may be half a second behind)
 *
 * ```ts
 * import { Cacheme, TieredStore } from "cacheme"
 * import { Layer } from "effect"
 *
 * const Shared = Cacheme.layer().pipe(
 *   Layer.provide(
 *     TieredStore.layer({ url: "redis://localhost", near: "bounded", bound: "500 millis", capacity: 100_000 })
 *   )
 * )
 * ```
 */
export const layer = (options: Options): Layer.Layer<Store, CachemeError> =>
  Layer.effect(Store, make(options))

/** Makes a `Store` in two tiers: see {@link layer}. */
export const make = (options: Options): Effect.Effect<Store["Service"], CachemeError, Scope.Scope> =>
  Effect.gen(function* () {
    const { near = "validated", bound = "1 second", nearTimeToLive = Duration.infinity } = options
    if (!isNear(near)) return yield* Settings.invalid("near", near, nearExpected)
    if (!isBound(bound)) return yield* Settings.invalid("bound", bound, boundExpected)
    if (!isDuration(nearTimeToLive))
      return yield* Settings.invalid("nearTimeToLive", nearTimeToLive, durationExpected)
    const settings = yield* RedisStore.settings(options)
    const memory = yield* MemoryStore.makeMemory(options)
    return yield* FarStore.make({
      ...settings,
      near: {
        memory,
        mode: near,
        bound: Duration.toMillis(Duration.fromInputUnsafe(bound)),
        timeToLive: Duration.toMillis(Duration.fromInputUnsafe(nearTimeToLive))
      }
    })
  })

/**
 * The options from `CACHEME_NEAR`, `CACHEME_NEAR_BOUND` and `CACHEME_NEAR_TIME_TO_LIVE`, beside those of `RedisStore`
 * and `MemoryStore`; `undefined` where `CACHEME_REDIS_URL` is not set.
 */
export const fromConfig: Effect.Effect<Options | undefined, CachemeError | Config.ConfigError> = Effect.gen(
  function* () {
    const redis = yield* RedisStore.fromConfig
    const memory = yield* Settings.capacityFromConfig
    const near = {
      near: yield* Settings.variable("CACHEME_NEAR", nearExpected, (text) =>
        isNear(text) ? text : undefined
      ),
      bound: yield* Settings.variable("CACHEME_NEAR_BOUND", boundExpected, (text) => {
        const input = text as Duration.Input
        return isBound(input) ? input : undefined
      }),
      nearTimeToLive: yield* Settings.duration("CACHEME_NEAR_TIME_TO_LIVE")
    }
    return redis === undefined ? undefined : { ...redis, ...memory, ...near }
  }
)
