import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Schema, Stream } from "effect"
import type { Redis } from "ioredis"
import { afterAll, beforeAll } from "vitest"
import { Cacheme, type CachemeError, Node } from "../../src/index.ts"
import {
  aClient,
  aProcess,
  aProxy,
  aRedis,
  aServerThatSays,
  isDown,
  isHit,
  isUp,
  Item,
  Shelf,
  statusOf,
  timed,
  Truth,
  until
} from "../support/outages.ts"
import { freePort } from "../support/redis.ts"
import { sharedStores } from "../support/shared.ts"

/**
 * Redis is down, refused, black-holed or held while a program runs: everything computes, nothing fails or hangs, writes
 * are kept until they are delivered, and the cache comes back by itself.
 */
const rejections: Array<unknown> = []
const noteRejection = (reason: unknown) => void rejections.push(reason)
beforeAll(() => void process.on("unhandledRejection", noteRejection))
afterAll(() => {
  process.off("unhandledRejection", noteRejection)
  assert.deepStrictEqual(rejections, [])
})

const deadline = 100

const positionIn = (client: Redis, prefix = "CM:") =>
  Effect.promise(() => client.get(`${prefix}1:{0}:position`))

const fork = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.forkChild(self, { startImmediately: true })

describe("Redis is down at the start", () => {
  class Bounded extends Node.Class<Bounded>()("bounded", {
    key: { id: Schema.Int },
    value: Schema.Int,
    lookup: { concurrency: 2 }
  }) {}

  it.live(
    "the program starts with a warning, everything computes, and the cache works once Redis is there",
    () =>
      Effect.gen(function* () {
        const port = yield* Effect.promise(freePort)
        const url = `redis://127.0.0.1:${port}`
        const cache = yield* aProcess("validated", { url, connectTimeout: "200 millis" })
        assert.match(
          cache.logs.join("\n"),
          /Warn: cacheme: Redis at 127.0.0.1:\d+ is away \(.*ECONNREFUSED.*\)/
        )
        const truth = new Truth()
        // Nothing but the cache is needed, and nothing fails.
        const read: Effect.Effect<number, never, Cacheme> = truth.read(1)
        assert.deepStrictEqual(yield* cache.run(Effect.all([read, read])), [0, 0])
        assert.strictEqual(truth.lookups.get(1), 2)
        assert.strictEqual((yield* cache.run(Cacheme.explain(new Item({ id: 1 })))).reason._tag, "Away")
        const status = yield* statusOf(cache)
        assert.deepInclude(status, { state: "down", pending: 0, log: undefined })
        assert.include(status.why, "ECONNREFUSED")
        yield* aRedis({ port })
        yield* isUp(cache)
        yield* isHit(truth, cache, 1)
        assert.match(cache.logs.join("\n"), /Info: cacheme: Redis at .* is up after/)
      })
  )

  it.live("a herd shares lookups, and no more of them run at once than the node allows", () =>
    Effect.gen(function* () {
      const port = yield* Effect.promise(freePort)
      const url = `redis://127.0.0.1:${port}`
      const cache = yield* aProcess("bounded", { url, connectTimeout: "50 millis" })
      const truth = new Truth()
      const goOn = yield* Deferred.make<void>()
      const herd = yield* fork(
        cache.run(
          Effect.forEach(Array(200), () => truth.read(1, Deferred.await(goOn)), { concurrency: "unbounded" })
        )
      )
      yield* until(
        "the first lookup runs",
        Effect.sync(() => truth.running === 1)
      )
      yield* Deferred.succeed(goOn, undefined)
      yield* Fiber.join(herd)
      // Those who came while the first one ran share a second: what others have written meanwhile cannot be told.
      assert.isAtMost(truth.count, 2)

      const ids = Array.from({ length: 20 }, (_, id) => id)
      const bounded = (id: number) =>
        Effect.map(truth.lookup(id, Effect.sleep(2)), ({ version }) => version).pipe(
          Cacheme.memoize(new Bounded({ id }))
        )
      truth.most = 0
      yield* cache.run(Effect.forEach(ids, bounded, { concurrency: "unbounded" }))
      assert.strictEqual(truth.most, 2)
    })
  )

  it.live("required, it keeps the program from starting, and the error says what to do", () =>
    Effect.gen(function* () {
      const url = `redis://:secret@127.0.0.1:${yield* Effect.promise(freePort)}`
      const error: CachemeError = yield* Effect.flip(
        aProcess("validated", { url, required: true, connectTimeout: "100 millis" })
      )
      assert.strictEqual(error.reason._tag, "StoreUnavailable")
      assert.match(
        error.message,
        /Redis at 127.0.0.1:\d+ cannot be used: .*ECONNREFUSED.*; expected a server/
      )
      assert.notInclude(error.message, "secret")
    })
  )

  it.live("a server that accepts and never answers is down, too", () =>
    Effect.gen(function* () {
      const url = yield* aServerThatSays(() => "")
      const [cache, took] = yield* timed(aProcess("redis", { url, connectTimeout: "200 millis" }))
      assert.isBelow(took, 1500)
      assert.match(cache.logs.join("\n"), /Warn: cacheme: Redis at .* is away/)
      assert.strictEqual(yield* cache.run(new Truth().read(1)), 0)
    })
  )
})

