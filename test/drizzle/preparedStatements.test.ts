import { assert, describe, it } from "@effect/vitest"
import { asc, eq, inArray, sql } from "drizzle-orm"
import { integer, pgTable, text } from "drizzle-orm/pg-core"
import { Effect, Layer, Logger, Result, Schedule } from "effect"
import { connect, createServer, type AddressInfo, type Socket } from "node:net"
import { Db, type DbError, Model } from "../../src/drizzle/index.ts"
import { PreparedStatements } from "../../src/drizzle/preparedStatements.ts"
import { databases, NotingCache, on } from "../support/databases.ts"

const setUp = `
  create table books (id int primary key, title varchar(100) not null);
  insert into books values (1, 'Emma'), (2, 'Persuasion');
`
const books = pgTable("books", { id: integer().primaryKey(), title: text().notNull() })
Model.make(books)

const find = (id: number) => Db.query((db) => db.select().from(books).where(eq(books.id, id)))
const rename = (id: number, title: string) =>
  Db.mutate((db) => db.update(books).set({ title }).where(eq(books.id, id)))
const raw = (id: number) => Db.query((db) => db.execute(sql`select * from books where id = ${id}`))
/** The program's statements that the connection has prepared; a pool of one is asked. postgres.js has one of its own. */
const preparedNow = Effect.map(
  Db.query((db) => db.execute(sql`select statement from pg_prepared_statements where statement ~ 'books'`)),
  (rows) => (rows as ReadonlyArray<any>).map((row) => String(row.statement))
)
const retype = "alter table books alter column title type text"

/** A way to a server that counts how often the client has waited for an answer before it went on. */
const countingWay = (url: string) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.promise(async () => {
        const counted = { roundTrips: 0 }
        const sockets = new Set<Socket>()
        const server = createServer((client) => {
          let isAnswered = true
          const upstream = connect(Number(new URL(url).port), "127.0.0.1")
          for (const socket of [client, upstream]) {
            sockets.add(socket)
            socket.setNoDelay(true)
            socket.on("error", () => {})
          }
          client.on("data", (data) => {
            if (isAnswered) counted.roundTrips++
            isAnswered = false
            upstream.write(data)
          })
          upstream.on("data", (data) => {
            isAnswered = true
            client.write(data)
          })
          client.on("close", () => upstream.destroy())
          upstream.on("close", () => client.destroy())
        })
        await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
        return { counted, server, sockets }
      }),
      ({ server, sockets }) =>
        Effect.promise(() => {
          for (const socket of sockets) socket.destroy()
          return new Promise((resolve) => server.close(resolve))
        })
    ),
    ({ counted, server }) => {
      const through = new URL(url)
      through.port = String((server.address() as AddressInfo).port)
      /** How many round trips an effect takes. */
      const roundTrips = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
        Effect.suspend(() => {
          const before = counted.roundTrips
          return Effect.map(effect, () => counted.roundTrips - before)
        })
      return { url: through.href, roundTrips }
    }
  )

const layerOf = (options: Parameters<typeof Db.layerPostgres>[0]) =>
  Layer.orDie(Db.layerPostgres(options)).pipe(Layer.provideMerge(NotingCache))

