/** What other caches beside Drizzle and Django are known to get wrong, one test for each. */
import { assert, describe, it } from "@effect/vitest"
import { asc, eq, gt, sql } from "drizzle-orm"
import { integer, pgTable, text } from "drizzle-orm/pg-core"
import { Deferred, Effect, Fiber, Latch, Layer, Schema } from "effect"
import { Cacheme, Node, TieredStore } from "../../src/index.ts"
import { Db, Model } from "../../src/drizzle/index.ts"
import { databases, on, tagsPublished } from "../support/databases.ts"
import { aProcess, aProxy, aRedis, until } from "../support/outages.ts"

const setUp = `
  create table authors (id int primary key, name text not null);
  create table books (id int primary key, title text not null, author_id int not null);
  insert into authors values (1, 'Austen'), (2, 'Heckerling');
  insert into books values (1, 'Emma', 1), (2, 'Persuasion', 1), (3, 'Clueless', 2);
`
const authors = pgTable("authors", { id: integer().primaryKey(), name: text().notNull() })
const books = pgTable("books", {
  id: integer().primaryKey(),
  title: text().notNull(),
  authorId: integer("author_id").notNull()
})
const Authors = Model.make(authors)
const Books = Model.make(books, { keys: { byAuthor: ["authorId"] } })

class TitleNode extends Node.Class<TitleNode>()("title", {
  key: { id: Schema.Int },
  value: Schema.String,
  tags: ({ id }) => Books.row({ id })
}) {}
class TitlesNode extends Node.Class<TitlesNode>()("titles", {
  key: { authorId: Schema.Int },
  value: Schema.Array(Schema.String),
  tags: ({ authorId }) => Books.by({ authorId })
}) {}
class NameNode extends Node.Class<NameNode>()("name", {
  key: { id: Schema.Int },
  value: Schema.String,
  tags: ({ id }) => Authors.row({ id })
}) {}

const findTitle = (id: number) =>
  Db.query((db) => db.select().from(books).where(eq(books.id, id))).pipe(
    Effect.map(([row]) => row?.title ?? "none")
  )
const title = (id: number) => findTitle(id).pipe(Cacheme.memoize(new TitleNode({ id })))
const titles = (authorId: number) =>
  Db.query((db) => db.select().from(books).where(eq(books.authorId, authorId)).orderBy(asc(books.id))).pipe(
    Effect.map((rows) => rows.map((row) => row.title)),
    Cacheme.memoize(new TitlesNode({ authorId }))
  )
const name = (id: number) =>
  Db.query((db) => db.select().from(authors).where(eq(authors.id, id))).pipe(
    Effect.map(([row]) => row!.name),
    Cacheme.memoize(new NameNode({ id }))
  )
const rename = (id: number, to: string) =>
  Db.mutate((db) => db.update(books).set({ title: to }).where(eq(books.id, id)))
const isAnswered = (node: Node.Any) => Effect.map(Cacheme.explain(node), ({ answered }) => answered)

