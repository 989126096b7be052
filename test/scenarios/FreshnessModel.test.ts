/**
 * The whole service against a naive model of the rule: random reads, batches, writes, time, failures and
 * interruptions, with lookups that end when the history says so. The model keeps every lookup and every invalidation
 * for ever, and asks of each answer whether it may be given, of each fresh answer whether it is.
 *
 * Over a store that is shared, two processes take the steps in turn. There what has happened is known only when Redis
 * has answered, windows after an invalidation go by real time, as Redis's own forgetting does, and in `bounded` mode
 * another process's write may go unseen for a while.
 */
import { assert, describe, inject, it } from "@effect/vitest"
import { Clock, Deferred, Effect, Exit, Fiber, Option, Schedule, Schema } from "effect"
import { TestClock } from "effect/testing"
import { Cacheme, LookupTimeout, Node, type Position, Tag } from "../../src/index.ts"
import { CachemeTest, FaultyStore, type Operation } from "../../src/testing/index.ts"
import { type Process, startProcesses } from "../support/processes.ts"
import { type SharedStore, sharedStores } from "../support/shared.ts"

const ids = [0, 1, 2, 3] as const
const Id = Schema.Literals(ids)
const Place = Schema.Literals([0, 1, 2, 3, 4, 5])
const timeToLive = 100

class Group extends Tag.Class<Group>()("group", { of: Schema.Int }) {}
class Kind extends Tag.Class<Kind>()("kind", { of: Schema.Int }) {}
class Thing extends Node.Class<Thing>()("thing", {
  key: { id: Schema.Int },
  value: Schema.Struct({ lookup: Schema.Int }),
  timeToLive,
  tags: ({ id }) => new Group({ of: id % 2 }),
  valueTags: ({ lookup }) => new Kind({ of: lookup % 3 })
}) {}

const policies = {
  plain: {},
  aged: { stale: { whileRevalidate: 50 } },
  invalidated: { stale: { afterInvalidation: 30 } },
  error: { stale: { ifError: 80 } },
  all: { stale: { whileRevalidate: 20, afterInvalidation: 60, ifError: 80 } },
  soft: { stale: { ifError: 80 }, lookup: { softTimeout: 10 } },
  limited: { lookup: { timeout: 40 } },
  early: { refresh: { ahead: 2 } }
} as const
const Policy = Schema.Literals(["plain", "aged", "invalidated", "error", "all", "soft", "limited", "early"])

const Step = Schema.Union([
  Schema.TaggedStruct("Read", { id: Id, policy: Policy }),
  Schema.TaggedStruct("Read", { id: Id, policy: Schema.Literals(["plain"]) }),
  Schema.TaggedStruct("ReadAll", {
    ids: Schema.Array(Id).check(Schema.isMinLength(1), Schema.isMaxLength(4)),
    policy: Policy
  }),
  Schema.TaggedStruct("Refresh", { id: Id }),
  Schema.TaggedStruct("Set", { id: Id, since: Schema.Literals([0, 1, 2, 3]) }),
  Schema.TaggedStruct("Land", { lookup: Place }),
  Schema.TaggedStruct("Land", { lookup: Schema.Literals([0]) }),
  Schema.TaggedStruct("Fail", { lookup: Place }),
  Schema.TaggedStruct("Interrupt", { reader: Place }),
  Schema.TaggedStruct("Key", { id: Id }),
  Schema.TaggedStruct("Group", { of: Schema.Literals([0, 1]) }),
  Schema.TaggedStruct("Kind", { of: Schema.Literals([0, 1, 2]) }),
  Schema.TaggedStruct("Glob", { glob: Schema.Literals(["thing:[01]", "*3", "thing:9"]) }),
  Schema.TaggedStruct("Wait", { millis: Schema.Literals([1, 9, 25, 60]) })
])
type Step = typeof Step.Type

