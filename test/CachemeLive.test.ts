import { assert, describe, it } from "@effect/vitest"
import { Config, ConfigProvider, Effect, Layer, Logger, Schema } from "effect"
import { TestClock } from "effect/testing"
import { inject } from "vitest"
import { Cacheme, CachemeError, CachemeLive, MemoryStore, Node } from "../src/index.ts"
import { aRedis, aServerThatSays, processOf } from "./support/outages.ts"
import { freePort } from "./support/redis.ts"
import { ownPrefix } from "./support/shared.ts"

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

describe("CachemeLive with Redis", () => {
  const started = (env: Record<string, string>, logs?: Array<string>) =>
    processOf(CachemeLive.pipe(Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnv({ env })))), logs)
  /** What keeps it from starting. */
  const refusal = (env: Record<string, string>) =>
    Effect.map(Effect.flip(Effect.scoped(started(env))), (error) => {
      assert(error instanceof CachemeError, String(error))
      return error
    })

  it.live("shares answers, and the log line at the start says where and how", () =>
    Effect.gen(function* () {
      const env = {
        CACHEME_REDIS_URL: inject("redisUrl"),
        CACHEME_PREFIX: ownPrefix(),
        CACHEME_REDIS_DEADLINE: "2 seconds"
      }
      const one = yield* started(env)
      assert.match(
        one.logs.join("\n"),
        /Info: cacheme: Redis at [\w.]+:\d+(\/\d+)?, validated memory.* in front/
      )
      const other = yield* started({ ...env, CACHEME_NEAR: "bounded" })
      assert.match(other.logs.join("\n"), /Info: cacheme: Redis at .*, bounded memory.* in front/)
      const first = yield* one.run(count(1))
      assert.strictEqual(yield* other.run(count(1)), first)
      const { storedAs } = yield* one.run(Cacheme.explain(new Count({ of: 1 })))
      assert.isTrue(storedAs.startsWith(`${env.CACHEME_PREFIX}1:{0}:entry:`), storedAs)
    })
  )

  it.live("takes every setting from the environment", () =>
    Effect.gen(function* () {
      const prefix = ownPrefix()
      const cache = yield* started({
        CACHEME_REDIS_URL: inject("redisUrl"),
        CACHEME_PREFIX: prefix,
        CACHEME_REDIS_DEADLINE: "2 seconds",
        CACHEME_REDIS_CONNECT_TIMEOUT: "5 seconds",
        CACHEME_REDIS_REQUIRED: "yes",
        CACHEME_NEAR: "bounded",
        CACHEME_NEAR_BOUND: "200 millis",
        CACHEME_NEAR_TIME_TO_LIVE: "1 minute",
        CACHEME_LEASE: "1 second",
        CACHEME_LOG_CAPACITY: "77",
        CACHEME_SCAN_COUNT: "10",
        CACHEME_COMPRESSION: "zstd",
        CACHEME_COMPRESSION_THRESHOLD: "50",
        CACHEME_CAPACITY: "3"
      })
      yield* cache.run(Effect.forEach([1, 2, 3, 4, 5], count))
      const { store } = yield* cache.run(Cacheme.stats)
      assert.strictEqual(store.entries, 3)
      assert.strictEqual(store.shared!.log!.capacity, 77)
    })
  )

  it.live(
    "a value that is not allowed is named with the variable and what is expected, no password in it",
    () =>
      Effect.gen(function* () {
        const url = `redis://:secret@127.0.0.1:${yield* Effect.promise(freePort)}`
        for (const [setting, value, shown, expected] of [
          [
            "CACHEME_REDIS_URL",
            "localhost:6379",
            "localhost:6379",
            "redis://user:password@host:port/database"
          ],
          [
            "CACHEME_REDIS_URL",
            "http://u:secret@a",
            "http://u:***@a",
            "redis://user:password@host:port/database"
          ],
          [
            "CACHEME_REDIS_URL",
            "redis://:secret@a:1,b:2",
            "redis://:***@a:1,b:2",
            "Cluster is not supported yet"
          ],
          [
            "CACHEME_REDIS_URL",
            "redis+sentinel://:secret@a/main",
            "redis+sentinel://:***@a",
            "Sentinel is not supported"
          ],
          [
            "CACHEME_REDIS_URL",
            "redis://u:secret@a/main",
            "redis://u:***@a/main",
            "a database that is a whole number"
          ],
          ["CACHEME_REDIS_DEADLINE", "soon", `"soon"`, "a Duration from 1 millisecond to 1 minute"],
          ["CACHEME_REDIS_DEADLINE", "0 millis", "0 millis", "a Duration from 1 millisecond to 1 minute"],
          [
            "CACHEME_REDIS_CONNECT_TIMEOUT",
            "2 minutes",
            "2 minutes",
            "a Duration from 1 millisecond to 1 minute"
          ],
          ["CACHEME_REDIS_REQUIRED", "maybe", "maybe", "true or false"],
          ["CACHEME_NEAR", "coherent", "coherent", "validated"],
          ["CACHEME_NEAR_BOUND", "5 millis", "5 millis", "at least 10 milliseconds"],
          ["CACHEME_NEAR_TIME_TO_LIVE", "-1 second", "-1 second", "a Duration"],
          ["CACHEME_LEASE", "10 millis", "10 millis", "at least 100 milliseconds"],
          ["CACHEME_LOG_CAPACITY", "15", "15", "an integer from 16 to 10000000"],
          ["CACHEME_LOG_CAPACITY", "many", "many", "an integer from 16 to 10000000"],
          ["CACHEME_SCAN_COUNT", "0", "0", "an integer of at least 1"],
          ["CACHEME_COMPRESSION", "lzma", "lzma", "none, gzip, brotli or zstd"],
          ["CACHEME_COMPRESSION_THRESHOLD", "-1", "-1", "an integer of zero or more"]
        ] as const) {
          const error = yield* refusal({ CACHEME_REDIS_URL: url, [setting]: value })
          assert(error.reason._tag === "InvalidSetting", `${setting}=${value}: ${error.message}`)
          assert.strictEqual(error.reason.setting, setting)
          assert.include(error.reason.value, shown)
          assert.include(error.reason.expected, expected)
          assert.notInclude(error.message, "secret")
        }
      })
  )

  it.live("a server that it cannot use keeps it from starting: what it is, and what is expected", () =>
    Effect.gen(function* () {
      const locked = yield* aRedis({ args: ["--requirepass", "right"] })
      const cluster = yield* aRedis({ args: ["--cluster-enabled", "yes"] })
      const old = "redis_version:5.0.7\r\nredis_mode:standalone\r\nrole:master\r\n"
      const tooOld = yield* aServerThatSays((command) =>
        command === "ping"
          ? "+PONG\r\n"
          : command === "info"
            ? `$${old.length}\r\n${old}\r\n`
            : command === "client" || command === "subscribe"
              ? "+OK\r\n"
              : `-ERR unknown command \`${command}\`, with args beginning with:\r\n`
      )
      for (const [url, found, expected] of [
        [locked.url.replace("//", "//:secret@"), /WRONGPASS/, /the user and the password/],
        [locked.url.replace("//", "//app:secret@"), /WRONGPASS/, /the user and the password/],
        [locked.url, /NOAUTH/, /the user and the password/],
        [
          `${locked.url.replace("//", "//:right@")}/99`,
          /DB index is out of range/,
          /a database that the server has/
        ],
        [cluster.url, /Redis Cluster/, /a single Redis/],
        [tooOld, /Redis 5.0.7/, /Redis 6.2 or later/]
      ] as const) {
        const error = yield* refusal({ CACHEME_REDIS_URL: url, CACHEME_REDIS_CONNECT_TIMEOUT: "5 seconds" })
        assert.strictEqual(error.reason._tag, "StoreUnavailable")
        const [before, after] = error.message.split("; expected ")
        assert.match(before!, found)
        assert.match(after!, expected)
        assert.notMatch(error.message, /secret|right/)
      }
      const right = yield* started({
        CACHEME_REDIS_URL: locked.url.replace("//", "//:right@"),
        CACHEME_REDIS_DEADLINE: "2 seconds"
      })
      const first = yield* right.run(count(1))
      assert.strictEqual(yield* right.run(count(1)), first)
      assert.notInclude(right.logs.join("\n"), ":right")
    })
  )

  it.live("starts without a server, unless that is required", () =>
    Effect.gen(function* () {
      const env = {
        CACHEME_REDIS_URL: `redis://:secret@127.0.0.1:${yield* Effect.promise(freePort)}`,
        CACHEME_REDIS_CONNECT_TIMEOUT: "100 millis"
      }
      const cache = yield* started(env)
      assert.match(cache.logs.join("\n"), /Warn: cacheme: Redis at .* is away \(.*ECONNREFUSED/)
      const first = yield* cache.run(count(1))
      assert.strictEqual(yield* cache.run(count(1)), first + 1)
      const error = yield* refusal({ ...env, CACHEME_REDIS_REQUIRED: "true" })
      assert.strictEqual(error.reason._tag, "StoreUnavailable")
      assert.match(error.message, /ECONNREFUSED.*; expected a server that answers there/)
      assert.notInclude(error.message, "secret")
    })
  )

  it.live("switched off, it reads and fills nothing, and still tells others of what was written", () =>
    Effect.gen(function* () {
      const env = {
        CACHEME_REDIS_URL: inject("redisUrl"),
        CACHEME_PREFIX: ownPrefix(),
        CACHEME_REDIS_DEADLINE: "2 seconds"
      }
      const on = yield* started(env)
      const off = yield* started({ ...env, CACHEME_ENABLED: "false" })
      const first = yield* on.run(count(1))
      assert.strictEqual(yield* on.run(count(1)), first)
      assert.strictEqual(yield* off.run(count(1)), first + 1)
      yield* off.run(Cacheme.invalidate(new Count({ of: 1 })))
      assert.strictEqual(yield* on.run(count(1)), first + 2)
    })
  )
})
