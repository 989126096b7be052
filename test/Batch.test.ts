import { assert, describe, it } from "@effect/vitest"
import { Cause, Clock, Deferred, Effect, Exit, Fiber, Layer, Option, Schedule, Schema, Scope } from "effect"
import { TestClock } from "effect/testing"
import { Cacheme, LookupTimeout, Node, Tag } from "../src/index.ts"
import { CachemeTest } from "../src/testing/index.ts"
import { Changes, CurrentTransaction } from "../src/Transaction.ts"

class Author extends Tag.Class<Author>()("author", { of: Schema.String }) {}

class Title extends Node.Class<Title>()("title", {
  key: { id: Schema.Int },
  value: Schema.String,
  timeToLive: "10 seconds",
  valueTags: (title) => new Author({ of: title[0]! })
}) {}

const nodes = (...ids: ReadonlyArray<number>) => ids.map((id) => new Title({ id }))
const fork = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.forkChild(self, { startImmediately: true })
const settle = Effect.repeat(Effect.yieldNow, Schedule.recurs(10))

/** Batches of a library: each notes what it was asked for and answers "t<id>", if not told otherwise. */
class Library {
  readonly asked: Array<ReadonlyArray<number>> = []
  readonly absent = new Set<number>()
  generation = ""
  fails = false
  /** With a gate, each batch waits for its own to be opened. */
  isGated = false
  readonly gates: Array<Deferred.Deferred<void, string>> = []

  readonly lookup = (missing: ReadonlyArray<Title>) =>
    Effect.suspend(() => {
      this.asked.push(missing.map(({ id }) => id))
      const generation = this.generation
      const gate = Deferred.makeUnsafe<void, string>()
      this.gates.push(gate)
      const answer = Effect.suspend(() =>
        this.fails
          ? Effect.fail("down")
          : Effect.succeed(
              missing
                .filter(({ id }) => !this.absent.has(id))
                .map((node) => [node, `t${node.id}${generation}`] as const)
                .toReversed()
            )
      )
      return this.isGated ? Effect.andThen(Deferred.await(gate), answer) : answer
    })

  readonly titles = (...ids: ReadonlyArray<number>) =>
    Effect.map(Cacheme.getAll(nodes(...ids), this.lookup), (answers) =>
      answers.map(Option.getOrElse(() => "-"))
    )

  readonly title = (id: number) =>
    Effect.sync(() => {
      this.asked.push([id])
      return `single ${id}`
    }).pipe(Cacheme.memoize(new Title({ id })))

  readonly open = (batch: number) =>
    Effect.andThen(Deferred.succeed(this.gates[batch - 1]!, undefined), settle)
}

const test = (
  name: string,
  body: (library: Library) => Effect.Effect<void, unknown, Cacheme | CachemeTest>
) => it.effect(name, () => body(new Library()).pipe(Effect.provide(CachemeTest.layer())), 5000)

