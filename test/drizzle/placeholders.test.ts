import { assert, describe, it } from "@effect/vitest"
import { and, asc, desc, eq, gt, inArray, sql, type SQL } from "drizzle-orm"
import { union } from "drizzle-orm/pg-core"
import { integer, jsonb, pgTable, text, timestamp } from "drizzle-orm/pg-core"
import { Cause, Effect, Exit, Layer, Schema } from "effect"
import { Cacheme, Node } from "../../src/index.ts"
import { Db, Model } from "../../src/drizzle/index.ts"
import { databases, NotingCache, on, tagsPublished } from "../support/databases.ts"

const setUp = `
  create table books (id int primary key, title text not null, author_id int, notes jsonb, printed timestamptz);
  insert into books values (1, 'Emma', 1), (2, 'Persuasion', 1), (3, 'Clueless', 2);
`
const books = pgTable("books", {
  id: integer().primaryKey(),
  title: text().notNull(),
  authorId: integer("author_id"),
  notes: jsonb(),
  printed: timestamp({ withTimezone: true })
})
const Books = Model.make(books, { keys: { byAuthor: ["authorId"] } })

class TitleNode extends Node.Class<TitleNode>()("title", {
  key: { id: Schema.Int },
  value: Schema.String,
  tags: ({ id }) => Books.row({ id })
}) {}

const id = sql.placeholder("id")
const title = sql.placeholder("title")
/** A condition that many statements share. */
const byId = eq(books.id, id)
const textOf = (exit: Exit.Exit<unknown, unknown>) => {
  assert(Exit.isFailure(exit) && Exit.hasDies(exit))
  return Cause.pretty(exit.cause)
}

