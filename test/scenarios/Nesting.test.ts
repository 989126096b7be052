import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Latch, Layer, Option, Schema, type Scope } from "effect"
import { TestClock } from "effect/testing"
import { afterEach, beforeEach, vi } from "vitest"
import { Cacheme, MemoryStore, Node, Tag } from "../../src/index.ts"
import { Changes, CurrentTransaction } from "../../src/Transaction.ts"
import { Cell } from "../../src/store/redis/Cell.ts"
import { type Process, startProcesses, until } from "../support/processes.ts"
import { type SharedStore, sharedStores } from "../support/shared.ts"

/**
 * A memoized answer that is used inside a lookup hands up all that it rests on, wherever it comes from, and was verified
 * when that lookup had begun: so the outer answer ends with the inner one, in every process, and never holds what had
 * been invalidated before it was asked for.
 */
class Price extends Tag.Class<Price>()("price", { id: Schema.Int }) {}
class Rebate extends Tag.Class<Rebate>()("rebate", { id: Schema.Int }) {}
class Offer extends Node.Class<Offer>()("offer", {
  key: { id: Schema.Int },
  value: Schema.Int,
  error: Schema.Literal("withdrawn"),
  tags: ({ id }) => new Price({ id })
}) {}
class Page extends Node.Class<Page>()("page", { key: { name: Schema.String }, value: Schema.Int }) {}

const offer = new Offer({ id: 1 })

/** All that the answer to `offer` rests on, as its program names it. */
const facts = [
  new Price({ id: 1 }),
  // Known only once it was looked up.
  new Rebate({ id: 1 }),
  offer,
  Offer,
  { pattern: "offer:*" }
]

type Run = Effect.Effect<number, "down" | "withdrawn">

/** What offers are. */
class Source {
  value: number | undefined = 1
  isDown = false
  runs = 0
  /** Lookups have found their answer and wait while it is closed. */
  readonly gate = Latch.makeUnsafe(true)
  readonly found = Latch.makeUnsafe(false)
  readonly lookup: Run = Effect.suspend((): Run => {
    this.runs++
    const { value, isDown } = this
    const answer: Run = isDown
      ? Effect.fail("down")
      : value === undefined
        ? Effect.fail("withdrawn")
        : Effect.succeed(value)
    return Effect.andThen(
      Cacheme.dependOn(new Rebate({ id: 1 })),
      Effect.andThen(this.found.open, Effect.andThen(this.gate.await, answer))
    )
  })
  readonly ask = (overrides: Node.Overrides = {}) => this.lookup.pipe(Cacheme.memoize(offer, overrides))
  readonly resolver = Cacheme.resolver(() => Effect.map(this.lookup, (value) => [[offer, value] as const]))
  readonly batch = (overrides: Node.Overrides = {}) =>
    Cacheme.getAll(
      [offer],
      () => Effect.map(this.lookup, (value) => (value < 0 ? [] : [[offer, value] as const])),
      overrides
    ).pipe(Effect.map(([one]) => Option.getOrElse(one!, () => -1)))
}

/** The answer, or a negative number for each way of having none. */
const recovered = (inner: Effect.Effect<number, unknown, Cacheme>): Effect.Effect<number, never, Cacheme> =>
  Effect.catch(inner, (error) => Effect.succeed(error === "down" ? -2 : -3))

type Kind = SharedStore | "memory"
type Processes = readonly [Process, Process, Process]

/** Three processes, which are one where they share no store. */
const start = (kind: Kind): Effect.Effect<Processes, never, Scope.Scope> =>
  kind === "memory"
    ? Effect.map(Layer.build(Cacheme.layer().pipe(Layer.provide(MemoryStore.layer()))), (context) => {
        const process: Process = (self) => Effect.provideContext(self, context)
        return [process, process, process] as const
      }).pipe(Effect.orDie)
    : Effect.map(startProcesses(kind), ([a, b, c]) => [a, b, c] as const)

const kinds: ReadonlyArray<Kind> = ["memory", ...sharedStores]

const each = (
  name: string,
  body: (processes: Processes, source: Source, kind: Kind) => Effect.Effect<void, unknown, Scope.Scope>,
  of: ReadonlyArray<Kind> = kinds
) => {
  for (const kind of of)
    it.effect(
      `${name} (${kind})`,
      () => Effect.scoped(Effect.flatMap(start(kind), (processes) => body(processes, new Source(), kind))),
      15_000
    )
}

