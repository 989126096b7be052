import { assert, describe, it } from "@effect/vitest"
import { Context, Deferred, Effect, Exit, Fiber, Layer, Metric, Option, Schema, Scope } from "effect"
import { TestClock } from "effect/testing"
import { Cacheme, CachemeError, MemoryStore, Node, type Position, Tag } from "../src/index.ts"
import { CachemeTest } from "../src/testing/index.ts"
import { Changes, CurrentTransaction } from "../src/Transaction.ts"

class Euro extends Tag.Class<Euro>()("euro") {}

class Rate extends Node.Class<Rate>()("rate", {
  key: { currency: Schema.String },
  value: Schema.Struct({ rate: Schema.Number, of: Schema.optional(Schema.String) }),
  timeToLive: "10 seconds",
  tags: ({ currency }) => (currency === "EUR" ? new Euro() : undefined)
}) {}

const eur = new Rate({ currency: "EUR" })
const fork = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.forkChild(self, { startImmediately: true })
const transaction = () => ({ readCommitted: true, changed: new Changes(), defer: () => {} })
const inTransaction = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.provideService(self, CurrentTransaction, transaction())
const peeked = Effect.map(
  Cacheme.peek(eur),
  Option.match({ onNone: () => undefined, onSome: ({ rate }) => rate })
)
const statsOf = (node: string) =>
  Effect.map(Cacheme.stats, ({ nodes }) => nodes.find((stats) => stats.node === node)!)

