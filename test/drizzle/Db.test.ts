import { assert, describe, it } from "@effect/vitest"
import { eq, sql } from "drizzle-orm"
import { integer, pgTable, text } from "drizzle-orm/pg-core"
import { Cause, Deferred, Effect, Exit, Fiber, Latch, Layer, Option, Schema } from "effect"
import { Cacheme, Node } from "../../src/index.ts"
import { Db, type DbError, Model } from "../../src/drizzle/index.ts"
import { databases, on, tagsPublished } from "../support/databases.ts"

const setUp = `
  create table authors (id int primary key, name text unique not null);
  create table books (id int primary key, title text not null, author_id int);
  insert into authors values (1, 'Austen'), (2, 'Heckerling');
  insert into books values (1, 'Emma', 1), (2, 'Persuasion', 1), (3, 'Clueless', 2);
`
const authors = pgTable("authors", { id: integer().primaryKey(), name: text().notNull() })
const books = pgTable("books", {
  id: integer().primaryKey(),
  title: text().notNull(),
  authorId: integer("author_id")
})
const Authors = Model.make(authors)
const Books = Model.make(books, { keys: { byAuthor: ["authorId"] } })

const BookRow = Schema.Struct({ id: Schema.Int, title: Schema.String })
class BookGone extends Schema.TaggedError<BookGone>()("BookGone", { id: Schema.Int }) {}
class BookNode extends Node.Class<BookNode>()("book", {
  key: { id: Schema.Int },
  value: BookRow,
  error: BookGone,
  tags: ({ id }) => Books.row({ id })
}) {}
class TitlesNode extends Node.Class<TitlesNode>()("titles", {
  key: { authorId: Schema.Int },
  value: Schema.Array(Schema.String),
  tags: ({ authorId }) => Books.by({ authorId })
}) {}
class CountNode extends Node.Class<CountNode>()("count", {
  key: {},
  value: Schema.Int,
  tags: () => Books.all
}) {}

let lookups = 0
const find = (id: number) =>
  Db.query((db) => db.select().from(books).where(eq(books.id, id))).pipe(
    Effect.tap(() => Effect.sync(() => lookups++)),
    Effect.flatMap(([row]) => (row === undefined ? Effect.fail(new BookGone({ id })) : Effect.succeed(row)))
  )
const book = (id: number) => find(id).pipe(Cacheme.memoize(new BookNode({ id })))
const title = (id: number) => Effect.map(book(id), (row) => row.title)
const titles = (authorId: number) =>
  Db.query((db) => db.select().from(books).where(eq(books.authorId, authorId)).orderBy(books.id)).pipe(
    Effect.map((rows) => rows.map((row) => row.title)),
    Cacheme.memoize(new TitlesNode({ authorId }))
  )
const count = Db.query((db) => db.$count(books)).pipe(Cacheme.memoize(new CountNode()))
const rename = (id: number, name: string) =>
  Db.mutate((db) => db.update(books).set({ title: name }).where(eq(books.id, id)))
const isAnswered = (node: Node.Any) => Effect.map(Cacheme.explain(node), ({ answered }) => answered)
const reasonOf = <A, R>(effect: Effect.Effect<A, DbError, R>) =>
  Effect.map(Effect.orDie(Effect.flip(effect)), ({ reason }) => reason)

