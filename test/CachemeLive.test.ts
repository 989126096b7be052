import { assert, describe, it } from "@effect/vitest"
import { Config, ConfigProvider, Effect, Layer, Logger, Schema } from "effect"
import { TestClock } from "effect/testing"
import { Cacheme, CachemeError, CachemeLive, MemoryStore, Node } from "../src/index.ts"

class Count extends Node.Class<Count>()("count", { key: { of: Schema.Int }, value: Schema.Int }) {}

let lookups = 0
const count = (of: number) => Effect.sync(() => ++lookups).pipe(Cacheme.memoize(new Count({ of })))
const withEnv = (env: Record<string, string>) =>
  CachemeLive.pipe(
    Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnv({ env }))),
    Layer.provide(Logger.layer([]))
  )

describe("CachemeLive", () => {
  it.effect("keeps answers in memory for an hour where nothing is said", () =>
    Effect.gen(function* () {
      const first = yield* count(1)
      yield* TestClock.adjust("59 minutes")
      assert.strictEqual(yield* count(1), first)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* count(1), first + 1)
      assert.strictEqual((yield* Cacheme.explain(new Count({ of: 1 }))).storedAs, "CM:count:1")
    }).pipe(Effect.provide(withEnv({})))
  )

  it.effect("takes its settings from the environment", () =>
    Effect.gen(function* () {
      const first = yield* count(1)
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(yield* count(1), first + 1)
      assert.strictEqual((yield* Cacheme.explain(new Count({ of: 1 }))).storedAs, "shop:count:1")
      yield* Effect.forEach([1, 2, 3, 4, 5], count)
      const {
        nodes: [stats]
      } = yield* Cacheme.stats
      assert.strictEqual(stats!.entries, 3)
    }).pipe(
      Effect.provide(
        withEnv({ CACHEME_TIME_TO_LIVE: "2 seconds", CACHEME_CAPACITY: "3", CACHEME_PREFIX: "shop:" })
      )
    )
  )

  it.effect("opens windows for stale answers, as Django-Cacheme does by default, and bounds bytes", () =>
    Effect.gen(function* () {
      const first = yield* count(1)
      yield* Cacheme.invalidate(Count)
      assert.strictEqual(yield* count(1), first)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(yield* count(1), first + 1)
      const failing = Effect.fail("down").pipe(Cacheme.memoize(new Count({ of: 1 })))
      yield* TestClock.adjust("61 minutes")
      assert.strictEqual(yield* failing, first + 2)
      yield* Effect.forEach([1, 2, 3, 4, 5], count)
      const {
        nodes: [stats]
      } = yield* Cacheme.stats
      assert.strictEqual(stats!.entries, 3)
    }).pipe(
      Effect.provide(
        withEnv({
          CACHEME_STALE_AFTER_INVALIDATION: "1 minute",
          CACHEME_STALE_WHILE_REVALIDATE: "30 seconds",
          CACHEME_STALE_IF_ERROR: "1 day",
          CACHEME_CAPACITY_BYTES: "1 KiB"
        })
      )
    )
  )

  it.effect("computes everything when switched off", () =>
    Effect.gen(function* () {
      const first = yield* count(1)
      assert.strictEqual(yield* count(1), first + 1)
    }).pipe(Effect.provide(withEnv({ CACHEME_ENABLED: "off" })))
  )

  it.effect("a value that is not allowed keeps it from starting, and is named with what is allowed", () =>
    Effect.gen(function* () {
      for (const [setting, value, expected] of [
        ["CACHEME_ENABLED", "maybe", "true or false"],
        ["CACHEME_TIME_TO_LIVE", "soon", "a Duration"],
        ["CACHEME_TIME_TO_LIVE", "-1 second", "a Duration"],
        ["CACHEME_CAPACITY", "0", "an integer"],
        ["CACHEME_CAPACITY", "NaN", "an integer"],
        ["CACHEME_CAPACITY", "1.5", "an integer"],
        ["CACHEME_CAPACITY", "99999999", "an integer"],
        ["CACHEME_CAPACITY_BYTES", "0", "a size"],
        ["CACHEME_CAPACITY_BYTES", "1 heap", "a size"],
        ["CACHEME_STALE_WHILE_REVALIDATE", "long", "a Duration"],
        ["CACHEME_STALE_AFTER_INVALIDATION", "-1 second", "a Duration"],
        ["CACHEME_STALE_IF_ERROR", "1", "a Duration"],
        ["CACHEME_PREFIX", "x".repeat(2000), "1024 bytes"]
      ] as const) {
        const error = yield* Effect.flip(Effect.scoped(Layer.build(withEnv({ [setting]: value }))))
        assert(!(error instanceof Config.ConfigError), String(error))
        assert(error instanceof CachemeError && error.reason._tag === "InvalidSetting")
        assert.strictEqual(error.reason.setting, setting)
        assert.include(error.reason.value, value.slice(0, 20))
        assert.include(error.reason.expected, expected)
      }
    })
  )

  it.effect("the options from code are checked in the same way", () =>
    Effect.gen(function* () {
      for (const options of [{ timeToLive: -1 }, { enabled: "yes" }, { prefix: 7 }] as ReadonlyArray<any>) {
        const layer = Cacheme.layer(options).pipe(Layer.provide(MemoryStore.layer()))
        const error = yield* Effect.flip(Effect.scoped(Layer.build(layer)))
        assert.strictEqual(error.reason._tag, "InvalidSetting")
      }
    })
  )
})