describe("Redis goes away while reads run", () => {
  for (const [harm, hurt, heal] of [
    ["killed", ({ redis }) => redis.kill(), ({ redis }) => redis.restart()],
    ["refused", ({ proxy }) => proxy.refuse(), ({ proxy }) => proxy.accept()],
    ["black-holed", async ({ proxy }) => proxy.stall(), async ({ proxy }) => proxy.resume()],
    ["held by SIGSTOP", async ({ redis }) => redis.pause(), async ({ redis }) => redis.resume()]
  ] as ReadonlyArray<readonly [string, Harm, Harm]>) {
    it.live(`${harm}: no read fails, three pay a deadline, the others nothing; it heals by itself`, () =>
      Effect.gen(function* () {
        // So long that a busy machine is not taken for it.
        const deadline = 300
        const redis = yield* aRedis()
        const proxy = yield* aProxy(redis)
        const cache = yield* aProcess("validated", { url: proxy.url, deadline })
        const truth = new Truth()
        yield* isHit(truth, cache, 1)
        yield* Effect.promise(() => hurt({ redis, proxy }))
        const before = truth.count
        const reads: Array<number> = []
        const [, took] = yield* timed(
          Effect.gen(function* () {
            for (let i = 0; i < 200; i++) {
              const [version, ms] = yield* timed(cache.run(truth.read(1)))
              assert.strictEqual(version, 0)
              reads.push(ms)
              yield* Effect.yieldNow
            }
          })
        )
        assert.strictEqual(truth.count - before, 200)
        const waited = reads.filter((ms) => ms > deadline * 0.9)
        // One read may pay for its look and for its lease.
        assert.isAtMost(waited.length, 3)
        assert.isAtMost(took, 3 * deadline + 2000)
        assert.strictEqual((yield* statusOf(cache)).state, "down")
        yield* Effect.promise(() => heal({ redis, proxy }))
        yield* isUp(cache)
        yield* isHit(truth, cache, 1)
      })
    )
  }

  it.live("a stall of a second costs a thousand readers at once no more than it costs one", () =>
    Effect.gen(function* () {
      const redis = yield* aRedis()
      const proxy = yield* aProxy(redis)
      const cache = yield* aProcess("redis", { url: proxy.url, deadline })
      const truth = new Truth()
      yield* isHit(truth, cache, 1)
      proxy.stall()
      const [, took] = yield* timed(
        cache.run(
          Effect.forEach(
            Array.from({ length: 1000 }, (_, i) => i % 50),
            (id) => truth.read(id),
            {
              concurrency: "unbounded"
            }
          )
        )
      )
      // The look and the lease, and once more for those who joined a flight.
      assert.isAtMost(took, 4 * deadline + 2000)
      proxy.resume()
      yield* isUp(cache)
    })
  )

  it.live("replies that come late are as good as none, and none of them is taken for another's", () =>
    Effect.gen(function* () {
      const redis = yield* aRedis()
      const proxy = yield* aProxy(redis)
      const cache = yield* aProcess("redis", { url: proxy.url, deadline })
      const truth = new Truth()
      for (let id = 0; id < 10; id++) {
        truth.versions.set(id, id)
        yield* isHit(truth, cache, id)
      }
      proxy.delayReplies(1.5 * deadline)
      for (let id = 0; id < 10; id++) assert.strictEqual(yield* cache.run(truth.read(id)), id)
      proxy.delayReplies(0)
      yield* isUp(cache)
      for (let id = 0; id < 10; id++) {
        assert.strictEqual(yield* cache.run(truth.read(id)), id)
        yield* isHit(truth, cache, id)
      }
    })
  )
})

