/** What a step does through `Db`. */
import { Cause, Effect, Exit } from "effect"
import type { PgTable } from "drizzle-orm/pg-core"
import type { Cacheme } from "../../../src/index.ts"
import { FilmDb } from "./servers.ts"
import { draw } from "./statements.ts"
import type { Step } from "./steps.ts"
import { codeOf, GivenUp, givenUp, type Trace, written } from "./twin.ts"

/** How a step is taken. */
export interface Performance {
  /** What came of each write is added to it. */
  readonly trace: Trace
  /** Done inside a transaction where the step says so. */
  readonly asks: Effect.Effect<void, never, FilmDb | Cacheme>
  /** Spoils what a write answers. */
  readonly answer?: ((answer: unknown) => unknown) | undefined
}

/** Takes a step; succeeds with the number of writes that are kept. */
export const perform = (
  step: Step,
  performance: Performance
): Effect.Effect<number, GivenUp, FilmDb | Cacheme> => {
  const { trace, asks, answer } = performance
  if (step.does === "write") {
    const drawn = step.statements.map(draw)
    const tables: ReadonlyArray<PgTable> = drawn.flatMap(({ tables }) => tables ?? [])
    const write: Effect.Effect<unknown, unknown, FilmDb> =
      drawn.length === 1
        ? FilmDb.mutate((db) => drawn[0]!.build(db), { tables })
        : FilmDb.mutate((db) => drawn.map(({ build }) => build(db)), { tables })
    return Effect.flatMap(Effect.exit(write), (exit) => {
      if (Exit.isFailure(exit)) return Effect.fail(givenUp(trace, endOf(exit)))
      const answers = answer?.(exit.value) ?? exit.value
      trace.push(
        drawn.length === 1 ? written(answers) : (answers as ReadonlyArray<unknown>).map(written).join(" and ")
      )
      return Effect.succeed(1)
    })
  }
  const body = Effect.gen(function* () {
    let kept = 0
    for (const part of step.parts) {
      const exit = yield* Effect.exit(perform(part.step, performance))
      if (Exit.isSuccess(exit)) kept += exit.value
      else if (!part.isCaught) return yield* exit
      if (part.asks) yield* asks
    }
    if (step.fails) return yield* new GivenUp({ message: "it fails by itself" })
    return kept
  })
  return Effect.catchCause(FilmDb.transaction(body), (cause) => {
    const error = Cause.squash(cause)
    return Effect.fail(
      error instanceof GivenUp ? error : new GivenUp({ message: endOf(Exit.failCause(cause)) })
    )
  })
}

/** Why something has failed: an SQLSTATE, or a word. */
const endOf = (exit: Exit.Exit<unknown, unknown>): string => {
  if (Exit.isSuccess(exit)) return ""
  const error = Cause.squash(exit.cause)
  const { reason } = error as { readonly reason?: { readonly _tag: string } }
  const code = codeOf(error)
  return /^[0-9A-Z]{5}$/.test(code) ? code : `${reason?._tag ?? ""} ${String(error)}`
}
