import { assert, describe, it } from "@effect/vitest"
import { performance } from "node:perf_hooks"
import { Effect, Fiber, Latch, Layer, Option, Schema, type Scope } from "effect"
import { afterEach, beforeEach, inject, vi } from "vitest"
import { Cacheme, Node, Tag } from "../../../src/index.ts"
import { Store } from "../../../src/Store.ts"
import { makeMemory } from "../../../src/store/MemoryStore.ts"
import { Cell } from "../../../src/store/redis/Cell.ts"
import * as FarSettings from "../../../src/store/redis/farSettings.ts"
import * as FarStore from "../../../src/store/redis/FarStore.ts"
import { Away } from "../../../src/store/redis/Link.ts"
import * as Names from "../../../src/store/redis/names.ts"
import { longestRound, Settled, settledAfter } from "../../../src/store/redis/rounds.ts"
import { type Process, until } from "../../support/processes.ts"
import { ownPrefix } from "../../support/shared.ts"

/**
 * Several cells: an answer that has used one of another cell never outlives, once it is acknowledged, an invalidation
 * that its own cell was told of first.
 */
class Price extends Tag.Class<Price>()("price", { id: Schema.Int }) {}
class Offer extends Node.Class<Offer>()("offer", {
  key: { id: Schema.Int },
  value: Schema.Int,
  tags: () => new Price({ id: 1 })
}) {}
class Page extends Node.Class<Page>()("page", { key: { id: Schema.Int }, value: Schema.Int }) {}
class Book extends Node.Class<Book>()("book", { key: { id: Schema.Int }, value: Schema.Int }) {}

const cells = ["first", "second"]
const { cellOf } = Names.make("", cells)

/** A key that lies in a cell. */
const within = <N extends Node.Any>(cell: number, make: (id: number) => N): N => {
  for (let id = 1; ; id++) {
    const node = make(id)
    if (cellOf(node[Node.TypeId].id(node)) === cell) return node
  }
}
const offer = within(1, (id) => new Offer({ id }))
const page = within(0, (id) => new Page({ id }))
const [book, neighbour] = [1, 0].map((cell) => within(cell, (id) => new Book({ id })))

/** A process that keeps what it shares in two cells. */
const start = (prefix: string, isNear: boolean): Effect.Effect<Process, unknown, Scope.Scope> =>
  Effect.gen(function* () {
    const memory = isNear ? yield* makeMemory() : undefined
    const near = memory && (yield* FarSettings.makeNear({ url: "", near: "validated" }, memory))
    const settings = yield* FarSettings.make(
      { url: inject("redisUrl"), prefix, deadline: "20 seconds" },
      near
    )
    const store = yield* FarStore.make({ ...settings, names: Names.make(prefix, cells) })
    const context = yield* Layer.build(
      Cacheme.layer({ prefix }).pipe(Layer.provide(Layer.succeed(Store, store)))
    )
    const process: Process = (self) => Effect.provideContext(self, context)
    return process
  })

interface World {
  readonly reader: Process
  readonly other: Process
  readonly writer: Process
  readonly truth: { value: number; runs: number }
  readonly ask: Effect.Effect<number, never, Cacheme>
}

const each = (name: string, body: (world: World) => Effect.Effect<unknown, unknown, Scope.Scope>) => {
  for (const isNear of [false, true])
    it.live(
      `${name} (${isNear ? "memory in front" : "without memory"})`,
      () =>
        Effect.gen(function* () {
          const prefix = ownPrefix()
          const [reader, other, writer] = yield* Effect.all([
            start(prefix, isNear),
            start(prefix, isNear),
            start(prefix, isNear)
          ])
          const truth = { value: 1, runs: 0 }
          const ask = Effect.sync(() => {
            truth.runs++
            return truth.value
          }).pipe(Cacheme.memoize(offer))
          // A process that has just begun keeps nothing of the kind.
          for (const [i, process] of [reader, other].entries()) {
            const first = within(0, (id) => new Page({ id: id + 1000 * (i + 1) }))
            yield* until(Effect.andThen(process(ask.pipe(Cacheme.memoize(first))), isKept(process, first)))
          }
          truth.runs = 0
          yield* body({ reader, other, writer, truth, ask })
        }).pipe(Effect.scoped, Effect.asVoid),
      20_000
    )
}

const fork = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.forkChild(self, { startImmediately: true })