/** A lookup, or a value that was set: when it began, in the order of events, and when its answer came. */
interface Known {
  readonly number: number
  readonly id: number
  readonly began: number
  landedAt: number | undefined
  /** The same by the real clock. */
  landed?: number | undefined
}

/** An invalidation: it took effect between two events. */
interface Ended {
  readonly called: number
  completed: number | undefined
  instant: number
  /** By which process, and when it had completed by the real clock. */
  by?: Process | undefined
  real?: number | undefined
  readonly isPattern?: boolean | undefined
  readonly reaches: (known: Known) => boolean
}

interface Reader {
  readonly asked: number
  /** When it asked. A batch may hold an answer that was good then while it waits for others. */
  readonly since: number
  readonly ids: ReadonlyArray<number>
  readonly policy: keyof typeof policies
  readonly isForced: boolean
  readonly fiber: Fiber.Fiber<ReadonlyArray<number>, unknown>
  /** In which process, and when by the real clock. */
  readonly by?: Process | undefined
  readonly real: number
}

/** How a store is shared. */
interface Sharing {
  readonly processes: ReadonlyArray<Process>
  /** For how many milliseconds another process's write may go unseen. */
  readonly allowance: number
}

class World {
  readonly sharing: Sharing | undefined
  /** The process whose turn it is. */
  process: Process | undefined
  events = 0
  readonly known: Array<Known> = []
  readonly ended: Array<Ended> = []
  readers: Array<Reader> = []
  running: Array<{ readonly gate: Deferred.Deferred<void, "down">; readonly keys: ReadonlyArray<Known> }> = []
  readonly positions: Array<{ readonly position: Position; readonly event: number }> = []
  answers = 0

  constructor(sharing?: Sharing) {
    this.sharing = sharing
  }

  know(id: number, began = ++this.events): Known {
    const known: Known = { number: this.known.length, id, began, landedAt: undefined }
    this.known.push(known)
    return known
  }

  /** A lookup of keys that ends when the history says so. */
  lookUp(keys: ReadonlyArray<number>): Effect.Effect<ReadonlyArray<number>, "down"> {
    return Effect.suspend(() => {
      const run = { gate: Deferred.makeUnsafe<void, "down">(), keys: keys.map((id) => this.know(id)) }
      this.running.push(run)
      return Deferred.await(run.gate).pipe(
        Effect.andThen(Clock.currentTimeMillis),
        Effect.map((now) => {
          for (const known of run.keys) [known.landedAt, known.landed] = [now, performance.now()]
          return run.keys.map(({ number }) => number)
        }),
        Effect.onExit(() => Effect.sync(() => (this.running = this.running.filter((other) => other !== run))))
      )
    })
  }

  /** The windows that a reader has opened. */
  windows(policy: keyof typeof policies) {
    const options: Node.StaleOptions = (policies[policy] as Node.Overrides).stale ?? {}
    const [aged, invalidated, error] = [options.whileRevalidate, options.afterInvalidation, options.ifError]
    return {
      aged: Math.max(Number(aged ?? 0), Number(error ?? 0)),
      invalidated: Number(invalidated ?? 0)
    }
  }

  /** Asserts that a reader may be given this answer now. */
  check(reader: Reader, id: number, number: number, now: number): void {
    this.answers++
    const known = this.known[number]!
    assert.strictEqual(known.id, id, "the answer is that of the key")
    assert.isDefined(known.landedAt, "the answer has been found")
    const windows = this.windows(reader.policy)
    const agedFor = now - (known.landedAt + timeToLive)
    const what = `${JSON.stringify(known)} for ${reader.policy} asked at ${reader.asked}`
    assert.isTrue(agedFor < 0 || (agedFor < windows.aged && !reader.isForced), `aged: ${what}`)
    const by = this.ended.filter(
      (one) =>
        known.began < one.called &&
        one.completed !== undefined &&
        one.completed < reader.asked &&
        one.reaches(known) &&
        this.#mustBeSeen(one, reader)
    )
    if (by.length === 0) return
    const since =
      this.sharing === undefined
        ? now - Math.min(...by.map(({ instant }) => instant))
        : // To a millisecond, the clocks of a machine agree.
          reader.real - Math.min(...by.map(({ real }) => real!)) - 2
    assert.isTrue(!reader.isForced && since < windows.invalidated, `invalidated: ${what}`)
  }

