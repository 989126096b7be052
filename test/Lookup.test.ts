import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, Schedule, Schema } from "effect"
import { TestClock } from "effect/testing"
import { Cacheme, LookupTimeout, MemoryStore, Node } from "../src/index.ts"
import { CachemeTest } from "../src/testing/index.ts"
import { CurrentTransaction, Changes } from "../src/Transaction.ts"

class Report extends Node.Class<Report>()("report", {
  key: { id: Schema.Int },
  value: Schema.String,
  timeToLive: "10 seconds"
}) {}

const fork = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.forkChild(self, { startImmediately: true })

type Equal<A, B> = [A, B] extends [B, A] ? true : false

/** Lookups that wait to be let go, and how many of them run at once. */
class Work {
  running = 0
  most = 0
  readonly started: Array<string> = []
  readonly gates = new Map<string, Deferred.Deferred<void>>()

  readonly lookup = (name: string): Effect.Effect<string> =>
    Effect.suspend(() => {
      const gate = Deferred.makeUnsafe<void>()
      this.gates.set(name, gate)
      this.started.push(name)
      this.most = Math.max(this.most, ++this.running)
      return Effect.ensuring(
        Effect.as(Deferred.await(gate), name),
        Effect.sync(() => this.running--)
      )
    })

  readonly letGo = (name: string) =>
    Effect.andThen(
      Effect.suspend(() => Deferred.succeed(this.gates.get(name)!, undefined)),
      Effect.repeat(Effect.yieldNow, Schedule.recurs(5))
    )
}

