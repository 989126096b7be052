import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Latch, Option, Schedule, Schema, type Scope } from "effect"
import { inject } from "vitest"
import { Cacheme, LookupTimeout, Node, Tag } from "../../src/index.ts"
import { type Process, rawClient, startProcess, startProcesses, until } from "../support/processes.ts"
import { startProxy } from "../support/proxy.ts"
import { ownPrefix, type SharedStore, sharedStores } from "../support/shared.ts"

/**
 * One lookup for a key in all processes, while the process that looks it up is alive, and nobody who waits for ever.
 *
 * Under the test's clock, which stands still, nobody looks again by a schedule: who waits for another process is woken
 * by it, or the test does not end.
 */
class Fact extends Tag.Class<Fact>()("fact", { of: Schema.Int }) {}
class Report extends Node.Class<Report>()("report", {
  key: { id: Schema.Int },
  value: Schema.Int,
  tags: ({ id }) => new Fact({ of: id })
}) {}

/** Lookups that wait until they are let go; each answers how many there have been so far. */
class Source {
  runs = 0
  readonly gate = Latch.makeUnsafe(false)
  readonly begun = Latch.makeUnsafe(false)
  readonly lookup = Effect.suspend(() => {
    const run = ++this.runs
    this.begun.openUnsafe()
    return Effect.as(this.gate.await, run)
  })
}

const fork = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.forkChild(self, { startImmediately: true })

const one = new Report({ id: 1 })