const fork = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.forkChild(self, { startImmediately: true })

const pageOf = (name: string, inner: Effect.Effect<number, unknown, Cacheme>) =>
  recovered(inner).pipe(Cacheme.memoize(new Page({ name })))

const isKept = (process: Process, name: string) =>
  Effect.map(process(Cacheme.peek(new Page({ name }))), Option.isSome)

/** Asks for a page in a process, and expects that all are given the same, until one of the facts is invalidated. */
const expectRestsOn = (
  [a, b, c]: Processes,
  page: Effect.Effect<number, never, Cacheme>,
  name: string,
  expected: readonly [before: number, after: number],
  change: Effect.Effect<unknown, never, Cacheme>
) =>
  Effect.gen(function* () {
    assert.strictEqual(yield* a(page), expected[0])
    assert.isTrue(yield* isKept(b, name), "it is kept")
    yield* c(change)
    for (const process of [b, a]) assert.isFalse(yield* isKept(process, name), "it is kept no more")
    for (const process of [b, a]) assert.strictEqual(yield* process(page), expected[1])
  })

describe("an outer answer ends with", () => {
  /** For each of the facts: a page over an inner answer that is there, or on its way, as `prepare` says. */
  const eachFact = (
    name: string,
    use: (source: Source, fact: number) => Effect.Effect<number, unknown, Cacheme>,
    prepare: (processes: Processes, source: Source) => Effect.Effect<unknown, unknown, Scope.Scope> = () =>
      Effect.void,
    { of = kinds, targets = facts }: { of?: ReadonlyArray<Kind>; targets?: typeof facts } = {}
  ) =>
    each(
      name,
      (processes, source) =>
        Effect.gen(function* () {
          for (const [i, target] of targets.entries()) {
            yield* processes[2](Cacheme.invalidate(facts))
            source.value = 10 * i + 1
            yield* prepare(processes, source)
            const change = Effect.suspend(() => {
              source.value = 10 * i + 2
              source.isDown = false
              return Effect.ignore(Cacheme.invalidate(target))
            })
            const before = source.isDown ? -2 : (source.value ?? -3)
            const page = pageOf(`${i}`, use(source, i))
            yield* expectRestsOn(processes, page, `${i}`, [before, 10 * i + 2], change)
          }
        }),
      of
    )

  const warm = ([a]: Processes, source: Source) => a(Effect.exit(source.ask()))
  const warmElsewhere = ([, b]: Processes, source: Source) => b(Effect.exit(source.ask()))

  eachFact("one that was in this process", (source) => source.ask(), warm)
  eachFact("one that another process has stored", (source) => source.ask(), warmElsewhere)
  eachFact("one that was looked up for it", (source) => source.ask())
  eachFact("one of a batch that was there", (source) => source.batch(), warmElsewhere)
  eachFact("one of a batch that was looked up for it", (source) => source.batch())
  eachFact("one that bypasses the cache", (source) => source.ask({ skip: true }), warm)
  eachFact("one of a batch that bypasses the cache", (source) => source.batch({ skip: true }), warm)
  eachFact(
    "one that was computed in a transaction",
    (source) =>
      Effect.provideService(source.ask(), CurrentTransaction, {
        readCommitted: false,
        changed: new Changes(),
        defer: () => {}
      }),
    warm
  )
  eachFact("one that was asked for by a resolver", (source) =>
    Effect.map(
      Cacheme.ask(offer, source.resolver),
      Option.getOrElse(() => -9)
    )
  )

  each("one that several have asked for by one resolver", ([a, b, c], source) =>
    Effect.gen(function* () {
      for (const [i, target] of facts.entries()) {
        source.value = i
        const asked = Effect.map(
          Cacheme.ask(offer, source.resolver),
          Option.getOrElse(() => -9)
        )
        const names = [`${i}.1`, `${i}.2`]
        const pages = names.map((name) => pageOf(name, asked))
        assert.deepStrictEqual(yield* a(Effect.all(pages, { concurrency: 2 })), [i, i])
        for (const name of names) assert.isTrue(yield* isKept(b, name))
        yield* c(Cacheme.invalidate(target))
        for (const name of names) assert.isFalse(yield* isKept(b, name))
        yield* c(Cacheme.invalidate(facts))
      }
    })
  )

  const fail = (_: Processes, source: Source) => Effect.sync(() => (source.isDown = true))
  eachFact("one that has failed", (source) => source.ask(), fail)
  eachFact("a batch that has failed", (source) => source.batch(), fail)
  eachFact("one that has failed beside the cache", (source) => source.ask({ skip: true }), fail)
  eachFact("a batch that has failed beside the cache", (source) => source.batch({ skip: true }), fail)
  eachFact(
    "one that has failed as it may",
    (source) => source.ask(),
    (processes, source) =>
      Effect.suspend(() => {
        source.value = undefined
        return warm(processes, source)
      })
  )

  each("one that was peeked at", ([a, b, c], source) =>
    Effect.gen(function* () {
      for (const [i, target] of facts.entries()) {
        source.value = i + 1
        yield* b(source.ask())
        const page = pageOf(
          `${i}`,
          Effect.map(
            Cacheme.peek(offer),
            Option.getOrElse(() => -9)
          ).pipe(Effect.orDie)
        )
        assert.strictEqual(yield* a(page), i + 1)
        assert.isTrue(yield* isKept(b, `${i}`))
        yield* c(Cacheme.invalidate(target))
        assert.isFalse(yield* isKept(b, `${i}`))
        assert.strictEqual(yield* b(page), -9)
        yield* c(Cacheme.set(offer, 100))
        assert.isFalse(yield* isKept(a, `${i}`))
        assert.strictEqual(yield* a(page), 100)
        yield* c(Cacheme.invalidate(facts))
      }
    })
  )

  each("having no answer in a batch", ([a, b, c], source) =>
    Effect.gen(function* () {
      for (const [i, target] of facts.entries()) {
        source.value = -1
        const page = pageOf(`${i}`, source.batch())
        const change = Effect.suspend(() => {
          source.value = 5
          return Effect.ignore(Cacheme.invalidate(target))
        })
        yield* expectRestsOn([a, b, c], page, `${i}`, [-1, 5], change)
        yield* c(Cacheme.invalidate(facts))
      }
    })
  )

  const followed = (
    name: string,
    ask: (source: Source) => Effect.Effect<number, unknown, Cacheme>,
    isDown = false
  ) =>
    each(`${name}, for everyone who has waited for it`, ([a, b, c], source) =>
      Effect.gen(function* () {
        for (const [i, target] of facts.entries()) {
          yield* c(Cacheme.invalidate(facts))
          source.value = 1
          source.isDown = isDown
          source.gate.closeUnsafe()
          source.found.closeUnsafe()
          const first = yield* fork(a(Effect.exit(ask(source))))
          yield* source.found.await
          const names = [`${i}.1`, `${i}.2`]
          const pages = names.map((name) => pageOf(name, ask(source)))
          const fibers = [yield* fork(a(pages[0]!)), yield* fork(a(pages[1]!))]
          yield* until(Effect.map(a(Cacheme.explain(new Page({ name: `${i}.2` }))), (e) => e.lookupRunning))
          yield* source.gate.open
          yield* Fiber.join(first)
          for (const fiber of fibers) assert.strictEqual(yield* Fiber.join(fiber), isDown ? -2 : 1)
          for (const name of names) assert.isTrue(yield* isKept(b, name), "it is kept")
          source.value = 2
          source.isDown = false
          yield* c(Cacheme.invalidate(target))
          for (const name of names) assert.isFalse(yield* isKept(b, name), "it is kept no more")
          for (const page of pages) assert.strictEqual(yield* b(page), 2)
        }
      })
    )
  followed("one in the air", (source) => source.ask())
  followed("one in the air that fails", (source) => source.ask(), true)
  followed("a batch in the air", (source) => source.batch())

  each(
    "one that another process was looking up",
    ([a, b, c], source) =>
      Effect.gen(function* () {
        for (const [i, target] of facts.entries()) {
          yield* c(Cacheme.invalidate(facts))
          source.value = 1
          source.gate.closeUnsafe()
          source.found.closeUnsafe()
          const first = yield* fork(b(source.ask()))
          yield* source.found.await
          const runs = source.runs
          const page = pageOf(`${i}`, source.ask())
          const waiting = yield* fork(a(page))
          yield* until(Effect.map(a(Cacheme.explain(offer)), (e) => e.lookupRunning))
          yield* source.gate.open
          assert.strictEqual(yield* Fiber.join(first), 1)
          assert.strictEqual(yield* Fiber.join(waiting), 1)
          assert.strictEqual(source.runs, runs, "it was found")
          assert.isTrue(yield* isKept(c, `${i}`))
          source.value = 2
          yield* c(Cacheme.invalidate(target))
          assert.isFalse(yield* isKept(b, `${i}`))
          assert.strictEqual(yield* b(page), 2)
        }
      }),
    sharedStores
  )

  each("the key of one that it gave up waiting for", ([a, b, c], source) =>
    Effect.gen(function* () {
      const waysToGiveUp: ReadonlyArray<(source: Source) => Effect.Effect<number, unknown, Cacheme>> = [
        (source) => Effect.raceFirst(source.ask(), Effect.andThen(source.found.await, Effect.succeed(0))),
        (source) => Effect.raceFirst(source.batch(), Effect.andThen(source.found.await, Effect.succeed(0))),
        (source) =>
          Effect.raceFirst(source.ask({ skip: true }), Effect.andThen(source.found.await, Effect.succeed(0))),
        (source) =>
          Effect.raceFirst(
            source.batch({ skip: true }),
            Effect.andThen(source.found.await, Effect.succeed(0))
          )
      ]
      for (const [way, ask] of waysToGiveUp.entries())
        for (const [i, target] of [offer, Offer, { pattern: "offer:*" }].entries()) {
          source.value = 1
          source.gate.closeUnsafe()
          source.found.closeUnsafe()
          const name = `${way}.${i}`
          const page = pageOf(name, ask(source))
          assert.strictEqual(yield* a(page), 0)
          assert.isTrue(yield* isKept(b, name), `${name} is kept`)
          yield* c(Cacheme.invalidate(target))
          assert.isFalse(yield* isKept(b, name), `${name} is kept no more`)
        }
    })
  )

  each("what is within the answer inside the answer", ([a, b, c], source) =>
    Effect.gen(function* () {
      for (const [i, target] of facts.entries()) {
        yield* c(Cacheme.invalidate(facts))
        source.value = 1
        const middle = pageOf(`middle ${i}`, source.ask())
        const page = pageOf(`${i}`, middle)
        if (i % 2 === 0) yield* b(middle)
        yield* expectRestsOn(
          [a, b, c],
          page,
          `${i}`,
          [1, 2],
          Effect.suspend(() => {
            source.value = 2
            return Effect.ignore(Cacheme.invalidate(target))
          })
        )
      }
    })
  )
})

