/**
 * Connections by postgres.js, the driver for production.
 *
 * Each connection is a postgres.js client of its own that may open one connection, and the pool is Effect's. So a fiber
 * that has a connection has all of it, waiting for one can be interrupted, and a client whose connection was lost is
 * thrown away with everything it remembers of it. (The pool of postgres.js itself cannot give up a reservation, writes
 * to sockets of reserved connections that are gone, which ends the process, and hands the error of a lost connection
 * to the next statement.)
 */
import type { DrizzleConfig } from "drizzle-orm"
import * as Effect from "effect/Effect"
import * as Pool from "effect/Pool"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import type { Options as PostgresOptions, PendingQuery, Sql, UnsafeQueryOptions } from "postgres"
import { CachemeError, InvalidSetting } from "../CachemeError.ts"
import { missingPackage } from "../missingPackage.ts"
import {
  type AnyDatabase,
  assertRunningUnsafe,
  type Connection,
  type Driver,
  runNow,
  type Watcher
} from "./Connection.ts"
import { type DbError, fromDriver, goneCode, isFatal } from "./DbError.ts"
import { type OnConnection, PreparedStatements } from "./preparedStatements.ts"

/** Options of a pool of connections to a Postgres server. */
export interface Options {
  /** `postgres://user:password@host:5432/database`. */
  readonly url: string | Redacted.Redacted
  /** How many connections are opened at most. An integer of at least 1; default 10. */
  readonly maxConnections?: number | undefined
  /**
   * Options of postgres.js; those that concern its own pool are of no effect. Builders' statements that come again are
   * prepared on the server, which saves a round trip; `prepare: false` prepares none, as is needed behind a PgBouncer
   * that pools transactions and does not know of prepared statements.
   */
  readonly postgres?: PostgresOptions<{}> | undefined
}

/** So long a statement may take to end after it was asked to; then its connection is closed. */
const cancelTimeout = "5 seconds"

/** Makes a pool of connections, and opens the first. */
export const make = (
  options: Options,
  config: DrizzleConfig<any>
): Effect.Effect<Driver, DbError | CachemeError, Scope.Scope> =>
  Effect.gen(function* () {
    const maxConnections = options.maxConnections ?? 10
    if (!Number.isInteger(maxConnections) || maxConnections < 1) {
      return yield* invalid("maxConnections", String(maxConnections), "an integer of at least 1")
    }
    const [{ default: postgres }, { drizzle }] = yield* Effect.tryPromise({
      try: () => Promise.all([import("postgres"), import("drizzle-orm/postgres-js")]),
      catch: () => missingPackage("postgres")
    })
    const url = typeof options.url === "string" ? options.url : Redacted.value(options.url)
    if (!/^postgres(ql)?:\/\//.test(url) || !URL.canParse(url)) {
      return yield* invalid(
        "the database's URL",
        "another text",
        "postgres://user:password@host:5432/database"
      )
    }

    const runFork = Effect.runForkWith(yield* Effect.context())
    const statements = new PreparedStatements()
    const onRetried = ({ routine }: Retried) => {
      // The other connections would meet it as well, perhaps in a transaction.
      if (routine !== "FetchPreparedStatement") statements.forget()
      else if (statements.giveUp())
        runFork(
          Effect.logWarning(
            "cacheme: a statement that had been prepared on a connection was gone, so none are prepared any more: " +
              "is there a PgBouncer? Then give the option postgres: { prepare: false }"
          )
        )
    }
    const open = Effect.acquireRelease(
      Effect.tryPromise({
        try: async () => {
          const client = postgres(url, {
            onnotice: () => {},
            ...options.postgres,
            max: 1,
            idle_timeout: undefined,
            max_lifetime: null,
            onclose: () => connection?.lose()
          })
          let connection: PostgresConnection | undefined
          try {
            const [row] = await client.unsafe("show server_version_num")
            connection = new PostgresConnection(
              client,
              Number(row!["server_version_num"]),
              (connected) => drizzle({ client: connected, ...config }),
              statements.onConnection(),
              onRetried,
              (lost) => runFork(Pool.invalidate(pool, lost))
            )
            return connection
          } catch (error) {
            await client.end({ timeout: 0 })
            throw error
          }
        },
        catch: (error) => fromDriver(error, "uncommitted")
      }),
      (connection) => connection.close
    )
    const pool: Pool.Pool<PostgresConnection, DbError> = yield* Pool.makeWithTTL({
      acquire: open,
      min: 0,
      max: maxConnections,
      timeToLive: "10 minutes"
    })

    const use = <A, E, R>(
      f: (connection: Connection) => Effect.Effect<A, E, R>
    ): Effect.Effect<A, E | DbError, R> =>
      Effect.flatten(
        Pool.use(pool, (connection) =>
          connection.isLost() || connection.isOutdated()
            ? Effect.as(
                Pool.invalidate(pool, connection),
                Effect.suspend(() => use(f))
              )
            : Effect.map(f(connection), Effect.succeed)
        )
      )

    const version = yield* use(({ serverVersion }) => Effect.succeed(serverVersion))
    return {
      label: `PostgreSQL ${Math.floor(version / 10_000)}.${version % 10_000} by postgres.js, up to ${maxConnections} connections`,
      use,
      tablesChanged: () => statements.forget()
    }
  })