for (const database of databases.slice(1)) {
  describe(`preparedStatements on ${database.name}`, () => {
    it.live(
      "a builder's statement takes one round trip from the third time on; raw SQL goes on taking two",
      () =>
        on(database, setUp, ({ url }) =>
          Effect.gen(function* () {
            const way = yield* countingWay(url!)
            yield* Effect.gen(function* () {
              const times = <A, R>(effect: (time: number) => Effect.Effect<A, DbError, R>) =>
                Effect.forEach([1, 2, 3, 4], (time) => way.roundTrips(effect(time)))
              assert.deepStrictEqual(yield* times(find), [2, 2, 1, 1])
              // What the catalog tells of the table is asked for before the first.
              const [, ...writes] = yield* times((time) => rename(1, `Emma ${time}`))
              assert.deepStrictEqual(writes, [2, 1, 1])
              assert.deepStrictEqual(yield* times(raw), [2, 2, 2, 2])
              assert.deepStrictEqual(yield* find(1), [{ id: 1, title: "Emma 4" }])
              // In a transaction as well: BEGIN, the statement, COMMIT.
              assert.strictEqual(yield* way.roundTrips(Db.transaction(find(2))), 3)
              const prepared = yield* preparedNow
              assert.lengthOf(prepared, 2)
            }).pipe(Effect.provide(layerOf({ url: way.url, maxConnections: 1 })))
          })
        )
    )

    for (const [how, options] of [
      ["in the options of postgres.js", { postgres: { prepare: false } }],
      ["in the url", { query: "?prepare=false" }]
    ] as const) {
      it.live(`prepare: false ${how} prepares nothing`, () =>
        on(database, setUp, ({ url }) =>
          Effect.gen(function* () {
            const way = yield* countingWay(url!)
            const { query = "", ...rest } = { query: undefined, ...options }
            yield* Effect.gen(function* () {
              const times = yield* Effect.forEach([1, 2, 3, 4], (id) => way.roundTrips(find(id)))
              assert.deepStrictEqual(times, [2, 2, 2, 2])
              yield* Effect.forEach([1, 2, 3], () => rename(1, "Emma!"))
              assert.deepStrictEqual(yield* preparedNow, [])
            }).pipe(Effect.provide(layerOf({ url: way.url + query, maxConnections: 1, ...rest })))
          })
        )
      )
    }

    it.live(
      "statements that are gone, as behind a PgBouncer, fail nothing outside of transactions, and end it",
      () =>
        on(database, setUp, ({ url }) =>
          Effect.gen(function* () {
            const way = yield* countingWay(url!)
            const logs: Array<string> = []
            const logger = Logger.make(({ message }) => void logs.push(String(message)))
            yield* Effect.gen(function* () {
              yield* Effect.forEach([1, 2, 1], find)
              assert.lengthOf(yield* preparedNow, 1)
              yield* Db.query((db) => db.execute(sql`deallocate all`))
              assert.deepStrictEqual(yield* find(1), [{ id: 1, title: "Emma" }])
              assert.match(logs.join("\n"), /none are prepared any more.*prepare: false/)
              assert.strictEqual(yield* way.roundTrips(find(1)), 2)
            }).pipe(
              Effect.provide(
                Layer.provide(layerOf({ url: way.url, maxConnections: 1 }), Logger.layer([logger]))
              )
            )
          })
        )
    )

    it.effect("a connection keeps two hundred at most, and works with more", () =>
      on(
        database,
        setUp,
        () =>
          Effect.gen(function* () {
            const some = (n: number) =>
              Db.query((db) =>
                db
                  .select()
                  .from(books)
                  .where(
                    inArray(
                      books.id,
                      Array.from({ length: n }, (_, i) => i)
                    )
                  )
                  .orderBy(asc(books.id))
              )
            for (let n = 2; n < 252; n++) {
              for (let time = 0; time < 3; time++) assert.lengthOf(yield* some(n), Math.min(2, n - 1))
            }
            assert.lengthOf(yield* preparedNow, 200)
          }),
        1
      )
    )

    it.effect(
      "a table that is changed by others between two runs fails nothing outside of transactions",
      () =>
        on(database, setUp, ({ run }) =>
          Effect.gen(function* () {
            for (let round = 0; round < 3; round++) {
              // On each of three connections.
              const everywhere = Effect.forEach([1, 2, 1, 2, 1, 2], find, { concurrency: "unbounded" })
              yield* everywhere
              yield* everywhere
              yield* run(round % 2 === 0 ? retype : retype.replace("text", "varchar(50)"))
              for (const [row] of yield* everywhere) assert.isDefined(row)
            }
          })
        )
    )

    it.effect("a table that is changed by others fails one transaction of the whole pool, or none", () =>
      on(database, setUp, ({ run }) =>
        Effect.gen(function* () {
          const everywhere = Effect.forEach([1, 2, 1, 2, 1, 2], find, { concurrency: "unbounded" })
          yield* everywhere
          yield* everywhere
          yield* run(retype)
          const results: Array<string> = []
          for (let i = 0; i < 10; i++) {
            const result = yield* Effect.result(Db.transaction(find(1)))
            results.push(Result.isSuccess(result) ? "done" : result.failure.message)
          }
          assert.match(results[0]!, /0A000.*cached plan must not change result type/)
          assert.deepStrictEqual(results.slice(1), Array(9).fill("done"))
          // A transaction that may be run again does not notice.
          yield* everywhere
          yield* everywhere
          yield* run(retype.replace("text", "varchar(60)"))
          const [row] = yield* Db.transaction(Effect.orDie(find(1)), { retry: Schedule.recurs(1) })
          assert.deepStrictEqual(row, { id: 1, title: "Emma" })
        })
      )
    )

    it.effect(
      "a table that is changed by the program fails nothing, in the same transaction or a later one",
      () =>
        on(database, setUp, () =>
          Effect.gen(function* () {
            const everywhere = Effect.forEach([1, 2, 1, 2, 1, 2], find, { concurrency: "unbounded" })
            const change = (to: string) =>
              Db.mutate((db) => db.execute(sql.raw(`alter table books alter column title type ${to}`)))
            yield* everywhere
            yield* everywhere
            yield* change("text")
            for (let i = 0; i < 6; i++) yield* Db.transaction(find(1))
            yield* everywhere
            yield* everywhere
            // What this connection has prepared before is not used on it either.
            yield* Db.transaction(Effect.andThen(change("varchar(70)"), find(1)))
            for (let i = 0; i < 6; i++) yield* Db.transaction(find(1))
          })
        )
    )
  })
}

