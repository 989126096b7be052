/**
 * The one connection of PGlite, Postgres inside the process.
 *
 * Who wants it waits for it, in order, and may stop waiting. A transaction has it until it ends, so a query from outside
 * waits and one from inside uses it. A statement that runs cannot be cancelled: interrupting it waits for its end.
 */
import type { PGlite, Transaction } from "@electric-sql/pglite"
import type { DrizzleConfig } from "drizzle-orm"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type { CachemeError } from "../CachemeError.ts"
import { missingPackage } from "../missingPackage.ts"
import {
  type AnyDatabase,
  assertRunningUnsafe,
  type Connection,
  type Driver,
  runNow,
  type Watcher
} from "./Connection.ts"
import { type DbError, fromDriver } from "./DbError.ts"

/** Options of a database inside the process. */
export interface Options {
  /** A directory to keep the database in; without it, it is in memory and ends with the layer. */
  readonly dataDir?: string | undefined
  /** A PGlite that exists already; the layer does not close it. */
  readonly client?: PGlite | undefined
}

/** Opens the database. */
export const make = (
  options: Options,
  config: DrizzleConfig<any>
): Effect.Effect<Driver, DbError | CachemeError, Scope.Scope> =>
  Effect.gen(function* () {
    const [{ PGlite }, { drizzle }] = yield* Effect.tryPromise({
      try: () => Promise.all([import("@electric-sql/pglite"), import("drizzle-orm/pglite")]),
      catch: () => missingPackage("@electric-sql/pglite")
    })
    const open = Effect.tryPromise({
      try: () => (options.dataDir === undefined ? PGlite.create() : PGlite.create(options.dataDir)),
      catch: (error) => fromDriver(error, "uncommitted")
    })
    const client =
      options.client ?? (yield* Effect.acquireRelease(open, (opened) => Effect.promise(() => opened.close())))
    const { rows } = yield* Effect.promise(() =>
      client.query<{ server_version_num: string }>("show server_version_num")
    )
    const version = Number(rows[0]!.server_version_num)
    const connection = new PgliteConnection(client, version, (connected) =>
      drizzle({ client: connected, ...config })
    )
    const semaphore = yield* Semaphore.make(1)
    const place = options.client === undefined ? (options.dataDir ?? "in memory") : "given by the program"
    return {
      label: `PGlite (PostgreSQL ${Math.floor(version / 10_000)}.${version % 10_000}), ${place}`,
      use: (f) => semaphore.withPermit(Effect.suspend(() => f(connection))),
      // Nothing is prepared: there is no way to the server that it could save.
      tablesChanged: () => {}
    }
  })

/** A transaction in progress, as PGlite runs it: inside a callback that ends when told to. */
interface Open {
  readonly transaction: Transaction
  readonly end: PromiseWithResolvers<void>
  readonly ended: Promise<void>
}

class RollBack extends Error {}

class PgliteConnection implements Connection {
  readonly isOwn = false
  readonly db: AnyDatabase
  readonly serverVersion: number
  readonly #client: PGlite
  #open: Open | undefined
  #isRunning = false
  #watcher: Watcher | undefined

  constructor(client: PGlite, serverVersion: number, toDatabase: (client: PGlite) => AnyDatabase) {
    this.#client = client
    this.serverVersion = serverVersion
    // One database for both: outside of a transaction, and in it.
    const query = (...args: Parameters<PGlite["query"]>) => {
      assertRunningUnsafe(this.#isRunning)
      const watcher = this.#watcher
      watcher?.sent(args[0], args[1] ?? [])
      const answer = (this.#open?.transaction ?? client).query(...args)
      if (watcher === undefined) return answer
      return answer.then((results) => {
        watcher.answered(results.rows)
        return results
      })
    }
    this.db = toDatabase({ query } as unknown as PGlite)
  }

  isLost = () => this.#client.closed

  start<A>(statement: (db: AnyDatabase) => PromiseLike<A>, _isBuilt?: boolean, watcher?: Watcher) {
    this.#isRunning = true
    this.#watcher = watcher
    const answer = runNow(statement(this.db))
    this.#isRunning = false
    this.#watcher = undefined
    return { answer, cancel: Effect.void }
  }

  async begin(modes: string): Promise<string> {
    const began = Promise.withResolvers<Transaction>()
    const end = Promise.withResolvers<void>()
    // The transaction is PGlite's own, so that nobody else who uses the client gets into it.
    const ended = this.#client.transaction(async (transaction) => {
      began.resolve(transaction)
      await end.promise
    })
    ended.catch(began.reject)
    this.#open = { transaction: await began.promise, end, ended }
    try {
      if (modes !== "") await this.command(`set transaction ${modes}`)
      const { rows } = await this.#open.transaction.query<{ transaction_isolation: string }>(
        "show transaction_isolation"
      )
      return rows[0]!.transaction_isolation
    } catch (error) {
      await this.rollback()
      throw error
    }
  }

  async commit(): Promise<boolean> {
    const { end, ended } = this.#take()
    end.resolve()
    try {
      await ended
      return true
    } catch (error) {
      if (error instanceof Error && /rolled back/.test(error.message)) return false
      throw error
    }
  }

  async rollback(): Promise<void> {
    const { end, ended } = this.#take()
    end.reject(new RollBack())
    await ended.catch((error: unknown) => {
      if (!(error instanceof RollBack)) throw error
    })
  }

  command = (text: string): Promise<unknown> => this.#open!.transaction.exec(text)

  #take(): Open {
    const open = this.#open!
    this.#open = undefined
    return open
  }
}
