import { assert, describe, it } from "@effect/vitest"
import { and, count, desc, eq, sql } from "drizzle-orm"
import { integer, pgTable, text } from "drizzle-orm/pg-core"
import { Deferred, Effect, Fiber, Schema, Stream } from "effect"
import { Db, Model } from "../../src/drizzle/index.ts"
import { Cacheme, Node } from "../../src/index.ts"
import { databases, on } from "../support/databases.ts"

/**
 * Nobody says what an answer rests on: its queries do. What a write changes for it makes it stale, what it does not leaves
 * it fresh, whichever way the lookup runs its queries.
 */
const books = pgTable("books", {
  id: integer().primaryKey(),
  authorId: integer("author_id"),
  title: text().notNull(),
  isbn: text().unique()
})
Model.make(books, { keys: { byAuthor: ["authorId"] } })
const setUp = `
  create table books (id int primary key, author_id int, title text not null, isbn text unique);
  insert into books values (1, 3, 'Emma', 'i1'), (2, 3, 'Persuasion', 'i2'), (3, 4, 'Clueless', null);
`

const titleOf = (id: number) =>
  Effect.map(
    Db.query((db) => db.select({ title: books.title }).from(books).where(eq(books.id, id))),
    ([row]) => row?.title ?? "none"
  )
const titlesOf = (authorId: number) =>
  Effect.map(
    Db.query((db) =>
      db.select({ title: books.title }).from(books).where(eq(books.authorId, authorId)).orderBy(books.title)
    ),
    (rows) => rows.map(({ title }) => title).join(", ")
  )

class TextNode extends Node.Class<TextNode>()("text", {
  key: { name: Schema.String },
  value: Schema.String
}) {}

/** A question, and how often it was looked up. */
const asking = (name: string, lookup: Effect.Effect<string, unknown, Db>) => {
  const counts = { lookups: 0 }
  const ask = lookup.pipe(
    Effect.tap(() => Effect.sync(() => counts.lookups++)),
    Effect.orDie,
    Cacheme.memoize(new TextNode({ name }))
  )
  return { ask, counts }
}

const write = (text: string) => Db.mutate((db) => db.execute(sql.raw(text)), { tables: [books] })
const rename = (id: number, title: string) =>
  Db.mutate((db) => db.update(books).set({ title }).where(eq(books.id, id)))