for (const database of databases) {
  describe(`Traps on ${database.name}`, () => {
    it.effect("rows that were rolled back are never served", () =>
      on(database, setUp, () =>
        Effect.gen(function* () {
          const insideSeen = yield* Effect.gen(function* () {
            yield* Db.mutate((db) => db.insert(books).values({ id: 4, title: "Sanditon", authorId: 1 }))
            yield* rename(1, "no")
            // Cold keys and an empty place: what they are answered with is the transaction's alone.
            return yield* Effect.all([title(1), title(4), titles(1)])
          }).pipe(Effect.flatMap(Effect.fail), Db.transaction(), Effect.flip)
          assert.deepStrictEqual(insideSeen, ["no", "Sanditon", ["no", "Persuasion", "Sanditon"]])
          assert.deepStrictEqual(yield* Effect.all([title(1), title(4), titles(1)]), [
            "Emma",
            "none",
            ["Emma", "Persuasion"]
          ])
          // The same for a savepoint, whose transaction goes on and is committed.
          yield* Effect.gen(function* () {
            const inner = Effect.andThen(rename(2, "no"), Effect.andThen(title(2), Effect.fail("no")))
            yield* Effect.flip(Db.transaction(inner))
            assert.strictEqual(yield* title(2), "Persuasion")
            yield* rename(1, "Emma!")
          }).pipe(Db.transaction())
          assert.deepStrictEqual(yield* Effect.all([title(1), title(2)]), ["Emma!", "Persuasion"])
        })
      )
    )

    it.effect("a reader that began before a commit does not store the old row after it", () =>
      on(database, setUp, () =>
        Effect.gen(function* () {
          const read = yield* Deferred.make<void>()
          const go = yield* Latch.make()
          const reader = yield* Effect.forkChild(
            findTitle(1).pipe(
              Effect.tap(() => Deferred.succeed(read, undefined)),
              Effect.tap(() => go.await),
              Cacheme.memoize(new TitleNode({ id: 1 }))
            )
          )
          yield* Deferred.await(read)
          yield* Db.transaction(rename(1, "Emma!"))
          yield* go.open
          assert.strictEqual(yield* Fiber.join(reader), "Emma")
          assert.isFalse(yield* isAnswered(new TitleNode({ id: 1 })))
          assert.strictEqual(yield* title(1), "Emma!")
        })
      )
    )

    it.effect("tables that are written in common table expressions are noticed", () =>
      on(database, setUp, () =>
        Effect.gen(function* () {
          yield* Effect.all([title(1), name(1), name(2)])
          yield* Db.mutate((db) => {
            const renamed = db
              .$with("renamed")
              .as(db.update(authors).set({ name: "Jane Austen" }).where(eq(authors.id, 1)).returning())
            return db.with(renamed).update(books).set({ title: "Emma!" }).where(eq(books.id, 1))
          })
          assert.deepStrictEqual(yield* Effect.all([title(1), name(1)]), ["Emma!", "Jane Austen"])
          yield* Db.mutate((db) => {
            const gone = db.$with("gone").as(db.delete(books).where(eq(books.id, 1)).returning())
            return db.with(gone).select().from(gone)
          })
          assert.strictEqual(yield* title(1), "none")
        })
      )
    )

    it.effect("an invalidation by hand in a transaction waits for the commit, and comes then", () =>
      on(database, setUp, ({ run }) =>
        Effect.gen(function* () {
          yield* Effect.all([title(1), title(2)])
          const byHand = (end: Effect.Effect<void, string>) =>
            Effect.gen(function* () {
              const { deferred } = yield* Cacheme.invalidate(new TitleNode({ id: 1 }))
              assert.isTrue(deferred)
              // For others nothing has happened yet; the transaction itself is not given what it has invalidated.
              assert.deepStrictEqual(tagsPublished(), [])
              assert.include((yield* Cacheme.explain(new TitleNode({ id: 1 }))).message, "itself changed")
              assert.isTrue(yield* isAnswered(new TitleNode({ id: 2 })))
              yield* end
            }).pipe(Db.transaction())
          yield* Effect.flip(byHand(Effect.fail("no")))
          assert.isTrue(yield* isAnswered(new TitleNode({ id: 1 })))
          yield* run("update books set title = 'by others' where id < 3")
          yield* byHand(Effect.void)
          assert.strictEqual(yield* title(1), "by others")
          assert.strictEqual(yield* title(2), "Persuasion")
        })
      )
    )

    it.effect("a bulk update ends what rests on any of its rows, be they few or thousands", () =>
      on(database, `${setUp} insert into books select n, 'old', 3 from generate_series(10, 3009) n;`, () =>
        Effect.gen(function* () {
          const some = [1, 10, 11, 1500, 3009]
          const warm = Effect.all([...some.map(title), titles(3), titles(2)])
          yield* warm
          yield* Db.mutate((db) => db.update(books).set({ title: "new" }).where(gt(books.id, 3000)))
          assert.deepStrictEqual(yield* Effect.forEach(some, title), ["Emma", "old", "old", "old", "new"])
          assert.isFalse(yield* isAnswered(new TitlesNode({ authorId: 3 })))
          assert.isTrue(yield* isAnswered(new TitlesNode({ authorId: 2 })))
          yield* warm
          yield* Db.mutate((db) => db.update(books).set({ title: sql`upper(${books.title})` }))
          assert.deepStrictEqual(yield* Effect.forEach(some, title), ["EMMA", "OLD", "OLD", "OLD", "NEW"])
          assert.deepStrictEqual(yield* titles(2), ["CLUELESS"])
          yield* warm
          yield* Db.mutate((db) => db.delete(books).where(gt(books.id, 9)))
          assert.deepStrictEqual(yield* Effect.forEach(some, title), ["EMMA", "none", "none", "none", "none"])
          assert.deepStrictEqual(yield* titles(3), [])
        })
      )
    )

    it.effect("a row that moves from one author to another ends both authors' lists", () =>
      on(database, setUp, () =>
        Effect.gen(function* () {
          const both = Effect.all([titles(1), titles(2)])
          yield* both
          yield* Db.mutate((db) => db.update(books).set({ authorId: 2 }).where(eq(books.id, 1)))
          assert.deepStrictEqual(yield* both, [["Persuasion"], ["Emma", "Clueless"]])
          // By an upsert, and in a transaction.
          yield* Db.mutate((db) =>
            db
              .insert(books)
              .values({ id: 1, title: "Emma", authorId: 1 })
              .onConflictDoUpdate({ target: books.id, set: { authorId: sql`excluded.author_id` } })
          )
          assert.deepStrictEqual(yield* both, [["Emma", "Persuasion"], ["Clueless"]])
          yield* Db.transaction(
            Db.mutate((db) => db.update(books).set({ authorId: sql`3 - ${books.authorId}` }))
          )
          assert.deepStrictEqual(yield* both, [["Clueless"], ["Emma", "Persuasion"]])
        })
      )
    )
  })
}