/**
 * Why a statement was run again: as it had been prepared it no longer fitted its tables, or it was gone. postgres.js
 * prepares and runs it again by itself, which in a transaction is in vain: there it fails.
 */
interface Retried {
  readonly routine?: string
}

class PostgresConnection implements Connection {
  readonly isOwn = true
  readonly db: AnyDatabase
  readonly serverVersion: number
  readonly close: Effect.Effect<void>
  readonly #client: Sql
  readonly #prepared: OnConnection
  readonly #onRetried: (why: Retried) => void
  readonly #onLost: (connection: PostgresConnection) => void
  #isLost = false
  #isInTransaction = false
  #isRunning = false
  #isBuilt = false
  #watcher: Watcher | undefined
  /** What was sent last, in one step. */
  #sent: Array<PendingQuery<any>> = []

  constructor(
    client: Sql,
    serverVersion: number,
    toDatabase: (client: Sql) => AnyDatabase,
    prepared: OnConnection,
    onRetried: (why: Retried) => void,
    onLost: (connection: PostgresConnection) => void
  ) {
    this.#client = client
    this.serverVersion = serverVersion
    this.#prepared = prepared
    this.#onRetried = onRetried
    this.#onLost = onLost
    // `prepare: false` of the program's, or of its URL.
    const mayPrepare = client.options.prepare
    // Drizzle's session uses `options` and `unsafe`; its own transactions, for which it needs more, are ours to make.
    this.db = toDatabase({
      options: client.options,
      unsafe: (text: string, parameters: Array<any> = [], asked: UnsafeQueryOptions = {}) => {
        assertRunningUnsafe(this.#isRunning)
        const prepare = mayPrepare && this.#isBuilt && this.#prepared.isWorth(text, parameters)
        const watcher = this.#watcher
        watcher?.sent(text, parameters)
        const query = this.#send(text, parameters, { ...asked, prepare })
        // Before anybody else, who may ask the query for its rows in another form first.
        if (watcher !== undefined)
          query.then(
            (rows) => watcher.answered(rows),
            () => {}
          )
        return query
      }
    } as unknown as Sql)
    // A client that has lost its connection would wait for it.
    this.close = Effect.promise(() => client.end({ timeout: this.#isLost ? 0 : 5 }))
  }

  isLost = () => this.#isLost

  isOutdated = () => this.#prepared.isOutdated()

  lose(): void {
    if (this.#isLost) return
    this.#isLost = true
    this.#onLost(this)
  }

  start<A>(statement: (db: AnyDatabase) => PromiseLike<A>, isBuilt = false, watcher?: Watcher) {
    const sent = (this.#sent = [])
    this.#isRunning = true
    this.#isBuilt = isBuilt
    this.#watcher = watcher
    const answer = this.#guard(runNow(statement(this.db)))
    this.#isRunning = false
    this.#watcher = undefined
    if (!this.#isInTransaction) answer.catch(() => this.#forgetRows())
    const cancel = Effect.promise(async () => {
      // postgres.js sends in a later microtask, and forgets what is cancelled before.
      await new Promise((resolve) => setImmediate(resolve))
      // A request that cannot be delivered leaves the statement to end by itself, or with the connection.
      await Promise.allSettled([requestCancel(sent), answer])
    })
    return {
      answer,
      cancel: Effect.interruptible(cancel).pipe(
        Effect.timeoutOrElse({
          duration: cancelTimeout,
          orElse: () => Effect.promise(() => this.#client.end({ timeout: 0 }))
        })
      )
    }
  }

  async begin(modes: string): Promise<string> {
    this.#isInTransaction = true
    try {
      const answers: any = await this.command(`begin ${modes}; show transaction_isolation`)
      return answers[1][0].transaction_isolation
    } catch (error) {
      this.#isInTransaction = false
      this.#forgetRows()
      throw error
    }
  }

  async commit(): Promise<boolean> {
    this.#isInTransaction = false
    try {
      const { command }: any = await this.command("commit")
      return command === "COMMIT"
    } catch (error) {
      this.#forgetRows()
      throw error
    }
  }

  async rollback(): Promise<void> {
    this.#isInTransaction = false
    try {
      await this.command("rollback")
    } catch (error) {
      // Nobody is to find an open transaction on it.
      this.lose()
      throw error
    }
  }

  command = (text: string): Promise<unknown> => {
    this.#sent = []
    return this.#guard(this.#send(text))
  }

  /**
   * postgres.js counts the rows of an answer on, into the next one, where a statement has failed after it had sent some:
   * that one would begin with empty places. Only a statement that succeeds ends the count. In a transaction the command
   * that takes back what has failed does so.
   */
  #forgetRows(): void {
    if (this.#isLost) return
    this.#client.unsafe("select where false").then(undefined, () => this.lose())
  }

  /** A client that has lost its connection would open another one, outside of the transaction. */
  #send(...args: Parameters<Sql["unsafe"]>): PendingQuery<any> {
    if (this.#isLost) throw Object.assign(new Error("the connection was lost"), { code: goneCode })
    const query = this.#client.unsafe(...args)
    this.#sent.push(query)
    // In the order in which they come here, whenever Drizzle gets to wait for them.
    return query.execute()
  }

  async #guard<A>(answer: PromiseLike<A>): Promise<A> {
    const sent: ReadonlyArray<{ readonly retried?: Retried }> = this.#sent as ReadonlyArray<object>
    try {
      return await answer
    } catch (error) {
      if (isFatal(error)) this.lose()
      throw error
    } finally {
      for (const { retried } of sent) if (retried !== undefined) this.#onRetried(retried)
    }
  }
}

/**
 * Asks the server to cancel the query that it is at, and waits until it has passed the request on: one that came late
 * would hit the next query. `PendingQuery.cancel` does the same, but does not tell when that is.
 */
const requestCancel = async (sent: ReadonlyArray<PendingQuery<any>>): Promise<void> => {
  const queries = sent as ReadonlyArray<{
    readonly active?: boolean
    readonly canceller?: (query: unknown) => Promise<void>
  }>
  const current = queries.find(({ active }) => active === true)
  await current?.canceller?.(current)
}

const invalid = (setting: string, value: string, expected: string) =>
  Effect.fail(new CachemeError({ reason: new InvalidSetting({ setting, value, expected }) }))
