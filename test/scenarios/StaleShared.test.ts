import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Exit, Latch, Option, Schema, type Scope } from "effect"
import { TestClock } from "effect/testing"
import { Cacheme, Node, Tag } from "../../src/index.ts"
import { type Process, startProcesses, until } from "../support/processes.ts"
import { type SharedStore, sharedStores } from "../support/shared.ts"

/**
 * Stale answers in processes that share a cache: only where they are asked for, within their windows, and refreshed
 * once in all.
 */
class Price extends Tag.Class<Price>()("price", { id: Schema.Int }) {}
class Offer extends Node.Class<Offer>()("offer", {
  key: { id: Schema.Int },
  value: Schema.Int,
  timeToLive: "10 seconds",
  tags: ({ id }) => new Price({ id })
}) {}
const offer = new Offer({ id: 1 })

/** Lookups over all processes, which answer their number. */
class Source {
  runs = 0
  fails = false
  /** Lookups wait while it is closed. */
  readonly gate = Latch.makeUnsafe(true)
  readonly lookup = Effect.suspend(() => {
    const run = ++this.runs
    return Effect.andThen(
      this.gate.await,
      Effect.suspend(() => (this.fails ? Effect.fail("down" as const) : Effect.succeed(run)))
    )
  })
  readonly ask = (overrides: Node.Overrides = {}) => this.lookup.pipe(Cacheme.memoize(offer, overrides))
}

const statsOf = (process: Process) => Effect.map(process(Cacheme.stats), ({ nodes }) => nodes[0]!)

const each = (name: string, body: (kind: SharedStore) => Effect.Effect<void, unknown, Scope.Scope>) => {
  for (const kind of sharedStores) it.effect(`${name} (${kind})`, () => Effect.scoped(body(kind)), 10_000)
}

const eachLive = (name: string, body: (kind: SharedStore) => Effect.Effect<void, unknown, Scope.Scope>) => {
  for (const kind of sharedStores) it.live(`${name} (${kind})`, () => Effect.scoped(body(kind)), 10_000)
}

describe("stale.whileRevalidate", () => {
  const stale = { whileRevalidate: "1 minute" } as const

  each("gives what another process has found, while one of all refreshes it", (kind) =>
    Effect.gen(function* () {
      const processes = yield* startProcesses(kind)
      const [a, b] = processes
      const source = new Source()
      const ask = source.ask({ stale })
      yield* a(ask)
      yield* b(ask)
      yield* TestClock.adjust("10 seconds")
      source.gate.closeUnsafe()
      for (let i = 0; i < 5; i++) for (const process of processes) assert.strictEqual(yield* process(ask), 1)
      yield* until(Effect.sync(() => source.runs === 2))
      // It is not taken for a fresh one, neither in Redis nor in memory.
      for (const process of processes) {
        assert.isTrue(Option.isNone(yield* process(Cacheme.peek(offer))))
        const { reason } = yield* process(Cacheme.explain(offer))
        assert.strictEqual(reason._tag, "Expired")
        assert.deepInclude(yield* statsOf(process), { stale: 5, hits: process === b ? 1 : 0 })
      }
      yield* source.gate.open
      yield* until(Effect.map(b(Cacheme.peek(offer)), Option.isSome))
      for (const process of processes) assert.strictEqual(yield* process(ask), 2)
      assert.strictEqual(source.runs, 2)
    })
  )

  each("not beyond its window, which is told by whoever looks", (kind) =>
    Effect.gen(function* () {
      class Wide extends Node.Class<Wide>()("wide", {
        key: {},
        value: Schema.Int,
        timeToLive: "10 seconds",
        stale
      }) {}
      const [a, b, c] = yield* startProcesses(kind)
      yield* a(Effect.succeed(1).pipe(Cacheme.memoize(new Wide())))
      yield* TestClock.adjust("69999 millis")
      const { stale: left, answered } = yield* c(Cacheme.explain(new Wide()))
      assert.deepStrictEqual([left, answered], [{ atOnce: 1, ifError: 1 }, true])
      assert.strictEqual(yield* b(Effect.succeed(2).pipe(Cacheme.memoize(new Wide(), { skip: false }))), 1)
      yield* until(Effect.map(a(Cacheme.peek(new Wide())), Option.isSome))
      yield* TestClock.adjust("70 seconds")
      assert.strictEqual(yield* c(Effect.succeed(3).pipe(Cacheme.memoize(new Wide()))), 3)
    })
  )

  each("an answer that rests on a stale one is never kept", (kind) =>
    Effect.gen(function* () {
      class Page extends Node.Class<Page>()("page", { key: {}, value: Schema.String }) {}
      const [a, b] = yield* startProcesses(kind)
      const source = new Source()
      const page = source.ask({ stale }).pipe(
        Effect.map((n) => `offer ${n}`),
        Cacheme.memoize(new Page())
      )
      yield* a(source.ask({ stale }))
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(yield* b(page), "offer 1")
      for (const process of [a, b]) assert.isTrue(Option.isNone(yield* process(Cacheme.peek(new Page()))))
      yield* until(Effect.map(a(Cacheme.peek(offer)), Option.isSome))
      assert.strictEqual(yield* a(page), "offer 2")
      assert.strictEqual(yield* b(page), "offer 2")
    })
  )
})