  #mustBeSeen({ by, real }: Ended, reader: Reader): boolean {
    return this.sharing === undefined || by === reader.by || reader.real - real! > this.sharing.allowance
  }

  /** The newest answer that must be in the cache: it has landed, and nothing has touched it. */
  fresh(id: number, now: number): Known | undefined {
    return this.known.findLast(
      (known) =>
        known.id === id &&
        known.landedAt !== undefined &&
        now < known.landedAt + timeToLive &&
        // Redis goes by its own clock.
        (this.sharing === undefined || performance.now() - known.landed! < timeToLive / 2) &&
        !this.ended.some(({ completed, reaches }) => (completed ?? Infinity) > known.began && reaches(known))
    )
  }
}

const yieldSome = Effect.repeat(Effect.yieldNow, Schedule.recurs(12))

/** Lets everything happen that can. */
const settle = (world: World): Effect.Effect<void> => {
  const { sharing } = world
  if (sharing === undefined) return yieldSome
  const progress = () =>
    JSON.stringify([
      world.known.length,
      world.running.length,
      world.readers.filter(({ fiber }) => fiber.pollUnsafe() === undefined).length
    ])
  return Effect.gen(function* () {
    for (let quiet = 0; quiet < 3;) {
      const before = progress()
      // What was asked before has been answered before.
      for (const process of sharing.processes) yield* process(Cacheme.position)
      yield* yieldSome
      yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
      quiet = progress() === before ? quiet + 1 : 0
    }
  })
}

/** Lets readers that have their answers go, and checks these. */
const collect = (world: World) =>
  Effect.gen(function* () {
    yield* settle(world)
    const now = yield* Clock.currentTimeMillis
    for (const reader of world.readers) {
      const exit = reader.fiber.pollUnsafe()
      if (exit === undefined) continue
      if (Exit.isSuccess(exit)) {
        const given = reader.ids.length > 1 ? reader.since : now
        for (const [i, number] of exit.value.entries()) world.check(reader, reader.ids[i]!, number, given)
      } else if (!Exit.hasInterrupts(exit)) {
        const error = Option.getOrUndefined(Exit.findErrorOption(exit))
        assert.isTrue(
          error === "down" || error instanceof LookupTimeout,
          `an unexpected failure: ${String(exit)}`
        )
      }
    }
    world.readers = world.readers.filter(({ fiber }) => fiber.pollUnsafe() === undefined)
  })

