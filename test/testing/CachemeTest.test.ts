import { assert, describe, it } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Fiber, Logger, Schedule, Schema } from "effect"
import { TestClock } from "effect/testing"
import { Cacheme, Node, Tag } from "../../src/index.ts"
import { CachemeTest, FaultyStore } from "../../src/testing/index.ts"

class Total extends Node.Class<Total>()("total", {
  key: { of: Schema.Int },
  value: Schema.Int,
  timeToLive: "10 minutes"
}) {}

class Source {
  value = 1
  readonly ask = (of: number) => Effect.sync(() => this.value).pipe(Cacheme.memoize(new Total({ of })))
}

const fork = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.forkChild(self, { startImmediately: true })
const invalidated = Effect.suspend(() => Effect.asVoid(Cacheme.invalidate(one)))
const settle = Effect.repeat(Effect.yieldNow, Schedule.recurs(10))
const one = new Total({ of: 1 })
const failure = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.exit(self), (exit) => (Exit.isFailure(exit) ? Cause.pretty(exit.cause) : "it succeeded"))

describe("CachemeTest", () => {
  it("needs nothing else: its clock stands still until it is moved", () =>
    Effect.gen(function* () {
      const { ask } = new Source()
      yield* ask(1)
      yield* TestClock.adjust("599 seconds")
      yield* CachemeTest.assertFresh(one)
      yield* TestClock.adjust("1 second")
      yield* CachemeTest.assertNotFresh(one)
    }).pipe(Effect.provide(CachemeTest.layer()), Effect.runPromise))

  it.effect("remembers lookups and invalidations", () =>
    Effect.gen(function* () {
      const { ask } = new Source()
      yield* Effect.all([ask(1), ask(2), ask(1)])
      yield* Cacheme.refresh(Effect.succeed(7), new Total({ of: 2 }))
      yield* Cacheme.getAll([new Total({ of: 1 }), new Total({ of: 3 })], (missing) =>
        Effect.succeed(missing.map((node) => [node, 3] as const))
      )
      assert.deepStrictEqual(yield* CachemeTest.lookups, ["total:1", "total:2", "total:2", "total:3"])
      yield* CachemeTest.assertLookups(Total, 4)
      yield* CachemeTest.assertLookups(one, 1)
      yield* CachemeTest.assertLookups("total:2", 2)
      const causes = Effect.map(CachemeTest.invalidations, (all) => all.map(({ cause }) => cause))
      yield* Cacheme.invalidate(one)
      assert.deepStrictEqual(yield* causes, ["replacement", "call"])
      yield* CachemeTest.forget
      assert.deepStrictEqual([yield* CachemeTest.lookups, yield* causes], [[], []])
      yield* CachemeTest.assertFresh(new Total({ of: 3 }))
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("its assertions say what was expected and what was found", () =>
    Effect.gen(function* () {
      yield* new Source().ask(1)
      assert.include(
        yield* failure(CachemeTest.assertLookups(Total, 2)),
        "total was looked up expected: 2 times, found: once"
      )
      assert.include(
        yield* failure(CachemeTest.assertLookups(one, 0)),
        "total:1 was looked up expected: 0 times, found: once"
      )
      assert.include(
        yield* failure(CachemeTest.assertNotFresh(one)),
        "total:1 is expected: not fresh, found: total:1 is answered from the cache: it is fresh for 10m"
      )
      yield* Cacheme.invalidate(one)
      assert.include(
        yield* failure(CachemeTest.assertFresh(one)),
        "expected: fresh, found: total:1 is not answered from the cache: total:1 was invalidated"
      )
    }).pipe(Effect.provide(CachemeTest.layer()))
  )
})

describe("a store that fails", () => {
  for (const operation of ["peek", "begin", "store"] as const) {
    it.effect(`in ${operation} costs the cache, not the answer; it is logged once, and heals`, () => {
      const lines: Array<unknown> = []
      const capture = Logger.layer([Logger.make(({ message }) => lines.push(message))])
      return Effect.gen(function* () {
        const source = new Source()
        yield* FaultyStore.inject(operation, "fail")
        for (source.value = 1; source.value <= 3; source.value++)
          assert.strictEqual(yield* source.ask(1), source.value)
        const all = yield* Cacheme.getAll([one], (missing) =>
          Effect.succeed(missing.map((node) => [node, 9] as const))
        )
        assert.strictEqual(all.length, 1)
        yield* Cacheme.set(one, 1)
        yield* Cacheme.invalidate(one)
        assert.deepStrictEqual(
          lines.map(String).filter((line) => line.includes("the store failed")),
          [`cacheme: the store failed in ${operation}: Error: injected: ${operation}`]
        )
        yield* FaultyStore.heal
        yield* source.ask(1)
        yield* CachemeTest.assertFresh(one)
        const {
          nodes: [stats]
        } = yield* Cacheme.stats
        if (operation === "peek") assert.isAbove(stats!.misses, 3)
        else assert.isAbove(stats!.refused.failed, 2)
      }).pipe(Effect.provide([CachemeTest.layer(), capture]))
    })
  }

  it.effect("to invalidate is a typed error, never silent, and changes no outcome of a mutation", () => {
    const lines: Array<unknown> = []
    const capture = Logger.layer([Logger.make(({ message }) => lines.push(message))])
    return Effect.gen(function* () {
      yield* new Source().ask(1)
      yield* FaultyStore.inject("invalidate", "fail")
      const error = yield* Effect.flip(Cacheme.invalidate(one))
      assert.strictEqual(error.reason._tag, "StoreFailed")
      assert.strictEqual(error.message, "the store failed in invalidate: Error: injected: invalidate")
      assert.strictEqual(yield* Effect.succeed("written").pipe(Cacheme.mutation(one)), "written")
      assert.isTrue(lines.some((line) => String(line).includes("an invalidation was not delivered")))
      assert.strictEqual(yield* Effect.succeed(5).pipe(Cacheme.refresh(one)), 5)
      yield* FaultyStore.heal
      yield* Cacheme.invalidate(one)
      yield* CachemeTest.assertNotFresh(one)
    }).pipe(Effect.provide([CachemeTest.layer(), capture]))
  })
})

describe("a store that stalls", () => {
  it.effect("in a lookup or an invalidation holds it up until it heals, and no longer", () =>
    Effect.gen(function* () {
      const { ask } = new Source()
      for (const operation of ["begin", "store", "invalidate"] as const) {
        yield* Cacheme.invalidate(one)
        yield* FaultyStore.inject(operation, "stall")
        const caller = yield* fork(operation === "invalidate" ? invalidated : Effect.asVoid(ask(1)))
        yield* settle
        assert.isUndefined(caller.pollUnsafe())
        yield* FaultyStore.heal
        yield* Fiber.join(caller)
      }
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("between storing and saying so, nobody joins an answer that was invalidated meanwhile", () =>
    Effect.gen(function* () {
      class Fact extends Tag.Class<Fact>()("fact") {}
      class Known extends Node.Class<Known>()("known", {
        key: {},
        value: Schema.Int,
        valueTags: () => new Fact()
      }) {}
      const source = { value: 1 }
      const ask = Effect.sync(() => source.value).pipe(Cacheme.memoize(new Known()))
      yield* FaultyStore.inject("store", "stall")
      const before = yield* fork(ask)
      yield* settle
      yield* Cacheme.invalidate(new Fact())
      source.value = 2
      const after = yield* fork(ask)
      yield* settle
      yield* FaultyStore.heal
      assert.strictEqual(yield* Fiber.join(before), 1)
      assert.strictEqual(yield* Fiber.join(after), 2)
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("who waits for it can be interrupted", () =>
    Effect.gen(function* () {
      const { ask } = new Source()
      for (const operation of ["begin", "store", "invalidate"] as const) {
        yield* FaultyStore.inject(operation, "stall")
        const caller = yield* fork(operation === "invalidate" ? invalidated : Effect.asVoid(ask(1)))
        yield* settle
        yield* Fiber.interrupt(caller)
        yield* FaultyStore.heal
      }
      assert.strictEqual(yield* ask(1), 1)
    }).pipe(Effect.provide(CachemeTest.layer()))
  )
})

describe("a store that lies is noticed by the assertions", () => {
  /** Whether an old answer is given after an invalidation that came before or during its lookup. */
  const isStale = (during: boolean) =>
    Effect.gen(function* () {
      const source = new Source()
      if (during) {
        const gate = yield* Deferred.make<void>()
        const running = yield* fork(Effect.as(Deferred.await(gate), 1).pipe(Cacheme.memoize(one)))
        yield* Cacheme.invalidate(one)
        yield* Deferred.succeed(gate, undefined)
        yield* Fiber.join(running)
      } else {
        yield* source.ask(1)
        yield* Cacheme.invalidate(one)
      }
      source.value = 2
      return (yield* source.ask(1)) === 1
    })

  it.effect("an honest one gives no stale answer", () =>
    Effect.gen(function* () {
      assert.isFalse(yield* isStale(false))
      assert.isFalse(yield* isStale(true))
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  for (const [operation, during] of [
    ["peek", false],
    ["invalidate", false],
    ["begin", true]
  ] as const) {
    it.effect(`in ${operation}: a stale answer is given, and seen`, () =>
      Effect.gen(function* () {
        yield* FaultyStore.inject(operation, "lie")
        assert.isTrue(yield* isStale(during))
      }).pipe(Effect.provide(CachemeTest.layer()))
    )
  }

  it.effect("in store: nothing is stored", () =>
    Effect.gen(function* () {
      yield* FaultyStore.inject("store", "lie")
      yield* new Source().ask(1)
      assert.include(yield* failure(CachemeTest.assertFresh(one)), "never stored")
    }).pipe(Effect.provide(CachemeTest.layer()))
  )
})