describe("an outer answer is not kept", () => {
  each("over one that it has renewed itself", ([a, b], source) =>
    Effect.gen(function* () {
      const page = pageOf("1", Cacheme.refresh(source.lookup, offer))
      for (const value of [1, 2]) {
        source.value = value
        assert.strictEqual(yield* a(page), value)
        assert.isFalse(yield* isKept(b, "1"))
      }
    })
  )

  each("over rows that its own transaction has changed, and may take back", ([a, b], source) =>
    Effect.gen(function* () {
      const changed = new Changes()
      changed.add({ keys: [], tags: [new Price({ id: 1 }).id], patterns: [] })
      const transaction = { readCommitted: true, changed, defer: () => {} }
      for (const ask of [source.ask(), source.batch()]) {
        const page = pageOf("1", Effect.provideService(ask, CurrentTransaction, transaction))
        assert.strictEqual(yield* a(page), 1)
        assert.isFalse(yield* isKept(b, "1"))
      }
    })
  )
})

describe("what was invalidated before an outer answer was asked for is not in it, though", () => {
  // Nobody is told of what others invalidate: messages are hints.
  beforeEach(() => void vi.spyOn(Cell.prototype, "hear").mockReturnValue(false))
  afterEach(() => void vi.restoreAllMocks())

  const overtaken = (name: string, ask: (source: Source) => Effect.Effect<number, unknown, Cacheme>) =>
    each(name, ([a, b, c], source) =>
      Effect.gen(function* () {
        for (const [i, target] of facts.entries())
          for (const process of [a, b]) {
            source.value = 1
            source.gate.closeUnsafe()
            source.found.closeUnsafe()
            // It learns by asking that it has none.
            assert.isTrue(Option.isNone(yield* b(Cacheme.peek(offer))))
            const old = yield* fork(b(ask(source)))
            yield* source.found.await
            source.value = 2
            yield* c(Cacheme.invalidate(target))
            const name = `${i}.${process === a ? "a" : "b"}`
            const page = yield* fork(process(pageOf(name, ask(source))))
            yield* until(
              Effect.map(process(Cacheme.explain(new Page({ name }))), (explained) => explained.lookupRunning)
            )
            yield* source.gate.open
            yield* Fiber.join(old)
            assert.strictEqual(yield* Fiber.join(page), 2)
            assert.strictEqual(yield* c(pageOf(name, Effect.succeed(-9))), 2)
            yield* c(Cacheme.invalidate(facts))
          }
      })
    )
  overtaken("a lookup of before is in the air", (source) => source.ask())
  overtaken("a batch of before is in the air", (source) => source.batch())

  each("memory has it and was not told", ([a, b], source) =>
    Effect.gen(function* () {
      for (const [i, target] of facts.entries())
        for (const [way, ask] of [
          source.ask(),
          source.batch(),
          Effect.map(
            Cacheme.peek(offer),
            Option.getOrElse(() => 2)
          )
        ].entries()) {
          source.value = 1
          yield* a(source.ask())
          source.value = 2
          yield* b(Cacheme.invalidate(target))
          assert.strictEqual(yield* a(pageOf(`${i}.${way}`, ask)), 2)
          yield* a(Cacheme.invalidate(facts))
        }
    })
  )
})

