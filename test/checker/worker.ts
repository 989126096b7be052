/**
 * A worker of the checker: one process of an application that reads and writes through the library, and checks each
 * answer. It runs until it is told to stop, is killed, or its parent is gone.
 */
import { Cause, Effect, Exit, Layer, Logger, ManagedRuntime, Schema } from "effect"
import { inspect } from "node:util"
import { Cacheme } from "../../src/index.ts"
import { makeChance } from "./chance.ts"
import { Floor } from "./Floor.ts"
import {
  type Mode,
  type News,
  noTally,
  type Order,
  storiesKept,
  type Tally,
  type WorkerOptions
} from "./messages.ts"
import { askSomething, type Asked, herd, HerdNode, Row, somethingThatReaches } from "./questions.ts"
import { sabotageOf } from "./sabotage.ts"
import { storeOf } from "./stores.ts"
import {
  connectTruth,
  owners,
  type Register,
  registerOf,
  rows,
  Truth,
  type Versions,
  World
} from "./Truth.ts"

/** How often a worker tells what has happened, in milliseconds. */
const tallyEvery = 100

/** A gap between two ticks longer than this was a time in which the process was held. */
const held = 150

/** `bounded` is checked with so many milliseconds to spare. */
const slack = 20

const options: WorkerOptions = JSON.parse(process.argv[2]!)

const tell = (news: News): void => {
  if (process.connected) process.send!(news)
}

/** What the parent has asked for. */
const orders = { toStop: false, toTellLookup: false }

const onLookup = (): void => {
  if (!orders.toTellLookup) return
  orders.toTellLookup = false
  tell({ news: "lookup" })
}

/** For how long this process has been held so far, in milliseconds. */
let heldFor = 0
let lastTick = performance.now()
setInterval(() => {
  const now = performance.now()
  if (now - lastTick > held) heldFor += now - lastTick
  lastTick = now
}, 20).unref()

/** The time that this process has had. */
const lived = (): number => {
  const now = performance.now()
  return now - heldFor - (now - lastTick > held ? now - lastTick : 0)
}

/** Checks one mode. */
class Check {
  readonly mode: Mode
  readonly #world: World["Service"]
  readonly #floor: Floor
  readonly #runtime: ManagedRuntime.ManagedRuntime<Cacheme | World, unknown>
  readonly #reading = new Set<{ readonly since: number }>()
  #tally: Tally = noTally()
  #told = { lookups: 0, hits: 0 }

