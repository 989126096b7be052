import { assert, describe, it } from "@effect/vitest"
import { eq, sql } from "drizzle-orm"
import { integer, pgTable, text } from "drizzle-orm/pg-core"
import { Cause, Deferred, Effect, Exit, Fiber, Latch, Schedule, Schema } from "effect"
import { TestClock } from "effect/testing"
import { Cacheme, Node } from "../../src/index.ts"
import { Db, DbError, Model, SerializationFailure, type TransactionOptions } from "../../src/drizzle/index.ts"
import { databases, on, published, tagsPublished } from "../support/databases.ts"

const setUp = `
  create table books (id int primary key, title text not null);
  insert into books values (1, 'Emma'), (2, 'Persuasion'), (3, 'Clueless');
  create table counters (id int primary key, n int not null);
  insert into counters values (1, 0), (2, 0);
  create function conflict(code text) returns void language plpgsql as $$ begin raise exception 'conflict' using errcode = code; end $$;
  -- A row of this table, unless it is the third, is in the way of the COMMIT.
  create table late (id int primary key);
  create function conflict_late() returns trigger language plpgsql as
    $$ begin if new.id < 3 then perform conflict('40001'); end if; return null; end $$;
  create constraint trigger late after insert on late deferrable initially deferred for each row execute function conflict_late();
`
const books = pgTable("books", { id: integer().primaryKey(), title: text().notNull() })
const counters = pgTable("counters", { id: integer().primaryKey(), n: integer().notNull() })
const late = pgTable("late", { id: integer().primaryKey() })
const Books = Model.make(books)
Model.make(counters)
Model.make(late)

class BookNode extends Node.Class<BookNode>()("book", {
  key: { id: Schema.Int },
  value: Schema.String,
  tags: ({ id }) => Books.row({ id })
}) {}
class ShelfNode extends Node.Class<ShelfNode>()("shelf", {
  key: {},
  value: Schema.Array(Schema.String),
  tags: () => Books.all
}) {}

const title = (id: number) =>
  Db.query((db) => db.select().from(books).where(eq(books.id, id))).pipe(
    Effect.map(([row]) => row!.title),
    Cacheme.memoize(new BookNode({ id }))
  )
/** An answer that is made of others. */
const shelf = Effect.all([title(1), title(2), title(3)]).pipe(Cacheme.memoize(new ShelfNode()))
const rename = (id: number, to: string) =>
  Db.mutate((db) => db.update(books).set({ title: to }).where(eq(books.id, id)))
const conflict = (code = "40001") => Db.query((db) => db.execute(sql`select conflict(${code})`))
const add = (id: number) =>
  Db.query((db) => db.select().from(counters).where(eq(counters.id, id))).pipe(
    Effect.flatMap(([row]) =>
      Db.mutate((db) =>
        db
          .update(counters)
          .set({ n: row!.n + 1 })
          .where(eq(counters.id, id))
      )
    )
  )
/** The same in one statement. */
const increment = (id: number) =>
  Db.mutate((db) =>
    db
      .update(counters)
      .set({ n: sql`${counters.n} + 1` })
      .where(eq(counters.id, id))
  )
const retry = Schedule.recurs(10)
const reasonOf = <A, R>(effect: Effect.Effect<A, DbError, R>) =>
  Effect.map(Effect.orDie(Effect.flip(effect)), ({ reason }) => reason)
const rowsChanged = () =>
  tagsPublished()
    .filter((tag) => tag.startsWith("@books:id="))
    .map((tag) => Number(tag.slice("@books:id=".length)))

/** An effect that is told which time it runs, from 1 on. */
const counting = <A, E, R>(f: (time: number) => Effect.Effect<A, E, R>) => {
  let times = 0
  return { effect: Effect.suspend(() => f(++times)), times: () => times }
}

