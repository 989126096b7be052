/**
 * How a lookup is run: in its turn, tried again as its schedule says, for a limited time.
 *
 * The time limit is the outermost, so it covers the wait for a turn and all retries. A turn covers the retries too:
 * while a lookup backs off, no other takes its place in front of a database that is in trouble.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import { LookupTimeout } from "./CachemeError.ts"
import type { Crew } from "./Flight.ts"
import type { LookupOptions } from "./Node.ts"

/** Runs a lookup for a crew. `turns` are the turns of its node, if they are limited; `key` names it in the error. */
export const run = <A, E, R>(
  lookup: Effect.Effect<A, E, R>,
  options: LookupOptions | undefined,
  turns: Semaphore.Semaphore | undefined,
  crew: Crew,
  key: string
): Effect.Effect<A, E | LookupTimeout, R> => {
  const tried = options?.retry === undefined ? lookup : Effect.retry(lookup, options.retry)
  const inTurn = turns === undefined ? tried : takeTurn(turns, crew, tried)
  if (options?.timeout === undefined) return inTurn
  const duration = Duration.fromInputUnsafe(options.timeout)
  return Effect.timeoutOrElse(inTurn, {
    duration,
    orElse: () => Effect.fail(new LookupTimeout({ key, milliseconds: Duration.toMillis(duration) }))
  })
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
