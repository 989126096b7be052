import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Latch, Option, Schema, type Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Redis } from "ioredis"
import { Cacheme, Node, Tag } from "../../src/index.ts"
import type { Invalidation, Request } from "../../src/Invalidation.ts"
import { Changes, CurrentTransaction } from "../../src/Transaction.ts"
import { type Process, rawClient, startProcess, startProcesses, until } from "../support/processes.ts"
import { type RunningProxy, startProxy } from "../support/proxy.ts"
import { startRedis } from "../support/redis.ts"
import { ownPrefix, type SharedStore, sharedStores } from "../support/shared.ts"

/**
 * Processes that share a cache: what one has found out the others are given, what one invalidates ends for all, and all
 * tell the same of it.
 */
class Topic extends Tag.Class<Topic>()("topic", { of: Schema.String }) {}
class Site extends Node.Class<Site>()("site", { key: { name: Schema.String }, value: Schema.Int }) {}
class Page extends Node.Class<Page>()("page", {
  key: { name: Schema.String, path: Schema.String },
  value: Schema.Int,
  within: Site,
  timeToLive: "10 minutes",
  tags: ({ path }) => new Topic({ of: path }),
  valueTags: (n) => new Topic({ of: n % 2 === 0 ? "even" : "odd" })
}) {}

const page = new Page({ name: "a", path: "x" })
const other = new Page({ name: "b", path: "y" })

/** A question whose lookups are counted over all processes, and answer their number. */
class Source {
  runs = 0
  readonly lookup = Effect.sync(() => ++this.runs)
  readonly ask = (node: Page | Site = page) => this.lookup.pipe(Cacheme.memoize(node as Page))
}

const fork = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.forkChild(self, { startImmediately: true })

const each = (
  name: string,
  body: (kind: SharedStore) => Effect.Effect<void, unknown, Scope.Scope>,
  kinds: ReadonlyArray<SharedStore> = sharedStores
) => {
  for (const kind of kinds) it.effect(`${name} (${kind})`, () => Effect.scoped(body(kind)), 10_000)
}

/** Asserts what an effect answers: at once, but where another process's write may go unseen for a while. */
const sees = <A, E, R>(kind: SharedStore, self: Effect.Effect<A, E, R>, expected: A) =>
  Effect.gen(function* () {
    if (kind === "bounded") {
      const since = performance.now()
      yield* until(Effect.map(self, (answer) => answer === expected || performance.now() - since > 1100))
    }
    assert.strictEqual(yield* self, expected)
  })

/** Stands for a database transaction. */
const inTransaction = (deferred: Array<Request> = [], readCommitted = true) =>
  Effect.provideService(CurrentTransaction, {
    readCommitted,
    changed: new Changes(),
    defer: (request: Request) => void deferred.push(request)
  })

/** A Redis of one's own. */
const ownRedis = Effect.acquireRelease(
  Effect.promise(() => startRedis()),
  ({ stop }) => Effect.promise(stop)
)

const proxyTo = (port: number): Effect.Effect<RunningProxy, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(() => startProxy(port)),
    ({ stop }) => Effect.promise(stop)
  )