describe("an outer answer ages out with", () => {
  class Brief extends Node.Class<Brief>()("brief", {
    key: {},
    value: Schema.Int,
    timeToLive: "10 seconds"
  }) {}
  let runs = 0
  const ask = (overrides: Node.Overrides = {}) =>
    Effect.sync(() => ++runs).pipe(Cacheme.memoize(new Brief(), overrides))
  const batch = Cacheme.getAll([new Brief()], () => Effect.sync(() => [[new Brief(), ++runs] as const])).pipe(
    Effect.map(([one]) => Option.getOrThrow(one!))
  )

  each("the first of those inside it", ([a, b]) =>
    Effect.gen(function* () {
      for (const [way, inner] of [ask(), batch].entries()) {
        const first = yield* b(ask())
        yield* TestClock.adjust("4 seconds")
        const page = pageOf(`${way}`, inner)
        const around = pageOf(`around ${way}`, page)
        for (const outer of [page, around]) assert.strictEqual(yield* a(outer), first)
        yield* TestClock.adjust("5999 millis")
        for (const outer of [page, around]) assert.strictEqual(yield* b(outer), first)
        yield* TestClock.adjust("1 millis")
        for (const outer of [around, page]) assert.strictEqual(yield* b(outer), first + 1)
        yield* TestClock.adjust("10 seconds")
      }
    })
  )

  each("one that was looked up for it, or beside the cache", ([a, b]) =>
    Effect.gen(function* () {
      for (const [way, inner] of [ask(), batch, ask({ skip: true })].entries()) {
        const page = pageOf(`${way}`, inner)
        const first = yield* a(page)
        yield* TestClock.adjust("9999 millis")
        assert.strictEqual(yield* b(page), first)
        yield* TestClock.adjust("1 millis")
        assert.strictEqual(yield* b(page), first + 1)
        yield* TestClock.adjust("10 seconds")
      }
    })
  )

  each("one that is kept for nobody", ([a, b]) =>
    Effect.gen(function* () {
      const page = pageOf("1", ask({ timeToLive: 0 }))
      const first = yield* a(page)
      assert.strictEqual(yield* b(page), first + 1)
    })
  )

  each("itself, if that comes first", ([a, b]) =>
    Effect.gen(function* () {
      const page = ask().pipe(Cacheme.memoize(new Page({ name: "1" }), { timeToLive: "3 seconds" }))
      const first = yield* a(page)
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(yield* b(Cacheme.peek(new Page({ name: "1" }))), Option.none() as any)
      assert.strictEqual(yield* b(page), first)
    })
  )
})
