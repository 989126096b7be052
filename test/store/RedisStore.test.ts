import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { inject } from "vitest"
import { Cacheme, Node, type RedisStore } from "../../src/index.ts"
import {
  aClient,
  aProcess,
  aProxy,
  aRedis,
  isHit,
  isUp,
  Item,
  Shelf,
  statusOf,
  Truth,
  until
} from "../support/outages.ts"
import { ownPrefix } from "../support/shared.ts"

const deadline = "2 seconds"
const aStore = (options: Partial<RedisStore.Options> = {}) =>
  aProcess("redis", { url: inject("redisUrl"), deadline, ...options })

/** A text that compresses, and one that does not. */
class Text extends Node.Class<Text>()("text", { key: { length: Schema.Int }, value: Schema.String }) {}
const text = Cacheme.fn(Text, ({ length }) => Effect.succeed("all the same ".repeat(length)))

describe("RedisStore", () => {
  it.live("compresses what is long enough, and reads what was compressed with other settings", () =>
    Effect.gen(function* () {
      const prefix = ownPrefix()
      const client = yield* aClient(inject("redisUrl"))
      const settings: ReadonlyArray<Partial<RedisStore.Options>> = [
        {},
        { compression: "gzip" },
        { compression: "brotli", compressionThreshold: 100 },
        { compression: "zstd", compressionThreshold: 0 }
      ]
      const caches = yield* Effect.forEach(settings, (options) => aStore({ prefix, ...options }))
      const lengths = [1, 20, 100, 5000]
      for (const [i, writer] of caches.entries()) {
        yield* writer.run(Cacheme.invalidate(Text))
        for (const length of lengths) {
          const value = yield* writer.run(text({ length }))
          const { storedAs } = yield* writer.run(Cacheme.explain(new Text({ length })))
          const bytes = yield* Effect.promise(() => client.strlen(storedAs))
          // Below its threshold, or where it would not help, nothing is compressed.
          const threshold = settings[i]!.compressionThreshold ?? 1000
          const isCompressed =
            settings[i]!.compression !== undefined && value.length + 2 >= threshold && length > 1
          assert.strictEqual(bytes < value.length, isCompressed, `${i} ${length}`)
          for (const reader of caches) {
            const lost = Effect.die("it was looked up").pipe(Cacheme.memoize(new Text({ length })))
            assert.strictEqual(yield* reader.run(lost), value)
          }
        }
      }
    })
  )

  it.live("caches under other prefixes share nothing", () =>
    Effect.gen(function* () {
      const own = ownPrefix()
      const truth = new Truth()
      // One begins like another, one has what separates names, and one looks like the name of another's entry.
      const prefixes = [own, `${own}1:`, `${own}{0}:`, `${own}%7B0%7D:`, `${own}*`, `${own}1:{0}:entry:`]
      const caches = yield* Effect.forEach(prefixes, (prefix) => aStore({ prefix }))
      for (const cache of caches) yield* cache.run(truth.read(1))
      assert.strictEqual(truth.count, prefixes.length)
      for (const [i, cache] of caches.entries()) {
        yield* cache.run(Cacheme.invalidate({ pattern: "*" }))
        yield* cache.run(Cacheme.invalidate(new Shelf({ id: 1 })))
        const before = truth.count
        for (const other of caches) yield* other.run(truth.read(1))
        assert.strictEqual(truth.count - before, 1, prefixes[i])
      }
    })
  )

  for (const strange of ["{a}{b}", "50%:", "a*b?[c]\\", "%7B", "ü💡\n"]) {
    it.live(`a prefix of ${JSON.stringify(strange)} works, and so do patterns under it`, () =>
      Effect.gen(function* () {
        const cache = yield* aStore({ prefix: `${ownPrefix()}${strange}` })
        const truth = new Truth()
        for (const id of [1, 12, 2]) yield* isHit(truth, cache, id)
        const { entries } = yield* cache.run(Cacheme.invalidate({ pattern: "item:1*" }))
        assert.strictEqual(entries, 2)
        const before = truth.count
        for (const id of [1, 12, 2]) yield* cache.run(truth.read(id))
        assert.strictEqual(truth.count - before, 2)
      })
    )
  }

  it.live("a pattern frees what it reaches in steps, and counts it", () =>
    Effect.gen(function* () {
      const cache = yield* aStore({ prefix: ownPrefix(), scanCount: 10 })
      const truth = new Truth()
      yield* cache.run(
        Effect.forEach(
          Array.from({ length: 300 }, (_, id) => id),
          (id) => truth.read(id),
          {
            concurrency: "unbounded"
          }
        )
      )
      const client = yield* aClient(inject("redisUrl"))
      const { storedAs } = yield* cache.run(Cacheme.explain(new Item({ id: 7 })))
      assert.strictEqual(yield* Effect.promise(() => client.exists(storedAs)), 1)
      assert.strictEqual((yield* cache.run(Cacheme.invalidate({ pattern: "item:[1-9]*" }))).entries, 299)
      assert.strictEqual(yield* Effect.promise(() => client.exists(storedAs)), 0)
      yield* cache.run(truth.read(0))
      assert.strictEqual(truth.count, 300)
    })
  )

  it.live(
    "a log that is nearly full is told of once, with what to do, and its numbers are in the stats",
    () =>
      Effect.gen(function* () {
        const prefix = ownPrefix()
        const cache = yield* aStore({ prefix, logCapacity: 16 })
        const truth = new Truth()
        yield* cache.run(truth.read(1))
        const warnings = () => cache.logs.filter((line) => line.includes("the log of invalidations"))
        const startedAt = Date.now()
        for (let id = 100; id < 112; id++) yield* cache.run(Cacheme.invalidate(new Shelf({ id })))
        assert.deepStrictEqual(warnings(), [])
        const { log } = yield* statusOf(cache)
        assert.deepInclude(log, { rows: 12, capacity: 16 })
        assert.isAtLeast(log!.floorAge, 0)
        // It took so long to fill three quarters: it is full after a third more.
        assert.isAtMost(log!.effectiveTimeToLive, ((Date.now() - startedAt + 100) * 16) / 12)
        for (let id = 112; id < 140; id++) yield* cache.run(Cacheme.invalidate(new Shelf({ id })))
        assert.match(
          warnings().join("\n"),
          /^Warn: cacheme: the log of invalidations holds 13 of 16 tags: .* Raise CACHEME_LOG_CAPACITY, or shorten times to live$/
        )
        const full = (yield* statusOf(cache)).log!
        assert.isAtMost(full.rows, 16)
        // It has forgotten some since: to a process that did not see them, what was stored before is a miss.
        const newcomer = yield* aStore({ prefix, logCapacity: 16 })
        yield* newcomer.run(truth.read(1))
        assert.strictEqual(truth.count, 2)
      })
  )

  it.live("a user that may not run INFO is told, and nothing older than its connection is served", () =>
    Effect.gen(function* () {
      const redis = yield* aRedis({
        args: ["--user", "app", "on", ">secret", "~*", "&*", "+@all", "-info"]
      })
      const proxy = yield* aProxy(redis)
      const url = `redis://app:secret@127.0.0.1:${proxy.port}`
      const truth = new Truth()
      const first = yield* aStore({ url })
      assert.match(first.logs.join("\n"), /Warn: cacheme: .*may not run INFO.*ACL SETUSER <user> \+info/)
      yield* isHit(truth, first, 1)
      yield* isHit(truth, first, 2)
      yield* first.run(truth.write(1))
      assert.strictEqual(yield* first.run(truth.read(1)), 1)
      yield* isHit(truth, first, 1)
      // A second process begins anew, and so does a connection that was lost.
      const before = truth.count
      const second = yield* aStore({ url })
      yield* second.run(truth.read(2))
      assert.strictEqual(truth.count, before + 1)
      yield* isHit(truth, first, 2)
      const again = truth.count
      proxy.cut()
      yield* until(
        "both are connected again",
        Effect.sync(() => proxy.connections() === 4)
      )
      yield* isUp(first)
      yield* isUp(second)
      yield* first.run(truth.read(2))
      assert.strictEqual(truth.count, again + 1)
      yield* isHit(truth, second, 2)
    })
  )

  it.live("a user that may not tell others of invalidations can invalidate all the same", () =>
    Effect.gen(function* () {
      const redis = yield* aRedis({
        args: ["--user", "app", "on", ">secret", "~*", "resetchannels", "+@all"]
      })
      const cache = yield* aStore({ url: `redis://app:secret@127.0.0.1:${redis.port}` })
      const truth = new Truth()
      yield* until(
        "it is told",
        Effect.sync(() =>
          cache.logs.some((line) => /messages are not heard .*allow their channels/.test(line))
        )
      )
      yield* isHit(truth, cache, 1)
      assert.deepInclude(yield* cache.run(truth.write(1)), { pending: 0 })
      assert.strictEqual(yield* cache.run(truth.read(1)), 1)
      yield* isHit(truth, cache, 1)
    })
  )

  it.live("a policy that evicts the log is told of, with what to set instead", () =>
    Effect.gen(function* () {
      const redis = yield* aRedis({ args: ["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"] })
      const cache = yield* aStore({ url: redis.url })
      assert.match(
        cache.logs.join("\n"),
        /Warn: cacheme: .*maxmemory-policy allkeys-lru evicts the log.*set it to volatile-lfu, .* or noeviction/
      )
      const other = yield* aRedis({ args: ["--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru"] })
      assert.deepStrictEqual((yield* aStore({ url: other.url })).logs, [])
    })
  )
})
