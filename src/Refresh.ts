/**
 * Refreshes in the background: one for a key at a time, of answers that are given stale or looked up early.
 *
 * While a refresh fails it is tried again by a schedule, and only when somebody asks for the key: a thousand hits on a
 * stale answer make one lookup, an answer that nobody asks for makes none.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"

/** The longest wait after a failure; a failure is forgotten when nobody asks for so long beyond its wait. */
const longest = Duration.seconds(30)

/** How long it waits after a failure: 100 ms, doubled each time up to 30 s, by chance up to a fifth less or more. */
const backoff: Schedule.Schedule<unknown> = Schedule.exponential("100 millis").pipe(
  Schedule.modifyDelay(({ duration }) => Effect.succeed(Duration.min(duration, longest))),
  Schedule.jittered
)

class Refresh {
  /** Open when somebody has asked since the last attempt began. */
  readonly asked: Latch.Latch = Latch.makeUnsafe(true)
  failures = 0
}

/** The refreshes of one cache. */
export class Refreshes {
  readonly #byKey = new Map<string, Refresh>()
  readonly #scope: Scope.Scope

  /** Refreshes run in this scope. */
  constructor(scope: Scope.Scope) {
    this.#scope = scope
  }

  /** How often in a row the refresh of a key has failed, while it goes on. */
  failures(key: string): number {
    return this.#byKey.get(key)?.failures ?? 0
  }

  /**
   * Starts a refresh of keys that have none, in the caller's context. `lookUp` is given these keys; it looks them up
   * once and tells whether it got answers.
   */
  start<R>(
    keys: ReadonlyArray<string>,
    lookUp: (keys: ReadonlyArray<string>) => Effect.Effect<boolean, never, R>
  ): Effect.Effect<void, never, R> {
    return Effect.suspend(() => {
      const idle = keys.filter((key) => {
        const running = this.#byKey.get(key)
        running?.asked.openUnsafe()
        return running === undefined
      })
      if (idle.length === 0) return Effect.void
      const refresh = new Refresh()
      for (const key of idle) this.#byKey.set(key, refresh)
      const attempt = Effect.suspend(() => {
        refresh.asked.closeUnsafe()
        return Effect.flatMap(lookUp(idle), (hasAnswers) => {
          if (hasAnswers) return Effect.void
          refresh.failures++
          return Effect.fail("the refresh failed")
        })
      })
      const attemptWhenAsked = Effect.flatMap(
        Effect.timeoutOption(refresh.asked.await, longest),
        Option.match({ onNone: () => Effect.void, onSome: () => attempt })
      )
      return Effect.suspend(() => (refresh.failures === 0 ? attempt : attemptWhenAsked)).pipe(
        Effect.retry(backoff),
        Effect.ensuring(
          Effect.sync(() => {
            for (const key of idle) this.#byKey.delete(key)
          })
        ),
        Effect.ignore,
        Effect.forkIn(this.#scope, { startImmediately: true }),
        Effect.asVoid
      )
    })
  }
}
