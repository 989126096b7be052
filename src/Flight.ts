/**
 * A flight is one running lookup for a key in this process, with everyone who waits for it. A batched lookup is one
 * `Crew` that flies several flights, one for each of its keys.
 *
 * **Who may take its answer.** A caller that was there when the flight took off may: the lookup began after it asked.
 * One that joined later may take it only if nothing that the answer rests on was invalidated since takeoff, because
 * what was invalidated may have been so before it asked. Those who may not share **one** next flight, which takes off
 * after all of them have arrived, so that one is theirs. Nobody waits for more than two. Ten thousand callers and an
 * invalidation during the first lookup make two lookups.
 *
 * **Whose failure it is.** Callers of single lookups of one key ask with one lookup, so they share its failures. A
 * batch's failure is its own callers' only, and to a single lookup its having no answer for a key is none either:
 * whoever else has joined looks again with a lookup of its own.
 *
 * **When it closes.** A flight that is known to be overtaken takes nobody else on board: the next caller starts a
 * newer one at once. It closes to all before its answer is stored, so nobody can join an answer already judged.
 *
 * **Interruption.** The lookup runs in a fiber of its own. A caller that is interrupted just leaves; the last one to
 * leave a crew's flights stops the lookup and waits until it has stopped.
 *
 * **Turns.** A crew may have to wait for its turn (`lookup.concurrency`). One that has its turn must never wait for one
 * that waits, or both could wait for ever: so a crew that another one with a turn waits for, at any remove, goes at
 * once (`hurry`). For the same reason a crew that would wait for itself is told so (`Flights.wouldWait`).
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import type * as Scope from "effect/Scope"

/** How a lookup ended, for one key. */
export interface Landing {
  readonly exit: Exit.Exit<any, any>
  /** True for an answer, and for a failure that the node declares; false when the lookup could not tell. */
  readonly isAnswer: boolean
  /** True when nothing it rests on was invalidated between takeoff and the end: good for those who joined later. */
  readonly isSound: boolean
  /** The ids of all that the answer rests on; `undefined` when that could not be told. */
  readonly ids: ReadonlyArray<string> | undefined
  /** When it ages out, in milliseconds since the epoch: what rests on it may not be kept for longer. */
  readonly expiresAt: number
}

/** One running lookup, for one key or for several. */
export class Crew {
  fiber: Fiber.Fiber<unknown> | undefined
  aboard = 0
  /** True while it has its turn among the lookups of its node. */
  hasTurn = false
  isUrgent = false
  /** True once another crew has waited for it. */
  isAwaited = false
  /** Opens when it need not wait for its turn. */
  readonly urgent: Latch.Latch = Latch.makeUnsafe()
  /** The crews that its lookup waits for. */
  readonly waitsFor = new Set<Crew>()
  flights: ReadonlyArray<Flight> = []
  readonly isBatch: boolean
  constructor(isBatch: boolean) {
    this.isBatch = isBatch
  }

  /** Somebody who has a turn waits for it: it goes at once, and so does whoever it waits for. */
  hurry(): void {
    if (this.isUrgent) return
    this.isUrgent = true
    this.urgent.openUnsafe()
    for (const crew of this.waitsFor) crew.hurry()
  }

  /** True when it waits for another one, at any remove. */
  reaches(other: Crew): boolean {
    const seen = new Set<Crew>([this])
    for (const crew of seen) {
      if (crew === other) return true
      for (const next of crew.waitsFor) seen.add(next)
    }
    return false
  }

  /** Notes that its lookup waits for another crew. */
  waitFor(crew: Crew): void {
    this.waitsFor.add(crew)
    crew.isAwaited = true
    if (this.hasTurn || this.isUrgent) crew.hurry()
  }
}

/** The crew whose lookup the current fiber works for, if any. */
export const CurrentCrew: Context.Reference<Crew | undefined> = Context.Reference<Crew | undefined>(
  "cacheme/Crew",
  { defaultValue: () => undefined }
)

/** A lookup in the air, for one key. */
export class Flight {
  /** Told by the lookup once it knows: true when an invalidation has made its answer useless for newcomers. */
  isOvertaken: () => boolean = () => false
  landed: Landing | undefined
  readonly #waiting = new Set<() => void>()
  readonly key: string
  readonly crew: Crew
  readonly number: number
  constructor(key: string, crew: Crew, number: number) {
    this.key = key
    this.crew = crew
    this.number = number
  }

  /** Ends it, for everyone who waits. */
  land(landing: Landing): void {
    if (this.landed !== undefined) return
    this.landed = landing
    for (const tell of this.#waiting) tell()
    this.#waiting.clear()
  }

  /** Tells once it has landed; the returned function takes that back. */
  whenLanded(tell: () => void): () => void {
    if (this.landed !== undefined) {
      tell()
      return () => {}
    }
    this.#waiting.add(tell)
    return () => this.#waiting.delete(tell)
  }
}

/** Someone who wants the answer of a key. */
export interface Caller {
  /** The number of the last flight that had taken off when it asked. */
  readonly arrival: number
  /** The crew of its own, for a batch. */
  readonly crew?: Crew | undefined
  readonly isBatch: boolean
}

/** Lets interruptions in again, where they are shut out. */
export type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** A lookup about to fly: it ends when all of its flights have landed; `close` before storing an answer. */
export type Takeoff<R> = (crew: Crew, flights: ReadonlyArray<Flight>) => Effect.Effect<void, never, R>

/** The flights of one cache. */
export class Flights {
  readonly #byKey = new Map<string, Flight>()
  readonly #scope: Scope.Scope
  #number = 0

  /** Lookups run in this scope: when it closes they are interrupted. */
  constructor(scope: Scope.Scope) {
    this.#scope = scope
  }