const perform = (world: World, step: Step) =>
  Effect.gen(function* () {
    const read = (
      asked: ReadonlyArray<number>,
      policy: keyof typeof policies,
      isForced: boolean,
      effect: Effect.Effect<ReadonlyArray<number>, unknown, Cacheme>
    ) =>
      Effect.gen(function* () {
        const event = ++world.events
        const since = yield* Clock.currentTimeMillis
        const real = performance.now()
        const fiber = yield* Effect.forkChild(effect, { startImmediately: true })
        world.readers.push({
          asked: event,
          since,
          ids: asked,
          policy,
          isForced,
          fiber,
          by: world.process,
          real
        })
      })
    const ending = <A, E, R>(effect: Effect.Effect<A, E, R>, reaches: Ended["reaches"], isPattern = false) =>
      Effect.gen(function* () {
        const ended: Ended = {
          called: ++world.events,
          completed: undefined,
          instant: yield* Clock.currentTimeMillis,
          by: world.process,
          reaches,
          isPattern
        }
        world.ended.push(ended)
        const result = yield* effect
        ended.completed = ++world.events
        ended.real = performance.now()
        return result
      })
    const single = (id: number) => Effect.map(world.lookUp([id]), ([number]) => ({ lookup: number! }))
    switch (step._tag) {
      case "Read": {
        const lookup = single(step.id).pipe(
          Cacheme.memoize(new Thing({ id: step.id }), policies[step.policy] as Node.Overrides),
          Effect.map(({ lookup }) => [lookup])
        )
        const now = yield* Clock.currentTimeMillis
        const fresh = world.fresh(step.id, now)
        const lookups = world.known.length
        yield* read([step.id], step.policy, false, lookup)
        if (fresh !== undefined && step.policy === "plain") {
          if (world.sharing !== undefined) yield* settle(world)
          assert.strictEqual(world.known.length, lookups, `a lookup though ${JSON.stringify(fresh)} is fresh`)
        }
        break
      }
      case "ReadAll": {
        const asked = step.ids
        const all = Cacheme.getAll(
          asked.map((id) => new Thing({ id })),
          (missing) =>
            Effect.map(world.lookUp(missing.map(({ id }) => id)), (numbers) =>
              missing.map((node, i) => [node, { lookup: numbers[i]! }] as const)
            ),
          policies[step.policy]
        )
        const answers = Effect.map(all, (found) => found.map((answer) => Option.getOrThrow(answer).lookup))
        yield* read(asked, step.policy, false, answers)
        break
      }
      case "Refresh": {
        const refreshed = single(step.id).pipe(
          Cacheme.refresh(new Thing({ id: step.id })),
          Effect.map(({ lookup }) => [lookup])
        )
        const ended: Ended = {
          called: ++world.events,
          completed: undefined,
          instant: yield* Clock.currentTimeMillis,
          by: world.process,
          reaches: ({ id }) => id === step.id
        }
        world.ended.push(ended)
        yield* read([step.id], "plain", true, refreshed)
        yield* settle(world)
        ended.completed = ++world.events
        ended.real = performance.now()
        break
      }
      case "Set": {
        const since = world.positions.at(-1 - step.since)
        const known = world.know(step.id, since?.event)
        const isReached = world.ended.some(
          ({ completed, reaches }) => (completed ?? Infinity) > known.began && reaches(known)
        )
        const now = yield* Clock.currentTimeMillis
        const isStored = yield* ending(
          Cacheme.set(new Thing({ id: step.id }), { lookup: known.number }, { since: since?.position }),
          (other) => other.id === step.id && other !== known
        )
        // Redis does not match patterns: one since then is taken for one that reaches it.
        const isRefused =
          isReached ||
          (world.sharing !== undefined &&
            world.ended.some((one) => one.isPattern === true && one.completed! > known.began))
        assert.strictEqual(isStored, !isRefused, `set, ${JSON.stringify(known)}`)
        if (isStored) [known.landedAt, known.landed] = [now, performance.now()]
        world.positions.push({ event: ++world.events, position: yield* Cacheme.position })
        break
      }
      case "Land":
      case "Fail": {
        const run = world.running[step.lookup]
        if (run === undefined) break
        yield* step._tag === "Land" ? Deferred.succeed(run.gate, undefined) : Deferred.fail(run.gate, "down")
        break
      }
      case "Interrupt": {
        const reader = world.readers[step.reader]
        if (reader !== undefined) yield* Fiber.interrupt(reader.fiber)
        break
      }
      case "Key":
        yield* ending(Cacheme.invalidate(new Thing({ id: step.id })), ({ id }) => id === step.id)
        break
      case "Group":
        yield* ending(Cacheme.invalidate(new Group({ of: step.of })), ({ id }) => id % 2 === step.of)
        break
      case "Kind":
        yield* ending(Cacheme.invalidate(new Kind({ of: step.of })), ({ number }) => number % 3 === step.of)
        break
      case "Glob": {
        const reached = step.glob === "thing:[01]" ? [0, 1] : step.glob === "*3" ? [3] : []
        yield* ending(Cacheme.invalidate({ pattern: step.glob }), ({ id }) => reached.includes(id), true)
        break
      }
      case "Wait":
        yield* TestClock.adjust(step.millis)
        if (world.sharing !== undefined)
          yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, step.millis)))
    }
    yield* collect(world)
  })