/** Dies when something takes longer, by the real clock. */
const within = <A, E, R>(milliseconds: number, self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.raceFirst(
    self,
    Effect.andThen(
      Effect.promise(() => new Promise((resolve) => setTimeout(resolve, milliseconds))),
      Effect.die(new Error("somebody waits in vain"))
    )
  )

/** Waits until somebody waits for the lease of a key. */
const untilAwaited = (process: Process, node: Node.Any = one) =>
  Effect.gen(function* () {
    const redis = yield* rawClient
    const { storedAs } = yield* process(Cacheme.explain(node))
    const lease = storedAs.replace("}:entry:", "}:lease:")
    yield* until(Effect.promise(async () => ((await redis.get(lease)) ?? "").endsWith("+")))
  }).pipe(Effect.scoped)

const hasLease = (process: Process, node: Node.Any = one) =>
  Effect.gen(function* () {
    const redis = yield* rawClient
    const { storedAs } = yield* process(Cacheme.explain(node))
    return yield* Effect.promise(
      async () => (await redis.exists(storedAs.replace("}:entry:", "}:lease:"))) === 1
    )
  }).pipe(Effect.scoped)

type Body = (kind: SharedStore) => Effect.Effect<void, unknown, Scope.Scope>

const each = (name: string, body: Body) => {
  for (const kind of sharedStores) it.effect(`${name} (${kind})`, () => Effect.scoped(body(kind)), 10_000)
}

const eachLive = (name: string, body: Body) => {
  for (const kind of sharedStores) it.live(`${name} (${kind})`, () => Effect.scoped(body(kind)), 10_000)
}

describe("Herd", () => {
  each(
    "four processes with fifty callers each look a cold key up once, and its fill wakes them all",
    (kind) =>
      Effect.gen(function* () {
        const processes = yield* startProcesses(kind)
        const source = new Source()
        const callers = yield* Effect.forEach(processes, (process) =>
          Effect.forEach(Array.from({ length: 50 }), () =>
            fork(process(source.lookup.pipe(Cacheme.memoize(one))))
          )
        )
        yield* source.begun.await
        yield* untilAwaited(processes[0])
        yield* source.gate.open
        for (const caller of callers.flat()) assert.strictEqual(yield* Fiber.join(caller), 1)
        assert.strictEqual(source.runs, 1)
        const lookups = yield* Effect.forEach(processes, (process) =>
          Effect.map(process(Cacheme.stats), ({ nodes }) => nodes[0]!.lookups)
        )
        assert.strictEqual(
          lookups.reduce((a, b) => a + b, 0),
          1
        )
        assert.isFalse(yield* hasLease(processes[0]))
      })
  )

  each("a wake-up is never missed, however the fill and the wait for it meet", (kind) =>
    Effect.gen(function* () {
      const [a, b, c, d] = yield* startProcesses(kind)
      for (let id = 0; id < 100; id++) {
        let runs = 0
        const ask = Effect.sync(() => ++runs).pipe(Cacheme.memoize(new Report({ id })))
        const asked = Effect.all([a(ask), b(ask), c(ask), d(ask)], { concurrency: "unbounded" })
        const answers = yield* within(1000, asked)
        assert.deepStrictEqual([...answers, runs], [1, 1, 1, 1, 1])
      }
    })
  )

  each("an answer that is not stored, a failure and a defect give the lease back, and wake", (kind) =>
    Effect.gen(function* () {
      const [a, b] = yield* startProcesses(kind)
      for (const outcome of [Exit.fail("down"), Exit.die("bug"), Exit.succeed(0)] as const) {
        const gate = yield* Deferred.make<void>()
        const begun = yield* Deferred.make<void>()
        const first = yield* fork(
          a(
            Deferred.succeed(begun, undefined).pipe(
              Effect.andThen(Deferred.await(gate)),
              Effect.andThen(outcome),
              Cacheme.memoize(one, { timeToLive: 0 })
            )
          )
        )
        yield* Deferred.await(begun)
        const second = yield* fork(b(Effect.succeed(2).pipe(Cacheme.memoize(one))))
        yield* untilAwaited(a)
        yield* Deferred.succeed(gate, undefined)
        assert.deepStrictEqual(yield* Fiber.await(first), outcome)
        assert.strictEqual(yield* Fiber.join(second), 2)
        assert.isFalse(yield* hasLease(a))
        yield* a(Cacheme.invalidate(one))
      }
    })
  )

  each("who is interrupted gives the lease back, and the other process goes on at once", (kind) =>
    Effect.gen(function* () {
      const [a, b] = yield* startProcesses(kind)
      const source = new Source()
      const first = yield* fork(a(source.lookup.pipe(Cacheme.memoize(one))))
      yield* source.begun.await
      const second = yield* fork(b(source.lookup.pipe(Cacheme.memoize(one))))
      yield* untilAwaited(a)
      yield* Fiber.interrupt(first)
      yield* source.gate.open
      assert.strictEqual(yield* Fiber.join(second), 2)
      assert.strictEqual(source.runs, 2)
    })
  )

  each("who waits and is interrupted harms nobody", (kind) =>
    Effect.gen(function* () {
      const [a, b] = yield* startProcesses(kind)
      const source = new Source()
      const ask = source.lookup.pipe(Cacheme.memoize(one))
      const first = yield* fork(a(ask))
      yield* source.begun.await
      const [second, third] = [yield* fork(b(ask)), yield* fork(b(ask))]
      yield* untilAwaited(a)
      yield* Fiber.interrupt(second)
      yield* source.gate.open
      assert.deepStrictEqual([yield* Fiber.join(first), yield* Fiber.join(third)], [1, 1])
      const { stats } = Cacheme
      assert.isFalse((yield* b(Cacheme.explain(one))).lookupRunning)
      assert.strictEqual((yield* b(stats)).nodes[0]!.lookups, 0)
    })
  )

  each("a process that is closed gives its leases back", (kind) =>
    Effect.gen(function* () {
      const prefix = ownPrefix()
      const b = yield* startProcess(kind, { prefix })
      const source = new Source()
      const ask = source.lookup.pipe(Cacheme.memoize(one))
      const second = yield* Effect.scoped(
        Effect.gen(function* () {
          const a = yield* startProcess(kind, { prefix })
          yield* fork(a(ask))
          yield* source.begun.await
          const waiting = yield* Effect.forkDetach(b(ask), { startImmediately: true })
          yield* untilAwaited(a)
          return waiting
        })
      )
      yield* source.gate.open
      assert.strictEqual(yield* within(1000, Fiber.join(second)), 2)
    })
  )

  eachLive("by a schedule that is over, who waits looks up for itself", (kind) =>
    Effect.gen(function* () {
      class Impatient extends Node.Class<Impatient>()("impatient", {
        key: {},
        value: Schema.Int,
        lookup: { herd: Schedule.spaced("5 millis").pipe(Schedule.upTo({ times: 3 })) }
      }) {}
      const [a, b] = yield* startProcesses(kind)
      const source = new Source()
      const first = yield* fork(a(source.lookup.pipe(Cacheme.memoize(new Impatient()))))
      yield* source.begun.await
      assert.strictEqual(yield* b(Effect.succeed(20).pipe(Cacheme.memoize(new Impatient()))), 20)
      // What it has found is for all, also while the other one goes on.
      assert.strictEqual(yield* b(source.lookup.pipe(Cacheme.memoize(new Impatient()))), 20)
      yield* source.gate.open
      assert.strictEqual(yield* Fiber.join(first), 1)
    })
  )

  eachLive("a process that is gone costs the others its lease", (kind) =>
    Effect.gen(function* () {
      const { hostname, port } = new URL(inject("redisUrl"))
      if (hostname !== "127.0.0.1") return
      const proxy = yield* Effect.acquireRelease(
        Effect.promise(() => startProxy(Number(port))),
        ({ stop }) => Effect.promise(stop)
      )
      const prefix = ownPrefix()
      const a = yield* startProcess(kind, { prefix, lease: "200 millis", url: proxy.url })
      const b = yield* startProcess(kind, { prefix, lease: "200 millis" })
      const source = new Source()
      const ask = source.lookup.pipe(Cacheme.memoize(one))
      yield* fork(a(ask))
      yield* source.begun.await
      const second = yield* fork(b(ask))
      yield* untilAwaited(b)
      const cutAt = performance.now()
      yield* Effect.promise(proxy.refuse)
      yield* until(Effect.sync(() => source.runs === 2))
      assert.isBelow(performance.now() - cutAt, 1500)
      yield* source.gate.open
      assert.strictEqual(yield* Fiber.join(second), 2)
    })
  )

  eachLive("a lookup that takes longer than its lease keeps it", (kind) =>
    Effect.gen(function* () {
      const [a, b] = yield* startProcesses(kind, { lease: "300 millis" })
      let runs = 0
      const ask = Effect.suspend(() => Effect.as(Effect.sleep("1 second"), ++runs)).pipe(Cacheme.memoize(one))
      assert.deepStrictEqual(yield* Effect.all([a(ask), b(ask)], { concurrency: 2 }), [1, 1])
      assert.strictEqual(runs, 1)
    })
  )

  eachLive("lookup.timeout covers the wait for another process", (kind) =>
    Effect.gen(function* () {
      const [a, b] = yield* startProcesses(kind)
      const source = new Source()
      const first = yield* fork(a(source.lookup.pipe(Cacheme.memoize(one))))
      yield* source.begun.await
      const limited = { lookup: { timeout: "50 millis" } } as const
      const error = yield* Effect.flip(b(source.lookup.pipe(Cacheme.memoize(one, limited))))
      assert.instanceOf(error, LookupTimeout)
      const all = Cacheme.getAll(
        [one, new Report({ id: 2 })],
        (missing) => Effect.succeed(missing.map((node) => [node, 5] as const)),
        limited
      )
      assert.instanceOf(yield* Effect.flip(b(all)), LookupTimeout)
      yield* source.gate.open
      assert.strictEqual(yield* Fiber.join(first), 1)
      assert.strictEqual(yield* b(source.lookup.pipe(Cacheme.memoize(one, limited))), 1)
      assert.strictEqual(source.runs, 1)
    })
  )

  each("a turn is not held while waiting for another process", (kind) =>
    Effect.gen(function* () {
      class Single extends Node.Class<Single>()("single", {
        key: { id: Schema.Int },
        value: Schema.Int,
        lookup: { concurrency: 1 }
      }) {}
      const [a, b] = yield* startProcesses(kind)
      const source = new Source()
      const ask = source.lookup.pipe(Cacheme.memoize(new Single({ id: 1 })))
      yield* fork(a(ask))
      yield* source.begun.await
      const waiting = yield* fork(b(ask))
      yield* untilAwaited(a, new Single({ id: 1 }))
      assert.strictEqual(yield* b(Effect.succeed(7).pipe(Cacheme.memoize(new Single({ id: 2 })))), 7)
      yield* source.gate.open
      assert.strictEqual(yield* Fiber.join(waiting), 1)
    })
  )

  each("overlapping batches of two processes look each key up once, and never wait for ever", (kind) =>
    Effect.gen(function* () {
      const [a, b, c] = yield* startProcesses(kind)
      for (let round = 0; round < 30; round++) {
        const asked: Array<number> = []
        const all = (...ids: ReadonlyArray<number>) =>
          Cacheme.getAll(
            ids.map((id) => new Report({ id: round * 10 + id })),
            (missing) =>
              Effect.suspend(() => {
                asked.push(...missing.map(({ id }) => id % 10))
                return Effect.as(
                  Effect.yieldNow,
                  missing.map((node) => [node, node.id % 10] as const)
                )
              })
          ).pipe(Effect.map((answers) => answers.map(Option.getOrNull)))
        const single = Effect.sync(() => (asked.push(3), 3)).pipe(
          Cacheme.memoize(new Report({ id: round * 10 + 3 }))
        )
        const answers = yield* within(
          1000,
          Effect.all(
            [a(all(1, 2, 3)), b(all(3, 2, 4)), c(all(4, 1, 5)), a(all(5, 3)), b(single), c(single)],
            { concurrency: "unbounded" }
          )
        )
        assert.deepStrictEqual(answers, [[1, 2, 3], [3, 2, 4], [4, 1, 5], [5, 3], 3, 3])
        assert.deepStrictEqual(
          asked.toSorted((x, y) => x - y),
          [1, 2, 3, 4, 5]
        )
      }
    })
  )

  each("a batch that another process fails is looked up by this one", (kind) =>
    Effect.gen(function* () {
      const [a, b] = yield* startProcesses(kind)
      const gate = yield* Deferred.make<void>()
      const begun = yield* Deferred.make<void>()
      const nodes = [1, 2, 3].map((id) => new Report({ id }))
      const failing = Cacheme.getAll(nodes, () =>
        Deferred.succeed(begun, undefined).pipe(
          Effect.andThen(Deferred.await(gate)),
          Effect.andThen(Effect.fail("down"))
        )
      )
      const first = yield* fork(Effect.flip(a(failing)))
      yield* Deferred.await(begun)
      const asked: Array<ReadonlyArray<number>> = []
      const second = yield* fork(
        b(
          Cacheme.getAll([...nodes, new Report({ id: 4 })], (missing) =>
            Effect.sync(() => {
              asked.push(missing.map(({ id }) => id))
              return missing.map((node) => [node, node.id] as const)
            })
          )
        )
      )
      yield* untilAwaited(a, nodes[2])
      yield* until(Effect.sync(() => asked.length === 1))
      yield* Deferred.succeed(gate, undefined)
      assert.strictEqual(yield* Fiber.join(first), "down")
      assert.deepStrictEqual((yield* Fiber.join(second)).map(Option.getOrNull), [1, 2, 3, 4])
      assert.deepStrictEqual(
        asked.flat().toSorted((x, y) => x - y),
        [1, 2, 3, 4]
      )
      assert.deepStrictEqual(asked[0], [4])
    })
  )

  each("who asks after an invalidation does not wait for a lookup that began before it", (kind) =>
    Effect.gen(function* () {
      const [a, b] = yield* startProcesses(kind)
      for (const [writer, reader] of [
        [a, a],
        [b, a],
        [a, b],
        [b, b]
      ] as const) {
        const source = new Source()
        const old = yield* fork(a(source.lookup.pipe(Cacheme.memoize(one))))
        yield* source.begun.await
        yield* writer(Cacheme.invalidate(one))
        const asked = yield* fork(reader(Effect.succeed(50).pipe(Cacheme.memoize(one))))
        assert.strictEqual(yield* within(500, Fiber.join(asked)), 50)
        yield* source.gate.open
        yield* Fiber.join(old)
        yield* a(Cacheme.invalidate(one))
      }
    })
  )

  for (const joins of [false, true])
    (joins ? eachLive : eachLive)(
      `lookups that need each other's turns in two processes do not wait for ever, ${joins ? "which they join" : "which they start"}`,
      (kind) =>
        Effect.gen(function* () {
          class Outer extends Node.Class<Outer>()("outer", {
            key: { id: Schema.Int },
            value: Schema.Int,
            lookup: { concurrency: 1 }
          }) {}
          class Inner extends Node.Class<Inner>()("inner", { key: { id: Schema.Int }, value: Schema.Int }) {}
          const [a, b] = yield* startProcesses(kind, { lease: "1 second" })
          // Outer 1 in a waits for inner 1, which b looks up, and that for its turn after outer 2, which waits for
          // inner 2, which a looks up, and that for its turn after outer 1.
          const ready = yield* Latch.make(false)
          const begun = [false, false, false, false].map(Latch.makeUnsafe)
          const outer = (id: number, inner: number) =>
            begun[id + 1]!.open.pipe(
              Effect.andThen(ready.await),
              Effect.andThen(innerOf(inner)),
              Cacheme.memoize(new Outer({ id }))
            )
          const innerOf = (id: number): Effect.Effect<number, never, Cacheme> =>
            begun[id - 1]!.open.pipe(
              Effect.andThen(ready.await),
              Effect.andThen(Effect.succeed(id).pipe(Cacheme.memoize(new Outer({ id: 10 + id })))),
              Cacheme.memoize(new Inner({ id }))
            )
          const all = [yield* fork(b(innerOf(1))), yield* fork(a(innerOf(2)))]
          yield* Effect.all([begun[0]!.await, begun[1]!.await])
          if (joins) {
            // Those that wait for the other process are there before anybody with a turn waits for them.
            all.push(yield* fork(a(innerOf(1))), yield* fork(b(innerOf(2))))
            yield* untilAwaited(a, new Inner({ id: 1 }))
            yield* untilAwaited(b, new Inner({ id: 2 }))
          }
          all.push(yield* fork(a(outer(1, 1))), yield* fork(b(outer(2, 2))))
          yield* Effect.all([begun[2]!.await, begun[3]!.await])
          yield* ready.open
          const answers = yield* within(3000, Effect.forEach(all, Fiber.join))
          assert.deepStrictEqual(answers.slice(-2), [1, 2])
        })
    )

  each("a failure is shared by those of a process who wait for it", (kind) =>
    Effect.gen(function* () {
      const [a] = yield* startProcesses(kind)
      const source = new Source()
      const failing = Effect.andThen(source.lookup, Effect.fail("down")).pipe(Cacheme.memoize(one))
      const callers = yield* Effect.forEach(Array.from({ length: 20 }), () => fork(Effect.flip(a(failing))))
      yield* source.begun.await
      // They ask further than their own memory before they join.
      yield* a(Cacheme.position)
      yield* source.gate.open
      for (const caller of callers) assert.strictEqual(yield* Fiber.join(caller), "down")
      assert.strictEqual(source.runs, 1)
    })
  )

  each("when a lookup has failed, the processes that waited do not queue behind each other's", (kind) =>
    Effect.gen(function* () {
      const [a, b, c, d] = yield* startProcesses(kind)
      const gates: Array<Deferred.Deferred<never, string>> = []
      const ask = Effect.suspend(() => {
        const gate = Deferred.makeUnsafe<never, string>()
        gates.push(gate)
        return Deferred.await(gate)
      }).pipe(Cacheme.memoize(one))
      const failed = (process: Process) => fork(Effect.flip(process(ask)))
      const first = yield* failed(a)
      yield* until(Effect.sync(() => gates.length === 1))
      const others = [yield* failed(b), yield* failed(c), yield* failed(d)]
      yield* untilAwaited(a)
      yield* Deferred.fail(gates[0]!, "down")
      assert.strictEqual(yield* Fiber.join(first), "down")
      yield* within(1000, until(Effect.sync(() => gates.length === 4)))
      for (const gate of gates) yield* Deferred.fail(gate, "down")
      for (const other of others) assert.strictEqual(yield* Fiber.join(other), "down")
    })
  )
})
