/**
 * `Db` reads and writes the database: it is Drizzle, whose writes tell the cache what they changed, once committed.
 *
 * A statement runs on a connection of its own, or on the one of the transaction that its fiber works in. Interrupting
 * it cancels it and waits for its end. Between a commit and the publication of its invalidations nothing can come: they
 * are one step. What may have been committed (the connection was lost while committing) is invalidated too.
 */
import { type DrizzleConfig, type ExtractTablesWithRelations, is } from "drizzle-orm"
import type { PgDatabase, PgQueryResultHKT, PgTable } from "drizzle-orm/pg-core"
import { PgRaw } from "drizzle-orm/pg-core/query-builders/raw"
import * as EffectCause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Pull from "effect/Pull"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import { type Attribution, bounded, CurrentAttribution, merged } from "../Attribution.ts"
import { acknowledged, Cacheme } from "../Cacheme.ts"
import { CachemeError, describe } from "../CachemeError.ts"
import type { Cause, Report, Request } from "../Invalidation.ts"
import { CurrentRecorder, type Recorder } from "../Recorder.ts"
import * as Settings from "../Settings.ts"
import { Changes, CurrentTransaction, type Transaction } from "../Transaction.ts"
import { Catalog } from "./catalog.ts"
import type { Statement } from "./builders.ts"
import { isWrite, type Plan, plan, type Written } from "./changedRows.ts"
import { type AnyDatabase, type Connection, type Driver, settle, type Watcher } from "./Connection.ts"
import { DbError, fromDriver, isStale, RolledBack } from "./DbError.ts"
import * as Model from "./Model.ts"
import { load, type Parse } from "./parser.ts"
import * as pgliteDriver from "./pgliteDriver.ts"
import * as placeholders from "./placeholders.ts"
import * as postgresDriver from "./postgresDriver.ts"
import { Recordings } from "./recording.ts"

// --------------------------------------------------------------------------------------------------------- the types

type AnySchema = Record<string, unknown>

/** The Drizzle database that a function is given: builders, relational queries, `execute`. */
export type Database<Schema extends AnySchema> = PgDatabase<
  PgQueryResultHKT,
  Schema,
  ExtractTablesWithRelations<Schema>
>

/** One built statement, or several. A Promise is none: the statement must not run before it is looked at. */
export type Statements = Statement<any> | ReadonlyArray<Statement<any>>

/** What statements answer. */
export type Answers<S extends Statements> =
  S extends ReadonlyArray<any> ? { -readonly [I in keyof S]: Awaited<S[I]> } : Awaited<S>

/** How a transaction is run; modes that are not given are the server's defaults. Of the outermost one only. */
export interface TransactionOptions {
  readonly isolationLevel?: "read committed" | "repeatable read" | "serializable" | undefined
  readonly readOnly?: boolean | undefined
  /**
   * Waits at its first statement until it can be neither cancelled by others nor in their way: for long reports. Only
   * of a transaction that is serializable and read only.
   */
  readonly deferrable?: boolean | undefined
  /**
   * Runs the whole transaction again when another one was in its way: when one of its statements, or COMMIT, failed by a
   * serialisation failure or a deadlock, whatever the effect made of that error. Not at all by default, and never when
   * it is not known whether it was committed. Only what was committed is invalidated, once. Between two tries no
   * connection is held. What the effect does outside the database is done again.
   */
  readonly retry?: Schedule.Schedule<unknown, DbError> | undefined
}

/** Options of every statement. */
interface StatementOptions {
  /**
   * Values for the placeholders of the statement, by their names: `sql.placeholder("id")` takes `{ id: 7 }`. A
   * placeholder without a value is a defect, and so is a value without a placeholder.
   */
  readonly values?: placeholders.Values | undefined
}

/** Options of a read. */
export interface QueryOptions extends StatementOptions {
  /**
   * Tables that are read beyond what the statement tells: by a function, or what cannot be understood. Whatever changes in
   * them ends the answers that rest on it.
   */
  readonly reads?: ReadonlyArray<PgTable> | undefined
}

/** Options of a write. */
export interface MutateOptions extends StatementOptions {
  /** Tables that are written beyond what the statement tells: by raw SQL, a function, a trigger. */
  readonly tables?: ReadonlyArray<PgTable> | undefined
}

/** What the service does; the functions of `Db` find it in the context. */
export interface Service {
  readonly query: (f: (db: any) => Statements, options?: QueryOptions) => Effect.Effect<any, DbError>
  readonly mutate: (f: (db: any) => Statements, options?: MutateOptions) => Effect.Effect<any, DbError>
  readonly transaction: <A, E, R>(
    self: Effect.Effect<A, E, R>,
    options?: TransactionOptions
  ) => Effect.Effect<A, E | DbError, R>
}

// ------------------------------------------------------------------------------------------------------- the service