/** Runs a history; in the end every reader gets its answer. */
const run = (steps: ReadonlyArray<Step>, lie?: Operation) =>
  Effect.gen(function* () {
    const world = new World()
    if (lie !== undefined) yield* FaultyStore.inject(lie, "lie")
    for (const step of steps) yield* perform(world, step)
    for (let round = 0; world.readers.length > 0 || world.running.length > 0; round++) {
      assert.isBelow(round, 20, "somebody waits for ever")
      for (const { gate } of world.running) yield* Deferred.succeed(gate, undefined)
      yield* collect(world)
      yield* TestClock.adjust(1)
    }
    return world.answers
  }).pipe(Effect.provide(CachemeTest.layer()), Effect.scoped)

/** Runs a history on two processes, which take its steps in turn. */
const runShared = (steps: ReadonlyArray<Step>, kind: SharedStore) =>
  Effect.gen(function* () {
    const bound = 40
    const [a, b] = yield* startProcesses(kind, { bound })
    const processes = [a, b]
    const world = new World({ processes, allowance: kind === "bounded" ? bound : 0 })
    const inTurn = <E>(self: Effect.Effect<void, E, Cacheme>) =>
      Effect.suspend(() => {
        world.process = processes[world.events % 2]!
        return world.process(self)
      })
    for (const step of steps) yield* inTurn(perform(world, step))
    for (let round = 0; world.readers.length > 0 || world.running.length > 0; round++) {
      assert.isBelow(round, 60, "somebody waits for ever")
      for (const { gate } of world.running) yield* Deferred.succeed(gate, undefined)
      yield* collect(world)
      // Who waits for another process looks again.
      yield* TestClock.adjust("20 millis")
    }
    return world.answers
  }).pipe(Effect.scoped)

const History = Schema.Array(Step).check(Schema.isMinLength(1), Schema.isMaxLength(100))
// The long run is 100,000 steps and more.
const runs = inject("isFull") ? 8000 : 300

describe("the service and the naive rule", () => {
  let steps = 0
  let answers = 0
  it.effect.prop(
    "agree on which answers may be given, and which must be",
    [History],
    ([history]) =>
      Effect.gen(function* () {
        steps += history.length
        answers += yield* run(history)
      }),
    { arbitrary: { runs, size: 100 }, timeout: 600_000 }
  )

  it("took as many steps as they were to", () => {
    assert.isAtLeast(steps, inject("isFull") ? 100_000 : 5000)
    assert.isAtLeast(answers, steps / 4)
  })

  for (const operation of ["peek", "invalidate", "begin"] as const) {
    it.effect(`disagree when the store lies in ${operation}`, () =>
      Effect.gen(function* () {
        const read = (id: 0 | 1) => ({ _tag: "Read", id, policy: "plain" }) as const
        const land = { _tag: "Land", lookup: 0 } as const
        const key = { _tag: "Key", id: 0 } as const
        const history: ReadonlyArray<Step> =
          operation === "begin" ? [read(0), key, land, read(0)] : [read(0), land, key, read(0)]
        assert.isTrue(Exit.isSuccess(yield* Effect.exit(run(history))))
        const exit = yield* Effect.exit(run(history, operation))
        assert.isTrue(Exit.hasDies(exit), "the model notices")
      })
    )
  }

  for (const kind of sharedStores) {
    let answered = 0
    it.effect.prop(
      `agree in processes that share a cache (${kind})`,
      [History],
      ([history]) => Effect.map(runShared(history, kind), (answers) => void (answered += answers)),
      { arbitrary: { runs: inject("isFull") ? 500 : 12, size: 100 }, timeout: 600_000 }
    )
    it(`gave answers in processes that share a cache (${kind})`, () => assert.isAbove(answered, 0))
  }
})