for (const database of databases) {
  describe(`placeholders on ${database.name}`, () => {
    it.effect("are filled in every part of a query, and each time anew", () =>
      on(database, setUp, () =>
        Effect.gen(function* () {
          const titles = (values: Record<string, unknown>) =>
            Effect.map(
              Db.query((db) => db.select({ title: books.title }).from(books).where(byId), { values }),
              (rows) => rows.map((row) => row.title)
            )
          assert.deepStrictEqual(yield* titles({ id: 1 }), ["Emma"])
          assert.deepStrictEqual(yield* titles({ id: 3 }), ["Clueless"])

          const everywhere = Db.query(
            (db) => {
              const mine = db.$with("mine").as(
                db
                  .select()
                  .from(books)
                  .where(eq(books.authorId, sql.placeholder("author")))
              )
              const inner = db
                .select({ id: books.id })
                .from(books)
                .where(gt(books.id, sql.placeholder("above")))
              const named = db.select().from(books).where(inArray(books.id, inner)).as("named")
              return db
                .with(mine)
                .select({
                  title: mine.title,
                  greeting: sql<string>`${sql.placeholder("word")}::text || ${mine.title}`.as("greeting")
                })
                .from(mine)
                .innerJoin(named, and(eq(named.id, mine.id), gt(named.id, sql.placeholder("above"))))
                .orderBy(desc(mine.title))
                .limit(sql.placeholder("limit"))
                .offset(sql.placeholder("offset"))
            },
            { values: { author: 1, above: 0, word: "hello ", limit: 1, offset: 1 } }
          )
          assert.deepStrictEqual(yield* everywhere, [{ title: "Emma", greeting: "hello Emma" }])

          const both = Db.query(
            (db) =>
              union(
                db.select({ id: books.id }).from(books).where(byId),
                db
                  .select({ id: books.id })
                  .from(books)
                  .where(eq(books.id, sql.placeholder("other")))
              ).orderBy(asc(books.id)),
            { values: { id: 1, other: 2 } }
          )
          assert.deepStrictEqual(yield* both, [{ id: 1 }, { id: 2 }])
          assert.strictEqual(
            yield* Db.query((db) => db.$count(books, gt(books.id, id)), { values: { id: 1 } }),
            2
          )
          const raw: any = yield* Db.query((db) => db.execute(sql`select title from books where ${byId}`), {
            values: { id: 2 }
          })
          assert.deepStrictEqual([...(raw.rows ?? raw)], [{ title: "Persuasion" }])
        })
      )
    )

    it.effect("are filled in writes before their rows are told", () =>
      on(database, setUp, ({ run }) =>
        Effect.gen(function* () {
          const cached = (id: number) => Effect.succeed("cached").pipe(Cacheme.memoize(new TitleNode({ id })))
          const isAnswered = (id: number) =>
            Effect.map(Cacheme.explain(new TitleNode({ id })), ({ answered }) => answered)
          yield* Effect.all([cached(1), cached(2), cached(3)])
          yield* Db.mutate(
            (db) =>
              db
                .update(books)
                .set({ title: sql`${title}` })
                .where(byId),
            {
              values: { id: 1, title: "Emma!" }
            }
          )
          assert.isFalse(yield* isAnswered(1))
          assert.isTrue(yield* isAnswered(2))
          const moved = yield* Db.mutate(
            (db) =>
              db
                .update(books)
                .set({ authorId: sql`${sql.placeholder("author")}` })
                .where(byId)
                .returning({ id: books.id, greeting: sql<string>`${title}::text || title` }),
            { values: { id: 2, author: 7, title: "hello " } }
          )
          assert.deepStrictEqual(moved, [{ id: 2, greeting: "hello Persuasion" }])
          assert.includeMembers(
            [...tagsPublished()],
            ["@books:id=1", "@books:id=2", "@books:author_id=1", "@books:author_id=7"]
          )

          const printed = new Date("1816-01-01T00:00:00Z")
          const insert = (values: Record<string, unknown>) =>
            Db.mutate(
              (db) =>
                db
                  .insert(books)
                  .values({ id, title, notes: sql.placeholder("notes"), printed: sql.placeholder("printed") })
                  .onConflictDoUpdate({ target: books.id, set: { title: sql`${title}` } }),
              { values }
            )
          // As the column writes them.
          yield* insert({ id: 4, title: "Sanditon", notes: { pages: [1, 2] }, printed })
          yield* insert({ id: 1, title: "Emma?", notes: null, printed: null })
          assert.deepStrictEqual(
            yield* Db.query((db) => db.select().from(books).where(byId), { values: { id: 4 } }),
            [{ id: 4, title: "Sanditon", authorId: null, notes: { pages: [1, 2] }, printed }]
          )
          yield* Db.mutate((db) => db.delete(books).where(byId), { values: { id: 3 } })
          // Several statements share their values.
          yield* Db.transaction(
            Db.mutate(
              (db) => [
                db
                  .update(books)
                  .set({ title: sql`${title}` })
                  .where(byId),
                db.delete(books).where(eq(books.id, sql.placeholder("gone")))
              ],
              { values: { id: 4, title: "Sanditon!", gone: 2 } }
            )
          )
          assert.deepStrictEqual(yield* run("select id, title from books order by id"), [
            { id: 1, title: "Emma?" },
            { id: 4, title: "Sanditon!" }
          ])
        })
      )
    )

    it.effect("without a value, and values without a placeholder, are named; nothing runs", () =>
      on(database, setUp, ({ run }) =>
        Effect.gen(function* () {
          const write = (values?: Record<string, unknown>) =>
            Effect.map(
              Effect.exit(
                Db.mutate(
                  (db) =>
                    db
                      .update(books)
                      .set({ title: sql`${title}` })
                      .where(byId),
                  { values }
                )
              ),
              textOf
            )
          for (const values of [undefined, { title: "no" }, { title: "no", id: undefined }]) {
            assert.include(
              yield* write(values),
              `Db.mutate: no value was given for the placeholder "${values === undefined ? "title" : "id"}"`
            )
          }
          assert.include(
            yield* write({ title: "no", id: 1, idd: 1 }),
            `Db.mutate: a value was given for "idd", which is no placeholder of the statement; it has "title", "id"`
          )
          const none = yield* Effect.exit(Db.query((db) => db.select().from(books), { values: { id: 1 } }))
          assert.include(textOf(none), `Db.query: a value was given for "id"`)
          assert.include(textOf(none), "it has none")
          const inherited = yield* Effect.exit(
            Db.query(
              (db) =>
                db
                  .select()
                  .from(books)
                  .where(eq(books.title, sql.placeholder("constructor"))),
              {
                values: {}
              }
            )
          )
          assert.include(textOf(inherited), `placeholder "constructor"`)
          assert.deepStrictEqual(yield* run("select 1 from books where title = 'no'"), [])
          assert.deepStrictEqual(tagsPublished(), [])
        })
      )
    )

    it.effect("need no .prepare(): what was prepared is refused, with what to write instead", () =>
      on(database, setUp, () =>
        Effect.gen(function* () {
          const query = yield* Effect.exit(
            // @ts-expect-error it is no statement
            Db.query((db) => db.select().from(books).where(byId).prepare("by_id"), { values: { id: 1 } })
          )
          assert.include(textOf(query), "Db.query: the function has returned a prepared statement")
          assert.include(textOf(query), "Db.query(f, { values })")
          const write = yield* Effect.exit(
            // @ts-expect-error it is no statement
            Db.mutate((db) => db.update(books).set({ title: "no" }).prepare("all"))
          )
          assert.include(textOf(write), "Db.mutate: the function has returned a prepared statement")
        })
      )
    )
  })
}

describe("placeholders of relational queries", () => {
  const schema = { books }
  class AppDb extends Db.Service<AppDb, typeof schema>()("test/placeholders/AppDb") {}

  it.effect("are filled too", () =>
    on(databases[1], setUp, ({ url }) =>
      Effect.gen(function* () {
        const find = (values: Record<string, unknown>) =>
          AppDb.query(
            (db) =>
              db.query.books.findMany({
                columns: { title: true },
                where: (table, { eq }): SQL => eq(table.authorId, sql.placeholder("author")),
                orderBy: (table, { asc }) => asc(table.id),
                limit: sql.placeholder("limit")
              }),
            { values }
          )
        assert.deepStrictEqual(yield* find({ author: 1, limit: 1 }), [{ title: "Emma" }])
        assert.deepStrictEqual(yield* find({ author: 2, limit: 5 }), [{ title: "Clueless" }])
        assert.include(textOf(yield* Effect.exit(find({ author: 2 }))), `placeholder "limit"`)
      }).pipe(
        Effect.provide(
          Layer.orDie(AppDb.layerPostgres({ url: url!, schema })).pipe(Layer.provide(NotingCache))
        )
      )
    )
  )
})