  constructor(mode: Mode, world: World["Service"]) {
    this.mode = mode
    this.#world = world
    this.#floor = new Floor(mode === "bounded" ? options.bound + slack : 0)
    this.#runtime = ManagedRuntime.make(
      Layer.mergeAll(Cacheme.layer(), Layer.succeed(World, world)).pipe(
        Layer.provide(storeOf(mode, options)),
        Layer.provide(Logger.layer([]))
      )
    )
  }

  /** Reads and writes until the process stops. */
  run(): Promise<unknown> {
    return this.#runtime.runPromise(
      Effect.all([...Array.from({ length: options.readers }, () => this.#reader), this.#writer], {
        concurrency: "unbounded",
        discard: true
      })
    )
  }

  close(): Promise<void> {
    return this.#runtime.dispose()
  }

  readonly #reader = Effect.gen({ self: this }, function* () {
    const { chance, truth } = this.#world
    while (!orders.toStop) {
      const acknowledged = yield* Effect.promise(() => truth.acknowledged())
      this.#floor.noteAcknowledged(acknowledged)
      const questions = Array.from({ length: 1 + chance.below(8) }, () => askSomething(this.#world))
      yield* Effect.forEach(questions, (one) => this.#check(one), { concurrency: "unbounded", discard: true })
      if (chance.below(4) === 0) yield* Effect.sleep(chance.below(3))
    }
  })

  #check(asked: Asked): Effect.Effect<void, never, Cacheme | World> {
    return Effect.suspend(() => {
      const least = this.#floor.now()
      const reading = { since: lived() }
      const wall = Date.now()
      this.#reading.add(reading)
      return Effect.flatMap(Effect.exit(asked.rows), (exit) => {
        this.#reading.delete(reading)
        const tally = this.#tally
        tally.reads++
        tally.asked[asked.ask] = (tally.asked[asked.ask] ?? 0) + 1
        tally.longest = Math.max(tally.longest, lived() - reading.since)
        if (Exit.isFailure(exit)) {
          tally.failures++
          this.#tellStory(`${asked.ask} of ${asked.ids.join()} failed: ${Cause.pretty(exit.cause)}`)
          return Effect.void
        }
        tally.rows += exit.value.length
        const wrong = exit.value.filter((row) => !isRight(row, asked.ids, least))
        if (wrong.length === 0) return Effect.void
        tally.violations++
        return tally.stories.length < storiesKept ? this.#report(asked, wrong[0]!, least, wall) : Effect.void
      })
    })
  }

  /** The last write to each register by this process, for the story of a violation. */
  readonly #own = new Map<Register, { readonly version: number; readonly story: string }>()

  /** The story of a violation. */
  #report(asked: Asked, row: Row, least: Versions, wall: number) {
    const now = Date.now()
    if (!isRow(row) || !asked.ids.includes(row.id)) {
      const story = `${options.name} ${asked.ask} of ${asked.ids.join()} got what nobody asked for: ${inspect(row)}`
      return Effect.sync(() => this.#tellStory(story))
    }
    const register = row.version < least[row.id]! ? row.id : registerOf(row.owner)
    return Effect.map(
      Effect.promise(() => this.#world.truth.notes(register)),
      (notes) => {
        const missed = notes.find(({ version }) => version === least[register])
        const own = this.#own.get(register)
        const write =
          own !== undefined && own.version === least[register]
            ? own.story
            : missed === undefined
              ? "written longer ago"
              : `written by ${missed.by} (${missed.target}, begun ${wall - missed.begunAt} ms before the read, ` +
                `acknowledged ${wall - missed.acknowledgedAt} ms before)`
        this.#tellStory(
          `${options.name} ${asked.ask} of ${asked.ids.join()} got ${JSON.stringify(row)}, asked at ${wall}, which took ${now - wall} ms; ` +
            `${register < rows ? `row ${register}` : `owner ${register - rows}`} was known to be ` +
            `${least[register]}, ${write}`
        )
      }
    )
  }

  #tellStory(story: string): void {
    if (this.#tally.stories.length < storiesKept) this.#tally.stories.push(story)
  }

  readonly #writer = Effect.gen({ self: this }, function* () {
    const { chance, truth } = this.#world
    while (!orders.toStop) {
      yield* Effect.sleep(options.writeGap / 2 + chance.below(options.writeGap))
      const register = chance.below(3) === 0 ? registerOf(chance.below(owners)) : chance.below(rows)
      const version = yield* Effect.promise(() => truth.write(register))
      yield* Effect.sleep(chance.below(3))
      const begunAt = Date.now()
      const { target, text } = somethingThatReaches(register, this.#world)
      const exit = yield* Effect.exit(Cacheme.invalidate(target))
      if (Exit.isFailure(exit)) {
        this.#tally.undelivered++
        continue
      }
      this.#floor.noteOwn(register, version)
      const state = exit.value.pending > 0 ? "pending" : "acknowledged"
      this.#own.set(register, {
        version,
        story: `its own ${state} write (${text}) at ${begunAt} to ${Date.now()}`
      })
      if (exit.value.pending > 0) {
        this.#tally.pending++
        continue
      }
      const note = { version, by: options.name, target: text, begunAt, acknowledgedAt: Date.now() }
      yield* Effect.promise(() => truth.acknowledge(register, note))
      this.#tally.writes++
    }
  })

  /** Many readers of one key. */
  herd(round: number, callers: number): Promise<unknown> {
    return this.#runtime.runPromise(
      Effect.forEach(Array.from({ length: callers }), () => herd(round), {
        concurrency: "unbounded",
        discard: true
      })
    )
  }

  disperse(round: number): Promise<unknown> {
    return this.#runtime.runPromise(Cacheme.invalidate(new HerdNode({ round })))
  }

  /** Tells what has happened since it last did. */
  async tell(): Promise<void> {
    const stats = await this.#runtime.runPromise(Cacheme.stats)
    const tally = this.#tally
    this.#tally = noTally()
    const sum = { lookups: 0, hits: 0 }
    for (const { lookups, hits } of stats.nodes) {
      sum.lookups += lookups
      sum.hits += hits
    }
    tally.lookups = sum.lookups - this.#told.lookups
    tally.hits = sum.hits - this.#told.hits
    this.#told = sum
    const [oldest] = this.#reading
    tally.waiting = oldest === undefined ? 0 : lived() - oldest.since
    tell({ news: "tally", mode: this.mode, tally })
  }
}

const isRow = Schema.is(Row)

const isRight = (row: Row, ids: ReadonlyArray<number>, least: Versions): boolean =>
  isRow(row) &&
  ids.includes(row.id) &&
  row.version >= least[row.id]! &&
  row.owned >= least[registerOf(row.owner)]!

/** Runs the checks of all modes side by side. */
const main = async (): Promise<void> => {
  if (options.sabotage !== undefined) sabotageOf(options.sabotage).apply()
  const redis = connectTruth(options.truthUrl)
  const chance = makeChance(options.seed)
  const checks = options.modes.map(
    (mode) => new Check(mode, { truth: new Truth(redis, mode), chance, onLookup })
  )
  process.on("disconnect", () => process.exit())
  process.on("message", (order: Order) => void obey(order, checks).catch(fail))
  const running = Promise.all(checks.map((check) => check.run()))
  tell({ news: "ready" })
  const tallies = setInterval(() => checks.forEach((check) => void check.tell().catch(fail)), tallyEvery)
  await running
  clearInterval(tallies)
  await Promise.all(checks.map((check) => check.tell()))
  await Promise.all(checks.map((check) => check.close()))
  redis.disconnect()
  process.disconnect()
}

const obey = async (order: Order, checks: ReadonlyArray<Check>): Promise<void> => {
  switch (order.order) {
    case "stop":
      orders.toStop = true
      return
    case "tellLookup":
      orders.toTellLookup = true
      return
    case "herd":
    case "disperse": {
      const { round } = order
      const start = performance.now()
      await Promise.all(
        checks.map((check) =>
          order.order === "herd" ? check.herd(round, order.callers) : check.disperse(round)
        )
      )
      const slow = performance.now() - start > options.lease / 2
      tell({ news: "done", order: order.order, round, slow })
    }
  }
}

const fail = (error: unknown): void => {
  tell({ news: "broken", reason: error instanceof Error ? (error.stack ?? error.message) : String(error) })
  setTimeout(() => process.exit(1), 100)
}

main().catch(fail)
