/**
 * The cache, ready to run, set up by the environment:
 *
 * | variable | default | allowed |
 * |---|---|---|
 * | `CACHEME_ENABLED` | `true` | true, false, yes, no, on, off, 1, 0 |
 * | `CACHEME_PREFIX` | `CM:` | a text of at most 1024 bytes |
 * | `CACHEME_TIME_TO_LIVE` | `1 hour` | a Duration of zero or more, such as `10 minutes` |
 * | `CACHEME_STALE_WHILE_REVALIDATE` | `0` | a Duration of zero or more: for how long an aged answer is given meanwhile |
 * | `CACHEME_STALE_AFTER_INVALIDATION` | `0` | the same, for an answer that was invalidated |
 * | `CACHEME_STALE_IF_ERROR` | `0` | the same, for an aged answer whose lookup fails |
 * | `CACHEME_CAPACITY` | `10000` | entries in memory: an integer from 1 to 16777216 |
 * | `CACHEME_CAPACITY_BYTES` | | what the entries take together at most, estimated, such as `64 MiB` |
 */
import type * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Cacheme } from "./Cacheme.ts"
import type { CachemeError } from "./CachemeError.ts"
import * as Settings from "./Settings.ts"
import { Store } from "./Store.ts"
import * as MemoryStore from "./store/MemoryStore.ts"

/**
 * The cache from Config. A value that is not allowed keeps the program from starting, with an error that names the
 * variable, the value and what is allowed.
 *
 * **Example** (Providing the cache)
 *
 * ```ts
 * import { Cacheme, CachemeLive } from "cacheme"
 * import { Effect, Schema } from "effect"
 *
 * const program = Effect.succeed(42).pipe(
 *   Cacheme.memoize({ key: "answer", value: Schema.Int }),
 *   Effect.provide(CachemeLive)
 * )
 * ```
 */
export const CachemeLive: Layer.Layer<Cacheme, CachemeError | Config.ConfigError> = Layer.unwrap(
  Effect.gen(function* () {
    const options = yield* Settings.fromConfig
    const capacity = yield* Settings.capacityFromConfig
    const announce = Layer.effectDiscard(
      Effect.flatMap(Store, ({ label }) =>
        Effect.logInfo(`cacheme: ${options.enabled === false ? "switched off" : label}`)
      )
    )
    return Layer.mergeAll(Cacheme.layer(options), announce).pipe(Layer.provide(MemoryStore.layer(capacity)))
  })
)