/** While it is closed the second cell is told of no invalidation. */
let gate = Latch.makeUnsafe(true)
/** Open once the first cell was told of one. */
let told = Latch.makeUnsafe(false)
/** Telling the second cell fails. */
let isCutOff = false

const originalOf = <K extends "deliver" | "replace">(method: K): Cell[K] =>
  Object.getOwnPropertyDescriptor(Cell.prototype, method)!.value

beforeEach(() => {
  gate = Latch.makeUnsafe(true)
  told = Latch.makeUnsafe(false)
  isCutOff = false
  const [deliver, replace] = [originalOf("deliver"), originalOf("replace")]
  vi.spyOn(Cell.prototype, "deliver").mockImplementation(async function (this: Cell, ...args) {
    const isSecond = this.options.state.includes("{second}")
    if (isSecond && isCutOff) throw new Away("cut off")
    if (isSecond) await Effect.runPromise(gate.await)
    const acknowledged = await deliver.apply(this, args)
    if (!isSecond) told.openUnsafe()
    return acknowledged
  })
  vi.spyOn(Cell.prototype, "replace").mockImplementation(async function (this: Cell, ...args) {
    await Effect.runPromise(gate.await)
    return replace.apply(this, args)
  })
})
afterEach(() => void vi.restoreAllMocks())

const isKept = (process: Process, node: Node.Any) =>
  Effect.map(process(Cacheme.peek(node as Page)), Option.isSome)

/** Begins an invalidation that reaches the first cell, and the second one when the gate is opened. */
const write = ({ writer, truth }: World) =>
  Effect.gen(function* () {
    gate.closeUnsafe()
    truth.value = 2
    const writing = yield* fork(writer(Cacheme.invalidate(new Price({ id: 1 }))))
    yield* told.await
    return Effect.andThen(gate.open, Fiber.join(writing))
  })

describe("while one cell was told and the other was not, an answer over one of the other", () => {
  const outers = {
    "is good for those who do not know better": ({ ask }: World) => ask.pipe(Cacheme.memoize(page)),
    "by way of a third one there": ({ ask }: World) =>
      ask.pipe(Cacheme.memoize(book as Book), Cacheme.memoize(page)),
    "by way of a third one here": ({ ask }: World) =>
      ask.pipe(Cacheme.memoize(neighbour as Book), Cacheme.memoize(page)),
    "in a batch": ({ ask }: World) =>
      Cacheme.getAll([page], () => Effect.map(ask, (value) => [[page, value] as const])).pipe(
        Effect.map(([one]) => Option.getOrThrow(one!))
      )
  }
  for (const [name, outerOf] of Object.entries(outers))
    each(name, (world) =>
      Effect.gen(function* () {
        const outer = outerOf(world)
        const acknowledged = yield* write(world)
        for (const process of [world.reader, world.other]) assert.strictEqual(yield* process(outer), 1)
        yield* acknowledged
        for (const process of [world.reader, world.other]) assert.strictEqual(yield* process(outer), 2)
        // It is kept as soon as what the first cell was told of is old enough.
        yield* until(Effect.andThen(world.reader(outer), isKept(world.other, page)))
        const { runs } = world.truth
        assert.strictEqual(yield* world.other(outer), 2)
        assert.strictEqual(world.truth.runs, runs)
      })
    )

  each("is not for who joins later, also if it is not to be stored", (world) =>
    Effect.gen(function* () {
      const used = Latch.makeUnsafe(false)
      const go = Latch.makeUnsafe(false)
      const outer = world.ask.pipe(
        Effect.tap(() => Effect.andThen(used.open, go.await)),
        Cacheme.memoize(page, { timeToLive: 0 })
      )
      const acknowledged = yield* write(world)
      const first = yield* fork(world.reader(outer))
      yield* used.await
      yield* acknowledged
      const missed = Latch.makeUnsafe(false)
      const late = yield* fork(
        world.reader(
          Effect.succeed(2).pipe(Cacheme.memoize(page, { timeToLive: 0, on: { miss: () => missed.open } }))
        )
      )
      yield* missed.await
      yield* go.open
      assert.strictEqual(yield* Fiber.join(first), 1)
      assert.strictEqual(yield* Fiber.join(late), 2)
    })
  )
})