describe.concurrent("leases that Redis was to keep while it was away", () => {
  it.live("one that was asked for in vain keeps nobody waiting afterwards", () =>
    Effect.gen(function* () {
      const redis = yield* aRedis()
      const proxy = yield* aProxy(redis)
      const cache = yield* aProcess("redis", { url: proxy.url, deadline, lease: "3 seconds" })
      const other = yield* aProcess("redis", { url: redis.url, deadline: "2 seconds" })
      const truth = new Truth()
      yield* isHit(truth, cache, 1)
      proxy.stall()
      // Asked for, computed, and not stored; Redis hears of it later.
      assert.strictEqual(yield* cache.run(truth.read(2)), 0)
      proxy.resume()
      yield* isUp(cache)
      for (const { run } of [cache, other]) {
        const [, took] = yield* timed(run(truth.read(2)))
        assert.isBelow(took, 1000)
      }
    })
  )

  it.live("one that was held when Redis went keeps nobody waiting afterwards", () =>
    Effect.gen(function* () {
      const redis = yield* aRedis()
      const proxy = yield* aProxy(redis)
      const cache = yield* aProcess("redis", { url: proxy.url, deadline, lease: "3 seconds" })
      const other = yield* aProcess("redis", { url: redis.url, deadline: "2 seconds" })
      const truth = new Truth()
      const goOn = yield* Deferred.make<void>()
      const reading = yield* fork(cache.run(truth.read(1, Deferred.await(goOn))))
      yield* until(
        "the lookup runs",
        Effect.sync(() => truth.running === 1)
      )
      yield* Effect.promise(proxy.refuse)
      yield* isDown(cache)
      yield* Deferred.succeed(goOn, undefined)
      yield* Fiber.join(reading)
      yield* Effect.promise(proxy.accept)
      yield* isUp(cache)
      for (const { run } of [cache, other]) {
        const [, took] = yield* timed(run(truth.read(1)))
        assert.isBelow(took, 1000)
      }
    })
  )
})

interface Scene {
  readonly redis: Effect.Success<ReturnType<typeof aRedis>>
  readonly proxy: Effect.Success<ReturnType<typeof aProxy>>
}
type Harm = (scene: Scene) => Promise<void>