describe("getAll", () => {
  test("answers in the order asked, duplicates and all, with one lookup for the missing, each once", (library) =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* library.titles(3, 1, 3, 2), ["t3", "t1", "t3", "t2"])
      assert.deepStrictEqual(yield* library.titles(2, 4, 1, 4), ["t2", "t4", "t1", "t4"])
      assert.deepStrictEqual(yield* library.titles(1, 2, 3, 4), ["t1", "t2", "t3", "t4"])
      assert.deepStrictEqual(library.asked, [[3, 1, 2], [4]])
      assert.deepStrictEqual(yield* library.titles(), [])
      const {
        nodes: [stats]
      } = yield* Cacheme.stats
      assert.deepInclude(stats, { hits: 6, misses: 6, lookups: 2, entries: 4 })
      assert.strictEqual(yield* library.title(1), "t1")
    }))

  test("hits alone are answered in one step, without a lookup", (library) =>
    Effect.gen(function* () {
      yield* library.titles(1, 2)
      const caller = yield* fork(library.titles(2, 1))
      assert.deepStrictEqual(caller.pollUnsafe(), Exit.succeed(["t2", "t1"]))
    }))

  test("memory is looked at with one reading of the clock", (library) =>
    Effect.gen(function* () {
      const ids = Array.from({ length: 100 }, (_, id) => id)
      yield* library.titles(...ids)
      const clock = yield* Clock.Clock
      let readings = 0
      const counting: Clock.Clock = Object.assign(Object.create(clock), {
        currentTimeMillisUnsafe: () => {
          readings++
          return clock.currentTimeMillisUnsafe()
        }
      })
      yield* Effect.provideService(library.titles(...ids), Clock.Clock, counting)
      assert.deepStrictEqual([readings, library.asked.length], [1, 1])
    }))

  test("a key without an answer is none; it is remembered if that is asked for", (library) =>
    Effect.gen(function* () {
      library.absent.add(2)
      assert.deepStrictEqual(yield* library.titles(1, 2), ["t1", "-"])
      assert.deepStrictEqual(yield* library.titles(1, 2), ["t1", "-"])
      assert.deepStrictEqual(library.asked, [[1, 2], [2]])
      const remembering = Cacheme.getAll(nodes(2, 5), library.lookup, { absent: "1 second" })
      assert.deepStrictEqual(yield* remembering, [Option.none(), Option.some("t5")])
      assert.deepStrictEqual(yield* library.titles(2, 5), ["-", "t5"])
      assert.strictEqual(library.asked.length, 3)
      const { reason, message, answered } = yield* Cacheme.explain(new Title({ id: 2 }))
      assert.deepStrictEqual([reason._tag, answered], ["NoAnswer", false])
      assert.include(message, "a batch had no answer for it")
      assert.isTrue(Option.isNone(yield* Cacheme.peek(new Title({ id: 2 }))))
      // It is no answer to a single lookup, which has its own way of saying so.
      assert.strictEqual(yield* library.title(2), "single 2")
      yield* Cacheme.invalidate(Title)
      yield* remembering
      yield* TestClock.adjust("1 second")
      library.absent.clear()
      assert.deepStrictEqual(yield* library.titles(2), ["t2"])
    }))

  it("a time for absences that is none is an error that names it", () => {
    for (const absent of [-1, "soon" as never])
      assert.throws(
        () => Cacheme.getAll(nodes(1), () => Effect.succeed([]), { absent }),
        /Cacheme.getAll: absent is .*, expected a Duration of zero or more/
      )
  })

  test("a remembered absence ends with an invalidation of the key, its tags or its node", (library) =>
    Effect.gen(function* () {
      class Row extends Node.Class<Row>()("row", {
        key: { id: Schema.Int },
        value: Schema.Int,
        tags: () => new Author({ of: "x" })
      }) {}
      let lookups = 0
      const ask = Cacheme.getAll(
        [new Row({ id: 1 })],
        () => Effect.sync(() => (lookups++, [] as Array<readonly [Row, number]>)),
        { absent: "1 hour" }
      )
      yield* ask
      for (const target of [new Row({ id: 1 }), Row, new Author({ of: "x" }), { pattern: "row:*" }]) {
        const before = lookups
        yield* ask
        assert.strictEqual(lookups, before)
        yield* Cacheme.invalidate(target)
        yield* ask
        assert.strictEqual(lookups, before + 1)
      }
      assert.deepStrictEqual(library.asked, [])
    }))

  test("overlapping batches look each key up once", (library) =>
    Effect.gen(function* () {
      library.isGated = true
      const first = yield* fork(library.titles(1, 2, 3))
      const second = yield* fork(library.titles(2, 3, 4))
      assert.deepStrictEqual(library.asked, [[1, 2, 3], [4]])
      yield* library.open(2)
      assert.isUndefined(second.pollUnsafe())
      yield* library.open(1)
      assert.deepStrictEqual(yield* Fiber.join(first), ["t1", "t2", "t3"])
      assert.deepStrictEqual(yield* Fiber.join(second), ["t2", "t3", "t4"])
    }))

  test("batches that wait for each other's keys do not wait for ever", (library) =>
    Effect.gen(function* () {
      const all = yield* Effect.forEach(
        [library.titles(1, 2), library.titles(2, 3), library.titles(3, 4, 1), library.titles(4, 2, 1)],
        (titles) => titles,
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(all[3], ["t4", "t2", "t1"])
      assert.deepStrictEqual(
        library.asked.flat().toSorted((a, b) => a - b),
        [1, 2, 3, 4]
      )
      library.isGated = true
      yield* Cacheme.invalidate(Title)
      const a = yield* fork(library.titles(1, 2))
      const b = yield* fork(library.titles(3, 1))
      const c = yield* fork(library.titles(2, 3))
      assert.deepStrictEqual(library.asked.slice(-2), [[1, 2], [3]])
      const from = library.gates.length
      yield* library.open(from)
      yield* library.open(from - 1)
      for (const fiber of [a, b, c]) yield* Fiber.join(fiber)
    }))

  test("a single lookup and a batch share a flight", (library) =>
    Effect.gen(function* () {
      library.isGated = true
      const batch = yield* fork(library.titles(1, 2))
      const single = yield* fork(library.title(2))
      yield* library.open(1)
      assert.strictEqual(yield* Fiber.join(single), "t2")
      assert.deepStrictEqual(yield* Fiber.join(batch), ["t1", "t2"])
      assert.deepStrictEqual(library.asked, [[1, 2]])
      const gate = yield* Deferred.make<string, string>()
      const slow = Deferred.await(gate).pipe(Cacheme.memoize(new Title({ id: 7 })))
      const leader = yield* fork(slow)
      library.isGated = false
      const follower = yield* fork(library.titles(7, 8))
      yield* Deferred.succeed(gate, "seven")
      assert.strictEqual(yield* Fiber.join(leader), "seven")
      assert.deepStrictEqual(yield* Fiber.join(follower), ["seven", "t8"])
    }))

  test("a failing batch fails its own callers only", (library) =>
    Effect.gen(function* () {
      library.isGated = true
      const first = yield* fork(Effect.flip(library.titles(1, 2, 3)))
      const second = yield* fork(library.titles(2, 3, 4))
      const single = yield* fork(library.title(3))
      library.fails = true
      yield* library.open(1)
      assert.strictEqual(yield* Fiber.join(first), "down")
      library.fails = false
      yield* library.open(2)
      assert.strictEqual(yield* Fiber.join(single), "single 3")
      yield* library.open(library.gates.length)
      assert.deepStrictEqual(yield* Fiber.join(second), ["t2", "single 3", "t4"])
      assert.deepStrictEqual(library.asked, [[1, 2, 3], [4], [3], [2]])
    }))

  test("nobody depends on others for more than two failures of theirs", (library) =>
    Effect.gen(function* () {
      library.isGated = true
      library.fails = true
      const callers = yield* Effect.forEach([1, 2, 3, 4, 5], () => fork(Effect.flip(library.titles(1))))
      const counts: Array<number> = []
      while (callers.some((caller) => caller.pollUnsafe() === undefined)) {
        counts.push(library.gates.length)
        const open = library.gates.slice()
        for (const gate of open) yield* Deferred.succeed(gate, undefined)
        yield* settle
      }
      for (const caller of callers) assert.strictEqual(yield* Fiber.join(caller), "down")
      // The first leads, then the second; the others then look up for themselves.
      assert.deepStrictEqual(counts, [1, 2, 5])
    }))

  test("one that asks for itself does what it would do without the cache", (library) =>
    Effect.gen(function* () {
      let depth = 0
      const ask: Effect.Effect<ReadonlyArray<Option.Option<string>>, never, Cacheme> = Cacheme.getAll(
        nodes(1, 2),
        (missing) =>
          Effect.suspend(() => (++depth < 4 ? Effect.asVoid(ask) : Effect.void)).pipe(
            Effect.map(() => missing.map((node) => [node, `depth ${depth}`] as const))
          )
      )
      assert.deepStrictEqual((yield* ask).map(Option.getOrNull), ["depth 4", "depth 4"])
      assert.strictEqual(library.asked.length, 0)
    }))

  test("what a batch does not find, a single lookup that waited for it looks up itself", (library) =>
    Effect.gen(function* () {
      library.isGated = true
      library.absent.add(2)
      const batch = yield* fork(library.titles(1, 2))
      const other = yield* fork(library.titles(2))
      const single = yield* fork(library.title(2))
      yield* library.open(1)
      assert.deepStrictEqual(yield* Fiber.join(batch), ["t1", "-"])
      assert.deepStrictEqual(yield* Fiber.join(other), ["-"])
      assert.strictEqual(yield* Fiber.join(single), "single 2")
    }))

  test("a batch that stops itself stops its own callers only", (library) =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const stopping = Effect.andThen(Deferred.await(gate), Effect.interrupt)
      const first = yield* fork(Effect.exit(Cacheme.getAll(nodes(1, 2), () => stopping)))
      const second = yield* fork(library.titles(2, 3))
      const single = yield* fork(library.title(1))
      yield* Deferred.succeed(gate, undefined)
      yield* settle
      assert.isTrue(Exit.hasInterrupts(yield* Fiber.join(first)))
      assert.deepStrictEqual(yield* Fiber.join(second), ["t2", "t3"])
      assert.strictEqual(yield* Fiber.join(single), "single 1")
    }))

  it.effect("who waits when the cache is closed is interrupted, and given nothing", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(CachemeTest.layer(), scope)
      const library = new Library()
      library.isGated = true
      const waiting = [
        Effect.asVoid(library.titles(1, 2)),
        Effect.asVoid(library.title(1)),
        Effect.asVoid(library.titles(2, 3))
      ]
      const callers = yield* Effect.forEach(waiting, (asked) => fork(Effect.provideContext(asked, context)))
      yield* Scope.close(scope, Exit.void)
      for (const caller of callers) {
        assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(caller)))
      }
    })
  )

  test("interrupting one caller leaves the others' keys alone", (library) =>
    Effect.gen(function* () {
      library.isGated = true
      const first = yield* fork(library.titles(1, 2, 3))
      const second = yield* fork(library.titles(2, 4))
      yield* Fiber.interrupt(first)
      yield* library.open(1)
      yield* library.open(2)
      assert.deepStrictEqual(yield* Fiber.join(second), ["t2", "t4"])
      assert.deepStrictEqual(library.asked, [[1, 2, 3], [4]])
      // What nobody waited for any more was looked up all the same, and is good.
      assert.deepStrictEqual(yield* library.titles(1), ["t1"])
    }))

  test("the last caller's interruption stops the batch", (library) =>
    Effect.gen(function* () {
      library.isGated = true
      let stopped = 0
      const lookup = (missing: ReadonlyArray<Title>) =>
        Effect.onInterrupt(library.lookup(missing), () => Effect.sync(() => void stopped++))
      const ask = Effect.map(Cacheme.getAll(nodes(1, 2), lookup), (answers) => answers)
      const callers = [yield* fork(ask), yield* fork(ask), yield* fork(Cacheme.getAll(nodes(2), lookup))]
      yield* Fiber.interrupt(callers[0]!)
      yield* Fiber.interrupt(callers[2]!)
      assert.strictEqual(stopped, 0)
      yield* Fiber.interrupt(callers[1]!)
      assert.strictEqual(stopped, 1)
      assert.isFalse((yield* Cacheme.explain(new Title({ id: 1 }))).lookupRunning)
      library.isGated = false
      assert.deepStrictEqual(yield* library.titles(1, 2), ["t1", "t2"])
    }))

  test("an invalidation during the batch refuses the answers it reaches, and no others", (library) =>
    Effect.gen(function* () {
      library.isGated = true
      const before = yield* fork(library.titles(1, 2, 3))
      yield* Cacheme.invalidate(new Title({ id: 2 }))
      library.generation = "'"
      const after = yield* fork(library.titles(1, 2))
      assert.deepStrictEqual(library.asked, [[1, 2, 3], [2]])
      yield* library.open(1)
      yield* library.open(2)
      assert.deepStrictEqual(yield* Fiber.join(before), ["t1", "t2", "t3"])
      assert.deepStrictEqual(yield* Fiber.join(after), ["t1", "t2'"])
      assert.deepStrictEqual(yield* library.titles(1, 2, 3), ["t1", "t2'", "t3"])
      assert.strictEqual(library.asked.length, 2)
    }))

  test("an answer whose tags were invalidated is looked up again by who came later", (library) =>
    Effect.gen(function* () {
      library.isGated = true
      const before = yield* fork(library.titles(1))
      yield* Cacheme.invalidate(new Author({ of: "t" }))
      const after = yield* fork(library.titles(1, 2))
      yield* library.open(2)
      yield* library.open(1)
      yield* Fiber.join(before)
      assert.deepStrictEqual(library.asked, [[1], [2], [1]])
      yield* library.open(3)
      assert.deepStrictEqual(yield* Fiber.join(after), ["t1", "t2"])
    }))

  test("aged answers are given within their window, and refreshed by one batch", (library) =>
    Effect.gen(function* () {
      const ask = (...ids: ReadonlyArray<number>) =>
        Cacheme.getAll(nodes(...ids), library.lookup, { stale: { whileRevalidate: "5 seconds" } })
      yield* ask(1, 2, 3)
      yield* TestClock.adjust("10 seconds")
      library.generation = "'"
      assert.deepStrictEqual((yield* ask(1, 2, 4)).map(Option.getOrNull), ["t1", "t2", "t4'"])
      yield* settle
      assert.deepStrictEqual(library.asked, [[1, 2, 3], [1, 2], [4]])
      assert.deepStrictEqual((yield* ask(1, 2)).map(Option.getOrNull), ["t1'", "t2'"])
      const {
        nodes: [stats]
      } = yield* Cacheme.stats
      assert.deepInclude(stats, { stale: 2, hits: 2 })
    }))

  test("a failing batch gives aged answers within stale.ifError, if every key has one", (library) =>
    Effect.gen(function* () {
      const policy = { stale: { ifError: "1 minute" }, lookup: { softTimeout: "1 second" } } as const
      const ask = (...ids: ReadonlyArray<number>) => Cacheme.getAll(nodes(...ids), library.lookup, policy)
      yield* ask(1, 2)
      yield* TestClock.adjust("10 seconds")
      library.fails = true
      assert.deepStrictEqual((yield* ask(1, 2)).map(Option.getOrNull), ["t1", "t2"])
      assert.strictEqual(yield* Effect.flip(ask(1, 3)), "down")
      library.fails = false
      library.isGated = true
      const slow = yield* fork(ask(2, 1))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual((yield* Fiber.join(slow)).map(Option.getOrNull), ["t2", "t1"])
      yield* library.open(library.gates.length)
      yield* CachemeTest.assertFresh(new Title({ id: 1 }))
    }))

  test("time limits, retries and turns are those of the node", (library) =>
    Effect.gen(function* () {
      class Slow extends Node.Class<Slow>()("slow", {
        key: { id: Schema.Int },
        value: Schema.Int,
        lookup: { timeout: "1 second" }
      }) {}
      const ask: Effect.Effect<ReadonlyArray<Option.Option<number>>, LookupTimeout, Cacheme> = Cacheme.getAll(
        [new Slow({ id: 1 }), new Slow({ id: 2 })],
        () => Effect.never
      )
      const asked = yield* fork(Effect.flip(ask))
      yield* TestClock.adjust("1 second")
      assert.strictEqual(
        (yield* Fiber.join(asked)).message,
        "the lookup of 2 keys of slow took longer than 1000 ms"
      )
      assert.strictEqual(library.asked.length, 0)
    }))

  test("in a transaction, and with skip, the missing are computed and not stored", (library) =>
    Effect.gen(function* () {
      yield* library.titles(1)
      const transaction = { readCommitted: true, changed: new Changes(), defer: () => {} }
      const inside = Effect.provideService(library.titles(1, 2), CurrentTransaction, transaction)
      assert.deepStrictEqual(yield* inside, ["t1", "t2"])
      assert.deepStrictEqual(yield* inside, ["t1", "t2"])
      assert.deepStrictEqual(library.asked, [[1], [2], [2]])
      const skipping = Cacheme.getAll(nodes(1, 3), library.lookup, { skip: ({ id }) => id === 3 })
      yield* skipping
      yield* skipping
      assert.deepStrictEqual(library.asked.slice(3), [[3], [3]])
    }))

  test("inside a lookup it hands up what its answers rest on", (library) =>
    Effect.gen(function* () {
      class Shelf extends Node.Class<Shelf>()("shelf", { key: {}, value: Schema.Array(Schema.String) }) {}
      const shelf = library.titles(1, 2).pipe(Cacheme.memoize(new Shelf()))
      yield* library.titles(1)
      yield* shelf
      for (const target of [new Title({ id: 1 }), new Title({ id: 2 }), new Author({ of: "t" })]) {
        yield* CachemeTest.assertFresh(new Shelf())
        yield* Cacheme.invalidate(target)
        yield* CachemeTest.assertNotFresh(new Shelf())
        yield* shelf
      }
    }))

  test("a value that the schema does not accept reaches its caller and is not stored", (library) =>
    Effect.gen(function* () {
      const wrong = Cacheme.getAll(nodes(1, 2), (missing) =>
        Effect.succeed(missing.map((node) => [node, node.id === 1 ? (1 as never) : "ok"] as const))
      )
      assert.deepStrictEqual(yield* wrong, [Option.some(1 as never), Option.some("ok")])
      yield* CachemeTest.assertNotFresh(new Title({ id: 1 }))
      yield* CachemeTest.assertFresh(new Title({ id: 2 }))
      assert.strictEqual(library.asked.length, 0)
    }))

  test("a defect of the lookup is one of its callers", (library) =>
    Effect.gen(function* () {
      const exit = yield* Effect.exit(Cacheme.getAll(nodes(1), () => Effect.die("bug")))
      assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
      const nonsense = yield* Effect.exit(Cacheme.getAll(nodes(1), () => Effect.succeed(7 as never)))
      assert.isTrue(Exit.isFailure(nonsense) && Cause.hasDies(nonsense.cause))
      assert.deepStrictEqual(yield* library.titles(1), ["t1"])
    }))

  test("types: the answers are the node's, the errors the lookup's", (library) =>
    Effect.gen(function* () {
      const typed: Effect.Effect<ReadonlyArray<Option.Option<string>>, string, Cacheme> = Cacheme.getAll(
        nodes(1),
        library.lookup
      )
      yield* typed
      const ids = (missing: ReadonlyArray<Title>) =>
        Effect.succeed(missing.map((node) => [node, node.id] as const))
      const scoped = () => Effect.as(Effect.scope, [] as Array<readonly [Title, string]>)
      assert.lengthOf(
        [
          // @ts-expect-error the values are not the node's
          Cacheme.getAll(nodes(1), ids),
          // @ts-expect-error a lookup that needs a Scope outlives whoever could close it
          Cacheme.getAll(nodes(1), scoped)
        ],
        2
      )
    }))
})