describe("PreparedStatements", () => {
  it("a text with parameters is worth preparing when it comes again, on whatever connection", () => {
    const statements = new PreparedStatements()
    const [first, second] = [statements.onConnection(), statements.onConnection()]
    assert.isFalse(first.isWorth("select $1", [1]))
    assert.isTrue(second.isWorth("select $1", [2]))
    assert.isTrue(first.isWorth("select $1", ["3"]))
    // postgres.js prepares it once more for another guess at the types.
    assert.isFalse(first.isWorth("select $1", [4n]))
    assert.isFalse(first.isWorth("select $1", [[true]]))
    assert.isTrue(first.isWorth("select $1", [5n]))
    for (let i = 0; i < 3; i++) {
      assert.isFalse(first.isWorth("select 1", []))
      assert.isFalse(first.isWorth(`select $1 ${"-".repeat(8192)}`, [1]))
    }
  })

  it("five hundred texts are remembered, those that came last", () => {
    const connection = new PreparedStatements().onConnection()
    const once = (i: number) => connection.isWorth(`select $1, ${i}`, [1])
    assert.isFalse(once(0))
    for (let i = 1; i < 500; i++) assert.isFalse(once(i))
    assert.isTrue(once(0))
    assert.isFalse(once(500))
    assert.isFalse(once(501))
    // The second was the longest unseen, the first has been seen again.
    assert.isTrue(once(0))
    assert.isFalse(once(1))
  })

  it("a connection is outdated when tables have changed since it prepared something", () => {
    const statements = new PreparedStatements()
    const [used, unused] = [statements.onConnection(), statements.onConnection()]
    used.isWorth("select $1", [1])
    used.isWorth("select $1", [1])
    assert.isFalse(used.isOutdated())
    statements.forget()
    assert.isTrue(used.isOutdated())
    assert.isFalse(unused.isOutdated())
    assert.isFalse(statements.onConnection().isOutdated())
  })
})