for (const database of databases) {
  describe(`Db.transaction on ${database.name}`, () => {
    describe("retry", () => {
      const waysToHide = {
        "as it is": (error: Effect.Effect<unknown, DbError, Db>) => error,
        "mapped to one of the program's": (error: Effect.Effect<unknown, DbError, Db>) =>
          Effect.mapError(error, () => "in the way"),
        "turned into a defect": (error: Effect.Effect<unknown, DbError, Db>) => Effect.orDie(error),
        "ignored, so that COMMIT rolls back": (error: Effect.Effect<unknown, DbError, Db>) =>
          Effect.ignore(error),
        "of a savepoint": (error: Effect.Effect<unknown, DbError, Db>) => Db.transaction(error)
      }
      for (const [way, hide] of Object.entries(waysToHide)) {
        it.effect(
          `runs all of it again after a statement's conflict, ${way}; only what was committed is told`,
          () =>
            on(database, setUp, ({ run }) =>
              Effect.gen(function* () {
                yield* shelf
                const body = counting((time) =>
                  Effect.gen(function* () {
                    yield* rename(time, "new")
                    if (time < 3) yield* hide(conflict(time === 1 ? "40001" : "40P01"))
                    return time
                  })
                )
                assert.strictEqual(yield* Db.transaction(body.effect, { retry }), 3)
                assert.lengthOf(published, 1)
                assert.deepStrictEqual(rowsChanged(), [3])
                assert.deepStrictEqual(yield* shelf, ["Emma", "Persuasion", "new"])
                assert.deepStrictEqual(yield* run("select id from books where title = 'new'"), [{ id: 3 }])
              })
            )
        )
      }

      it.effect("runs all of it again after a conflict in COMMIT", () =>
        on(database, setUp, ({ run }) =>
          Effect.gen(function* () {
            const body = counting((time) =>
              Effect.andThen(
                rename(time, "new"),
                Db.mutate((db) => db.insert(late).values({ id: time }))
              )
            )
            yield* Db.transaction(body.effect, { retry })
            assert.strictEqual(body.times(), 3)
            assert.lengthOf(published, 1)
            assert.deepStrictEqual(rowsChanged(), [3])
            assert.deepStrictEqual(yield* run("select id from late"), [{ id: 3 }])
          })
        )
      )

      it.effect(
        "ends with the schedule, which is given what was in the way: with the program's own error",
        () =>
          on(database, setUp, () =>
            Effect.gen(function* () {
              const given: Array<DbError> = []
              const body = counting(() =>
                Effect.andThen(
                  rename(1, "no"),
                  Effect.mapError(conflict(), () => "in the way" as const)
                )
              )
              const twice = Schedule.recurs(2).pipe(
                Schedule.setInputType<DbError>(),
                Schedule.tap(({ input }) => Effect.sync(() => given.push(input)))
              )
              const error = yield* Effect.flip(Db.transaction(body.effect, { retry: twice }))
              assert.strictEqual(error, "in the way")
              assert.strictEqual(body.times(), 3)
              assert.lengthOf(given, 2)
              for (const { reason } of given) {
                assert.deepStrictEqual(reason, new SerializationFailure({ code: "40001" }))
              }
              assert.lengthOf(published, 0)
            })
          )
      )

      it.effect("holds no connection while it waits", () =>
        on(
          database,
          setUp,
          () =>
            Effect.gen(function* () {
              const failed = yield* Deferred.make<void>()
              const body = counting((time) =>
                time === 1
                  ? Effect.ensuring(conflict(), Deferred.succeed(failed, undefined))
                  : rename(1, "new")
              )
              const fiber = yield* Effect.forkChild(
                Db.transaction(body.effect, { retry: Schedule.spaced("1 hour") })
              )
              yield* Deferred.await(failed)
              yield* rename(2, "meanwhile")
              assert.strictEqual(body.times(), 1)
              yield* TestClock.adjust("1 hour").pipe(
                Effect.andThen(Effect.promise(() => new Promise(setImmediate))),
                Effect.repeat({ until: () => fiber.pollUnsafe() !== undefined })
              )
              yield* Fiber.join(fiber)
              assert.strictEqual(body.times(), 2)
            }),
          1
        )
      )

      it.effect("does nothing where the transaction went on from a savepoint", () =>
        on(database, setUp, () =>
          Effect.gen(function* () {
            const inside = Effect.ignore(Db.transaction(Effect.andThen(rename(1, "no"), conflict())))
            const committed = counting(() => Effect.andThen(inside, rename(2, "yes")))
            yield* Db.transaction(committed.effect, { retry })
            assert.strictEqual(committed.times(), 1)
            assert.deepStrictEqual(rowsChanged(), [2])
            const failed = counting(() =>
              inside.pipe(Effect.andThen(rename(2, "no")), Effect.andThen(Effect.fail("its own failure")))
            )
            assert.strictEqual(
              yield* Effect.flip(Db.transaction(failed.effect, { retry })),
              "its own failure"
            )
            assert.strictEqual(failed.times(), 1)
          })
        )
      )

      it.effect("does nothing after another failure, or an interruption", () =>
        on(database, setUp, () =>
          Effect.gen(function* () {
            const duplicate = counting(() =>
              Db.mutate((db) => db.insert(books).values({ id: 1, title: "again" }))
            )
            const reason = yield* reasonOf(Db.transaction(duplicate.effect, { retry }))
            assert.strictEqual(reason._tag, "ConstraintViolation")
            assert.strictEqual(duplicate.times(), 1)
            const own = counting(() => Effect.fail("no"))
            assert.strictEqual(yield* Effect.flip(Db.transaction(own.effect, { retry })), "no")
            assert.strictEqual(own.times(), 1)

            const failed = yield* Deferred.make<void>()
            const interrupted = counting(() =>
              Effect.exit(conflict()).pipe(
                Effect.andThen(Deferred.succeed(failed, undefined)),
                Effect.andThen(Effect.never)
              )
            )
            const fiber = yield* Effect.forkChild(Db.transaction(interrupted.effect, { retry }))
            yield* Deferred.await(failed)
            yield* Fiber.interrupt(fiber)
            assert.strictEqual(interrupted.times(), 1)
            assert.strictEqual(yield* title(1), "Emma")
          })
        )
      )
    })

    describe("modes", () => {
      const defectOf = (options: TransactionOptions, nested = false) =>
        Effect.map(
          Effect.exit(
            nested
              ? Db.transaction(Db.transaction(Effect.void, options))
              : Db.transaction(Effect.void, options)
          ),
          (exit) => (Exit.isFailure(exit) && Exit.hasDies(exit) ? Cause.pretty(exit.cause) : "")
        )

      it.effect("deferrable is for what is serializable and read only, and for nothing else", () =>
        on(database, setUp, () =>
          Effect.gen(function* () {
            const asked = Db.query((db) =>
              db.execute(sql`select current_setting('transaction_deferrable') as deferrable`)
            ).pipe(Effect.map((answer: any) => (answer.rows ?? answer)[0].deferrable))
            const report = { isolationLevel: "serializable", readOnly: true } as const
            assert.strictEqual(yield* Db.transaction(asked, { ...report, deferrable: true }), "on")
            assert.strictEqual(yield* Db.transaction(asked, { ...report, deferrable: false }), "off")
            assert.strictEqual(yield* Db.transaction(asked, report), "off")
            for (const options of [
              { deferrable: true },
              { deferrable: true, isolationLevel: "serializable" },
              { deferrable: true, isolationLevel: "serializable", readOnly: false },
              { deferrable: true, isolationLevel: "repeatable read", readOnly: true }
            ] as const)
              assert.include(
                yield* defectOf(options),
                `"deferrable" is for a transaction that is serializable`
              )
          })
        )
      )

      it.effect("and retry are the outermost transaction's alone", () =>
        on(database, setUp, () =>
          Effect.gen(function* () {
            for (const options of [{ retry }, { deferrable: false }, { readOnly: true }] as const)
              assert.include(yield* defectOf(options, true), "a transaction inside another one")
            assert.strictEqual(yield* defectOf({ isolationLevel: undefined, retry: undefined }, true), "")
          })
        )
      )
    })

    describe("attribution", () => {
      const as = (actor: string, reason?: string) =>
        Effect.provideService(Cacheme.Attribution, { actor, reason })
      const told = () => published.splice(0).map(({ actor, reason }) => ({ actor, reason }))

      it.effect("of a write is told with its invalidation; of a transaction, that of all its writes", () =>
        on(database, setUp, () =>
          Effect.gen(function* () {
            yield* rename(1, "one")
            yield* rename(1, "two").pipe(as("user:7", "a typing error"))
            yield* Db.mutate((db) => [
              db.update(books).set({ title: "three" }).where(eq(books.id, 1)),
              db.update(books).set({ title: "three" }).where(eq(books.id, 2))
            ]).pipe(as("user:7"))
            assert.deepStrictEqual(told(), [
              { actor: undefined, reason: undefined },
              { actor: "user:7", reason: "a typing error" },
              { actor: "user:7", reason: undefined }
            ])
            yield* Effect.gen(function* () {
              yield* rename(1, "four")
              yield* rename(2, "four").pipe(as("job", "nightly"))
              yield* Effect.ignore(
                Db.transaction(Effect.andThen(rename(3, "no").pipe(as("nobody")), Effect.fail("no")))
              )
              yield* Cacheme.invalidate(Books.row({ id: 3 })).pipe(as("user:8"))
            }).pipe(Db.transaction(), as("user:7"))
            assert.deepStrictEqual(told(), [{ actor: "user:7, job, user:8", reason: "nightly" }])
            // Whose the transaction is does not matter, if its writes are another's.
            yield* rename(1, "five").pipe(
              Effect.provideService(Cacheme.Attribution, {}),
              Db.transaction(),
              as("me")
            )
            assert.deepStrictEqual(told(), [{ actor: undefined, reason: undefined }])
          })
        )
      )
    })

    describe("a cold key", () => {
      it.effect("is read in as many transactions as there are connections: nobody waits, nothing leaks", () =>
        on(database, setUp, ({ run }) =>
          Effect.gen(function* () {
            // PGlite has one connection.
            const size = database.name === "PGlite" ? 1 : 3
            let begun = 0
            const all = yield* Latch.make()
            const inside = (id: number) =>
              Effect.gen(function* () {
                yield* rename(id, `uncommitted ${id}`)
                if (++begun === size) yield* all.open
                yield* all.await
                // Nested in both ways: an answer made of others, in a savepoint.
                const own = yield* Db.transaction(shelf)
                assert.deepStrictEqual(
                  own,
                  [1, 2, 3].map((other) =>
                    other === id ? `uncommitted ${id}` : ["Emma", "Persuasion", "Clueless"][other - 1]
                  ) as unknown as typeof own
                )
                assert.strictEqual(yield* title(id), `uncommitted ${id}`)
                return yield* Effect.fail("no")
              }).pipe(Db.transaction(), Effect.flip)
            const ids = [1, 2, 3].slice(0, size)
            const outside = yield* Effect.forkChild(Effect.andThen(all.await, shelf))
            yield* Effect.forEach(ids, inside, { concurrency: "unbounded" })
            // Who was not in a transaction has waited for a connection, and has seen what is committed.
            assert.deepStrictEqual(yield* Fiber.join(outside), ["Emma", "Persuasion", "Clueless"])
            assert.deepStrictEqual(yield* shelf, ["Emma", "Persuasion", "Clueless"])
            assert.deepStrictEqual(tagsPublished(), [])
            // What they read was not stored either where they had changed nothing.
            yield* Cacheme.invalidate(new ShelfNode())
            yield* Db.transaction(shelf)
            assert.isFalse((yield* Cacheme.explain(new ShelfNode())).answered)
            yield* run("select 1")
          })
        )
      )
    })
  })
}

