import { assert, describe, it } from "@effect/vitest"
import { eq, sql } from "drizzle-orm"
import { integer, pgTable, text } from "drizzle-orm/pg-core"
import { Effect, Exit, Fiber, Layer, Schedule, Schema } from "effect"
import { TestClock } from "effect/testing"
import { Cacheme, CachemeError, Node } from "../../src/index.ts"
import { Db, DbError, Model } from "../../src/drizzle/index.ts"
import {
  databases,
  NotingCache,
  on,
  published,
  tagsPublished,
  type TestDatabase
} from "../support/databases.ts"

const setUp = `
  create table books (id int primary key, title text not null);
  insert into books values (1, 'Emma');
  -- Rows of this table are checked at COMMIT, which waits while somebody holds the lock.
  create table slow (id int primary key);
  create table shelves (id int primary key);
  create table places (id int primary key, shelf int not null references shelves on delete cascade);
  insert into shelves values (1);
  insert into places values (1, 1);
  create function wait() returns trigger language plpgsql as $$ begin perform pg_advisory_xact_lock(1); return null; end $$;
  create constraint trigger wait after insert on slow deferrable initially deferred for each row execute function wait();
`
const books = pgTable("books", { id: integer().primaryKey(), title: text().notNull() })
const slow = pgTable("slow", { id: integer().primaryKey() })
const shelves = pgTable("shelves", { id: integer().primaryKey() })
const places = pgTable("places", { id: integer().primaryKey(), shelf: integer().notNull() })
const Books = Model.make(books)
Model.make(slow)
Model.make(shelves)
Model.make(places, { keys: { byShelf: ["shelf"] } })

class BookNode extends Node.Class<BookNode>()("book", {
  key: { id: Schema.Int },
  value: Schema.String,
  tags: ({ id }) => Books.row({ id })
}) {}
const title = Db.query((db) => db.select().from(books).where(eq(books.id, 1))).pipe(
  Effect.map(([row]) => row!.title),
  Cacheme.memoize(new BookNode({ id: 1 }))
)
const rename = (to: string) => Db.mutate((db) => db.update(books).set({ title: to }).where(eq(books.id, 1)))
const sleep = Db.query((db) => db.execute(sql`select pg_sleep(60)`))
const pid = Effect.map(
  Db.query((db) => db.execute(sql`select pg_backend_pid() as pid`)),
  (rows) => (rows as ReadonlyArray<any>)[0].pid as number
)
const reasonOf = <A, R>(effect: Effect.Effect<A, DbError, R>) =>
  Effect.map(Effect.orDie(Effect.flip(effect)), ({ reason }) => reason)

/** Asks the server again and again until it sees a backend of the program's in some state. */
const backend = ({ run }: TestDatabase, condition: string): Effect.Effect<number> =>
  run(
    `select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and ${condition}`
  ).pipe(
    Effect.repeat({ until: (rows) => rows.length > 0 }),
    Effect.map((rows) => rows[0]!["pid"])
  )

/** Ends a backend, and waits until it is gone. */
const kill = ({ run }: TestDatabase, process: number) =>
  run(`select pg_terminate_backend(${process})`).pipe(
    Effect.andThen(
      Effect.repeat(run(`select pid from pg_stat_activity where pid = ${process}`), {
        until: (rows) => rows.length === 0
      })
    )
  )

const isSleeping = "state = 'active' and query like '%pg_sleep%'"
const isCommitting = "wait_event = 'advisory'"
const isWaitingForRow = "wait_event_type = 'Lock' and query like 'update%'"

/** More queries at once than there are connections. */
const poolWorks = Effect.all(
  Array.from({ length: 8 }, () => pid),
  { concurrency: "unbounded" }
)