for (const database of databases) {
  describe(`answers rest on what was read, on ${database.name}`, () => {
    const holds = (name: string, test: () => Effect.Effect<unknown, unknown, Db | Cacheme>) =>
      it.effect(name, () => on(database, setUp, test))

    holds("a row that changes, and no other", () =>
      Effect.gen(function* () {
        const { ask, counts } = asking("one", titleOf(1))
        assert.strictEqual(yield* ask, "Emma")
        yield* rename(2, "Sanditon")
        assert.strictEqual(yield* ask, "Emma")
        assert.strictEqual(counts.lookups, 1)
        yield* rename(1, "Emma!")
        assert.strictEqual(yield* ask, "Emma!")
        yield* write("update books set title = 'raw' where id = 1")
        assert.strictEqual(yield* ask, "raw")
      })
    )

    holds("a row that is not there, by its key and by a unique column", () =>
      Effect.gen(function* () {
        const byId = asking("id 7", titleOf(7))
        const byIsbn = asking(
          "isbn i7",
          Effect.map(
            Db.query((db) => db.select({ title: books.title }).from(books).where(eq(books.isbn, "i7"))),
            ([row]) => row?.title ?? "none"
          )
        )
        assert.deepStrictEqual([yield* byId.ask, yield* byIsbn.ask], ["none", "none"])
        yield* Db.mutate((db) => db.insert(books).values({ id: 8, title: "other" }))
        assert.deepStrictEqual([yield* byId.ask, yield* byIsbn.ask], ["none", "none"])
        assert.deepStrictEqual([byId.counts.lookups, byIsbn.counts.lookups], [1, 1])
        yield* Db.mutate((db) => db.insert(books).values({ id: 7, title: "new" }))
        assert.deepStrictEqual([yield* byId.ask, yield* byIsbn.ask], ["new", "none"])
        yield* Db.mutate((db) => db.update(books).set({ isbn: "i7" }).where(eq(books.id, 8)))
        assert.deepStrictEqual([yield* byId.ask, yield* byIsbn.ask], ["new", "other"])
        assert.deepStrictEqual([byId.counts.lookups, byIsbn.counts.lookups], [2, 2])
      })
    )

    holds("a list: a new row, a deleted one, one that moves away, or in", () =>
      Effect.gen(function* () {
        const { ask, counts } = asking("author 3", titlesOf(3))
        assert.strictEqual(yield* ask, "Emma, Persuasion")
        yield* Db.mutate((db) => db.insert(books).values({ id: 5, authorId: 5, title: "x" }))
        assert.strictEqual(yield* ask, "Emma, Persuasion")
        assert.strictEqual(counts.lookups, 1)
        yield* Db.mutate((db) => db.insert(books).values({ id: 6, authorId: 3, title: "Sanditon" }))
        assert.strictEqual(yield* ask, "Emma, Persuasion, Sanditon")
        yield* Db.mutate((db) => db.delete(books).where(eq(books.id, 2)))
        assert.strictEqual(yield* ask, "Emma, Sanditon")
        yield* Db.mutate((db) => db.update(books).set({ authorId: 9 }).where(eq(books.id, 1)))
        assert.strictEqual(yield* ask, "Sanditon")
        yield* Db.mutate((db) => db.update(books).set({ authorId: 3 }).where(eq(books.id, 3)))
        assert.strictEqual(yield* ask, "Clueless, Sanditon")
        yield* Db.mutate((db) => db.update(books).set({ authorId: null }).where(eq(books.id, 3)))
        assert.strictEqual(yield* ask, "Sanditon")
        assert.strictEqual(counts.lookups, 6)
      })
    )

    holds("a count: any row", () =>
      Effect.gen(function* () {
        const { ask } = asking(
          "count",
          Effect.map(
            Db.query((db) => db.select({ n: count() }).from(books)),
            ([row]) => String(row!.n)
          )
        )
        assert.strictEqual(yield* ask, "3")
        yield* Db.mutate((db) => db.insert(books).values({ id: 4, title: "x" }))
        assert.strictEqual(yield* ask, "4")
        yield* Db.mutate((db) => db.delete(books).where(and(eq(books.id, 4))))
        assert.strictEqual(yield* ask, "3")
      })
    )

    holds("queries in fibers, lists and streams, one after the other and at once", () =>
      Effect.gen(function* () {
        const ids = [1, 2, 3]
        const joined = Effect.map((titles: Iterable<string>) => [...titles].join("/"))
        const ways: Record<string, Effect.Effect<string, unknown, Db>> = {
          all: Effect.all(ids.map(titleOf), { concurrency: "unbounded" }).pipe(joined),
          forEach: Effect.forEach(ids, titleOf, { concurrency: 2 }).pipe(joined),
          fork: Effect.forEach(ids, (id) => Effect.forkChild(titleOf(id))).pipe(
            Effect.flatMap((fibers) => Fiber.joinAll(fibers)),
            joined
          ),
          stream: Stream.fromIterable(ids).pipe(
            Stream.mapEffect(titleOf, { concurrency: 2 }),
            Stream.runCollect,
            joined
          ),
          race: Effect.race(titleOf(1), Effect.never).pipe(
            Effect.zipWith(Effect.all([titleOf(2), titleOf(3)]), (one, others) => [one, ...others]),
            joined
          ),
          promise: Effect.context<Db>().pipe(
            Effect.flatMap((context) =>
              Effect.promise(() => Promise.all(ids.map((id) => Effect.runPromiseWith(context)(titleOf(id)))))
            ),
            joined
          ),
          several: Db.query((db) =>
            ids.map((id) => db.select({ title: books.title }).from(books).where(eq(books.id, id)))
          ).pipe(
            Effect.map((answers) => answers.map(([row]) => row!.title)),
            joined
          ),
          transaction: Db.transaction(Effect.all(ids.map(titleOf)), {
            isolationLevel: "repeatable read"
          }).pipe(joined)
        }
        let round = 0
        for (const [name, lookup] of Object.entries(ways)) {
          const { ask, counts } = asking(name, lookup)
          const before = yield* ask
          for (const id of ids) {
            yield* rename(id, `${++round}`)
            assert.strictEqual((yield* ask).split("/")[id - 1], String(round), name)
          }
          assert.strictEqual(counts.lookups, 4, name)
          yield* Db.mutate((db) => db.insert(books).values({ id: 100 + round, title: "x" }))
          assert.strictEqual((yield* ask).split("/").length, before.split("/").length)
          assert.strictEqual(counts.lookups, 4, name)
        }
      })
    )

    holds("not what a fiber reads that outlives the lookup", () =>
      Effect.gen(function* () {
        const gate = yield* Deferred.make<void>()
        const late = yield* Deferred.make<void>()
        const { ask, counts } = asking(
          "daemon",
          Effect.andThen(
            Effect.forkDetach(
              Deferred.await(gate).pipe(
                Effect.andThen(titleOf(2)),
                Effect.andThen(Deferred.succeed(late, undefined))
              )
            ),
            titleOf(1)
          )
        )
        yield* ask
        yield* Deferred.succeed(gate, undefined)
        yield* Deferred.await(late)
        yield* rename(2, "x")
        yield* ask
        assert.strictEqual(counts.lookups, 1)
        yield* rename(1, "y")
        assert.strictEqual(yield* ask, "y")
      })
    )

    holds("a query that fails, and is recovered from", () =>
      Effect.gen(function* () {
        const share = Db.query((db) =>
          db.execute(sql`select (1 / (char_length(title) - 4))::text as share from books where id = 1`)
        )
        const { ask } = asking(
          "share",
          share.pipe(
            Effect.as("some"),
            Effect.orElseSucceed(() => "none")
          )
        )
        assert.strictEqual(yield* ask, "none")
        yield* rename(1, "Emma Woodhouse")
        assert.strictEqual(yield* ask, "some")
      })
    )

    holds("a query that waits for what is being written", () =>
      Effect.gen(function* () {
        const { ask } = asking("top", titleOf(1))
        yield* ask
        const written = Db.transaction(
          Effect.gen(function* () {
            yield* rename(1, "in between")
            // The transaction sees its own; nobody else is told before it is committed.
            assert.strictEqual(yield* ask, "in between")
            return yield* Effect.fail("undone")
          })
        )
        yield* Effect.ignore(written)
        assert.strictEqual(yield* ask, "Emma")
      })
    )

    holds("a list in an order of its own: what is beyond its limit moves in", () =>
      Effect.gen(function* () {
        const { ask } = asking(
          "last",
          Effect.map(
            Db.query((db) =>
              db
                .select({ title: books.title })
                .from(books)
                .where(eq(books.authorId, 3))
                .orderBy(desc(books.title))
                .limit(1)
            ),
            ([row]) => row!.title
          )
        )
        assert.strictEqual(yield* ask, "Persuasion")
        yield* rename(1, "Zelda")
        assert.strictEqual(yield* ask, "Zelda")
      })
    )
  })
}