describe("resolver", () => {
  test("asked from many places at once it makes one lookup", (library) =>
    Effect.gen(function* () {
      const titles = Cacheme.resolver(library.lookup)
      const ask = (id: number) => Cacheme.ask(new Title({ id }), titles)
      const answers = yield* Effect.forEach([1, 2, 3, 2], ask, { concurrency: "unbounded" })
      assert.deepStrictEqual(answers.map(Option.getOrNull), ["t1", "t2", "t3", "t2"])
      assert.deepStrictEqual(library.asked, [[1, 2, 3]])
      yield* Effect.all([ask(3), ask(4)], { concurrency: "unbounded" })
      assert.deepStrictEqual(library.asked, [[1, 2, 3], [4]])
      const typed: Effect.Effect<Option.Option<string>, string, Cacheme> = ask(1)
      const adds: [string] extends [Effect.Error<ReturnType<typeof ask>>] ? true : false = true
      assert.deepStrictEqual([yield* typed, adds], [Option.some("t1"), true])
    }))

  test("a failure reaches everyone who asked in that batch", (library) =>
    Effect.gen(function* () {
      const titles = Cacheme.resolver(library.lookup)
      library.fails = true
      const exits = yield* Effect.forEach(
        [1, 2],
        (id) => Effect.exit(Cacheme.ask(new Title({ id }), titles)),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(exits, [Exit.fail("down"), Exit.fail("down")])
    }))

  test("who is in a transaction is asked for apart", (library) =>
    Effect.gen(function* () {
      const titles = Cacheme.resolver(library.lookup)
      const ask = (id: number) => Cacheme.ask(new Title({ id }), titles)
      const transaction = { readCommitted: true, changed: new Changes(), defer: () => {} }
      yield* Effect.all([ask(1), Effect.provideService(ask(2), CurrentTransaction, transaction), ask(3)], {
        concurrency: "unbounded"
      })
      assert.deepStrictEqual(
        library.asked.toSorted((a, b) => a[0]! - b[0]!),
        [[1, 3], [2]]
      )
      yield* CachemeTest.assertFresh(new Title({ id: 3 }))
      yield* CachemeTest.assertNotFresh(new Title({ id: 2 }))
    }))

  test("each lookup that asks it is told what its answer rests on", (library) =>
    Effect.gen(function* () {
      class Page extends Node.Class<Page>()("page", { key: { id: Schema.Int }, value: Schema.String }) {}
      const titles = Cacheme.resolver(library.lookup)
      const page = (id: number) =>
        Cacheme.ask(new Title({ id }), titles).pipe(
          Effect.map(Option.getOrElse(() => "-")),
          Cacheme.memoize(new Page({ id }))
        )
      yield* Effect.all([page(1), page(2)], { concurrency: "unbounded" })
      yield* Cacheme.invalidate(new Title({ id: 1 }))
      yield* CachemeTest.assertNotFresh(new Page({ id: 1 }))
      yield* CachemeTest.assertFresh(new Page({ id: 2 }))
    }))
})