describe("invalidations while Redis is away", () => {
  for (const kind of sharedStores) {
    it.live(`${kind}: they wait, are told of, and are delivered before anything is served`, () =>
      Effect.gen(function* () {
        const redis = yield* aRedis()
        const proxy = yield* aProxy(redis)
        const writer = yield* aProcess(kind, { url: proxy.url, deadline })
        const other = yield* aProcess(kind, { url: redis.url, deadline: "2 seconds" })
        const truth = new Truth()
        yield* isHit(truth, writer, 1)
        yield* isHit(truth, other, 1)
        const heard = yield* fork(other.run(Stream.runCollect(Stream.take(Cacheme.events, 2))))

        yield* Effect.promise(proxy.refuse)
        const [report, took] = yield* timed(writer.run(truth.write(1)))
        assert.isBelow(took, 3 * deadline + 1000)
        assert.deepInclude(report, { position: undefined, pending: 1 })
        assert.isAbove((yield* statusOf(writer)).pending, 0)
        assert.match(
          writer.logs.join("\n"),
          /Warn: cacheme: an invalidation could not be delivered; it is kept/
        )
        // A mutation has succeeded, whatever the cache can do.
        const mutated = yield* writer.run(Effect.succeed("done").pipe(Cacheme.mutation(new Shelf({ id: 2 }))))
        assert.strictEqual(mutated, "done")
        assert.strictEqual((yield* statusOf(writer)).pending, 2)

        // From here on, whatever the link does, the writer never has the old answer.
        const seen = new Set<number>()
        const reading = yield* fork(
          Effect.forever(
            Effect.tap(writer.run(truth.read(1)), (version) => {
              seen.add(version)
              return Effect.sleep(1)
            })
          )
        )
        yield* Effect.promise(proxy.accept)
        const events = yield* Fiber.join(heard)
        assert.sameDeepMembers(
          events.map(({ cause, tags }) => [cause, tags]),
          [
            ["call", [new Shelf({ id: 1 }).id]],
            ["mutation", [new Shelf({ id: 2 }).id]]
          ]
        )
        assert.strictEqual(yield* other.run(truth.read(1)), 1)
        yield* isUp(writer)
        yield* isHit(truth, writer, 1)
        yield* Fiber.interrupt(reading)
        assert.deepStrictEqual([...seen], [1])
        assert.match(writer.logs.join("\n"), /Info: cacheme: 2 invalidations that had waited were delivered/)
      })
    )
  }

  it.live("too many to keep become one of everything", () =>
    Effect.gen(function* () {
      const redis = yield* aRedis()
      const proxy = yield* aProxy(redis)
      const writer = yield* aProcess("validated", { url: proxy.url, deadline: "1 second" })
      const other = yield* aProcess("validated", { url: redis.url, deadline: "2 seconds" })
      const truth = new Truth()
      yield* isHit(truth, other, 1)
      yield* Effect.promise(proxy.refuse)
      yield* isDown(writer)
      const keys = Array.from({ length: 100_001 }, (_, i) => `nothing:${i}`)
      assert.strictEqual((yield* writer.run(Cacheme.invalidate({ keys }))).pending, 1)
      truth.versions.set(1, 1)
      yield* Effect.promise(proxy.accept)
      yield* isUp(writer)
      assert.strictEqual(yield* other.run(truth.read(1)), 1)
    })
  )

  it.live("one that was applied, but not acknowledged in time, is delivered once more", () =>
    Effect.gen(function* () {
      const redis = yield* aRedis()
      const proxy = yield* aProxy(redis)
      const client = yield* aClient(redis.url)
      const writer = yield* aProcess("validated", { url: proxy.url, deadline })
      const truth = new Truth()
      yield* isHit(truth, writer, 1)
      const before = yield* positionIn(client)
      proxy.holdReplies()
      const report = yield* writer.run(truth.write(1))
      assert.deepInclude(report, { position: undefined, pending: 1 })
      const applied = yield* positionIn(client)
      assert.notStrictEqual(applied, before)
      proxy.releaseReplies()
      yield* isUp(writer)
      assert.notStrictEqual(yield* positionIn(client), applied)
      assert.strictEqual(yield* writer.run(truth.read(1)), 1)
      yield* isHit(truth, writer, 1)
    })
  )

  for (const [when, hold, isSent] of [
    ["after it was applied", "holdReplies", true],
    ["before it was heard", "stall", false]
  ] as const) {
    it.live(`one whose connection is cut ${when} is not acknowledged, and not lost`, () =>
      Effect.gen(function* () {
        const redis = yield* aRedis()
        const proxy = yield* aProxy(redis)
        const client = yield* aClient(redis.url)
        const writer = yield* aProcess("redis", { url: proxy.url, deadline: "2 seconds" })
        const other = yield* aProcess("redis", { url: redis.url, deadline: "2 seconds" })
        const truth = new Truth()
        yield* isHit(truth, writer, 1)
        yield* isHit(truth, other, 1)
        const before = yield* positionIn(client)
        proxy[hold]()
        const writing = yield* fork(writer.run(truth.write(1)))
        if (isSent)
          yield* until(
            "it is applied",
            Effect.map(positionIn(client), (now) => now !== before)
          )
        else yield* Effect.sleep(10)
        proxy.cut()
        assert.deepInclude(yield* Fiber.join(writing), { position: undefined, pending: 1 })
        proxy.resume()
        proxy.releaseReplies()
        yield* isUp(writer)
        assert.strictEqual(yield* other.run(truth.read(1)), 1)
        assert.strictEqual(yield* writer.run(truth.read(1)), 1)
      })
    )
  }

  it.live("those that nobody could deliver are told of when the cache is closed", () =>
    Effect.gen(function* () {
      const redis = yield* aRedis()
      const writer = yield* aProcess("redis", { url: redis.url, deadline })
      yield* Effect.promise(redis.kill)
      yield* isDown(writer)
      yield* writer.run(new Truth().write(1))
      const before = writer.logs.length
      yield* writer.close
      assert.match(writer.logs.slice(before).join("\n"), /(Warn|Error): .*1 invalidation/i)
    })
  )
})

describe("closing while Redis is away", () => {
  for (const [harm, hurt] of [
    ["stalled", async ({ proxy }) => proxy.stall()],
    ["killed", ({ redis }) => redis.kill()],
    ["held", async ({ redis }) => redis.pause()]
  ] as ReadonlyArray<readonly [string, Harm]>) {
    it.live(`${harm}: it takes a few deadlines, and nothing is left running`, () =>
      Effect.gen(function* () {
        const redis = yield* aRedis()
        const proxy = yield* aProxy(redis)
        const cache = yield* aProcess("bounded", { url: proxy.url, deadline })
        const truth = new Truth()
        yield* isHit(truth, cache, 1)
        yield* Effect.promise(() => hurt({ redis, proxy }))
        const reading = yield* fork(cache.run(truth.read(2)))
        const writing = yield* fork(Effect.exit(cache.run(truth.write(1))))
        const [, took] = yield* timed(cache.close)
        assert.isBelow(took, 4 * deadline + 2000)
        yield* Fiber.await(reading)
        yield* Fiber.await(writing)
        yield* until(
          "no connection is open",
          Effect.sync(() => proxy.connections() === 0)
        )
      })
    )
  }
})