describe("an invalidation that takes long from the first cell to the last", () => {
  each("tells all of them once more", (world) =>
    Effect.gen(function* () {
      const outer = world.ask.pipe(Cacheme.memoize(page))
      const acknowledged = yield* write(world)
      // What the first cell was told of is long ago by now, for who does not know that it goes on.
      yield* until(Effect.andThen(world.reader(outer), isKept(world.other, page)))
      assert.strictEqual(yield* world.other(outer), 1)
      const report = yield* acknowledged
      assert.strictEqual(report.pending, 0)
      for (const process of [world.reader, world.other]) assert.strictEqual(yield* process(outer), 2)
    })
  )

  each("tells all of them when it could not be told at first", (world) =>
    Effect.gen(function* () {
      const outer = world.ask.pipe(Cacheme.memoize(page))
      isCutOff = true
      world.truth.value = 2
      assert.isAbove((yield* world.writer(Cacheme.invalidate(new Price({ id: 1 })))).pending, 0)
      // It is tried again, and takes long.
      gate.closeUnsafe()
      isCutOff = false
      yield* until(Effect.andThen(world.reader(outer), isKept(world.other, page)))
      assert.strictEqual(yield* world.other(outer), 1)
      yield* gate.open
      yield* until(Effect.map(world.writer(Cacheme.stats), ({ store }) => store.shared?.pending === 0))
      for (const process of [world.reader, world.other]) assert.strictEqual(yield* process(outer), 2)
    })
  )

  each("tells them once more where a value came with it", ({ reader, other, writer, truth, ask }) =>
    Effect.gen(function* () {
      const outer = ask.pipe(Cacheme.memoize(page))
      gate.closeUnsafe()
      truth.value = 2
      const writing = yield* fork(writer(Cacheme.set(offer, 2)))
      yield* told.await
      yield* until(Effect.andThen(reader(outer), isKept(other, page)))
      assert.strictEqual(yield* other(outer), 1)
      yield* gate.open
      yield* Fiber.join(writing)
      for (const process of [reader, other]) assert.strictEqual(yield* process(outer), 2)
    })
  )

  each("is not acknowledged while they answer too far apart", ({ writer }) =>
    Effect.gen(function* () {
      let now = 0
      vi.spyOn(Date, "now").mockImplementation(() => (now += longestRound + 1))
      const report = yield* writer(Cacheme.invalidate(new Price({ id: 1 })))
      assert.isAbove(report.pending, 0)
    })
  )
})

describe("Settled", () => {
  let [monotonic, wall] = [0, 0]
  beforeEach(() => {
    ;[monotonic, wall] = [1000, 5_000_000]
    vi.spyOn(performance, "now").mockImplementation(() => monotonic)
    vi.spyOn(Date, "now").mockImplementation(() => wall)
  })
  const pass = (milliseconds: number) => {
    monotonic += milliseconds
    wall += milliseconds
  }
  const at = (sequence: number, incarnation = "1") => ({ incarnation, sequence })

  it("tells the newest position that was seen long enough ago, of two", () => {
    const settled = new Settled()
    assert.isUndefined(settled.point)
    settled.note(at(1))
    pass(settledAfter - 1)
    settled.note(at(2))
    assert.isUndefined(settled.point)
    pass(1)
    assert.deepStrictEqual(settled.point, at(1))
    settled.note(at(3))
    pass(settledAfter - 1)
    settled.note(at(4))
    assert.deepStrictEqual(settled.point, at(1))
    pass(1)
    assert.deepStrictEqual(settled.point, at(3))
  })

  it("begins anew with an incarnation, and when the clock was set back", () => {
    const settled = new Settled()
    settled.note(at(1))
    pass(settledAfter)
    settled.note(at(2, "2"))
    assert.isUndefined(settled.point)
    pass(settledAfter)
    assert.deepStrictEqual(settled.point, at(2, "2"))
    wall -= 3_600_000
    settled.note(at(3, "2"))
    assert.isUndefined(settled.point)
    pass(settledAfter)
    assert.deepStrictEqual(settled.point, at(3, "2"))
  })

  it("believes the clock that has gone less far", () => {
    for (const isAsleep of [true, false]) {
      const settled = new Settled()
      settled.note(at(1))
      if (isAsleep) wall += 3_600_000
      else monotonic += 3_600_000
      assert.isUndefined(settled.point)
    }
  })

  it("a writer's measure is shorter than a reader's", () => {
    assert.isBelow(longestRound * 1.2, settledAfter)
  })
})
