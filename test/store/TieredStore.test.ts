import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Option } from "effect"
import { inject } from "vitest"
import { Cacheme, TieredStore } from "../../src/index.ts"
import {
  aClient,
  aProcess,
  aProxy,
  aRedis,
  isDown,
  isHit,
  isUp,
  Item,
  Truth,
  until
} from "../support/outages.ts"
import { ownPrefix } from "../support/shared.ts"

const fork = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.forkChild(self, { startImmediately: true })

/** A server behind a proxy, a process that reaches it only so, and another one that always reaches it. */
const aScene = (options: Partial<TieredStore.Options>) =>
  Effect.gen(function* () {
    const redis = yield* aRedis()
    const proxy = yield* aProxy(redis)
    const cache = yield* aProcess(options.near ?? "validated", { url: proxy.url, deadline: 100, ...options })
    const other = yield* aProcess("redis", { url: redis.url, deadline: "2 seconds" })
    return { redis, proxy, cache, other, truth: new Truth() }
  })

describe("TieredStore", () => {
  it.live("says how it is set up, and refuses what is not allowed", () =>
    Effect.gen(function* () {
      const options = { url: inject("redisUrl"), prefix: ownPrefix() }
      for (const near of ["validated", "bounded"] as const) {
        const cache = yield* aProcess(near, options)
        const { store } = yield* cache.run(Cacheme.stats)
        assert.match(store.label, new RegExp(`^Redis at .*, ${near} memory.* in front$`))
      }
      for (const [wrong, expected] of [
        [{ near: "coherent" }, /near is "coherent", expected/],
        [{ bound: "5 millis" }, /bound is "5 millis", expected a Duration of at least 10 milliseconds/],
        [{ bound: -1 }, /bound is -1, expected/],
        [{ nearTimeToLive: "soon" }, /nearTimeToLive is "soon", expected a Duration/],
        [{ capacity: 0 }, /capacity is 0, expected/],
        [{ lease: 5 }, /lease is 5, expected a Duration of at least 100 milliseconds/],
        [{ logCapacity: 15 }, /logCapacity is 15, expected an integer from 16 to 10000000/],
        [{ scanCount: 0 }, /scanCount is 0, expected an integer of at least 1/],
        [{ compression: "lzma" }, /compression is "lzma", expected none, gzip, brotli or zstd/]
      ] as ReadonlyArray<readonly [any, RegExp]>) {
        const refused = yield* Effect.flip(Effect.scoped(aProcess("validated", { ...options, ...wrong })))
        assert.match(refused.message, expected)
      }
    })
  )

  it.live("memory answers what it has been told, and forgets it after its own time", () =>
    Effect.gen(function* () {
      const options = { url: inject("redisUrl"), prefix: ownPrefix(), deadline: "2 seconds" } as const
      const cache = yield* aProcess("bounded", { ...options, nearTimeToLive: "60 millis", bound: "1 minute" })
      const other = yield* aProcess("redis", options)
      const truth = new Truth()
      yield* cache.run(truth.read(1))
      assert.strictEqual((yield* cache.run(Cacheme.stats)).store.entries, 1)
      assert.strictEqual((yield* other.run(Cacheme.stats)).store.entries, 0)
      // Redis has it no more, and has not said so.
      const client = yield* aClient(options.url)
      const { storedAs } = yield* cache.run(Cacheme.explain(new Item({ id: 1 })))
      assert.strictEqual(yield* Effect.promise(() => client.del(storedAs)), 1)
      yield* until(
        "memory has forgotten it",
        Effect.map(cache.run(truth.read(1)), () => truth.count === 2)
      )
    })
  )

  it.live(
    "bounded: what another process has written is seen after the bound, though the network is cut",
    () =>
      Effect.gen(function* () {
        const bound = 600
        const { cache, other, proxy, truth } = yield* aScene({ near: "bounded", bound })
        for (const id of [1, 2]) yield* isHit(truth, cache, id)
        proxy.stall()
        const cutAt = performance.now()
        yield* other.run(truth.write(1))
        const reads: Array<{ readonly at: number; readonly version: number }> = []
        while (performance.now() < cutAt + bound + 200) {
          const at = performance.now() - cutAt
          reads.push({ at, version: yield* cache.run(truth.read(1)) })
          yield* Effect.sleep(5)
        }
        const old = reads.filter(({ version }) => version === 0)
        assert.isNotEmpty(old, "memory is believed for a while")
        assert.deepStrictEqual(
          old.filter(({ at }) => at > bound),
          []
        )
        // It was believed without asking: a read costs nothing, though nobody answers.
        assert.isAbove(old.length, 5)
        proxy.resume()
        yield* isUp(cache)
        assert.strictEqual(yield* cache.run(truth.read(1)), 1)
      })
  )

  it.live("bounded: what it has written itself is seen at once, though Redis is away", () =>
    Effect.gen(function* () {
      const { cache, proxy, truth } = yield* aScene({ near: "bounded", bound: "1 minute" })
      for (const id of [1, 2, 3]) yield* isHit(truth, cache, id)
      proxy.stall()
      assert.strictEqual((yield* cache.run(truth.write(1))).position, undefined)
      assert.strictEqual(yield* cache.run(truth.read(1)), 1)
      // Memory has the others still.
      const before = truth.count
      assert.deepStrictEqual(yield* cache.run(Effect.all([truth.read(2), truth.read(3)])), [0, 0])
      assert.strictEqual(truth.count, before)
      // What was computed meanwhile is not kept: it cannot be known how good it is.
      yield* cache.run(truth.write(2))
      for (let i = 0; i < 3; i++) assert.strictEqual(yield* cache.run(truth.read(2)), 1)
      assert.strictEqual(truth.count, before + 3)
      proxy.resume()
      yield* isUp(cache)
      assert.deepStrictEqual(yield* cache.run(Effect.all([truth.read(1), truth.read(2)])), [1, 1])
    })
  )

  it.live("validated: computes while Redis is away, and asks nothing of memory", () =>
    Effect.gen(function* () {
      const { cache, other, proxy, truth } = yield* aScene({ near: "validated" })
      yield* isHit(truth, cache, 1)
      yield* Effect.promise(proxy.refuse)
      yield* isDown(cache)
      yield* other.run(truth.write(1))
      assert.strictEqual(yield* cache.run(truth.read(1)), 1)
      assert.deepStrictEqual(yield* cache.run(Cacheme.peek(new Item({ id: 1 }))), Option.none())
      yield* Effect.promise(proxy.accept)
      yield* isUp(cache)
      assert.strictEqual(yield* cache.run(truth.read(1)), 1)
    })
  )

  it.live("many readers of memory share one question to Redis", () =>
    Effect.gen(function* () {
      const { cache, truth, redis } = yield* aScene({ near: "validated", deadline: "2 seconds" })
      const ids = Array.from({ length: 200 }, (_, id) => id)
      yield* cache.run(Effect.forEach(ids, (id) => truth.read(id), { concurrency: "unbounded" }))
      assert.strictEqual((yield* cache.run(Cacheme.stats)).store.entries, 200)
      const client = yield* aClient(redis.url)
      const questions = Effect.promise(async () => {
        const stats = await client.info("commandstats")
        const calls = [...stats.matchAll(/^cmdstat_m?get:calls=(\d+)/gm)].map(([, n]) => Number(n))
        return calls.reduce((a, b) => a + b, 0)
      })
      const before = yield* questions
      yield* cache.run(Effect.forEach(ids, (id) => truth.read(id), { concurrency: "unbounded" }))
      assert.strictEqual(truth.count, 200)
      // The scripts that look at the log ask for the position, too, and memory is validated now and then by itself.
      assert.isAtMost((yield* questions) - before, 6)
    })
  )

  for (const near of ["validated", "bounded"] as const) {
    it.live(
      `${near}: a lookup that an undelivered invalidation has overtaken is given to nobody who came after it`,
      () =>
        Effect.gen(function* () {
          const { cache, proxy, truth } = yield* aScene({ near, bound: "1 minute", lease: "500 millis" })
          yield* isHit(truth, cache, 2)
          const goOn = yield* Deferred.make<void>()
          const first = yield* fork(cache.run(truth.read(1, Deferred.await(goOn))))
          yield* until(
            "the lookup runs",
            Effect.sync(() => truth.running === 1)
          )
          // The write cannot be told to Redis in time, but the link is up: one failure is none.
          proxy.stall()
          assert.strictEqual((yield* cache.run(truth.write(1))).position, undefined)
          const second = yield* fork(cache.run(truth.read(1)))
          yield* Deferred.succeed(goOn, undefined)
          proxy.resume()
          assert.strictEqual(yield* Fiber.join(first), 0)
          assert.strictEqual(yield* Fiber.join(second), 1)
          for (let i = 0; i < 20; i++) assert.strictEqual(yield* cache.run(truth.read(1)), 1)
          yield* isUp(cache)
          assert.strictEqual(yield* cache.run(truth.read(1)), 1)
        })
    )

    it.live(`${near}: an answer that was read while its invalidation was under way is not kept`, () =>
      Effect.gen(function* () {
        const { cache, other, proxy, truth } = yield* aScene({ near, bound: "1 minute", deadline: 300 })
        yield* isHit(truth, other, 1)
        yield* isHit(truth, cache, 2)
        // Its reply comes after the invalidation was begun, which is not answered in time.
        proxy.delayReplies(100)
        const reading = yield* fork(cache.run(truth.read(1)))
        yield* Effect.sleep(20)
        const writing = yield* fork(cache.run(truth.write(1)))
        yield* Fiber.join(reading)
        proxy.holdReplies()
        const { position } = yield* Fiber.join(writing)
        assert.isUndefined(position)
        assert.strictEqual(yield* cache.run(truth.read(1)), 1)
        proxy.delayReplies(0)
        proxy.releaseReplies()
        yield* isUp(cache)
        assert.strictEqual(yield* cache.run(truth.read(1)), 1)
      })
    )
  }
})
