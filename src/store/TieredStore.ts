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
import * as Config from "effect/Config"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { CachemeError } from "../CachemeError.ts"
import type { Near } from "../Node.ts"
import { Store } from "../Store.ts"
import * as MemoryStore from "./MemoryStore.ts"
import type * as RedisStore from "./RedisStore.ts"

/** Options of the store in two tiers; `capacity` and `bytes` are those of memory. */
export interface Options extends RedisStore.Options, MemoryStore.Options {
  /** How far memory is believed, where a node does not say. Default `validated`. */
  readonly near?: Near | undefined
  /** Where that is `bounded`: after how long another process's write is seen at the latest. Default 1 second. */
  readonly bound?: Duration.Input | undefined
  /** How long memory keeps an answer at most. Default as long as Redis. */
  readonly nearTimeToLive?: Duration.Input | undefined
}

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
    const FarSettings = yield* Effect.promise(() => import("./redis/farSettings.ts"))
    const FarStore = yield* Effect.promise(() => import("./redis/FarStore.ts"))
    const near = yield* FarSettings.makeNear(options, yield* MemoryStore.makeMemory(options))
    return yield* FarStore.make(yield* FarSettings.make(options, near))
  })

/** The options from the environment; `undefined` where `CACHEME_REDIS_URL` is not set. */
export const fromConfig: Effect.Effect<Options | undefined, CachemeError | Config.ConfigError> =
  Effect.flatMap(Config.option(Config.Redacted("CACHEME_REDIS_URL")), (url) =>
    Option.isNone(url)
      ? Effect.undefined
      : Effect.flatMap(
          Effect.promise(() => import("./redis/farSettings.ts")),
          ({ fromConfig }) => fromConfig
        )
  )