/** A transaction, or a savepoint in one. */
interface Level {
  readonly connection: Connection
  readonly depth: number
  /** Held by one statement, or one savepoint, at a time. */
  readonly lock: Semaphore.Semaphore
  /** What to invalidate if this level, and all around it, are committed. */
  readonly collected: Array<Request>
  /** What the cache is told of it. */
  readonly transaction: Transaction
  /** Whether it, or anything in it, has changed tables themselves. */
  readonly definesTables: { now: boolean }
  /** What is known of tables: after what may have set a role with other rights, only what was asked since. */
  readonly known: { catalog: Catalog | undefined }
  /** What was in its way, or in that of anything in it, unless another statement has run since. */
  readonly conflict: { now: DbError | undefined }
  isOpen: boolean
}

/** Lets interruptions in again, where they are shut out. */
type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** What is left to do with a finished write, when its connection has been given back. */
interface Finished<A, E> {
  readonly exit: Exit.Exit<A, E>
  readonly report: Effect.Effect<Report, CachemeError> | undefined
  /** What was in the way of a transaction that was rolled back: it may be run again. */
  readonly conflict?: DbError | undefined
}

let services = 0

/** More changed rows than these are told by table, unless the layer says another number. */
const defaultRowLimit = 1000

const make = (driver: Driver, cacheme: Cacheme["Service"], rowLimit: number, parse: Parse): Service => {
  const catalog = new Catalog()
  const recordings = new Recordings(parse)
  // A transaction belongs to the service that opened it.
  const CurrentLevel = Context.Reference<Level | undefined>(`cacheme/drizzle/Level/${++services}`, {
    defaultValue: () => undefined
  })

  /** Runs on the connection of the fiber's transaction, one at a time, or else on one of its own. */
  const withConnection = <A, E, R>(
    f: (connection: Connection, level: Level | undefined) => Effect.Effect<A, E, R>
  ): Effect.Effect<A, E | DbError, R> =>
    Effect.flatMap(CurrentLevel, (level) =>
      level === undefined ? driver.use((connection) => f(connection, undefined)) : inLevel(level, f)
    )

  const query = (f: (db: AnyDatabase) => Statements, options: QueryOptions = {}) =>
    withConnection((connection, level) =>
      Effect.suspend(() => {
        const statements = statementsOf("Db.query", f(connection.db), connection, options)
        if (statements.list.some((statement) => isWrite(connection, statement))) {
          return Effect.die(new TypeError("Db.query was given a statement that writes: use Db.mutate"))
        }
        const answers = Effect.forEach(statements.list, (statement) =>
          noting(level, read(connection, level, statement, options))
        )
        return Effect.map(answers, statements.answerOf)
      })
    )

  /** Runs a statement that changes nothing. What it reads is noted for the lookup that it runs in. */
  const read = (
    connection: Connection,
    level: Level | undefined,
    statement: Statement,
    { reads }: QueryOptions
  ): Effect.Effect<unknown, DbError> =>
    Effect.withFiber((fiber) => {
      const recorder = fiber.getRef(CurrentRecorder)
      const isNoted = recorder?.notesReads === true
      const watched = isNoted || level !== undefined ? new Watched() : undefined
      return Effect.uninterruptibleMask((restore) =>
        Effect.flatMap(
          settle(() => connection.start(() => statement, isPreparable(statement, level), watched), restore),
          ({ exit, interruption }) => {
            const tables = level?.known.catalog ?? catalog
            renew(level, statement, watched)
            const outcome = readFailure("Db.query", exit, "uncommitted")
            forgetMistaken(outcome, level)
            const answer = interruption ?? outcome
            if (!isNoted || watched?.text === undefined || interruption !== undefined) return answer
            const now = fiber.getRef(Clock.Clock).currentTimeMillisUnsafe()
            const noted = note(recorder, tables, connection, watched, reads, now, restore)
            // A failure comes before whatever is said of what it has read.
            return Exit.isFailure(answer)
              ? Effect.andThen(
                  Effect.catch(noted, () => Effect.sync(() => recorder.addUnknown())),
                  answer
                )
              : Effect.flatMapEager(noted, () => answer)
          }
        )
      )
    })

  /** Notes what was read. What cannot be noted for a fault of the database makes an answer that is not stored. */
  const note = (
    recorder: Recorder,
    tables: Catalog,
    connection: Connection,
    { text, parameters, rows }: Watched,
    reads: QueryOptions["reads"],
    now: number,
    restore: Restore
  ): Effect.Effect<void, DbError> => {
    const sent = { text: text!, parameters, rows }
    const noted = recordings.note(recorder, tables, connection, sent, reads, now)
    return Effect.catchEager(Exit.isExit(noted) ? noted : restore(noted), (error) => {
      if (error.reason._tag === "UnknownReads") return Effect.fail(error)
      recorder.addUnknown()
      return Effect.logDebug("cacheme: it could not be told what a query reads", error)
    })
  }

  const mutate = (f: (db: AnyDatabase) => Statements, options: MutateOptions = {}) =>
    Effect.flatMap(
      withConnection((connection, level) =>
        Effect.uninterruptibleMask((restore) =>
          Effect.flatMap(CurrentAttribution, (given): Effect.Effect<Finished<any, DbError>, DbError> => {
            const statements = statementsOf("Db.mutate", f(connection.db), connection, options)
            const attribution = bounded(given)
            const several = (level: Level) =>
              Effect.forEach(statements.list, (statement) =>
                noting(level, writeIn(level, statement, options, attribution, restore))
              ).pipe(Effect.map(statements.answerOf))
            if (level !== undefined) {
              return Effect.map(Effect.exit(several(level)), (exit) => ({ exit, report: undefined }))
            }
            return statements.list.length === 1
              ? writeAlone(
                  connection,
                  statements.list[0]!,
                  options,
                  attribution,
                  restore,
                  statements.answerOf
                )
              : transact(connection, "", (level) => inLevel(level, () => several(level)))
          })
        )
      ),
      finish
    )

  /** A write on its own: committed by the server when it has run. */
  const writeAlone = Effect.fnUntraced(function* (
    connection: Connection,
    statement: Statement,
    options: MutateOptions,
    attribution: Attribution,
    restore: Restore,
    answerOf: (answers: ReadonlyArray<any>) => any
  ): Effect.fn.Return<Finished<any, DbError>, DbError> {
    const planned = yield* plan(catalog, connection, statement, { tables: options.tables, rowLimit })
    const { run, atMost, isDefinition } = planned
    if (planned.needsTransaction && !connection.isOwn) {
      return yield* transact(connection, "", (level) =>
        inLevel(level, () =>
          Effect.map(noting(level, writeIn(level, statement, options, attribution, restore)), (answer) =>
            answerOf([answer])
          )
        )
      )
    }
    const { exit, interruption } = yield* settle(
      () => connection.start(() => run("alone"), isPreparable(statement, undefined)),
      restore
    )
    if (isDefinition) tablesChanged()
    // Whether it was interrupted or not: what it has done, it has done.
    const outcome = readFailure("Db.mutate", exit, "committing")
    if (Exit.isSuccess(outcome)) {
      const { answer } = outcome.value
      const report = yield* publish([yield* told(planned, outcome.value, attribution)], "commit")
      return { exit: interruption ?? Exit.succeed(answerOf([answer])), report }
    }
    forgetMistaken(outcome, undefined)
    const report = mayHaveRun(outcome)
      ? yield* publish([requestOf(atMost, attribution)], "unknown outcome")
      : undefined
    return { exit: interruption ?? Exit.failCause(outcome.cause), report }
  })

  /** A write in a transaction: told when that commits. */
  const writeIn = Effect.fnUntraced(function* (
    level: Level,
    statement: Statement,
    options: MutateOptions,
    attribution: Attribution,
    restore: Restore
  ): Effect.fn.Return<any, DbError> {
    const known = level.known.catalog ?? catalog
    const planned = yield* plan(known, level.connection, statement, { tables: options.tables, rowLimit })
    const watched = new Watched()
    const { exit, interruption } = yield* settle(
      () => level.connection.start(() => planned.run("inside"), isPreparable(statement, level), watched),
      restore
    )
    if (planned.isDefinition) level.definesTables.now = true
    renew(level, statement, watched)
    const outcome = readFailure("Db.mutate", exit, "uncommitted")
    forgetMistaken(outcome, level)
    const request = Exit.isSuccess(outcome)
      ? yield* told(planned, outcome.value, attribution)
      : mayHaveRun(outcome)
        ? requestOf(planned.atMost, attribution)
        : undefined
    if (request !== undefined) {
      level.transaction.changed.add(request)
      level.collected.push(request)
    }
    return (yield* interruption ?? outcome).answer
  })

  const transaction = <A, E, R>(
    self: Effect.Effect<A, E, R>,
    options: TransactionOptions = {}
  ): Effect.Effect<A, E | DbError, R> =>
    Effect.flatMap(CurrentLevel, (outer) => {
      const within = (level: Level) =>
        Effect.provideService(
          Effect.provideService(self, CurrentLevel, level),
          CurrentTransaction,
          level.transaction
        )
      if (outer !== undefined) {
        return Object.values(options).every((option) => option === undefined)
          ? inLevel(outer, () => savepoint(outer, within))
          : defect(
              "a transaction inside another one cannot have modes of its own, nor be run again by itself"
            )
      }
      if (options.deferrable === true && !(options.isolationLevel === "serializable" && options.readOnly)) {
        return defect(`"deferrable" is for a transaction that is serializable and read only`)
      }
      const modes = modesOf(options)
      const once = driver.use((connection) => transact(connection, modes, within))
      return Effect.flatMap(options.retry === undefined ? once : repeatedly(once, options.retry), finish)
    })

  /** Runs a transaction again while another one is in its way, as long as the schedule says. */
  const repeatedly = <A, E, R>(
    once: Effect.Effect<Finished<A, E>, DbError, R>,
    schedule: Schedule.Schedule<unknown, DbError>
  ): Effect.Effect<Finished<A, E>, DbError, R> =>
    Effect.flatMap(Schedule.toStepWithSleep(schedule), (step) => {
      const next: typeof once = Effect.flatMap(once, (finished) => {
        const { conflict } = finished
        if (conflict === undefined) return Effect.succeed(finished)
        return Pull.matchEffect(step(conflict), {
          onSuccess: () =>
            Effect.andThen(Effect.logDebug(`cacheme: a transaction is run again: ${conflict.message}`), next),
          onFailure: Effect.failCause,
          onDone: () => Effect.succeed(finished)
        })
      })
      return next
    })

  /** Begins, runs, and commits or rolls back; what a commit has changed is published before anything else happens. */
  const transact = <A, E, R>(
    connection: Connection,
    modes: string,
    body: (level: Level) => Effect.Effect<A, E, R>
  ): Effect.Effect<Finished<A, E | DbError>, DbError, R> =>
    Effect.uninterruptibleMask((restore) =>
      Effect.gen(function* () {
        const isolation = yield* attempt(() => connection.begin(modes))
        const outside = yield* CurrentTransaction
        const level = makeLevel(connection, 1, {
          // Inside a transaction of another database, what may be shown is what both may show.
          readCommitted: isolation === "read committed" && outside?.readCommitted !== false,
          changed: outside?.changed ?? new Changes()
        })
        const exit = yield* Effect.exit(restore(body(level)))
        return yield* closing(level, end(level, exit))
      })
    )

  const end = Effect.fnUntraced(function* <A, E>(
    { connection, collected, definesTables, conflict }: Level,
    exit: Exit.Exit<A, E>
  ): Effect.fn.Return<Finished<A, E | DbError>> {
    // Inside it, tables looked as nobody else sees them, or will.
    if (definesTables.now) tablesChanged()
    if (Exit.isFailure(exit)) {
      // If the connection is gone, so is the transaction.
      if (!connection.isLost()) yield* Effect.ignore(attempt(() => connection.rollback()))
      const isInterrupted = EffectCause.hasInterruptsOnly(exit.cause)
      return { exit, report: undefined, conflict: isInterrupted ? undefined : conflict.now }
    }
    const committed = yield* Effect.exit(attempt(() => connection.commit(), "committing"))
    if (Exit.isFailure(committed)) {
      const report = isUnknown(committed) ? yield* publish(collected, "unknown outcome") : undefined
      return { exit: Exit.failCause(committed.cause), report, conflict: conflictIn(committed) }
    }
    return committed.value
      ? { exit, report: yield* publish(collected, "commit") }
      : {
          exit: Exit.fail(new DbError({ reason: new RolledBack() })),
          report: undefined,
          conflict: conflict.now
        }
  })

  const savepoint = <A, E, R>(
    outer: Level,
    body: (level: Level) => Effect.Effect<A, E, R>
  ): Effect.Effect<A, E | DbError, R> =>
    Effect.uninterruptibleMask((restore) =>
      Effect.gen(function* () {
        const { connection, depth } = outer
        const name = `cacheme_${depth}`
        yield* attempt(() => connection.command(`savepoint ${name}`))
        const level = makeLevel(connection, depth + 1, outer.transaction, outer)
        const exit = yield* Effect.exit(restore(body(level)))
        const rollback = Effect.suspend(() => {
          // What was set inside it, a role or a search path, is what it was before.
          if (outer.known.catalog !== undefined) outer.known.catalog = catalog.anew()
          return Effect.ignore(attempt(() => connection.command(`rollback to savepoint ${name}`)))
        })
        return yield* closing(
          level,
          Effect.gen(function* (): Effect.fn.Return<A, E | DbError> {
            if (Exit.isFailure(exit)) {
              if (!connection.isLost()) yield* rollback
              return yield* exit
            }
            const released = yield* Effect.exit(
              attempt(() => connection.command(`release savepoint ${name}`))
            )
            if (Exit.isSuccess(released)) {
              outer.collected.push(...level.collected)
              return exit.value
            }
            if (connection.isLost()) return yield* Exit.failCause(released.cause)
            // A statement had failed, and its failure had been ignored.
            yield* rollback
            return yield* new DbError({ reason: new RolledBack() })
          })
        )
      })
    )

  /** Publishes in this very step; what is returned waits for the acknowledgement. */
  const publish = (collected: ReadonlyArray<Request>, cause: Cause) => {
    const request: Request = {
      keys: [...new Set(collected.flatMap(({ keys }) => keys))],
      tags: [...new Set(collected.flatMap(({ tags }) => tags))],
      patterns: [...new Set(collected.flatMap(({ patterns }) => patterns))],
      cause,
      because: new Map(collected.flatMap(({ because }) => [...(because ?? [])])),
      ...merged(collected)
    }
    const count = request.keys.length + request.tags.length + request.patterns.length
    if (count === 0) return Effect.undefined
    // It is committed, whatever becomes of another database's transaction around it.
    return Effect.provideService(cacheme.publish(request), CurrentTransaction, undefined)
  }

  const tablesChanged = (): void => {
    catalog.forget()
    driver.tablesChanged()
  }

  const forgetMistaken = (exit: Exit.Exit<unknown, DbError>, level: Level | undefined): void => {
    const code = reasonOf(exit)
    // The server knows other tables or columns than the catalog told.
    if (code?._tag !== "StatementFailed" || !/^42(P01|703)$/.test(code.code)) return
    catalog.forget()
    level?.known.catalog?.forget()
  }

  /** In a transaction, tables are asked for anew after what may have set a role with other rights, or a search path. */
  const renew = (level: Level | undefined, statement: Statement, watched: Watched | undefined): void => {
    if (level !== undefined && (is(statement, PgRaw) || watched?.setsConfig() === true))
      level.known.catalog = catalog.anew()
  }

  return { query, mutate, transaction }
}