for (const database of databases.slice(1)) {
  describe(`postgresDriver on ${database.name}`, () => {
    it.effect("a statement that fails after it has sent rows leaves none of them to the next answer", () =>
      on(
        database,
        setUp,
        () =>
          Effect.gen(function* () {
            const rows = sql`select 10 / (2000 - g) from generate_series(1, 3000) g`
            const next = Db.query((db) => db.select().from(books))
            const expected = [{ id: 1, title: "Emma" }]
            const failing = Effect.flip(Db.query((db) => db.execute(rows)))
            yield* failing
            assert.deepStrictEqual(yield* next, expected)
            yield* failing
            assert.deepStrictEqual(yield* Db.transaction(next), expected)
            // In a transaction, which takes back what has failed.
            yield* Effect.flip(Db.transaction(failing))
            assert.deepStrictEqual(yield* next, expected)
            const inside = Effect.andThen(
              Effect.ignore(Db.transaction(Db.query((db) => db.execute(rows)))),
              next
            )
            assert.deepStrictEqual(yield* Db.transaction(inside), expected)
          }),
        1
      )
    )

    for (const maxConnections of [1, 3]) {
      describe(`a connection that dies, of ${maxConnections}`, () => {
        it.effect("before a statement leaves a pool that works", () =>
          on(
            database,
            setUp,
            (db) =>
              Effect.gen(function* () {
                for (let i = 0; i < 3; i++) {
                  yield* kill(db, yield* pid)
                  // Whether its end has been noticed yet is a matter of luck: if not, the next statement notices.
                  yield* Effect.exit(rename("Emma!"))
                  yield* poolWorks
                }
                yield* rename("Emma!!")
                assert.strictEqual(yield* title, "Emma!!")
              }),
            maxConnections
          )
        )

        it.effect("in a query is a typed error", () =>
          on(
            database,
            setUp,
            (db) =>
              Effect.gen(function* () {
                const fiber = yield* Effect.forkChild(reasonOf(sleep))
                yield* kill(db, yield* backend(db, isSleeping))
                assert.strictEqual((yield* Fiber.join(fiber))._tag, "ConnectionLost")
                yield* poolWorks
              }),
            maxConnections
          )
        )

        it.effect(
          "in a write on its own leaves its outcome unknown, and invalidates what it could have changed",
          () =>
            on(
              database,
              setUp,
              (db) =>
                Effect.gen(function* () {
                  yield* title
                  const fiber = yield* Effect.forkChild(
                    reasonOf(Db.mutate((db) => db.update(books).set({ title: sql`pg_sleep(60)::text` })))
                  )
                  yield* kill(db, yield* backend(db, isSleeping))
                  assert.strictEqual((yield* Fiber.join(fiber))._tag, "OutcomeUnknown")
                  assert.strictEqual(published.at(-1)?.cause, "unknown outcome")
                  assert.deepStrictEqual(tagsPublished(), ["@books:*", "@books:?"])
                  assert.isFalse((yield* Cacheme.explain(new BookNode({ id: 1 }))).answered)
                  yield* poolWorks
                }),
              maxConnections
            )
        )

        it.effect(
          "in a statement of a transaction takes the transaction with it; nothing is invalidated",
          () =>
            on(
              database,
              setUp,
              (db) =>
                Effect.gen(function* () {
                  yield* title
                  const fiber = yield* Effect.forkChild(
                    reasonOf(Db.transaction(Effect.andThen(rename("no"), sleep)))
                  )
                  yield* kill(db, yield* backend(db, isSleeping))
                  assert.strictEqual((yield* Fiber.join(fiber))._tag, "ConnectionLost")
                  assert.deepStrictEqual(tagsPublished(), [])
                  yield* poolWorks
                  assert.strictEqual(yield* title, "Emma")
                }),
              maxConnections
            )
        )

        it.effect("between the statements of a transaction is noticed: nothing runs outside of it", () =>
          on(
            database,
            setUp,
            (db) =>
              Effect.gen(function* () {
                const body = Effect.gen(function* () {
                  yield* rename("no")
                  yield* kill(db, yield* pid)
                  yield* reasonOf(rename("no"))
                  // By now it is known to be lost.
                  assert.strictEqual((yield* reasonOf(rename("no")))._tag, "ConnectionLost")
                  assert.strictEqual((yield* reasonOf(Db.transaction(rename("no"))))._tag, "ConnectionLost")
                })
                // The body ended well, but there is nothing left to commit.
                assert.strictEqual((yield* reasonOf(Db.transaction(body)))._tag, "ConnectionLost")
                assert.deepStrictEqual(tagsPublished(), [])
                yield* poolWorks
                assert.strictEqual(yield* title, "Emma")
              }),
            maxConnections
          )
        )

        it.effect("in COMMIT leaves the outcome unknown, and invalidates what it could have changed", () =>
          on(
            database,
            setUp,
            (db) =>
              Effect.gen(function* () {
                yield* title
                yield* db.session("select pg_advisory_lock(1)")
                let times = 0
                const body = Effect.andThen(
                  Effect.suspend(() => rename(`perhaps ${++times}`)),
                  Db.mutate((db) => db.insert(slow).values({ id: 1 }))
                )
                // What may have been committed is not run again.
                const fiber = yield* Effect.forkChild(
                  reasonOf(Db.transaction(body, { retry: Schedule.forever }))
                )
                yield* kill(db, yield* backend(db, isCommitting))
                assert.strictEqual((yield* Fiber.join(fiber))._tag, "OutcomeUnknown")
                assert.strictEqual(times, 1)
                assert.strictEqual(published.at(-1)?.cause, "unknown outcome")
                assert.includeMembers([...tagsPublished()], ["@books:*", "@slow:*"])
                assert.isFalse((yield* Cacheme.explain(new BookNode({ id: 1 }))).answered)
                yield* poolWorks
                assert.strictEqual(yield* title, "Emma")
              }),
            maxConnections
          )
        )
      })
    }

    describe("interruption", () => {
      it.effect("of a query cancels it", () =>
        on(
          database,
          setUp,
          (db) =>
            Effect.gen(function* () {
              const fiber = yield* Effect.forkChild(sleep)
              yield* backend(db, isSleeping)
              yield* Fiber.interrupt(fiber)
              assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(fiber)))
              assert.deepStrictEqual(
                yield* db.run(`select 1 from pg_stat_activity where ${isSleeping}
                and datname = current_database() and pid <> pg_backend_pid()`),
                []
              )
              yield* pid
            }),
          1
        )
      )

      it.effect("of a transaction rolls it back, in a statement as well as in COMMIT's wait", () =>
        on(
          database,
          setUp,
          (db) =>
            Effect.gen(function* () {
              yield* title
              const first = yield* Effect.forkChild(Db.transaction(Effect.andThen(rename("no"), sleep)))
              yield* backend(db, isSleeping)
              yield* Fiber.interrupt(first)
              assert.deepStrictEqual(tagsPublished(), [])
              assert.strictEqual(yield* Db.transaction(title), "Emma")

              // COMMIT itself is not given up: it ends, and what it has done is told.
              yield* db.session("select pg_advisory_lock(1)")
              const second = yield* Effect.forkChild(
                Db.transaction(
                  Effect.andThen(
                    rename("Emma!"),
                    Db.mutate((db) => db.insert(slow).values({ id: 1 }))
                  )
                )
              )
              yield* backend(db, isCommitting)
              const interrupting = yield* Effect.forkChild(Fiber.interrupt(second), {
                startImmediately: true
              })
              yield* db.session("select pg_advisory_unlock(1)")
              yield* Fiber.join(interrupting)
              assert.include([...tagsPublished()], "@books:*")
              assert.strictEqual(yield* title, "Emma!")
            }),
          1
        )
      )

      it.effect("of a write on its own: what was written all the same is invalidated all the same", () =>
        on(
          database,
          setUp,
          (db) =>
            Effect.gen(function* () {
              for (let i = 0; i < 20; i++) {
                const before = yield* title
                tagsPublished()
                yield* db.session("begin; select * from books for update")
                const fiber = yield* Effect.forkChild(rename(`Emma ${i}`))
                yield* backend(db, isWaitingForRow)
                // The row is given free while the write is being cancelled.
                yield* Effect.all([Fiber.interrupt(fiber), db.session("commit")], {
                  concurrency: "unbounded"
                })
                const [row] = yield* db.run("select title from books")
                assert.strictEqual(tagsPublished().length > 0, row!["title"] !== before)
                assert.strictEqual(yield* title, row!["title"])
              }
            }),
          1
        )
      )

      it.effect("of a write that is several statements cancels the one that the server is at", () =>
        on(
          database,
          setUp,
          (db) =>
            Effect.gen(function* () {
              const remove = Db.mutate((db) => db.delete(shelves).where(eq(shelves.id, 1)))
              for (const locked of ["shelves", "places"]) {
                yield* db.session(`begin; select * from ${locked} for update`)
                const fiber = yield* Effect.forkChild(remove)
                yield* backend(db, "wait_event_type = 'Lock'")
                // Nothing else ends it: the row stays locked, and time stands still.
                yield* Fiber.interrupt(fiber)
                yield* db.session("rollback")
                assert.deepStrictEqual(tagsPublished(), [])
              }
              yield* remove
              assert.deepStrictEqual(yield* db.run("select id from places"), [])
              assert.includeMembers([...tagsPublished()], ["@shelves:id=1", "@places:id=1"])
            }),
          1
        )
      )

      it.effect(
        "of a statement that does not end closes its connection, and tells what it could have changed",
        () =>
          on(
            database,
            setUp,
            (db) =>
              Effect.gen(function* () {
                yield* title
                yield* db.session("begin; select * from books for update")
                const fiber = yield* Effect.forkChild(rename("perhaps"))
                const stopped = yield* backend(db, isWaitingForRow)
                process.kill(stopped, "SIGSTOP")
                const interrupting = yield* Effect.forkChild(Fiber.interrupt(fiber), {
                  startImmediately: true
                })
                // The five seconds begin when the request has been passed on.
                yield* TestClock.adjust("1 second").pipe(
                  Effect.andThen(Effect.promise(() => new Promise(setImmediate))),
                  Effect.repeat({ until: () => interrupting.pollUnsafe() !== undefined })
                )
                process.kill(stopped, "SIGCONT")
                yield* db.session("commit")
                assert.strictEqual(published.at(-1)?.cause, "unknown outcome")
                assert.deepStrictEqual(tagsPublished(), ["@books:*", "@books:?"])
                yield* poolWorks
                yield* title
              }),
            1
          )
      )

      it.effect("of one query never cancels another one on the same connection", () =>
        on(
          database,
          setUp,
          () =>
            Effect.gen(function* () {
              for (let i = 0; i < 30; i++) {
                const fiber = yield* Effect.forkChild(sql1, { startImmediately: true })
                for (let turns = 0; turns < i % 10; turns++)
                  yield* Effect.promise(() => new Promise(setImmediate))
                yield* Fiber.interrupt(fiber)
                yield* sql1
              }
            }),
          1
        )
      )
    })
  })
}

const sql1 = Db.query((db) => db.select().from(books).where(eq(books.id, 1)))

describe("postgresDriver", () => {
  const start = (options: Parameters<typeof Db.layerPostgres>[0]) =>
    Effect.flip(Effect.scoped(Layer.build(Layer.provide(Db.layerPostgres(options), NotingCache))))

  it.effect("a server that cannot be reached keeps the program from starting", () =>
    Effect.gen(function* () {
      const error = yield* start({ url: "postgres://nobody@127.0.0.1:1/nothing" })
      assert(error instanceof DbError && error.reason._tag === "ConnectionLost")
      assert.strictEqual(error.reason.code, "ECONNREFUSED")
    })
  )

  it.effect("an option that is not allowed is named", () =>
    Effect.gen(function* () {
      for (const [options, setting] of [
        [{ url: "mysql://localhost" }, "the database's URL"],
        [{ url: "postgres://localhost", maxConnections: 0 }, "maxConnections"],
        [{ url: "postgres://localhost", maxConnections: Number.NaN }, "maxConnections"]
      ] as const) {
        const error = yield* start(options)
        assert(error instanceof CachemeError && error.reason._tag === "InvalidSetting")
        assert.strictEqual(error.reason.setting, setting)
      }
    })
  )
})