describe("set", () => {
  it.effect("stores the schema's value, with the node's time and tags", () =>
    Effect.gen(function* () {
      assert.isTrue(yield* Cacheme.set(eur, { rate: 1.1, excess: 1 } as { rate: number }))
      const answer = yield* Effect.die("not looked up").pipe(Cacheme.memoize(eur))
      assert.deepStrictEqual(answer, { rate: 1.1 })
      yield* TestClock.adjust("9999 millis")
      yield* CachemeTest.assertFresh(eur)
      yield* Cacheme.invalidate(new Euro())
      yield* CachemeTest.assertNotFresh(eur)
      yield* Cacheme.set(eur, { rate: 1.2 }, { timeToLive: "1 second" })
      yield* TestClock.adjust("1 second")
      yield* CachemeTest.assertNotFresh(eur)
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("refuses the answer of a lookup that is running, and what lies within the key", () =>
    Effect.gen(function* () {
      class Part extends Node.Class<Part>()("part", {
        key: { currency: Schema.String },
        value: Schema.Int,
        within: Rate
      }) {}
      const part = new Part({ currency: "EUR" })
      yield* Effect.succeed(1).pipe(Cacheme.memoize(part))
      const gate = yield* Deferred.make<void>()
      const running = yield* fork(Effect.as(Deferred.await(gate), { rate: 1 }).pipe(Cacheme.memoize(eur)))
      yield* Cacheme.set(eur, { rate: 2 })
      yield* CachemeTest.assertNotFresh(part)
      yield* Deferred.succeed(gate, undefined)
      assert.deepStrictEqual(yield* Fiber.join(running), { rate: 1 })
      assert.strictEqual(yield* peeked, 2)
      const [invalidation] = (yield* CachemeTest.invalidations).slice(-1)
      assert.deepInclude(invalidation, { keys: ["rate:EUR"], cause: "replacement" })
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("since a position: not if anything it rests on was invalidated after it", () =>
    Effect.gen(function* () {
      yield* Cacheme.set(eur, { rate: 0 })
      for (const target of [
        new Euro(),
        eur,
        Rate,
        { pattern: "r*" },
        undefined,
        new Rate({ currency: "USD" })
      ]) {
        const since = yield* Cacheme.position
        if (target !== undefined) yield* Cacheme.invalidate(target)
        const reached = target !== undefined && !(target instanceof Rate && target.currency === "USD")
        assert.strictEqual(yield* Cacheme.set(eur, { rate: 1 }, { since }), !reached)
        assert.strictEqual(yield* peeked, reached ? undefined : 1)
        assert.isFalse(yield* Cacheme.set(eur, { rate: 2 }, { since }), "the set itself has ended it")
        yield* Cacheme.set(eur, { rate: 0 })
      }
      assert.isAbove((yield* statsOf("rate")).refused.overtaken, 0)
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("a position that cannot be checked any more, or never was one here, stores nothing", () =>
    Effect.gen(function* () {
      const since = yield* Cacheme.position
      for (let i = 0; i < 12_000; i++) yield* Cacheme.invalidate({ keys: [`other:${i}`] })
      assert.isFalse(yield* Cacheme.set(eur, { rate: 1 }, { since }))
      for (const made of [-1, 1e9, Number.NaN])
        assert.isFalse(yield* Cacheme.set(eur, { rate: 1 }, { since: made as Position }))
      assert.isTrue(yield* Cacheme.set(eur, { rate: 1 }, { since: yield* Cacheme.position }))
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("stores nothing in a transaction, switched off, or where the node skips the cache", () =>
    Effect.gen(function* () {
      yield* Cacheme.set(eur, { rate: 0 })
      assert.isFalse(yield* inTransaction(Cacheme.set(eur, { rate: 1 })))
      assert.strictEqual(yield* peeked, 0)
      class Off extends Node.Class<Off>()("off", { key: {}, value: Schema.Int, skip: true }) {}
      assert.isFalse(yield* Cacheme.set(new Off(), 1))
      assert.isFalse(
        yield* Cacheme.set(eur, { rate: 1 }).pipe(Effect.provide(CachemeTest.layer({ enabled: false })))
      )
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("a value that the schema does not accept is an error that names the node and the place", () =>
    Effect.gen(function* () {
      yield* Cacheme.set(eur, { rate: 0 })
      const error = yield* Effect.flip(Cacheme.set(eur, { rate: "much" as never }))
      assert.instanceOf(error, CachemeError)
      assert.match(
        error.message,
        /the value for rate:EUR is not accepted by its schema: .*number.*\["rate"\]/
      )
      assert.strictEqual(yield* peeked, 0)
      // @ts-expect-error the value is not the node's
      const wrong = Cacheme.set(eur, { rate: "much" })
      assert.isTrue(Exit.isFailure(yield* Effect.exit(wrong)))
    }).pipe(Effect.provide(CachemeTest.layer()))
  )
})

describe("refresh", () => {
  const next = () => {
    let rate = 0
    return Effect.sync(() => ({ rate: ++rate }))
  }

  it.effect("looks up now, whatever the cache holds, and stores the answer", () =>
    Effect.gen(function* () {
      const lookup = next()
      yield* lookup.pipe(Cacheme.memoize(eur))
      assert.deepStrictEqual(yield* lookup.pipe(Cacheme.refresh(eur)), { rate: 2 })
      assert.strictEqual(yield* peeked, 2)
      assert.deepStrictEqual(yield* Cacheme.refresh(lookup, eur, { timeToLive: 0 }), { rate: 3 })
      assert.isUndefined(yield* peeked)
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("does not take the answer of a lookup that began before it", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const before = yield* fork(Effect.as(Deferred.await(gate), { rate: 1 }).pipe(Cacheme.memoize(eur)))
      assert.deepStrictEqual(yield* Effect.succeed({ rate: 2 }).pipe(Cacheme.refresh(eur)), { rate: 2 })
      yield* Deferred.succeed(gate, undefined)
      assert.deepStrictEqual(yield* Fiber.join(before), { rate: 1 })
      assert.strictEqual(yield* peeked, 2)
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("fails as the lookup does, and the earlier answer is gone", () =>
    Effect.gen(function* () {
      yield* Cacheme.set(eur, { rate: 1 })
      const failing = Effect.fail("down").pipe(Cacheme.refresh(eur, { stale: { ifError: "1 hour" } }))
      assert.strictEqual(yield* Effect.flip(failing), "down")
      assert.isUndefined(yield* peeked)
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("inside a lookup, whose answer rests on what it has invalidated: that is not stored", () =>
    Effect.gen(function* () {
      class Table extends Node.Class<Table>()("table", { key: {}, value: Schema.Number }) {}
      yield* next().pipe(
        Cacheme.refresh(eur),
        Effect.map(({ rate }) => rate),
        Cacheme.memoize(new Table())
      )
      yield* CachemeTest.assertNotFresh(new Table())
      yield* CachemeTest.assertFresh(eur)
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("in a transaction it only computes, and invalidates when that commits", () =>
    Effect.gen(function* () {
      yield* Cacheme.set(eur, { rate: 1 })
      const deferred: Array<ReadonlyArray<string>> = []
      const level = {
        ...transaction(),
        defer: (request: { keys: ReadonlyArray<string> }) => deferred.push(request.keys)
      }
      const inside = next().pipe(Cacheme.refresh(eur))
      yield* Effect.provideService(inside, CurrentTransaction, level)
      assert.deepStrictEqual(deferred, [["rate:EUR"]])
      assert.strictEqual(yield* peeked, 1)
    }).pipe(Effect.provide(CachemeTest.layer()))
  )
})

describe("stats", () => {
  it.effect("counts requests, misses by cause, lookups and how long they took, refusals by cause", () =>
    Effect.gen(function* () {
      const taking = (millis: number) => Effect.as(Effect.sleep(millis), { rate: 1 })
      const ask = (millis: number) =>
        Effect.gen(function* () {
          const asked = yield* fork(taking(millis).pipe(Cacheme.memoize(eur)))
          yield* TestClock.adjust(millis)
          return yield* Fiber.join(asked)
        })
      for (let millis = 1; millis <= 100; millis++) {
        yield* ask(millis)
        yield* Cacheme.invalidate(eur)
      }
      yield* ask(1)
      yield* ask(1)
      yield* TestClock.adjust("10 seconds")
      const overtaken = yield* fork(taking(5).pipe(Cacheme.memoize(eur)))
      yield* Cacheme.invalidate(new Euro())
      yield* TestClock.adjust(5)
      yield* Fiber.join(overtaken)
      yield* Effect.flip(Effect.fail("x").pipe(Cacheme.memoize(eur)))
      yield* Effect.succeed({ rate: "1" as never }).pipe(Cacheme.memoize(eur))
      yield* inTransaction(Effect.succeed({ rate: 1 }).pipe(Cacheme.memoize(eur)))
      const stats = yield* statsOf("rate")
      assert.deepInclude(stats, {
        requests: 106,
        hits: 1,
        misses: 104,
        bypassed: 1,
        stale: 0,
        lookups: 104,
        failures: 1,
        entries: 1,
        evictions: 0
      })
      assert.deepStrictEqual(stats.missesBy, {
        absent: 1,
        expired: 3,
        invalidated: 100,
        unreadable: 0,
        away: 0
      })
      assert.deepStrictEqual(stats.refused, { overtaken: 1, rejected: 1, faulty: 0, tooLarge: 0, failed: 0 })
      const { total, mean, p50, p99 } = stats.lookupTime
      assert.deepStrictEqual([total, p50, p99], [5056, 48, 99])
      assert.closeTo(mean, 5056 / 104, 1e-9)
      assert.deepStrictEqual(
        (yield* Cacheme.nodes).map(({ name }) => name),
        ["rate"]
      )
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("counts what had to go for want of room, but not what was of no use any more", () =>
    Effect.gen(function* () {
      for (let i = 0; i < 15; i++) yield* Cacheme.set(new Rate({ currency: `c${i}` }), { rate: i })
      assert.deepInclude(yield* statsOf("rate"), { entries: 10, evictions: 5 })
      yield* Cacheme.invalidate(Rate)
      for (let i = 0; i < 10; i++) yield* Cacheme.set(new Rate({ currency: `d${i}` }), { rate: i })
      assert.deepInclude(yield* statsOf("rate"), { entries: 10, evictions: 5 })
    }).pipe(Effect.provide(CachemeTest.layer({ capacity: 10 })))
  )

  it.effect("are metrics of Effect too, read when somebody asks, and gone with the cache", () =>
    Effect.gen(function* () {
      const registry: Metric.MetricRegistry = new Map()
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(CachemeTest.layer(), scope).pipe(
        Effect.provideService(Metric.MetricRegistry, registry)
      )
      const read = Metric.snapshotUnsafe
      const value = (id: string, cause?: string) => {
        const found = read(Context.make(Metric.MetricRegistry, registry)).find(
          (metric) => metric.id === id && metric.attributes?.["cause"] === cause
        )
        assert.strictEqual(found?.attributes?.["node"], "rate")
        return found?.state
      }
      const ask = Effect.succeed({ rate: 1 }).pipe(Cacheme.memoize(eur))
      yield* Effect.provideContext(Effect.all([ask, ask, ask]), context)
      assert.deepStrictEqual(value("cacheme_hits_total"), { count: 2, incremental: true })
      assert.deepStrictEqual(value("cacheme_misses_total", "absent"), { count: 1, incremental: true })
      assert.deepStrictEqual(value("cacheme_misses_total", "expired"), { count: 0, incremental: true })
      assert.deepStrictEqual(value("cacheme_refused_total", "overtaken"), { count: 0, incremental: true })
      assert.deepStrictEqual(value("cacheme_entries"), { value: 1 })
      yield* Effect.provideContext(ask, context)
      assert.deepStrictEqual(value("cacheme_hits_total"), { count: 3, incremental: true })
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(registry.size, 0)
    })
  )
})

describe("frozen values", () => {
  class Point extends Schema.Class<Point>("Point")({ x: Schema.Int, tags: Schema.Array(Schema.String) }) {}
  class Shape extends Node.Class<Shape>()("shape", {
    key: {},
    value: Schema.Struct({ points: Schema.Array(Point), when: Schema.Date })
  }) {}
  const ask = Effect.sync(() => ({ points: [{ x: 1, tags: ["a"] }], when: new Date(0) })).pipe(
    Cacheme.memoize(new Shape())
  )

  it.effect("in development a caller that changes what others share gets an error where it happens", () =>
    Effect.gen(function* () {
      for (const answer of [yield* ask, yield* ask]) {
        assert.instanceOf(answer.points[0], Point)
        assert.throws(() => (answer.points as Array<unknown>).push(1), TypeError)
        assert.throws(() => ((answer.points[0] as { x: number }).x = 2), TypeError)
        assert.throws(() => ((answer.points[0]!.tags as Array<string>)[0] = "b"), TypeError)
        answer.when.setTime(0)
      }
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("not in production, nor where it is switched off", () =>
    Effect.gen(function* () {
      const before = process.env["NODE_ENV"]
      for (const [environment, layer] of [
        ["production", CachemeTest.layer()],
        ["test", CachemeTest.layer({ freeze: false })]
      ] as const) {
        process.env["NODE_ENV"] = environment
        const answer = yield* ask.pipe(
          Effect.provide(layer),
          Effect.ensuring(Effect.sync(() => (process.env["NODE_ENV"] = before)))
        )
        ;(answer.points[0] as { x: number }).x = 2
        assert.strictEqual(answer.points[0]!.x, 2)
      }
    })
  )
})

describe("capacity in bytes", () => {
  class Text extends Node.Class<Text>()("text", { key: { id: Schema.Int }, value: Schema.String }) {}
  const put = (id: number, length: number) => Cacheme.set(new Text({ id }), "x".repeat(length))
  const held = Effect.map(statsOf("text"), ({ entries }) => entries)

  it.effect("bounds what the entries take together, by the documented estimate", () =>
    Effect.gen(function* () {
      // 256 for the entry, 16 + 2 · 6 for its key, 8 for its tag, 16 + 2 · 354 for the text
      for (let id = 0; id < 10; id++) yield* put(id, 354)
      assert.strictEqual(yield* held, 10)
      assert.deepInclude(yield* statsOf("text"), { evictions: 0 })
      yield* put(9, 355)
      assert.strictEqual(yield* held, 9)
    }).pipe(Effect.provide(CachemeTest.layer({ bytes: 10 * (256 + 28 + 8 + 16 + 708) })))
  )

  it.effect("an answer larger than all of it is given, not stored, and counted", () =>
    Effect.gen(function* () {
      yield* put(1, 10)
      assert.isFalse(yield* put(2, 10_000))
      const ask = Effect.succeed("x".repeat(10_000)).pipe(Cacheme.memoize(new Text({ id: 3 })))
      assert.strictEqual((yield* ask).length, 10_000)
      const { refused, entries } = yield* statsOf("text")
      assert.deepStrictEqual([refused.tooLarge, entries], [2, 1])
    }).pipe(Effect.provide(CachemeTest.layer({ bytes: "1 KiB" })))
  )

  it.effect("a size that is none is an error at start", () =>
    Effect.gen(function* () {
      for (const bytes of [0, -1, Number.NaN, "much" as never]) {
        const error = yield* Effect.flip(MemoryStore.make({ bytes }))
        assert.match(error.message, /bytes is .*, expected a size of at least 1 byte, such as "64 MiB"/)
      }
    })
  )
})