describe("SharedCache", () => {
  each("what one process has looked up the others are given", (kind) =>
    Effect.gen(function* () {
      const [a, b, c] = yield* startProcesses(kind)
      const source = new Source()
      assert.strictEqual(yield* a(source.ask()), 1)
      for (const process of [b, c, b, a]) assert.strictEqual(yield* process(source.ask()), 1)
      assert.deepStrictEqual(yield* b(Cacheme.peek(page)), Option.some(1))
      const batch = Cacheme.getAll([other, page], (missing) =>
        Effect.map(source.lookup, (n) => missing.map((node) => [node, n] as const))
      )
      assert.deepStrictEqual(yield* c(batch), [Option.some(2), Option.some(1)])
      assert.strictEqual(yield* b(source.ask(other)), 2)
    })
  )

  each("what one process invalidates ends in all, by whatever it is named", (kind) =>
    Effect.gen(function* () {
      const [a, b, c] = yield* startProcesses(kind)
      const source = new Source()
      yield* a(Cacheme.set(other, 0))
      for (const target of [
        page,
        new Topic({ of: "x" }),
        new Site({ name: "a" }),
        { pattern: "site:a>page:*" },
        { keys: ["site:a>page:x"] },
        { tags: new Topic({ of: "odd" }) },
        { tags: new Topic({ of: "odd" }) },
        Page,
        Site
      ]) {
        const before = yield* a(Cacheme.refresh(source.lookup, page))
        for (const process of [a, b, c]) yield* sees(kind, process(source.ask()), before)
        const report = yield* b(Cacheme.invalidate(target))
        assert.strictEqual(report.pending, 0)
        const isReached = !("tags" in target) || before % 2 === 1
        const now = isReached ? before + 1 : before
        // Its own writes a process sees at once.
        assert.strictEqual(yield* b(source.ask()), now, JSON.stringify(target))
        yield* sees(kind, a(source.ask()), now)
        yield* sees(kind, c(source.ask()), now)
        if (!isReached) assert.strictEqual(yield* a(source.ask(other)), 0)
      }
    })
  )

  each("an answer over other answers ends with what these rest on, wherever that is invalidated", (kind) =>
    Effect.gen(function* () {
      class Sum extends Node.Class<Sum>()("sum", { key: {}, value: Schema.Int }) {}
      const [a, b, c] = yield* startProcesses(kind)
      const source = new Source()
      yield* a(source.ask())
      let sums = 0
      const sum = Effect.suspend(() => {
        sums++
        return Effect.zipWith(source.ask(), source.ask(other), (x, y) => x + y)
      }).pipe(Cacheme.memoize(new Sum()))
      assert.strictEqual(yield* b(sum), 3)
      assert.strictEqual(yield* a(sum), 3)
      yield* c(Cacheme.invalidate(new Topic({ of: "x" })))
      yield* sees(kind, a(sum), 5)
      assert.strictEqual(sums, 2)
      yield* a(Cacheme.invalidate(new Site({ name: "b" })))
      yield* sees(kind, b(sum), 7)
    })
  )

  each("all processes tell of the same invalidations, each once", (kind) =>
    Effect.gen(function* () {
      const [a, b] = yield* startProcesses(kind)
      const heard = (process: Process) =>
        fork(
          process(
            Stream.runCollect(
              Stream.takeUntil(Cacheme.events, ({ tags }) => tags.some((tag) => tag.includes("end")))
            )
          )
        )
      const [fromA, fromB] = [yield* heard(a), yield* heard(b)]
      const source = new Source()
      yield* a(source.ask())
      const report = yield* a(Cacheme.invalidate([page, new Topic({ of: "z" })]))
      yield* b(Cacheme.invalidate({ pattern: "site:*" }))
      yield* b(Cacheme.set(page, 10))
      yield* a(Cacheme.refresh(source.lookup, other))
      yield* b(Effect.void.pipe(Cacheme.mutation(Page)))
      const running = yield* fork(a(Effect.never.pipe(Cacheme.mutation(new Topic({ of: "u" })))))
      yield* Effect.yieldNow
      yield* Fiber.interrupt(running)
      // Many at once.
      yield* Effect.all(
        [1, 2, 3, 4, 5].flatMap((n) =>
          [a, b].map((process) => process(Cacheme.invalidate(new Topic({ of: `m${n}` }))))
        ),
        { concurrency: "unbounded" }
      )
      yield* b(Cacheme.invalidate(new Topic({ of: "end" })))
      const told = (events: Iterable<Invalidation>) =>
        [...events].map(({ keys, tags, patterns, cause, position }) => ({
          keys,
          tags,
          patterns,
          cause,
          position
        }))
      const byA = told(yield* Fiber.join(fromA))
      const byB = told(yield* Fiber.join(fromB))
      assert.deepStrictEqual(
        byA
          .filter(({ tags }) => !/m\d/.test(tags.join("")))
          .map(({ keys, tags, patterns, cause }) => [...keys, ...tags, ...patterns, cause]),
        [
          ["site:a>page:x", "#topic:z", "call"],
          ["site:*", "call"],
          ["site:a>page:x", "replacement"],
          ["site:b>page:y", "replacement"],
          ["page:*", "mutation"],
          ["#topic:u", "unknown outcome"],
          ["#topic:end", "call"]
        ]
      )
      assert.strictEqual(byA[0]!.position, report.position)
      assert.strictEqual(byA.length, 17)
      const sorted = (events: typeof byA) =>
        events.toSorted((x, y) => x.position! - y.position! || x.tags.join().localeCompare(y.tags.join()))
      assert.deepStrictEqual(sorted(byA), sorted(byB))
    })
  )

  each("a value set or refreshed by one process is what the others are given", (kind) =>
    Effect.gen(function* () {
      const [a, b, c] = yield* startProcesses(kind)
      const source = new Source()
      yield* b(source.ask())
      assert.isTrue(yield* a(Cacheme.set(page, 100)))
      yield* sees(kind, b(source.ask()), 100)
      yield* sees(kind, c(source.ask()), 100)
      assert.strictEqual(yield* c(source.lookup.pipe(Cacheme.refresh(page))), 2)
      assert.deepStrictEqual(yield* a(Cacheme.peek(page)), Option.some(2))
      yield* sees(kind, a(source.ask()), 2)
      yield* sees(kind, b(source.ask()), 2)
      assert.strictEqual(source.runs, 2)
      // Many at once: one of them is last, for all.
      const sets = [10, 20, 30, 40, 50, 60]
      yield* Effect.all(
        sets.map((n, i) => [a, b, c][i % 3]!(Cacheme.set(page, n))),
        { concurrency: "unbounded" }
      )
      const [last] = yield* Effect.map(a(Cacheme.peek(page)), Option.toArray)
      if (last !== undefined) {
        assert.include(sets, last)
        for (const process of [a, b, c]) yield* sees(kind, process(source.ask()), last)
      }
    })
  )

  each("a position of one process is good in all, until what the value rests on is invalidated", (kind) =>
    Effect.gen(function* () {
      const [a, b, c] = yield* startProcesses(kind)
      const since = yield* a(Cacheme.position)
      yield* b(Cacheme.invalidate(new Topic({ of: "z" })))
      assert.isTrue(yield* c(Cacheme.set(page, 1, { since })))
      const later = yield* b(Cacheme.position)
      yield* c(Cacheme.invalidate(new Topic({ of: "x" })))
      assert.isFalse(yield* a(Cacheme.set(page, 2, { since: later })))
      assert.isTrue(Option.isNone(yield* b(Cacheme.peek(page))))
      assert.isFalse(yield* b(Cacheme.set(page, 2, { since: later })))
    })
  )

  each("explain names the key of Redis, and says in each process why it is not answered", (kind) =>
    Effect.gen(function* () {
      const [a, b] = yield* startProcesses(kind)
      const redis = yield* rawClient
      const source = new Source()
      const explain = Cacheme.explain(page)
      const { storedAs, reason: none } = yield* b(explain)
      assert.strictEqual(none._tag, "Absent")
      assert.strictEqual(yield* Effect.promise(() => redis.exists(storedAs)), 0)
      yield* a(source.ask())
      assert.strictEqual(yield* Effect.promise(() => redis.exists(storedAs)), 1)
      for (const process of [a, b]) {
        const { reason, answered } = yield* process(explain)
        assert.deepStrictEqual(reason, {
          _tag: "Fresh",
          expiresIn: 600_000,
          tags: ["page:*", "site:*", "site:a", "#topic:x", "#topic:odd"]
        })
        assert.isTrue(answered)
      }
      yield* b(Cacheme.invalidate(new Topic({ of: "odd" })))
      for (const process of [a, b]) {
        const { reason, message } = yield* process(explain)
        assert.deepStrictEqual(reason, { _tag: "Invalidated", by: "#topic:odd" })
        assert.include(message, "#topic:odd was invalidated")
      }
      yield* b(Cacheme.invalidate({ pattern: "site:?>page:x" }))
      assert.strictEqual((yield* a(explain)).reason._tag, "Absent")
      yield* b(source.ask())
      yield* Effect.promise(() => redis.del(storedAs))
      assert.strictEqual((yield* a(explain)).reason._tag, "Absent")
    })
  )

  each("stats tell of the shared store", (kind) =>
    Effect.gen(function* () {
      const [a, b] = yield* startProcesses(kind)
      const source = new Source()
      yield* a(source.ask())
      yield* b(source.ask())
      yield* b(Cacheme.invalidate([page, new Topic({ of: "x" }), new Topic({ of: "q" })]))
      yield* a(source.ask())
      const { store, nodes } = yield* a(Cacheme.stats)
      assert.deepInclude(store.shared, { state: "up", why: undefined, pending: 0, mirror: 3 })
      assert.deepInclude(store.shared?.log, { rows: 3, capacity: 200_000 })
      assert.isAtLeast(store.shared!.log!.floorAge, 0)
      assert.isAbove(store.shared!.log!.effectiveTimeToLive, 0)
      assert.strictEqual(store.entries, kind === "redis" ? 0 : 1)
      const lookups = nodes[0]!.lookups
      assert.strictEqual(lookups, kind === "bounded" ? source.runs : 2)
      assert.deepInclude((yield* b(Cacheme.stats)).nodes[0], { hits: 1, lookups: 0 })
    })
  )

  describe("memory in front", () => {
    class Fast extends Node.Class<Fast>()("fast", { key: {}, value: Schema.Int, near: "bounded" }) {}
    class Sure extends Node.Class<Sure>()("sure", { key: {}, value: Schema.Int, near: "validated" }) {}
    class Either extends Node.Class<Either>()("either", { key: {}, value: Schema.Int }) {}

    each(
      "is believed as the node says, or else the layer",
      (kind) =>
        Effect.gen(function* () {
          const redis = yield* ownRedis
          const proxy = yield* proxyTo(redis.port)
          const a = yield* startProcess(kind, {
            prefix: ownPrefix(),
            url: proxy.url,
            bound: "1 minute",
            deadline: "50 millis"
          })
          let runs = 0
          const asks = [new Fast(), new Sure(), new Either()].map((node) =>
            Effect.sync(() => ++runs).pipe(Cacheme.memoize(node))
          )
          for (const ask of asks) yield* a(ask)
          for (const ask of asks) yield* a(ask)
          assert.strictEqual(runs, 3)
          proxy.stall()
          assert.strictEqual(yield* a(asks[0]!), 1)
          assert.isAbove(yield* a(asks[1]!), 3)
          const either = yield* a(asks[2]!)
          if (kind === "bounded") assert.strictEqual(either, 3)
          else assert.isAbove(either, 4)
        }),
      ["validated", "bounded"]
    )

    each(
      "keeps an answer no longer than it may, and asks Redis again",
      (kind) =>
        Effect.gen(function* () {
          const [a, b] = yield* startProcesses(kind, { nearTimeToLive: "1 second" })
          const redis = yield* rawClient
          const source = new Source()
          yield* a(source.ask())
          yield* b(source.ask())
          const { storedAs } = yield* a(Cacheme.explain(page))
          yield* Effect.promise(() => redis.del(storedAs))
          yield* TestClock.adjust("999 millis")
          assert.strictEqual(yield* b(source.ask()), 1)
          yield* TestClock.adjust("1 millis")
          assert.strictEqual(yield* b(source.ask()), 2)
        }),
      ["validated", "bounded"]
    )

    each(
      "holds as many answers as it has room for; the others are in Redis",
      (kind) =>
        Effect.gen(function* () {
          const [a, b] = yield* startProcesses(kind, { capacity: 3 })
          const source = new Source()
          const nodes = Array.from({ length: 10 }, (_, i) => new Page({ name: "c", path: `p${i}` }))
          for (const node of nodes) yield* a(source.ask(node))
          for (let round = 0; round < 2; round++)
            for (const node of nodes) for (const process of [a, b]) yield* process(source.ask(node))
          assert.strictEqual(source.runs, 10)
          for (const process of [a, b]) {
            const { store, nodes } = yield* process(Cacheme.stats)
            assert.strictEqual(store.entries, 3)
            assert.isAbove(nodes[0]!.evictions, 0)
          }
        }),
      ["validated", "bounded"]
    )

    it.live("another process's write is seen after the bound at the latest, though no message arrives", () =>
      Effect.gen(function* () {
        const server = yield* ownRedis
        const bound = 200
        const options = { prefix: ownPrefix(), url: server.url, bound } as const
        const [a, b] = [yield* startProcess("bounded", options), yield* startProcess("bounded", options)]
        const redis = yield* Effect.acquireRelease(
          Effect.sync(() => new Redis(server.url)),
          (redis) => Effect.sync(() => redis.disconnect())
        )
        // Nobody hears anything any more.
        const deafening = setInterval(() => void redis.call("CLIENT", "KILL", "TYPE", "pubsub"), 1)
        yield* Effect.addFinalizer(() => Effect.sync(() => clearInterval(deafening)))
        const source = new Source()
        class Sum extends Node.Class<Sum>()("sum", { key: { of: Schema.Int }, value: Schema.Int }) {}
        let seenOld = 0
        for (let round = 1; round <= 4; round++) {
          const before = yield* b(source.ask())
          assert.strictEqual(yield* a(source.ask()), before)
          yield* a(Cacheme.invalidate(page))
          const acknowledgedAt = performance.now()
          assert.strictEqual(yield* a(source.ask()), before + 1)
          // What a lookup uses is true at its start all the same.
          if (round % 2 === 0) {
            const sum = source.ask().pipe(Cacheme.memoize(new Sum({ of: round })))
            assert.strictEqual(yield* b(sum), before + 1)
          }
          for (;;) {
            const askedAt = performance.now()
            const answer = yield* b(source.ask())
            if (answer === before + 1) break
            assert.strictEqual(answer, before)
            assert.isBelow(askedAt - acknowledgedAt, bound)
            seenOld++
            yield* Effect.sleep("5 millis")
          }
        }
        assert.isAbove(seenOld, 0, "memory was believed for a while")
      }).pipe(Effect.scoped)
    )
  })

  describe("a transaction", () => {
    each("is given what it has not changed, if it reads what is committed", (kind) =>
      Effect.gen(function* () {
        const [a, b] = yield* startProcesses(kind)
        const source = new Source()
        yield* a(source.ask())
        yield* a(source.ask(other))
        assert.strictEqual(yield* b(source.ask()).pipe(inTransaction()), 1)
        assert.strictEqual(yield* b(source.ask()).pipe(inTransaction([], false)), 3)
        assert.isTrue(Option.isNone(yield* b(Cacheme.peek(page)).pipe(inTransaction([], false))))
        const deferred: Array<Request> = []
        const inside = Effect.gen(function* () {
          const report = yield* Cacheme.invalidate(new Topic({ of: "x" }))
          return [report.deferred, yield* source.ask(), yield* source.ask(other)]
        })
        assert.deepStrictEqual(yield* b(inside).pipe(inTransaction(deferred)), [true, 4, 2])
        assert.lengthOf(deferred, 1)
        const { reason } = yield* b(Cacheme.explain(page)).pipe(inTransaction([], false))
        assert.strictEqual(reason._tag, "InTransaction")
        // Nothing of it is shared.
        for (const process of [a, b]) assert.strictEqual(yield* process(source.ask()), 1)
        const all = Cacheme.getAll([page, other], (missing) =>
          Effect.map(source.lookup, (n) => missing.map((node) => [node, n] as const))
        )
        assert.deepStrictEqual(yield* b(all).pipe(inTransaction()), [Option.some(1), Option.some(2)])
        assert.deepStrictEqual(yield* b(all).pipe(inTransaction([], false)), [Option.some(5), Option.some(5)])
      })
    )

    each("waits for no other process, stores nothing and keeps nobody waiting", (kind) =>
      Effect.gen(function* () {
        const [a, b] = yield* startProcesses(kind)
        const [begun, gate] = [yield* Latch.make(false), yield* Latch.make(false)]
        const slow = begun.open.pipe(Effect.andThen(gate.await), Effect.as(50), Cacheme.memoize(page))
        const leader = yield* fork(a(slow))
        yield* begun.await
        const source = new Source()
        assert.strictEqual(yield* b(source.ask()).pipe(inTransaction()), 1)
        const [inBegun, inGate] = [yield* Latch.make(false), yield* Latch.make(false)]
        const inside = yield* fork(
          b(inBegun.open.pipe(Effect.andThen(inGate.await), Effect.as(60), Cacheme.memoize(other))).pipe(
            inTransaction()
          )
        )
        yield* inBegun.await
        assert.strictEqual(yield* a(source.ask(other)), 2)
        yield* inGate.open
        assert.strictEqual(yield* Fiber.join(inside), 60)
        assert.strictEqual(yield* b(source.ask(other)), 2)
        yield* gate.open
        assert.strictEqual(yield* Fiber.join(leader), 50)
        assert.strictEqual(yield* b(source.ask()), 50)
      })
    )
  })

  each(
    "a process that is switched off reads and stores nothing, but what it invalidates reaches the others",
    (kind) =>
      Effect.gen(function* () {
        const prefix = ownPrefix()
        const off = yield* startProcess(kind, { prefix, cache: { enabled: false } })
        const on = yield* startProcess(kind, { prefix })
        const redis = yield* rawClient
        const source = new Source()
        yield* off(source.ask())
        assert.isFalse(yield* off(Cacheme.set(page, 100)))
        const { storedAs, reason } = yield* off(Cacheme.explain(page))
        assert.strictEqual(reason._tag, "Disabled")
        assert.strictEqual(yield* Effect.promise(() => redis.exists(storedAs)), 0)
        assert.strictEqual(yield* on(source.ask()), 2)
        assert.strictEqual(yield* off(source.ask()), 3)
        assert.isTrue(Option.isNone(yield* off(Cacheme.peek(page))))
        const batch = Cacheme.getAll([page], (missing) =>
          Effect.map(source.lookup, (n) => missing.map((node) => [node, n] as const))
        )
        assert.deepStrictEqual(yield* off(batch), [Option.some(4)])
        for (const target of [page, new Topic({ of: "x" }), { pattern: "*" }]) {
          const before = yield* on(source.ask())
          yield* off(Cacheme.invalidate(target))
          yield* sees(kind, on(source.ask()), source.runs + 1)
          assert.isAbove(yield* on(source.ask()), before)
        }
        const before = yield* on(source.ask())
        assert.strictEqual(yield* off(source.lookup.pipe(Cacheme.refresh(page))), before + 1)
        yield* sees(kind, on(source.ask()), before + 2)
      })
  )
})
