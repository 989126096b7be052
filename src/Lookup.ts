/**
 * How a lookup is run: in its turn, tried again as its schedule says, for a limited time.
 *
 * The time limit is the outermost, so it covers the wait for a turn and all retries. A turn covers the retries too:
 * while a lookup backs off, no other takes its place in front of a database that is in trouble.
 */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import { LookupTimeout } from "./CachemeError.ts"
import type { Crew } from "./Flight.ts"
import type { LookupOptions } from "./Node.ts"

/** How one lookup is run. */
export interface Run extends Pick<LookupOptions, "retry"> {
  /** Its limit in time; none if it has none. */
  readonly limit: Limit | undefined
  /** The turns of its node, if they are limited. */
  readonly turns: Semaphore.Semaphore | undefined
}

/**
 * Runs a lookup for a crew: `prepare` in its turn, once, then what `lookup` makes of that, which is tried again as the
 * schedule says.
 */
export const run = <P, A, E, R, R2>(
  prepare: Effect.Effect<P, never, R2>,
  lookup: (prepared: P) => Effect.Effect<A, E, R>,
  { limit, retry, turns }: Run,
  crew: Crew
): Effect.Effect<A, E | LookupTimeout, R | R2> => {
  const tried = Effect.flatMap(prepare, (prepared) =>
    retry === undefined ? lookup(prepared) : Effect.retry(lookup(prepared), retry)
  )
  const inTurn = turns === undefined ? tried : takeTurn(turns, crew, tried)
  return limit === undefined ? inTurn : limit.within(inTurn)
}

/** A time within which everything that is done for a lookup must end. It begins now. */
export class Limit {
  readonly #milliseconds: number
  readonly #key: string
  readonly #clock: Clock.Clock
  readonly #endsAt: number
  /** `key` names the lookup in the error. */
  constructor(timeout: Duration.Input, key: string, clock: Clock.Clock) {
    this.#milliseconds = Duration.toMillis(Duration.fromInputUnsafe(timeout))
    this.#key = key
    this.#clock = clock
    this.#endsAt = clock.currentTimeMillisUnsafe() + this.#milliseconds
  }

  /** Stops an effect that takes longer than is left. */
  within<A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E | LookupTimeout, R> {
    return Effect.timeoutOrElse(self, {
      duration: Duration.millis(Math.max(0, this.#endsAt - this.#clock.currentTimeMillisUnsafe())),
      orElse: () => Effect.fail(new LookupTimeout({ key: this.#key, milliseconds: this.#milliseconds }))
    })
  }
}

/** Waits for a turn, unless somebody who has one waits for this crew. */
const takeTurn = <A, E, R>(
  turns: Semaphore.Semaphore,
  crew: Crew,
  self: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> => {
  const turn = Effect.tap(Semaphore.takeScoped(turns, 1), () => Effect.sync(() => (crew.hasTurn = true)))
  // The scope gives the turn back, also one that came at the same moment as the leave to go without.
  return Effect.scopedWith((scope) =>
    Effect.andThen(Effect.raceFirst(Scope.provide(turn, scope), crew.urgent.await), self)
  )
}
