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
 * | `CACHEME_REDIS_URL` | | `redis://user:password@host:port/database`, or `rediss://`: shared with every process, memory in front |
 * | `CACHEME_REDIS_DEADLINE` | `100 millis` | how long a command may take, up to 1 minute |
 * | `CACHEME_REDIS_CONNECT_TIMEOUT` | `1 second` | how long the start waits for Redis before it goes on without it |
 * | `CACHEME_REDIS_REQUIRED` | `false` | true: the start fails where Redis cannot be reached |
 * | `CACHEME_NEAR` | `validated` | `validated` or `bounded`: how far memory in front of Redis is believed |
 * | `CACHEME_NEAR_BOUND` | `1 second` | after how long another process's write is seen at the latest, where that is `bounded` |
 * | `CACHEME_NEAR_TIME_TO_LIVE` | | how long memory in front of Redis keeps an answer at most |
 * | `CACHEME_LEASE` | `5 seconds` | how long others wait for a lookup whose process has died |
 * | `CACHEME_LOG_CAPACITY` | `200000` | how many distinct tags the log of invalidations remembers |
 * | `CACHEME_SCAN_COUNT` | `1000` | how many names a step looks at when a pattern gives memory back |
 * | `CACHEME_COMPRESSION` | `none` | `none`, `gzip`, `brotli` or `zstd` |
 * | `CACHEME_COMPRESSION_THRESHOLD` | `1000` | payloads of at least so many bytes are compressed |
 */
import type * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Cacheme } from "./Cacheme.ts"
import type { CachemeError } from "./CachemeError.ts"
import * as Settings from "./Settings.ts"
import { Store } from "./Store.ts"
import * as MemoryStore from "./store/MemoryStore.ts"
import * as TieredStore from "./store/TieredStore.ts"

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
    const shared = yield* TieredStore.fromConfig
    const store =
      shared === undefined
        ? MemoryStore.layer(capacity)
        : TieredStore.layer({ ...shared, prefix: options.prefix })
    const announce = Layer.effectDiscard(
      Effect.flatMap(Store, ({ label }) =>
        Effect.logInfo(`cacheme: ${options.enabled === false ? "switched off" : label}`)
      )
    )
    return Layer.mergeAll(Cacheme.layer(options), announce).pipe(Layer.provide(store))
  })
)