describe("Traps", () => {
  it.live("a cache that is away fails no write: it is committed, and told once the cache is back", () =>
    on(databases[1], setUp, ({ url, run }) =>
      Effect.gen(function* () {
        const redis = yield* aRedis()
        const proxy = yield* aProxy(redis)
        const other = yield* aProcess("validated", { url: redis.url, deadline: "2 seconds" })
        const shared = TieredStore.layer({ near: "validated", url: proxy.url, deadline: 100 })
        const layer = Layer.orDie(Db.layerPostgres({ url: url!, maxConnections: 2 })).pipe(
          Layer.provideMerge(Cacheme.layer().pipe(Layer.provide(shared))),
          Layer.orDie
        )
        const stored = (node: TitleNode) =>
          other.run(Effect.map(Cacheme.explain(node), ({ answered }) => answered))
        yield* Effect.gen(function* () {
          const shares = Effect.map(Cacheme.stats, ({ store }) => store.shared!)
          const isUp = Effect.map(shares, ({ state, pending }) => state === "up" && pending === 0)
          yield* until("the store is up", isUp)
          yield* until(
            "both are stored",
            Effect.andThen(
              Effect.all([title(1), title(2)]),
              Effect.all([stored(new TitleNode({ id: 1 })), stored(new TitleNode({ id: 2 }))])
            ).pipe(Effect.map((both) => both.every(Boolean)))
          )
          yield* Effect.promise(proxy.refuse)
          yield* rename(1, "Emma!")
          yield* Db.transaction(rename(2, "Persuasion!"))
          assert.deepStrictEqual(yield* run("select title from books where id < 3 order by id"), [
            { title: "Emma!" },
            { title: "Persuasion!" }
          ])
          assert.strictEqual((yield* shares).pending, 2)
          // Its own reads compute meanwhile.
          assert.deepStrictEqual(yield* Effect.all([title(1), title(2)]), ["Emma!", "Persuasion!"])
          yield* Effect.promise(proxy.accept)
          yield* until("the store is up", isUp)
          assert.isFalse(yield* stored(new TitleNode({ id: 1 })))
          assert.isFalse(yield* stored(new TitleNode({ id: 2 })))
        }).pipe(Effect.provide(layer))
      })
    )
  )
})