describe("stale.afterInvalidation", () => {
  const stale = { afterInvalidation: "400 millis" } as const

  eachLive("gives an invalidated answer within its window, also after a long silence", (kind) =>
    Effect.gen(function* () {
      const [a, b] = yield* startProcesses(kind)
      const source = new Source()
      const ask = source.ask({ stale, timeToLive: "1 hour" })
      yield* a(ask)
      yield* b(ask)
      // Nothing is invalidated for longer than the window.
      yield* Effect.sleep("500 millis")
      source.gate.closeUnsafe()
      yield* a(Cacheme.invalidate(new Price({ id: 1 })))
      yield* until(Effect.map(b(Cacheme.stats), ({ store }) => store.shared!.mirror === 1))
      const asked = yield* Effect.forkChild(Effect.all([a(ask), b(ask)]), { startImmediately: true })
      yield* until(Effect.sync(() => asked.pollUnsafe() !== undefined || source.runs === 2))
      yield* Effect.sleep("20 millis")
      const answers = asked.pollUnsafe()
      assert.isTrue(Option.isNone(yield* b(Cacheme.peek(offer))))
      yield* source.gate.open
      assert.deepStrictEqual(answers, Exit.succeed([1, 1]))
      yield* until(Effect.map(b(Cacheme.peek(offer)), Option.isSome))
      for (const process of [a, b]) assert.strictEqual(yield* process(ask), 2)
      assert.strictEqual(source.runs, 2)
    })
  )

  eachLive("never beyond it, also when it is invalidated again", (kind) =>
    Effect.gen(function* () {
      const [a, b, c] = yield* startProcesses(kind)
      const source = new Source()
      const ask = source.ask({ stale, timeToLive: "1 hour" })
      for (const process of [a, b]) yield* process(ask)
      source.fails = true
      yield* a(Cacheme.invalidate(new Price({ id: 1 })))
      const at = yield* Clock.currentTimeMillis
      for (const wait of [200, 100]) {
        yield* Effect.sleep(wait)
        yield* b(Cacheme.invalidate([new Price({ id: 1 }), offer]))
      }
      yield* Effect.sleep(at + 405 - (yield* Clock.currentTimeMillis))
      for (const process of [a, b, c]) assert.strictEqual(yield* Effect.flip(process(ask)), "down")
    })
  )
})

describe("stale.ifError", () => {
  const stale = { ifError: "1 minute" } as const

  each("gives another process's aged answer when the lookup fails, and only then", (kind) =>
    Effect.gen(function* () {
      const [a, b, c] = yield* startProcesses(kind)
      const source = new Source()
      const ask = source.ask({ stale })
      yield* a(ask)
      yield* TestClock.adjust("10 seconds")
      source.fails = true
      assert.strictEqual(yield* b(ask), 1)
      assert.isTrue(Option.isNone(yield* b(Cacheme.peek(offer))))
      assert.deepInclude(yield* statsOf(b), { stale: 1, failures: 1 })
      source.fails = false
      assert.strictEqual(yield* c(ask), 3)
      assert.strictEqual(yield* b(ask), 3)
      yield* TestClock.adjust("70 seconds")
      source.fails = true
      assert.strictEqual(yield* Effect.flip(b(ask)), "down")
    })
  )

  each("not an invalidated one, unless afterInvalidation allows it too", (kind) =>
    Effect.gen(function* () {
      const [a, b, c] = yield* startProcesses(kind)
      const source = new Source()
      yield* a(source.ask({ stale }))
      yield* c(Cacheme.invalidate(new Price({ id: 1 })))
      source.fails = true
      if (kind === "bounded")
        yield* until(Effect.map(Effect.exit(a(source.ask({ stale }))), (exit) => exit._tag === "Failure"))
      assert.strictEqual(yield* Effect.flip(a(source.ask({ stale }))), "down")
      assert.strictEqual(yield* Effect.flip(b(source.ask({ stale }))), "down")
    })
  )

  each("a lookup that takes too long goes on, while the stale answer is given", (kind) =>
    Effect.gen(function* () {
      const [a, b] = yield* startProcesses(kind)
      const source = new Source()
      const ask = source.ask({ stale, lookup: { softTimeout: "1 second" } })
      yield* a(ask)
      yield* TestClock.adjust("10 seconds")
      source.gate.closeUnsafe()
      const asked = yield* Effect.forkChild(b(ask), { startImmediately: true })
      yield* until(Effect.sync(() => source.runs === 2))
      yield* TestClock.adjust("1 second")
      yield* until(Effect.sync(() => asked.pollUnsafe() !== undefined))
      assert.deepStrictEqual(asked.pollUnsafe(), Exit.succeed(1))
      yield* source.gate.open
      yield* until(Effect.map(a(Cacheme.peek(offer)), Option.isSome))
      assert.deepStrictEqual([yield* a(ask), yield* b(ask), source.runs], [2, 2, 2])
    })
  )
})