describe("lookup.timeout", () => {
  it.effect("stops a lookup that takes longer, with a typed error", () =>
    Effect.gen(function* () {
      class Slow extends Node.Class<Slow>()("slow", {
        key: { id: Schema.Int },
        value: Schema.String,
        lookup: { timeout: "1 second" }
      }) {}
      const work = new Work()
      const ask = work.lookup("a").pipe(Cacheme.memoize(new Slow({ id: 1 })))
      const adds: Equal<Effect.Error<typeof ask>, LookupTimeout> = true
      assert.isTrue(adds)
      const [leader, follower] = [yield* fork(Effect.flip(ask)), yield* fork(Effect.flip(ask))]
      yield* TestClock.adjust("999 millis")
      assert.strictEqual(work.running, 1)
      yield* TestClock.adjust("1 millis")
      const error = yield* Fiber.join(leader)
      assert.instanceOf(error, LookupTimeout)
      assert.strictEqual(error.message, "the lookup of slow:1 took longer than 1000 ms")
      assert.deepStrictEqual(yield* Fiber.join(follower), error)
      assert.strictEqual(work.running, 0)
      yield* CachemeTest.assertNotFresh(new Slow({ id: 1 }))
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("of the node holds where the call says nothing of it, also in so many words", () =>
    Effect.gen(function* () {
      class Slow extends Node.Class<Slow>()("slow", {
        key: {},
        value: Schema.String,
        lookup: { timeout: "1 second" }
      }) {}
      const ask = Effect.never.pipe(
        Cacheme.memoize(new Slow(), { lookup: { timeout: undefined, softTimeout: "1 hour" } })
      )
      const asked = yield* fork(Effect.flip(ask))
      yield* TestClock.adjust("1 second")
      assert.instanceOf(yield* Fiber.join(asked), LookupTimeout)
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("of a call, of a one-off and of a function: each adds its error to the type", () =>
    Effect.gen(function* () {
      const lookup = { timeout: 100 } as const
      const call = Effect.never.pipe(Cacheme.memoize(new Report({ id: 1 }), { lookup }))
      const oneOff = Effect.never.pipe(Cacheme.memoize({ key: "one", value: Schema.String, lookup }))
      const made = Cacheme.fn(Report, () => Effect.never, { lookup })({ id: 2 })
      const without = Effect.succeed("").pipe(
        Cacheme.memoize(new Report({ id: 3 }), { lookup: { softTimeout: 100 } })
      )
      const adds: [
        Equal<Effect.Error<typeof call>, LookupTimeout>,
        Equal<Effect.Error<typeof oneOff>, LookupTimeout>,
        Equal<Effect.Error<typeof made>, LookupTimeout>,
        Equal<Effect.Error<typeof without>, never>
      ] = [true, true, true, true]
      assert.lengthOf(adds, 4)
      yield* without
      for (const ask of [call, oneOff, made]) {
        const asked = yield* fork(Effect.flip(ask))
        yield* TestClock.adjust(100)
        assert.instanceOf(yield* Fiber.join(asked), LookupTimeout)
      }
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("counts the wait for a turn, and the retries", () =>
    Effect.gen(function* () {
      class Busy extends Node.Class<Busy>()("busy", {
        key: { id: Schema.Int },
        value: Schema.String,
        lookup: { timeout: "1 second", concurrency: 1 }
      }) {}
      const work = new Work()
      yield* fork(
        work.lookup("a").pipe(Cacheme.memoize(new Busy({ id: 1 }), { lookup: { timeout: "1 hour" } }))
      )
      const waiting = yield* fork(Effect.flip(work.lookup("b").pipe(Cacheme.memoize(new Busy({ id: 2 })))))
      yield* TestClock.adjust("1 second")
      assert.instanceOf(yield* Fiber.join(waiting), LookupTimeout)
      assert.deepStrictEqual(work.started, ["a"])
      const failing = Effect.fail("down").pipe(
        Cacheme.memoize(new Report({ id: 1 }), {
          lookup: { timeout: "1 second", retry: Schedule.spaced("300 millis") }
        })
      )
      const retried = yield* fork(Effect.flip(failing))
      yield* TestClock.adjust("1 second")
      assert.instanceOf(yield* Fiber.join(retried), LookupTimeout)
      yield* CachemeTest.assertLookups("report:1", 4)
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("holds in a transaction, and with the cache switched off", () =>
    Effect.gen(function* () {
      const ask = Effect.never.pipe(
        Cacheme.memoize(new Report({ id: 1 }), { lookup: { timeout: "1 second" } })
      )
      const transaction = { readCommitted: true, changed: new Changes(), defer: () => {} }
      const inside = yield* fork(Effect.flip(Effect.provideService(ask, CurrentTransaction, transaction)))
      yield* TestClock.adjust("1 second")
      assert.instanceOf(yield* Fiber.join(inside), LookupTimeout)
      const off = yield* fork(Effect.flip(ask))
      yield* TestClock.adjust("1 second")
      assert.instanceOf(yield* Fiber.join(off), LookupTimeout)
    }).pipe(Effect.provide(CachemeTest.layer({ enabled: false })))
  )

  it.effect("gives the aged answer within stale.ifError instead", () =>
    Effect.gen(function* () {
      const report = new Report({ id: 1 })
      yield* Effect.succeed("old").pipe(Cacheme.memoize(report, { stale: { ifError: "1 minute" } }))
      yield* TestClock.adjust("10 seconds")
      const ask = Effect.never.pipe(
        Cacheme.memoize(report, { stale: { ifError: "1 minute" }, lookup: { timeout: "1 second" } })
      )
      const asked = yield* fork(ask)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(asked), "old")
    }).pipe(Effect.provide(CachemeTest.layer()))
  )
})

describe("lookup.softTimeout", () => {
  const policy = { stale: { ifError: "1 minute" }, lookup: { softTimeout: "1 second" } } as const
  const report = new Report({ id: 1 })

  it.effect("gives the aged answer when the lookup takes longer, which goes on and is stored", () =>
    Effect.gen(function* () {
      const work = new Work()
      yield* Effect.succeed("old").pipe(Cacheme.memoize(report, policy))
      yield* TestClock.adjust("10 seconds")
      const ask = work.lookup("new").pipe(Cacheme.memoize(report, policy))
      const first = yield* fork(ask)
      yield* TestClock.adjust("999 millis")
      assert.isUndefined(first.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(yield* Fiber.join(first), "old")
      assert.strictEqual(work.running, 1)
      const second = yield* fork(ask)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(second), "old")
      assert.deepStrictEqual(work.started, ["new"])
      yield* work.letGo("new")
      assert.strictEqual(yield* ask, "new")
      assert.deepStrictEqual(work.started, ["new"])
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("waits on where there is no answer that may be given", () =>
    Effect.gen(function* () {
      const work = new Work()
      const asked = yield* fork(work.lookup("new").pipe(Cacheme.memoize(report, policy)))
      yield* TestClock.adjust("1 hour")
      assert.isUndefined(asked.pollUnsafe())
      yield* work.letGo("new")
      assert.strictEqual(yield* Fiber.join(asked), "new")
      yield* Cacheme.invalidate(report)
      const invalidated = yield* fork(work.lookup("newer").pipe(Cacheme.memoize(report, policy)))
      yield* TestClock.adjust("5 seconds")
      assert.isUndefined(invalidated.pollUnsafe())
      yield* Fiber.interrupt(invalidated)
      assert.strictEqual(work.running, 0)
    }).pipe(Effect.provide(CachemeTest.layer()))
  )
})

describe("lookup.retry", () => {
  it.effect("tries a failed lookup again by its schedule; callers see the last outcome only", () =>
    Effect.gen(function* () {
      let tries = 0
      const flaky = Effect.suspend(() => (++tries < 3 ? Effect.fail("down") : Effect.succeed("up")))
      const ask = flaky.pipe(
        Cacheme.memoize(new Report({ id: 1 }), { lookup: { retry: Schedule.exponential("1 second") } })
      )
      const asked = yield* fork(ask)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(tries, 2)
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(yield* Fiber.join(asked), "up")
      const {
        nodes: [stats]
      } = yield* Cacheme.stats
      assert.deepInclude(stats, { lookups: 1, failures: 0 })
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("not in a transaction, where what has failed cannot be tried again", () =>
    Effect.gen(function* () {
      let tries = 0
      const ask = Effect.suspend(() => {
        tries++
        return Effect.fail("down")
      }).pipe(Cacheme.memoize(new Report({ id: 1 }), { lookup: { retry: Schedule.recurs(3) } }))
      const transaction = { readCommitted: true, changed: new Changes(), defer: () => {} }
      const error = yield* Effect.flip(Effect.provideService(ask, CurrentTransaction, transaction))
      assert.deepStrictEqual([error, tries], ["down", 1])
    }).pipe(Effect.provide(CachemeTest.layer()))
  )
})

describe("lookup.concurrency", () => {
  class Query extends Node.Class<Query>()("query", {
    key: { name: Schema.String },
    value: Schema.String,
    lookup: { concurrency: 2 }
  }) {}
  const askWith = (work: Work) => (name: string) =>
    work.lookup(name).pipe(Cacheme.memoize(new Query({ name })))

  for (const enabled of [true, false]) {
    it.effect(
      `runs so many at once, the others in their order, with the cache ${enabled ? "on" : "off"}`,
      () =>
        Effect.gen(function* () {
          const work = new Work()
          const names = ["a", "b", "c", "d", "e"]
          const callers = yield* Effect.forEach(names, (name) => fork(askWith(work)(name)))
          yield* Effect.repeat(Effect.yieldNow, Schedule.recurs(5))
          for (const [i, name] of names.entries()) {
            assert.deepStrictEqual(work.started, names.slice(0, i + 2))
            yield* work.letGo(name)
          }
          assert.deepStrictEqual(yield* Effect.forEach(callers, Fiber.join), names)
          assert.strictEqual(work.most, 2)
        }).pipe(Effect.provide(CachemeTest.layer({ enabled })))
    )
  }

  it.effect("who waits can be interrupted, and gives its place up", () =>
    Effect.gen(function* () {
      const work = new Work()
      const ask = askWith(work)
      const [a, b, c, d] = yield* Effect.forEach(["a", "b", "c", "d"], (name) => fork(ask(name)))
      yield* Fiber.interrupt(c!)
      yield* work.letGo("a")
      assert.deepStrictEqual(work.started, ["a", "b", "d"])
      yield* Effect.all([work.letGo("b"), work.letGo("d")])
      assert.deepStrictEqual(yield* Effect.forEach([a!, b!, d!], Fiber.join), ["a", "b", "d"])
      // All turns have been given back.
      const more = yield* Effect.forEach(["e", "f"], (name) => fork(ask(name)))
      yield* Effect.repeat(Effect.yieldNow, Schedule.recurs(5))
      assert.deepStrictEqual(work.started.slice(3), ["e", "f"])
      yield* Fiber.interruptAll(more)
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect(
    "a lookup that waits for its turn begins when it gets it: what comes before does not overtake it",
    () =>
      Effect.gen(function* () {
        const work = new Work()
        const ask = askWith(work)
        const callers = yield* Effect.forEach(["a", "b", "c"], (name) => fork(ask(name)))
        yield* Cacheme.invalidate(new Query({ name: "c" }))
        yield* work.letGo("a")
        yield* work.letGo("c")
        yield* Fiber.join(callers[2]!)
        yield* CachemeTest.assertFresh(new Query({ name: "c" }))
        yield* Fiber.interruptAll(callers)
      }).pipe(Effect.provide(CachemeTest.layer()))
  )

  for (const [othersFirst, enabled] of [
    [true, true],
    [false, true],
    [false, false]
  ] as const) {
    it.effect(
      `lookups inside lookups cannot wait for each other for ever${othersFirst ? ", if others asked first" : ""}${enabled ? "" : ", with the cache off"}`,
      () =>
        Effect.gen(function* () {
          class Outer extends Node.Class<Outer>()("outer", {
            key: { id: Schema.Int },
            value: Schema.String,
            lookup: { concurrency: 1 }
          }) {}
          class Between extends Node.Class<Between>()("between", {
            key: { id: Schema.Int },
            value: Schema.String
          }) {}
          class Inner extends Node.Class<Inner>()("inner", {
            key: { id: Schema.Int },
            value: Schema.String,
            lookup: { concurrency: 1 }
          }) {}
          const ready = yield* Deferred.make<void>()
          const leaf = (node: Node.Any) =>
            Effect.succeed("leaf").pipe(Cacheme.memoize(node)) as Effect.Effect<string, never, Cacheme>
          const between = (id: number, node: Node.Any) =>
            leaf(node).pipe(Cacheme.memoize(new Between({ id })))
          // Each has the only turn of its node, and asks, over a node without turns, for one of the other's.
          const outer = Deferred.await(ready).pipe(
            Effect.andThen(between(1, new Inner({ id: 2 }))),
            Cacheme.memoize(new Outer({ id: 1 }))
          )
          const inner = Deferred.await(ready).pipe(
            Effect.andThen(between(2, new Outer({ id: 2 }))),
            Cacheme.memoize(new Inner({ id: 1 }))
          )
          const both = yield* Effect.forEach([outer, inner], fork)
          // What they will ask for is asked by others first, who wait for a turn; or by nobody else.
          const asked = [between(1, new Inner({ id: 2 })), between(2, new Outer({ id: 2 }))]
          const others = yield* Effect.forEach(othersFirst ? asked : [], fork)
          yield* Deferred.succeed(ready, undefined)
          const answers = yield* Effect.forEach([...both, ...others], Fiber.join)
          assert.deepStrictEqual(new Set(answers), new Set(["leaf"]))
        }).pipe(Effect.provide(CachemeTest.layer({ enabled }))),
      5000
    )
  }

  it.effect("inside a transaction nothing waits for a turn", () =>
    Effect.gen(function* () {
      const work = new Work()
      const ask = askWith(work)
      yield* Effect.forEach(["a", "b"], (name) => fork(ask(name)))
      const transaction = { readCommitted: true, changed: new Changes(), defer: () => {} }
      const inside = yield* fork(Effect.provideService(ask("c"), CurrentTransaction, transaction))
      yield* work.letGo("c")
      assert.strictEqual(yield* Fiber.join(inside), "c")
    }).pipe(Effect.provide(CachemeTest.layer()))
  )
})

describe("a lookup that asks for itself", () => {
  class Tree extends Node.Class<Tree>()("tree", { key: { id: Schema.Int }, value: Schema.Int }) {}

  it.effect(
    "does what it would do without the cache",
    () =>
      Effect.gen(function* () {
        let depth = 0
        const ask: Effect.Effect<number, never, Cacheme> = Effect.suspend(() =>
          ++depth < 5 ? Effect.map(ask, (n) => n + 1) : Effect.succeed(0)
        ).pipe(Cacheme.memoize(new Tree({ id: 1 })))
        assert.strictEqual(yield* ask, 4)
        let asked = 0
        const even: Effect.Effect<number, never, Cacheme> = Effect.suspend(() =>
          ++asked < 5 ? odd : Effect.succeed(0)
        ).pipe(Cacheme.memoize(new Tree({ id: 2 })))
        const odd: Effect.Effect<number, never, Cacheme> = Effect.suspend(() => even).pipe(
          Cacheme.memoize(new Tree({ id: 3 }))
        )
        assert.strictEqual(yield* even, 0)
      }).pipe(Effect.provide(Cacheme.layer().pipe(Layer.provide(MemoryStore.layer())))),
    5000
  )

  it.effect("and one that asks for others is told apart from it", () =>
    Effect.gen(function* () {
      const fib = (id: number): Effect.Effect<number, never, Cacheme> =>
        Effect.suspend(() =>
          id < 2 ? Effect.succeed(id) : Effect.map(Effect.all([fib(id - 1), fib(id - 2)]), ([a, b]) => a + b)
        ).pipe(Cacheme.memoize(new Tree({ id })))
      assert.strictEqual(yield* fib(30), 832_040)
      yield* CachemeTest.assertLookups(Tree, 31)
      assert.isTrue(Exit.isSuccess(yield* Effect.exit(fib(30))))
    }).pipe(Effect.provide(CachemeTest.layer()))
  )
})