/** What a statement has sent, and was answered. */
class Watched implements Watcher {
  text: string | undefined
  parameters: ReadonlyArray<unknown> = []
  rows: ReadonlyArray<unknown> | undefined
  /** The texts that were sent before, all in one. */
  #before = ""

  sent(text: string, parameters: ReadonlyArray<unknown>): void {
    if (this.text !== undefined) this.#before += `${this.text}\n`
    this.text = text
    this.parameters = parameters
  }

  answered(rows: ReadonlyArray<unknown>): void {
    this.rows = rows
  }

  /** True when it may have set something of the session's. */
  setsConfig(): boolean {
    return /set_config/i.test(this.#before + (this.text ?? ""))
  }
}

/** Runs in a transaction: one at a time, and not after its end. */
const inLevel = <A, E, R>(
  level: Level,
  f: (connection: Connection, level: Level) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  level.lock.withPermit(
    Effect.suspend(() =>
      level.isOpen
        ? f(level.connection, level)
        : Effect.die(new Error("the transaction has ended: a fiber that it started went on using it"))
    )
  )

/** Ends a level, when the statements of fibers that it has left behind are done. */
const closing = <A, E, R>(level: Level, ending: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  level.lock.withPermit(
    Effect.suspend(() => {
      level.isOpen = false
      return ending
    })
  )

const makeLevel = (
  connection: Connection,
  depth: number,
  { changed, readCommitted }: Pick<Transaction, "changed" | "readCommitted">,
  outer: Pick<Level, "definesTables" | "known" | "conflict"> = {
    definesTables: { now: false },
    known: { catalog: undefined },
    conflict: { now: undefined }
  }
): Level => {
  const collected: Array<Request> = []
  return {
    connection,
    depth,
    lock: Semaphore.makeUnsafe(1),
    collected,
    transaction: { readCommitted, changed, defer: (request) => collected.push(request) },
    definesTables: outer.definesTables,
    known: outer.known,
    conflict: outer.conflict,
    isOpen: true
  }
}

/**
 * Notes whether something was in the way of a statement. Another one that ran later, and one that failed for another
 * reason, show that the transaction went on, from a savepoint before it.
 */
const noting = <A>(
  level: Level | undefined,
  statement: Effect.Effect<A, DbError>
): Effect.Effect<A, DbError> =>
  level === undefined
    ? statement
    : Effect.onExit(statement, (exit) =>
        Effect.sync(() => {
          const reason = reasonOf(exit)
          const isRefused = reason?._tag === "StatementFailed" && reason.code === "25P02"
          if (Exit.isSuccess(exit) || (reason !== undefined && !isRefused))
            level.conflict.now = conflictIn(exit)
        })
      )

/** What was in the way of a statement or of COMMIT, if that is why it failed. */
const conflictIn = (exit: Exit.Exit<unknown, DbError>): DbError | undefined => {
  const error = errorOf(exit)
  return error !== undefined && (error.reason._tag === "SerializationFailure" || isStale(error))
    ? error
    : undefined
}

/** A text that comes again: not raw SQL, nor where tables look as nobody else sees them. */
const isPreparable = (statement: Statement, level: Level | undefined): boolean =>
  !is(statement, PgRaw) && level?.definesTables.now !== true

const defect = (message: string) => Effect.die(new TypeError(`Db.transaction: ${message}`))

/** What a write that has run invalidates. If its rows could not be told, that is counted and said why. */
const told = Effect.fnUntraced(function* (
  { tables }: Plan,
  { ids, byTable }: Written,
  attribution: Attribution
): Effect.fn.Return<Request> {
  for (const table of tables) yield* countWrite(table, byTable === undefined ? "row" : "table")
  const request = requestOf(ids, attribution)
  if (byTable === undefined) return request
  yield* Effect.logDebug(`cacheme: a write to ${tables.join(", ")} is told by table: ${byTable}`)
  const why = `a write could not be told by row: ${byTable}`
  const because = new Map(Model.idsOfTables(tables).map((id) => [id, why] as const))
  return { ...request, because }
})

const countWrite = (table: string, told: "row" | "table") =>
  Metric.update(
    Metric.counter("cacheme_writes_total", {
      description: "Statements that wrote, and whether their changed rows were told one by one",
      incremental: true,
      attributes: { table, told }
    }),
    1
  )

const requestOf = (ids: ReadonlyArray<string>, attribution: Attribution): Request => ({
  keys: [],
  tags: ids,
  patterns: [],
  cause: "commit",
  ...attribution
})

const attempt = <A>(f: () => Promise<A>, moment: Parameters<typeof fromDriver>[1] = "uncommitted") =>
  Effect.tryPromise({ try: f, catch: (error) => fromDriver(error, moment) })

/** The outcome of a statement, with the driver's failure read. */
const readFailure = <A>(
  owner: string,
  exit: Exit.Exit<A, unknown>,
  moment: Parameters<typeof fromDriver>[1]
): Exit.Exit<A, DbError> => {
  const name = placeholders.missingIn(errorOf(exit))
  if (name !== undefined) return Exit.die(placeholders.missing(owner, name))
  return Exit.mapError(exit, (error) => fromDriver(error, moment))
}

const errorOf = <E>(exit: Exit.Exit<unknown, E>): E | undefined =>
  Exit.isFailure(exit) ? exit.cause.reasons.find((reason) => reason._tag === "Fail")?.error : undefined

const reasonOf = (exit: Exit.Exit<unknown, DbError>): DbError["reason"] | undefined => errorOf(exit)?.reason

const isUnknown = (exit: Exit.Exit<unknown, DbError>): boolean => reasonOf(exit)?._tag === "OutcomeUnknown"

/**
 * True when a statement may have changed rows although it failed: its outcome is not known, or the server did not refuse
 * it, and something failed in reading what it answered.
 */
const mayHaveRun = (exit: Exit.Exit<unknown, DbError>): boolean => {
  const reason = reasonOf(exit)
  return (
    reason?._tag === "OutcomeUnknown" ||
    (reason?._tag === "StatementFailed" && !/^[0-9A-Z]{5}$/.test(reason.code))
  )
}

const finish = <A, E>({ exit, report }: Finished<A, E>): Effect.Effect<A, E> =>
  report === undefined ? exit : Effect.andThen(acknowledged(report), exit)

const modesOf = ({ isolationLevel, readOnly, deferrable }: TransactionOptions): string =>
  [
    isolationLevel === undefined ? "" : `isolation level ${isolationLevel}`,
    readOnly === undefined ? "" : readOnly ? "read only" : "read write",
    deferrable === undefined ? "" : deferrable ? "deferrable" : "not deferrable"
  ]
    .filter((mode) => mode !== "")
    .join(", ")

/** The statements that a function gave, and how their answers are given back. */
const statementsOf = (
  owner: string,
  given: Statements,
  connection: Connection,
  { values }: StatementOptions
): { readonly list: ReadonlyArray<Statement>; readonly answerOf: (answers: ReadonlyArray<any>) => any } => {
  const list: ReadonlyArray<Statement> = Array.isArray(given) ? given : [given as Statement]
  for (const item of list) {
    if (typeof (item as { readonly execute?: unknown }).execute === "function" && !("then" in item)) {
      throw new TypeError(
        `${owner}: the function has returned a prepared statement: return the statement itself, without .prepare(), ` +
          `and give its values beside it: ${owner}(f, { values }). What comes again is prepared by itself`
      )
    }
    if (typeof item?.then !== "function" || !("getSQL" in item)) {
      const isPromise = (item as unknown) instanceof Promise
      // What it does is refused, and told here.
      if (isPromise) (item as unknown as Promise<unknown>).catch(() => {})
      const actual = isPromise ? "a Promise" : describe(item)
      throw new TypeError(
        `${owner}: the function must return a statement of Drizzle's that was not run, not ${actual}`
      )
    }
  }
  const filled = values === undefined ? list : placeholders.fillUnsafe(owner, connection.db, list, values)
  return { list: filled, answerOf: Array.isArray(given) ? (answers) => answers : ([answer]) => answer }
}

// ------------------------------------------------------------------------------------------------ the public surface

/** Options of every database. */
interface CommonOptions {
  /**
   * A statement that changes more rows than these is told by table: every entry that rests on any part of it is stale. An
   * integer of at least 0; default 1,000.
   */
  readonly rowLimit?: number | undefined
}

/** Drizzle's own options. */
type DrizzleOptions<Schema extends AnySchema> = Pick<DrizzleConfig<Schema>, "casing" | "logger"> &
  CommonOptions &
  (keyof Schema extends never ? { readonly schema?: undefined } : { readonly schema: Schema })

/** A database service: its class is its key in the context, and has its functions. */
export interface DatabaseClass<Self, Schema extends AnySchema> extends Context.ServiceClass<
  Self,
  string,
  Service
> {
  /**
   * Reads: runs the statement that the function builds. Fails with `DbError`.
   *
   * **Details**
   *
   * Runs on the connection of the fiber's transaction if there is one. Interrupting it cancels the statement. Several
   * statements (an array) run in order, on one connection. `values` are those of the statement's placeholders. A
   * function that returns a Promise does not compile, and is a defect; so is a statement that writes.
   *
   * Inside a lookup it notes what was read, and the lookup's answer rests on that: rows, where they are asked for by
   * equality on the primary key, a unique column or a declared key of the table's `Model`; the whole table elsewhere. A
   * statement of which not even the tables can be told (it calls a function of the database's own that is not immutable,
   * or is no SELECT) fails with `UnknownReads` in a lookup, unless `reads` names tables, or the node has
   * `dependencies: "manual"`.
   *
   * **Example** (One row)
   *
   * ```ts
   * import { Db } from "cacheme/drizzle"
   * import { eq } from "drizzle-orm"
   * import { integer, pgTable, text } from "drizzle-orm/pg-core"
   *
   * const books = pgTable("books", { id: integer().primaryKey(), title: text().notNull() })
   *
   * const book = (id: number) => Db.query((db) => db.select().from(books).where(eq(books.id, id)))
   * ```
   */
  readonly query: <S extends Statements>(
    f: (db: Database<Schema>) => S,
    options?: QueryOptions
  ) => Effect.Effect<Answers<S>, DbError, Self>
  /**
   * Writes, and invalidates what the write changed once it is committed. Fails with `DbError`; then nothing was kept
   * and nothing is invalidated, unless the reason is `OutcomeUnknown`, or something failed in reading the answer.
   *
   * **Details**
   *
   * Completes when no reader that starts afterwards can be given an older answer. The changed rows are told by the
   * statement itself; where that is not possible everything that read the table is invalidated. Several statements (an
   * array) are one transaction. Inside `Db.transaction`, the invalidation waits for the commit. `tables` names tables
   * that are written in ways the statement does not tell. `values` are those of its placeholders. Who acts, and why, is
   * told with the invalidation (`Cacheme.Attribution`). A function that returns a Promise does not compile, and is a
   * defect.
   *
   * **Example** (A new title)
   *
   * ```ts
   * import { Db } from "cacheme/drizzle"
   * import { eq } from "drizzle-orm"
   * import { integer, pgTable, text } from "drizzle-orm/pg-core"
   *
   * const books = pgTable("books", { id: integer().primaryKey(), title: text().notNull() })
   *
   * const rename = (id: number, title: string) =>
   *   Db.mutate((db) => db.update(books).set({ title }).where(eq(books.id, id)))
   * ```
   */
  readonly mutate: <const S extends Statements>(
    f: (db: Database<Schema>) => S,
    options?: MutateOptions
  ) => Effect.Effect<Answers<S>, DbError, Self>
  /**
   * Runs an effect in a transaction: commits when it succeeds, rolls back when it fails or is interrupted.
   *
   * **Details**
   *
   * What the effect reads and writes with this service uses the transaction's connection; invalidations wait for the
   * commit, and are forgotten if it does not come. A transaction inside another one is a savepoint. Lookups of memoized
   * effects inside it run on its connection, and their answers are neither shared nor stored.
   *
   * With `retry` it is run again when another transaction was in its way: so is a single write that is wrapped in one.
   *
   * **Example** (Both or neither)
   *
   * ```ts
   * import { Db } from "cacheme/drizzle"
   * import { eq, sql } from "drizzle-orm"
   * import { integer, pgTable } from "drizzle-orm/pg-core"
   * import { Effect, Schedule } from "effect"
   *
   * const accounts = pgTable("accounts", { id: integer().primaryKey(), balance: integer().notNull() })
   *
   * const add = (id: number, amount: number) =>
   *   Db.mutate((db) =>
   *     db.update(accounts).set({ balance: sql`${accounts.balance} + ${amount}` }).where(eq(accounts.id, id))
   *   )
   *
   * const transfer = (from: number, to: number, amount: number) =>
   *   Effect.andThen(add(from, -amount), add(to, amount)).pipe(
   *     Db.transaction({
   *       isolationLevel: "serializable",
   *       retry: Schedule.exponential("10 millis").pipe(Schedule.jittered, Schedule.upTo({ times: 5 }))
   *     })
   *   )
   * ```
   */
  readonly transaction: {
    (
      options?: TransactionOptions
    ): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | DbError, R | Self>
    <A, E, R>(
      self: Effect.Effect<A, E, R>,
      options?: TransactionOptions
    ): Effect.Effect<A, E | DbError, R | Self>
  }
  /**
   * A pool of connections to a Postgres server, by postgres.js. Fails with `DbError` when it cannot be reached, and with
   * `CachemeError` (`InvalidSetting`) for an option that is not allowed.
   *
   * **Example** (Twenty connections)
   *
   * ```ts
   * import { Db } from "cacheme/drizzle"
   *
   * const DbPool = Db.layerPostgres({ url: "postgres://app@localhost:5432/app", maxConnections: 20 })
   * ```
   */
  readonly layerPostgres: (
    options: postgresDriver.Options & DrizzleOptions<Schema>
  ) => Layer.Layer<Self, DbError | CachemeError, Cacheme>
  /**
   * Postgres inside the process, by PGlite: in memory, in a directory, or one that exists already.
   *
   * **Example** (In memory)
   *
   * ```ts
   * import { Db } from "cacheme/drizzle"
   *
   * const DbInMemory = Db.layerPglite()
   * ```
   */
  readonly layerPglite: (
    ...options: keyof Schema extends never
      ? [options?: pgliteDriver.Options & DrizzleOptions<Schema>]
      : [options: pgliteDriver.Options & DrizzleOptions<Schema>]
  ) => Layer.Layer<Self, DbError | CachemeError, Cacheme>
}

/**
 * Makes a database service of one's own: for relational queries, which need a schema, or for a second database.
 *
 * **Example** (Relational queries)
 *
 * ```ts
 * import { Db } from "cacheme/drizzle"
 * import { integer, pgTable, text } from "drizzle-orm/pg-core"
 *
 * const books = pgTable("books", { id: integer().primaryKey(), title: text().notNull() })
 * const schema = { books }
 *
 * class AppDb extends Db.Service<AppDb, typeof schema>()("app/Db") {}
 *
 * const first = AppDb.query((db) => db.query.books.findFirst())
 *
 * const AppDbLive = AppDb.layerPglite({ schema })
 * ```
 */
const makeClass =
  <Self, Schema extends AnySchema = {}>() =>
  (id: string): DatabaseClass<Self, Schema> => {
    const Key = Context.Service<Self, Service>()(id)
    const layer = <O extends object>(
      driver: (
        options: O,
        config: DrizzleConfig<any>
      ) => Effect.Effect<Driver, DbError | CachemeError, Scope.Scope>,
      {
        schema,
        casing,
        logger,
        rowLimit = defaultRowLimit,
        ...options
      }: O & DrizzleConfig<any> & CommonOptions
    ) =>
      Layer.effect(
        Key,
        Effect.gen(function* () {
          const cacheme = yield* Cacheme
          if (!Number.isSafeInteger(rowLimit) || rowLimit < 0)
            return yield* Settings.invalid("rowLimit", rowLimit, "an integer of at least 0")
          const config = Object.fromEntries(
            Object.entries({ schema, casing, logger }).filter(([, option]) => option !== undefined)
          )
          const parse = yield* load
          const connected = yield* driver(options as unknown as O, config)
          yield* Effect.logInfo(`cacheme: ${id}: ${connected.label}`)
          return make(connected, cacheme, rowLimit, parse)
        })
      )
    return Object.assign(Key, {
      query: (f: (db: any) => Statements, options?: QueryOptions) => Key.use((db) => db.query(f, options)),
      mutate: (f: (db: any) => Statements, options?: MutateOptions) => Key.use((db) => db.mutate(f, options)),
      transaction: dual(
        (args) => Effect.isEffect(args[0]),
        (self: Effect.Effect<any, any, any>, options?: TransactionOptions) =>
          Key.use((db) => db.transaction(self, options))
      ),
      layerPostgres: (options: postgresDriver.Options) => layer(postgresDriver.make, options),
      layerPglite: (options: pgliteDriver.Options = {}) => layer(pgliteDriver.make, options)
    })
  }

/**
 * The database: Drizzle on Postgres, whose writes tell the cache what they changed.
 *
 * **Example** (A cached read, and a write that ends it)
 *
 * ```ts
 * import { Cacheme, CachemeLive, Node } from "cacheme"
 * import { Db, DbLive, Model } from "cacheme/drizzle"
 * import { eq } from "drizzle-orm"
 * import { integer, pgTable, text } from "drizzle-orm/pg-core"
 * import { Effect, Layer, Schema } from "effect"
 *
 * const books = pgTable("books", { id: integer().primaryKey(), title: text().notNull() })
 * const Books = Model.make(books)
 *
 * class BookNode extends Node.Class<BookNode>()("book", {
 *   key: { id: Schema.Int },
 *   value: Schema.Array(Schema.Struct({ id: Schema.Int, title: Schema.String })),
 *   tags: ({ id }) => Books.row({ id })
 * }) {}
 *
 * const book = (id: number) =>
 *   Db.query((db) => db.select().from(books).where(eq(books.id, id))).pipe(Cacheme.memoize(new BookNode({ id })))
 *
 * const rename = (id: number, title: string) =>
 *   Db.mutate((db) => db.update(books).set({ title }).where(eq(books.id, id)))
 *
 * const AppLive = DbLive.pipe(Layer.provideMerge(CachemeLive))
 *
 * const program = Effect.gen(function* () {
 *   yield* book(1)
 *   yield* rename(1, "Persuasion")
 *   return yield* book(1)
 * }).pipe(Effect.provide(AppLive))
 * ```
 */
export class Db extends makeClass<Db>()("cacheme/Db") {
  // In its type, every key of Effect's has its service's shape under this name too.
  static override readonly Service = makeClass as typeof makeClass & Service
}