describe("what is fresh", () => {
  each("is looked up ahead of its end once in all, and given meanwhile", (kind) =>
    Effect.gen(function* () {
      const processes = yield* startProcesses(kind)
      const [a] = processes
      const source = new Source()
      const ask = source.ask({ refresh: { ahead: 1e9 } })
      source.gate.closeUnsafe()
      const first = yield* Effect.forkChild(a(ask), { startImmediately: true })
      yield* until(Effect.sync(() => source.runs === 1))
      yield* TestClock.adjust("10 millis")
      yield* source.gate.open
      yield* until(Effect.sync(() => first.pollUnsafe() !== undefined))
      source.gate.closeUnsafe()
      yield* TestClock.adjust("1 second")
      for (let i = 0; i < 3; i++) for (const process of processes) assert.strictEqual(yield* process(ask), 1)
      yield* until(Effect.sync(() => source.runs === 2))
      yield* source.gate.open
      // The refreshes of the others end with what the one has found.
      for (const process of processes) {
        yield* until(Effect.map(process(Cacheme.explain(offer)), ({ lookupRunning }) => !lookupRunning))
        // Nothing was invalidated, so memory may give the earlier one for as long as it is fresh.
        yield* until(Effect.map(process(source.ask()), (answer) => answer === 2))
      }
      assert.strictEqual(source.runs, 2)
    })
  )

  each("may be a failure that the node declares", (kind) =>
    Effect.gen(function* () {
      class Gone extends Schema.TaggedError<Gone>()("Gone", { id: Schema.Int }) {}
      class Thing extends Node.Class<Thing>()("thing", {
        key: { id: Schema.Int },
        value: Schema.Int,
        error: Gone,
        timeToLive: "10 seconds"
      }) {}
      const [a, b, c] = yield* startProcesses(kind)
      let runs = 0
      const ask = Effect.suspend(() => {
        runs++
        return Effect.fail(new Gone({ id: 7 }))
      }).pipe(Cacheme.memoize(new Thing({ id: 7 })))
      for (const process of [a, b, c, a, b]) {
        const gone = yield* Effect.flip(process(ask))
        assert.instanceOf(gone, Gone)
        assert.strictEqual(gone.id, 7)
      }
      assert.strictEqual(runs, 1)
      assert.instanceOf(yield* Effect.flip(c(Cacheme.peek(new Thing({ id: 7 })))), Gone)
      yield* c(Cacheme.invalidate(Thing))
      yield* c(Effect.flip(ask))
      assert.strictEqual(runs, 2)
    })
  )

  each("may be that a batch had no answer", (kind) =>
    Effect.gen(function* () {
      const [a, b, c] = yield* startProcesses(kind)
      let runs = 0
      const ask = Cacheme.getAll(
        [offer],
        () => Effect.sync(() => (runs++, [] as ReadonlyArray<readonly [Offer, number]>)),
        { absent: "5 seconds" }
      )
      for (const process of [a, b, c, a, b]) assert.deepStrictEqual(yield* process(ask), [Option.none()])
      assert.strictEqual(runs, 1)
      assert.strictEqual((yield* b(Cacheme.explain(offer))).reason._tag, "NoAnswer")
      assert.isTrue(Option.isNone(yield* b(Cacheme.peek(offer))))
      yield* TestClock.adjust("5 seconds")
      yield* c(ask)
      assert.strictEqual(runs, 2)
      // A single lookup has its own way of saying so.
      assert.strictEqual(yield* b(Effect.succeed(1).pipe(Cacheme.memoize(offer))), 1)
      assert.deepStrictEqual(yield* b(ask), [Option.some(1)])
    })
  )
})