  /** True while a lookup for the key is in the air. */
  has(key: string): boolean {
    return this.#byKey.has(key)
  }

  /** Someone who asks now. */
  arrive(isBatch = false): Caller {
    return { arrival: this.#number, isBatch }
  }

  /** True when a crew's lookup would wait for itself if it waited for this key. */
  wouldWait(crew: Crew | undefined, key: string): boolean {
    return crew !== undefined && this.#byKey.get(key)?.crew.reaches(crew) === true
  }

  /**
   * Waits for the answer of a flight for this key, which it joins or starts; or finds it `alone`, when the crew that it
   * works for would otherwise wait for itself.
   */
  board<R>(
    key: string,
    parent: Crew | undefined,
    takeoff: Takeoff<R>,
    alone: () => Effect.Effect<Landing, never, R>
  ): Effect.Effect<Landing, never, R> {
    const caller = this.arrive()
    const end = (flight: Flight): Effect.Effect<Landing, never, R> =>
      mayTake(caller, flight) ? Effect.succeed(flight.landed!) : attempt
    const lead = () =>
      Effect.uninterruptibleMask((restore) =>
        Effect.flatMap(this.lead([key], false, parent, takeoff), ([flight]) =>
          Effect.andThen(
            this.awaitAll([flight!], parent, restore),
            Effect.suspend(() => restore(end(flight!)))
          )
        )
      )
    // Who joins does so, and begins to wait, in one step: a herd is many who join.
    const attempt: Effect.Effect<Landing, never, R> = Effect.callback((resume) => {
      if (this.wouldWait(parent, key)) return resume(alone())
      const flight = this.join(key, parent)
      if (flight === undefined) return resume(lead())
      const forget = flight.whenLanded(() => {
        parent?.waitsFor.delete(flight.crew)
        resume(end(flight))
      })
      return Effect.suspend(() => {
        forget()
        parent?.waitsFor.delete(flight.crew)
        return this.leave([flight])
      })
    })
    return attempt
  }

  /** Boards the flight in the air for a key, unless there is none or it is known to be overtaken. */
  join(key: string, parent: Crew | undefined): Flight | undefined {
    const running = this.#byKey.get(key)
    if (running === undefined || running.isOvertaken()) return undefined
    running.crew.aboard++
    parent?.waitFor(running.crew)
    return running
  }

  /** Starts one lookup for these keys, and boards its flights. */
  lead<R>(
    keys: ReadonlyArray<string>,
    isBatch: boolean,
    parent: Crew | undefined,
    takeoff: Takeoff<R>
  ): Effect.Effect<ReadonlyArray<Flight>, never, R> {
    return Effect.suspend(() => {
      const crew = new Crew(isBatch)
      crew.aboard = keys.length
      // Before it takes off, because its lookup may ask for what the parent looks up.
      parent?.waitFor(crew)
      const flights = keys.map((key) => new Flight(key, crew, ++this.#number))
      crew.flights = flights
      for (const flight of flights) this.#byKey.set(flight.key, flight)
      return takeoff(crew, flights).pipe(
        Effect.forkIn(this.#scope, { startImmediately: true }),
        Effect.map((fiber) => {
          crew.fiber = fiber
          // However it ends, and even if it never began because the cache is closed.
          fiber.addObserver((exit) => {
            for (const flight of flights) {
              this.close(flight)
              // Where nothing has landed, something has ended the crew: that is the outcome.
              if (Exit.isFailure(exit)) flight.land({ ...lost, exit: Exit.failCause(exit.cause) })
            }
          })
          return flights
        })
      )
    })
  }

  /** Waits until flights that were boarded have landed; an interrupted caller leaves them. */
  awaitAll(boarded: ReadonlyArray<Flight>, parent: Crew | undefined, restore: Restore): Effect.Effect<void> {
    const all = Effect.callback<void>((resume) => {
      let missing = boarded.length
      const forget = boarded.map((flight) =>
        flight.whenLanded(() => {
          if (--missing === 0) resume(Effect.void)
        })
      )
      return Effect.sync(() => forget.forEach((f) => f()))
    })
    const waiting = Effect.onInterrupt(restore(all), () => this.leave(boarded))
    if (parent === undefined) return waiting
    return Effect.ensuring(
      waiting,
      Effect.sync(() => boarded.forEach(({ crew }) => parent.waitsFor.delete(crew)))
    )
  }

  /** Leaves flights that were boarded. A crew that has nobody on board any more is stopped. */
  leave(flights: ReadonlyArray<Flight>): Effect.Effect<void> {
    return Effect.suspend(() => {
      const fibers: Array<Fiber.Fiber<unknown>> = []
      for (const { crew } of flights) {
        if (--crew.aboard > 0 || crew.fiber === undefined) continue
        crew.flights.forEach((flight) => this.close(flight))
        fibers.push(crew.fiber)
      }
      return fibers.length === 0 ? Effect.void : Fiber.interruptAll(fibers)
    })
  }

  /** Takes nobody else on board: to be called when the answer is known, before it is stored. */
  close(flight: Flight): void {
    if (this.#byKey.get(flight.key) === flight) this.#byKey.delete(flight.key)
  }
}

/** A crew that has ended before its flights could land. */
const lost = { isAnswer: false, isSound: true, ids: undefined, expiresAt: Infinity }

/** Whether a caller may take what a flight has landed with: see above. */
export const mayTake = (caller: Caller, flight: Flight): boolean => {
  const landing = flight.landed!
  if (flight.crew === caller.crew) return true
  if (flight.number <= caller.arrival && !landing.isSound) return false
  if (Exit.isSuccess(landing.exit)) return true
  return caller.isBatch ? landing.isAnswer : !flight.crew.isBatch
}