for (const database of databases) {
  describe(`Db on ${database.name}`, () => {
    it.effect("a read after a write sees it: by row, by key, by table, and a cached 'not found'", () =>
      on(database, setUp, () =>
        Effect.gen(function* () {
          assert.deepStrictEqual(yield* titles(1), ["Emma", "Persuasion"])
          assert.deepStrictEqual(yield* titles(2), ["Clueless"])
          assert.strictEqual(yield* title(1), "Emma")
          assert.strictEqual(yield* count, 3)
          assert.deepStrictEqual(yield* Effect.flip(book(4)), new BookGone({ id: 4 }))

          yield* rename(1, "Emma!")
          assert.strictEqual(yield* title(1), "Emma!")
          assert.deepStrictEqual(yield* titles(1), ["Emma!", "Persuasion"])

          yield* Db.mutate((db) => db.update(books).set({ authorId: 2 }).where(eq(books.id, 1)))
          assert.deepStrictEqual(yield* titles(1), ["Persuasion"])
          assert.deepStrictEqual(yield* titles(2), ["Emma!", "Clueless"])

          yield* Db.mutate((db) => db.insert(books).values({ id: 4, title: "Sanditon", authorId: 1 }))
          assert.strictEqual(yield* title(4), "Sanditon")
          assert.strictEqual(yield* count, 4)

          yield* Db.mutate((db) => db.delete(books).where(eq(books.id, 1)))
          assert.strictEqual((yield* Effect.flip(book(1)))._tag, "BookGone")
          assert.strictEqual(yield* count, 3)
        })
      )
    )

    it.effect("a write leaves alone what it did not touch", () =>
      on(database, setUp, () =>
        Effect.gen(function* () {
          yield* Effect.all([title(1), title(2), titles(2)])
          yield* rename(1, "Emma!")
          assert.isFalse(yield* isAnswered(new BookNode({ id: 1 })))
          assert.isTrue(yield* isAnswered(new BookNode({ id: 2 })))
          assert.isTrue(yield* isAnswered(new TitlesNode({ authorId: 2 })))
        })
      )
    )

    it.effect("a lookup that was running when a write was committed stores nothing", () =>
      on(database, setUp, () =>
        Effect.gen(function* () {
          const read = yield* Deferred.make<void>()
          const go = yield* Latch.make()
          const slow = find(1).pipe(
            Effect.tap(() => Deferred.succeed(read, undefined)),
            Effect.tap(() => go.await),
            Cacheme.memoize(new BookNode({ id: 1 }))
          )
          const reader = yield* Effect.forkChild(slow)
          yield* Deferred.await(read)
          yield* rename(1, "Emma!")
          const later = yield* Effect.forkChild(book(1), { startImmediately: true })
          yield* go.open
          assert.strictEqual((yield* Fiber.join(reader)).title, "Emma")
          assert.strictEqual((yield* Fiber.join(later)).title, "Emma!")
          assert.strictEqual(yield* title(1), "Emma!")
        })
      )
    )

    describe("a failing statement", () => {
      it.effect("is a typed error with the constraint's name; nothing is kept or invalidated", () =>
        on(database, setUp, ({ run }) =>
          Effect.gen(function* () {
            yield* title(1)
            const reason = yield* reasonOf(
              Db.mutate((db) => db.insert(authors).values({ id: 3, name: "Austen" }))
            )
            assert(reason._tag === "ConstraintViolation")
            assert.deepInclude(reason, { kind: "unique", constraint: "authors_name_key", table: "authors" })
            const missing = yield* reasonOf(
              Db.mutate((db) => db.insert(books).values({ id: 9, title: null as unknown as string }))
            )
            assert.deepInclude(missing, { _tag: "ConstraintViolation", kind: "not null", column: "title" })
            const syntax = yield* reasonOf(Db.query((db) => db.execute(sql`select nothing from nowhere`)))
            assert.deepInclude(syntax, { _tag: "StatementFailed", code: "42P01" })
            const inBody = yield* reasonOf(
              Db.transaction(
                Effect.andThen(
                  rename(1, "Emma!"),
                  Db.mutate((db) => db.insert(authors).values({ id: 1, name: "Eliot" }))
                )
              )
            )
            assert.strictEqual(inBody._tag, "ConstraintViolation")
            assert.deepStrictEqual(tagsPublished(), [])
            assert.isTrue(yield* isAnswered(new BookNode({ id: 1 })))
            assert.deepStrictEqual(yield* run("select title from books where id = 1"), [{ title: "Emma" }])
          })
        )
      )

      it.effect("of several in one mutate takes the others with it", () =>
        on(database, setUp, ({ run }) =>
          Effect.gen(function* () {
            const both = (id: number) =>
              Db.mutate((db) => [
                db.update(books).set({ title: "Emma!" }).where(eq(books.id, 1)).returning({ id: books.id }),
                db.insert(authors).values({ id, name: "Eliot" }).returning()
              ])
            assert.strictEqual((yield* reasonOf(both(1)))._tag, "ConstraintViolation")
            assert.deepStrictEqual(tagsPublished(), [])
            assert.deepStrictEqual(yield* run("select title from books where id = 1"), [{ title: "Emma" }])
            const [first, second] = yield* both(3)
            assert.deepStrictEqual(first, [{ id: 1 }])
            assert.deepStrictEqual(second, [{ id: 3, name: "Eliot" }])
            assert.includeMembers([...tagsPublished()], ["@books:*", "@authors:*"])
          })
        )
      )
    })

    describe("transaction", () => {
      it.effect("invalidates at the commit, and not before", () =>
        on(database, setUp, () =>
          Effect.gen(function* () {
            yield* title(1)
            const result = yield* Effect.gen(function* () {
              yield* rename(1, "Emma!")
              const { deferred } = yield* Cacheme.invalidate(new BookNode({ id: 2 }))
              assert.isTrue(deferred)
              assert.deepStrictEqual(tagsPublished(), [])
              return "done"
            }).pipe(Db.transaction({ isolationLevel: "read committed" }))
            assert.strictEqual(result, "done")
            assert.include([...tagsPublished()], "@books:id=1")
            assert.strictEqual(yield* title(1), "Emma!")
          })
        )
      )

      it.effect("that fails, dies or is interrupted changes and invalidates nothing", () =>
        on(database, setUp, ({ run }) =>
          Effect.gen(function* () {
            yield* title(1)
            const failing = Effect.andThen(rename(1, "Emma!"), Effect.fail("no"))
            assert.strictEqual(yield* Effect.flip(Db.transaction(failing)), "no")
            const dying = Effect.andThen(rename(1, "Emma!"), Effect.die("no"))
            assert.isTrue(Exit.hasDies(yield* Effect.exit(Db.transaction(dying))))
            const renamed = yield* Deferred.make<void>()
            const stuck = Effect.andThen(rename(1, "Emma!"), Deferred.succeed(renamed, undefined)).pipe(
              Effect.andThen(Effect.never)
            )
            const fiber = yield* Effect.forkChild(Db.transaction(stuck))
            yield* Deferred.await(renamed)
            yield* Fiber.interrupt(fiber)
            assert.deepStrictEqual(tagsPublished(), [])
            assert.isTrue(yield* isAnswered(new BookNode({ id: 1 })))
            assert.deepStrictEqual(yield* run("select title from books where id = 1"), [{ title: "Emma" }])
            yield* rename(1, "still works")
          })
        )
      )

      it.effect("sees its own writes, and neither shows nor stores them", () =>
        on(database, setUp, () =>
          Effect.gen(function* () {
            yield* Effect.all([title(1), title(2), count])
            const seen = yield* Effect.gen(function* () {
              yield* rename(1, "Emma!")
              yield* Db.mutate((db) => db.insert(books).values({ id: 5, title: "Lady Susan" }))
              const own = yield* Effect.all([title(1), title(2), title(5), count])
              // Whoever is not in the transaction goes on being answered from the cache.
              assert.isTrue(yield* isAnswered(new BookNode({ id: 2 })))
              assert.include((yield* Cacheme.explain(new BookNode({ id: 1 }))).message, "itself changed")
              return own
            }).pipe(
              Effect.tap(() => Effect.sync(() => assert.deepStrictEqual(tagsPublished(), []))),
              Effect.flatMap((own) => Effect.fail(own)),
              Db.transaction(),
              Effect.flip
            )
            assert.deepStrictEqual(seen, ["Emma!", "Persuasion", "Lady Susan", 4])
            assert.strictEqual(yield* title(1), "Emma")
            assert.strictEqual((yield* Effect.flip(book(5)))._tag, "BookGone")
            assert.strictEqual(yield* count, 3)
          })
        )
      )

      it.effect("is given cached answers if it is read committed, and none if it reads a snapshot", () =>
        on(database, setUp, () =>
          Effect.gen(function* () {
            yield* title(1)
            const before = lookups
            yield* Db.transaction(title(1))
            assert.strictEqual(lookups, before)
            yield* Db.transaction(title(1), { isolationLevel: "repeatable read", readOnly: true })
            assert.strictEqual(lookups, before + 1)
            const reason = yield* reasonOf(Db.transaction(rename(1, "no"), { readOnly: true }))
            assert.deepInclude(reason, { _tag: "StatementFailed", code: "25006" })
          })
        )
      )

      it.effect("inside another one is a savepoint: what it takes back is not invalidated", () =>
        on(database, setUp, ({ run }) =>
          Effect.gen(function* () {
            yield* Effect.gen(function* () {
              yield* rename(1, "one")
              yield* Effect.flip(Db.transaction(Effect.andThen(rename(3, "three"), Effect.fail("no"))))
              yield* Db.transaction(
                Effect.andThen(
                  rename(2, "two"),
                  Effect.ignore(Db.transaction(Effect.andThen(rename(2, "too deep"), Effect.fail("no"))))
                )
              )
            }).pipe(Db.transaction())
            assert.deepStrictEqual(tagsPublished(), [
              "@books:*",
              "@books:author_id=1",
              "@books:id=1",
              "@books:id=2"
            ])
            assert.deepStrictEqual(yield* run("select title from books order by id"), [
              { title: "one" },
              { title: "two" },
              { title: "Clueless" }
            ])
          })
        )
      )

      it.effect("does not report success when the failure of a statement was ignored", () =>
        on(database, setUp, ({ run }) =>
          Effect.gen(function* () {
            const bad = Effect.ignore(Db.mutate((db) => db.insert(books).values({ id: 1, title: "again" })))
            const whole = Db.transaction(Effect.andThen(rename(1, "one"), bad))
            assert.strictEqual((yield* reasonOf(whole))._tag, "RolledBack")
            assert.deepStrictEqual(tagsPublished(), [])
            const inner = yield* Db.transaction(
              Effect.andThen(
                rename(2, "two"),
                reasonOf(Db.transaction(Effect.andThen(rename(1, "one"), bad)))
              )
            )
            assert.strictEqual(inner._tag, "RolledBack")
            assert.deepStrictEqual(yield* run("select title from books where id < 3 order by id"), [
              { title: "Emma" },
              { title: "two" }
            ])
          })
        )
      )

      it.effect("lets its fibers work side by side, one statement or savepoint at a time", () =>
        on(database, setUp, ({ run }) =>
          Effect.gen(function* () {
            const inserts = Array.from({ length: 10 }, (_, i) =>
              Db.transaction(
                Effect.andThen(
                  Db.mutate((db) => db.insert(books).values({ id: 10 + i, title: "" })),
                  i % 2 === 0 ? Effect.void : Effect.fail("odd")
                )
              )
            )
            yield* Db.transaction(
              Effect.forEach(inserts, (insert) => Effect.exit(insert), { concurrency: "unbounded" }).pipe(
                Effect.andThen(Effect.all([title(1), title(2), title(3)], { concurrency: "unbounded" }))
              )
            )
            assert.deepStrictEqual(
              (yield* run("select id from books where id >= 10 order by id")).map(({ id }) => id),
              [10, 12, 14, 16, 18]
            )
          })
        )
      )

      it.effect("cannot be used by a fiber that outlives it", () =>
        on(database, setUp, () =>
          Effect.gen(function* () {
            const ended = yield* Latch.make()
            const orphan = yield* Db.transaction(
              Effect.forkDetach(Effect.andThen(ended.await, rename(1, "late")))
            )
            yield* ended.open
            const exit = yield* Fiber.await(orphan)
            assert.include(Exit.isFailure(exit) ? Cause.pretty(exit.cause) : "", "the transaction has ended")
            assert.strictEqual(yield* title(1), "Emma")
          })
        )
      )

      it.effect("cannot have modes inside another one", () =>
        on(database, setUp, () =>
          Effect.gen(function* () {
            const exit = yield* Effect.exit(
              Db.transaction(Db.transaction(Effect.void, { isolationLevel: "serializable" }))
            )
            assert.isTrue(Exit.hasDies(exit))
          })
        )
      )

      it.effect("as many as there are connections read one cold key", () =>
        on(database, setUp, () =>
          Effect.gen(function* () {
            const all = yield* Effect.all(
              Array.from({ length: 12 }, () => Db.transaction(Effect.andThen(title(3), titles(1)))),
              { concurrency: "unbounded" }
            )
            assert.lengthOf(all, 12)
          })
        )
      )

      it.effect("publishes what it has committed though it was interrupted while committing", () =>
        on(database, setUp, () =>
          Effect.gen(function* () {
            yield* title(1)
            const renamed = yield* Deferred.make<void>()
            const committing = Effect.uninterruptible(
              Db.transaction(Effect.andThen(rename(1, "Emma!"), Deferred.succeed(renamed, undefined)))
            )
            const fiber = yield* Effect.forkChild(committing)
            yield* Deferred.await(renamed)
            yield* Fiber.interrupt(fiber)
            assert.strictEqual(yield* title(1), "Emma!")
          })
        )
      )
    })

    describe("the wait for a connection", () => {
      it.effect("ends with the transaction that has it; what is inside uses it", () =>
        on(
          database,
          setUp,
          () =>
            Effect.gen(function* () {
              const inside = yield* Deferred.make<void>()
              const go = yield* Latch.make()
              const holder = yield* Effect.forkChild(
                rename(1, "Emma!").pipe(
                  Effect.andThen(Deferred.succeed(inside, undefined)),
                  Effect.andThen(go.await),
                  Effect.andThen(title(1)),
                  Db.transaction()
                )
              )
              yield* Deferred.await(inside)
              const outside = yield* Effect.forkChild(title(1), { startImmediately: true })
              assert.isUndefined(outside.pollUnsafe())
              yield* go.open
              assert.strictEqual(yield* Fiber.join(holder), "Emma!")
              assert.strictEqual(yield* Fiber.join(outside), "Emma!")
            }),
          1
        )
      )

      it.effect("can be interrupted, and is given up then", () =>
        on(
          database,
          setUp,
          () =>
            Effect.gen(function* () {
              const inside = yield* Deferred.make<void>()
              const go = yield* Latch.make()
              const holder = yield* Effect.forkChild(
                Db.transaction(Effect.andThen(Deferred.succeed(inside, undefined), go.await))
              )
              yield* Deferred.await(inside)
              const waiting = [rename(1, "no"), title(1), Db.transaction(rename(1, "no"))]
              const fibers = yield* Effect.forEach(waiting, (effect) =>
                Effect.forkChild(effect as Effect.Effect<unknown, DbError, Db>, { startImmediately: true })
              )
              yield* Effect.forEach(fibers, (fiber) => Fiber.interrupt(fiber), { concurrency: "unbounded" })
              yield* go.open
              yield* Fiber.join(holder)
              assert.strictEqual(yield* title(1), "Emma")
              yield* rename(1, "works")
            }),
          1
        )
      )
    })

    describe("what is not a statement", () => {
      it.effect("a Promise does not compile, and is a defect", () =>
        on(database, setUp, ({ run }) =>
          Effect.gen(function* () {
            // @ts-expect-error a Promise would run before it is looked at
            const asynchronous = Db.mutate(async (db) => db.update(books).set({ title: "no" }))
            const exit = yield* Effect.exit(asynchronous)
            assert.include(Exit.isFailure(exit) ? Cause.pretty(exit.cause) : "", "not a Promise")
            // @ts-expect-error neither is what has been awaited
            const value = yield* Effect.exit(Db.query(() => [1]))
            assert.isTrue(Exit.hasDies(value))
            // Nor does a statement run by itself, which would change rows that nobody is told of.
            const itself = Db.mutate((db) => {
              void db
                .insert(books)
                .values({ id: 8, title: "no" })
                .catch(() => {})
              return db.update(books).set({ title: "yes" }).where(eq(books.id, 1))
            })
            yield* Effect.exit(itself)
            assert.deepStrictEqual(yield* run("select count(*)::int n from books where title = 'no'"), [
              { n: 0 }
            ])
          })
        )
      )

      it.effect("a write does not get through Db.query", () =>
        on(database, setUp, ({ run }) =>
          Effect.gen(function* () {
            const builder = Db.query((db) => db.update(books).set({ title: "no" }))
            const raw = Db.query((db) => db.execute(sql`update books set title = 'no'`))
            const cte = Db.query((db) => {
              const gone = db.$with("gone").as(db.update(books).set({ title: "no" }).returning())
              return db.with(gone).select().from(gone)
            })
            for (const effect of [builder, raw, cte]) {
              const exit = yield* Effect.exit(effect)
              assert.include(Exit.isFailure(exit) ? Cause.pretty(exit.cause) : "", "use Db.mutate")
            }
            assert.deepStrictEqual(yield* run("select count(*)::int n from books where title = 'no'"), [
              { n: 0 }
            ])
          })
        )
      )
    })

    describe("what cannot be told exactly", () => {
      it.effect("raw SQL ends every entry of the tables it writes", () =>
        on(database, setUp, () =>
          Effect.gen(function* () {
            yield* Effect.all([title(1), title(2), count])
            yield* Db.mutate((db) => db.execute(sql`update ${books} set title = upper(title) where id = 1`))
            assert.deepStrictEqual(tagsPublished(), ["@books:*", "@books:?"])
            assert.strictEqual(yield* title(1), "EMMA")
          })
        )
      )

      it.effect("a statement whose tables cannot be told is not run, unless they are named", () =>
        on(
          database,
          `${setUp} create function shout() returns void language sql as $$ update books set title = upper(title) $$`,
          () =>
            Effect.gen(function* () {
              yield* title(1)
              const shout = (options?: { tables: [typeof books] }) =>
                Db.mutate((db) => db.execute(sql`select shout()`), options)
              const reason = yield* reasonOf(shout())
              assert(reason._tag === "UnknownTables")
              assert.include(reason.message, "select shout()")
              assert.strictEqual(yield* title(1), "Emma")
              yield* shout({ tables: [books] })
              assert.strictEqual(yield* title(1), "EMMA")
            })
        )
      )
    })

    it.effect("invalidating a model's tags by hand reaches who read the table", () =>
      on(database, setUp, ({ run }) =>
        Effect.gen(function* () {
          const cached = Effect.forEach(
            [
              new BookNode({ id: 1 }),
              new BookNode({ id: 2 }),
              new TitlesNode({ authorId: 1 }),
              new CountNode()
            ],
            isAnswered
          )
          const warm = Effect.all([title(1), title(2), titles(1), count])
          yield* run("update books set title = title")
          yield* warm
          yield* Cacheme.invalidate(Books.row({ id: 1 }))
          assert.deepStrictEqual(yield* cached, [false, true, true, false])
          yield* warm
          yield* Cacheme.invalidate(Books.by({ authorId: 1 }))
          assert.deepStrictEqual(yield* cached, [true, true, false, false])
          yield* warm
          yield* Cacheme.invalidate(Books.all)
          assert.deepStrictEqual(yield* cached, [false, false, false, false])
          yield* warm
          yield* Cacheme.invalidate(Books.unknown)
          assert.deepStrictEqual(yield* cached, [false, false, false, false])
          assert.isTrue(Option.isNone(yield* Cacheme.peek(new BookNode({ id: 1 }))))
          assert.strictEqual(Authors.all.id, "@authors:*")
        })
      )
    )
  })
}