for (const database of databases.slice(1)) {
  describe(`Db.transaction on ${database.name}, side by side`, () => {
    it.effect("retry brings every increment of a serializable counter through", () =>
      on(
        database,
        setUp,
        ({ run }) =>
          Effect.gen(function* () {
            const isolated = {
              isolationLevel: "serializable",
              retry: Schedule.exponential("1 millis").pipe(Schedule.jittered)
            } as const
            const body = counting(() => add(1))
            const fiber = yield* Effect.forkChild(
              Effect.forEach(Array.from({ length: 20 }), () => Db.transaction(body.effect, isolated), {
                concurrency: "unbounded"
              })
            )
            yield* TestClock.adjust("1 second").pipe(
              Effect.andThen(Effect.promise(() => new Promise(setImmediate))),
              Effect.repeat({ until: () => fiber.pollUnsafe() !== undefined })
            )
            yield* Fiber.join(fiber)
            assert.deepStrictEqual(yield* run("select n from counters where id = 1"), [{ n: 20 }])
            assert.isAbove(body.times(), 20)
            assert.lengthOf(published, 20)
          }),
        4
      )
    )

    it.effect("retry brings both sides of a deadlock through", () =>
      on(database, setUp, ({ run }) =>
        Effect.gen(function* () {
          const locked = [yield* Latch.make(), yield* Latch.make()] as const
          const body = (first: 0 | 1) =>
            counting((time) =>
              Effect.gen(function* () {
                yield* Db.mutate((db) => db.execute(sql`set local deadlock_timeout = '20ms'`), {
                  tables: [counters]
                })
                yield* increment(first + 1)
                yield* locked[first].open
                if (time === 1) yield* locked[1 - first]!.await
                yield* increment(2 - first)
              })
            )
          const bodies = [body(0), body(1)]
          yield* Effect.forEach(bodies, ({ effect }) => Db.transaction(effect, { retry }), {
            concurrency: "unbounded"
          })
          assert.isAtLeast(bodies[0]!.times() + bodies[1]!.times(), 3)
          assert.deepStrictEqual(yield* run("select n from counters order by id"), [{ n: 2 }, { n: 2 }])
        })
      )
    )
  })
}
