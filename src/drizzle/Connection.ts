/**
 * The contract of a database driver: connections that are used by one fiber at a time, and what can be done with one.
 *
 * A driver runs what it is given and tells when it is done; it knows nothing of tags. Its errors are its own, read by
 * `DbError.fromDriver`.
 */
import type { PgDatabase } from "drizzle-orm/pg-core"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { DbError } from "./DbError.ts"

/** A Drizzle database of any driver and schema. */
export type AnyDatabase = PgDatabase<any, any, any>

/** Told what a statement sends, and what it is answered, as the driver has it. */
export interface Watcher {
  sent(text: string, parameters: ReadonlyArray<unknown>): void
  answered(rows: ReadonlyArray<unknown>): void
}

/** What has been sent to the server. */
export interface Started<A> {
  readonly answer: PromiseLike<A>
  /** Asks for it to be stopped; completes when it has ended, and the request can harm nothing that is sent later. */
  readonly cancel: Effect.Effect<void>
}

/** One connection, used by one fiber at a time. */
export interface Connection {
  /** The version of the server: 180004 is 18.4. */
  readonly serverVersion: number
  /** Whether a transaction may be opened by what is sent with `db`: nobody else can get into it. */
  readonly isOwn: boolean
  /** Runs on this connection, inside its transaction when one is open. */
  readonly db: AnyDatabase
  /** True once the connection, or the transaction with it, is known to be lost: nothing can be sent any more. */
  readonly isLost: () => boolean
  /**
   * Starts a statement made with `db`. The text of a built one comes again and again: a driver may prepare it on the
   * server. A watcher is told before the answer is.
   */
  readonly start: <A>(
    statement: (db: AnyDatabase) => PromiseLike<A>,
    isBuilt?: boolean,
    watcher?: Watcher
  ) => Started<A>
  /** Opens a transaction with these modes; tells the isolation level that it really has. */
  readonly begin: (modes: string) => Promise<string>
  /** Commits; false if the server rolled back instead. */
  readonly commit: () => Promise<boolean>
  readonly rollback: () => Promise<unknown>
  /** Runs a command without an answer: those of savepoints. */
  readonly command: (text: string) => Promise<unknown>
}

/** A source of connections. */
export interface Driver {
  /** What it is, for the log line at start. */
  readonly label: string
  /**
   * Uses a connection that nobody else uses meanwhile. Waiting for one can be interrupted; a connection that is lost
   * is not used again.
   */
  readonly use: <A, E, R>(
    f: (connection: Connection) => Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | DbError, R>
  /** To be told when tables themselves were changed: statements that were prepared may not fit them any more. */
  readonly tablesChanged: () => void
}

/** What came of a statement, and the interruption that came meanwhile, if one did. */
export interface Settled<A> {
  readonly exit: Exit.Exit<A, unknown>
  readonly interruption: Exit.Exit<never> | undefined
}

/**
 * Starts something and learns what came of it, whatever happens: an interruption asks for it to be cancelled, but it
 * may have been done all the same. To be run where nothing can interrupt; `restore` says where interruptions may come.
 */
export const settle = <A>(
  start: () => Started<A>,
  restore: <B, E>(effect: Effect.Effect<B, E>) => Effect.Effect<B, E>
): Effect.Effect<Settled<A>> =>
  Effect.suspend(() => {
    let settled: Exit.Exit<A, unknown> | undefined
    const answered = Effect.callback<A, unknown>((resume) => {
      const { answer, cancel } = start()
      const end = (exit: Exit.Exit<A, unknown>) => resume((settled = exit))
      const ended = answer.then(
        (value) => end(Exit.succeed(value)),
        (error: unknown) => end(Exit.fail(error))
      )
      return Effect.andThen(
        cancel,
        Effect.promise(() => ended)
      )
    })
    return Effect.map(Effect.exit(restore(answered)), (exit) => {
      const interruption =
        Exit.isFailure(exit) && Exit.hasInterrupts(exit) ? (exit as Exit.Exit<never>) : undefined
      return { exit: settled ?? exit, interruption }
    })
  })

/** The rows of a statement that was run without a mapping: postgres.js answers a list, PGlite an object with one. */
export const rowsOf = (answer: unknown): ReadonlyArray<Record<string, unknown>> =>
  Array.isArray(answer) ? answer : (answer as { readonly rows: ReadonlyArray<Record<string, unknown>> }).rows

/** Runs a statement in this very step: `await` would do so in a later one. */
export const runNow = <A>(statement: PromiseLike<A>): Promise<A> =>
  new Promise((resolve, reject) => void statement.then(resolve, reject))

/** Throws when a statement runs by itself: what is not looked at first could change rows that nobody is told of. */
export const assertRunningUnsafe = (isRunning: boolean): void => {
  if (!isRunning) throw new Error("a statement must be returned to Db.query or Db.mutate, which run it")
}
