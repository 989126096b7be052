/**
 * A flight is one running lookup for a key in this process, with everyone who waits for it.
 *
 * **Who may take its answer.** A caller that was there when the flight took off may: the lookup began after it asked.
 * One that joined later may take it only if nothing that the answer rests on was invalidated since takeoff, because
 * what was invalidated may have been so before it asked. Those who may not share **one** next flight, which takes off
 * after all of them have arrived, so that one is theirs. Nobody waits for more than two. Ten thousand callers and an
 * invalidation during the first lookup make two lookups.
 *
 * **When it closes.** A flight that is known to be overtaken takes nobody else on board: the next caller starts a
 * newer one at once. It closes to all before its answer is stored, so nobody can join an answer already judged.
 *
 * **Interruption.** The lookup runs in a fiber of its own. A caller that is interrupted just leaves; the last one to
 * leave stops the lookup and waits until it has stopped.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"

/** How a lookup ended. */
export interface Landing {
  readonly exit: Exit.Exit<any, any>
  /** True when nothing it rests on was invalidated between takeoff and the end: good for those who joined later. */
  readonly isSound: boolean
  /** The ids of all that the answer rests on; `undefined` when that could not be told. */
  readonly ids: ReadonlyArray<string> | undefined
}

/** A lookup in the air, as the lookup itself sees it. */
export class Flight {
  /** Told by the lookup once it knows: true when an invalidation has made its answer useless for newcomers. */
  isOvertaken: () => boolean = () => false
  readonly landing: Deferred.Deferred<Landing> = Deferred.makeUnsafe()
  fiber: Fiber.Fiber<unknown> | undefined
  aboard = 0
  readonly number: number
  constructor(number: number) {
    this.number = number
  }
}

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

  /**
   * Waits for the answer of a flight for this key, which it joins or starts. `lookUp` runs without interruption by
   * the caller; it must call `close` when it has the answer, before it stores it.
   */
  board<R>(
    key: string,
    lookUp: (flight: Flight, close: () => void) => Effect.Effect<Landing, never, R>
  ): Effect.Effect<Landing, never, R> {
    const arrival = this.#number
    const attempt: Effect.Effect<Landing, never, R> = Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(this.#join(key, lookUp), (flight) =>
        Effect.flatMap(
          Effect.onInterrupt(restore(Deferred.await(flight.landing)), () => this.#leave(key, flight)),
          (landing) =>
            flight.number > arrival || landing.isSound ? Effect.succeed(landing) : restore(attempt)
        )
      )
    )
    return attempt
  }

  #join<R>(
    key: string,
    lookUp: (flight: Flight, close: () => void) => Effect.Effect<Landing, never, R>
  ): Effect.Effect<Flight, never, R> {
    return Effect.suspend(() => {
      const running = this.#byKey.get(key)
      if (running !== undefined && !running.isOvertaken()) {
        running.aboard++
        return Effect.succeed(running)
      }
      const flight = new Flight(++this.#number)
      flight.aboard = 1
      this.#byKey.set(key, flight)
      const close = () => this.#close(key, flight)
      return lookUp(flight, close).pipe(
        Effect.onExit((exit) => {
          close()
          return Deferred.done(flight.landing, exit)
        }),
        Effect.forkIn(this.#scope, { startImmediately: true }),
        Effect.map((fiber) => {
          flight.fiber = fiber
          return flight
        })
      )
    })
  }

  #leave(key: string, flight: Flight): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (--flight.aboard > 0 || flight.fiber === undefined) return Effect.void
      this.#close(key, flight)
      return Fiber.interrupt(flight.fiber)
    })
  }

  #close(key: string, flight: Flight): void {
    if (this.#byKey.get(key) === flight) this.#byKey.delete(key)
  }
}