describe("Db.Service", () => {
  const schema = { authors, books }
  class AppDb extends Db.Service<AppDb, typeof schema>()("test/AppDb") {}

  it.effect("is typed with a schema, for relational queries; a transaction belongs to one service", () =>
    on(databases[1], setUp, ({ url }) =>
      Effect.gen(function* () {
        const first = yield* AppDb.query((db) =>
          db.query.books.findFirst({ orderBy: (table, { asc }) => asc(table.id) })
        )
        assert.deepStrictEqual(first, { id: 1, title: "Emma", authorId: 1 })
        // @ts-expect-error the schema has no such table
        assert.isTrue(Exit.isFailure(yield* Effect.exit(AppDb.query((db) => db.query.films.findFirst()))))
        yield* title(1)
        const outer = Effect.gen(function* () {
          // Another service: on its own connection, committed at once, whatever becomes of this transaction.
          yield* Db.mutate((db) => db.update(books).set({ title: "Emma!" }).where(eq(books.id, 1)))
          assert.strictEqual(yield* title(1), "Emma!")
          return yield* Effect.fail("no")
        })
        yield* Effect.flip(AppDb.transaction(outer))
        assert.strictEqual(yield* title(1), "Emma!")
      }).pipe(Effect.provide(Layer.orDie(AppDb.layerPostgres({ url: url!, schema }))))
    )
  )
})
