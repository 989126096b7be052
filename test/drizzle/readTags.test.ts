/** What the keys of a batch rest on, each of its own, when one query answers all of them. */
import { assert, describe, it } from "@effect/vitest"
import { and, eq, inArray, or, sql } from "drizzle-orm"
import { alias, integer, pgTable, text } from "drizzle-orm/pg-core"
import { Effect, Schema } from "effect"
import type { Statement } from "../../src/drizzle/builders.ts"
import type { AnyDatabase } from "../../src/drizzle/Connection.ts"
import { Db, Model } from "../../src/drizzle/index.ts"
import { Cacheme, Node } from "../../src/index.ts"
import { databases, on } from "../support/databases.ts"

const authors = pgTable("authors", { id: integer().primaryKey(), name: text() })
const books = pgTable("books", {
  id: integer().primaryKey(),
  authorId: integer("author_id"),
  title: text()
})
const reviews = pgTable("reviews", {
  id: integer().primaryKey(),
  bookId: integer("book_id"),
  stars: integer()
})
Model.make(authors)
Model.make(books, { keys: { byAuthor: ["authorId"] } })
Model.make(reviews, { keys: { byBook: ["bookId"] } })
const other = alias(books, "other")

const setUp = `
create table authors (id int primary key, name text);
create table books (id int primary key, author_id int, title text);
create table reviews (id int primary key, book_id int, stars int);
insert into authors values (1, 'Ann'), (2, 'Bo'), (3, 'Cy');
insert into books values (1, 2, 'a'), (2, 3, 'b'), (3, 1, 'c'), (4, 1, 'd');
insert into reviews values (1, 1, 5), (2, 2, 4);
`

class Book extends Node.Class<Book>()("book", { key: { id: Schema.Int }, value: Schema.Int }) {}
const three = [1, 2, 3].map((id) => new Book({ id }))

type Build = (db: AnyDatabase, ids: ReadonlyArray<number>) => Statement<any>

const byIds: Build = (db, ids) =>
  db
    .select()
    .from(books)
    .where(inArray(books.id, [...ids]))

/** Answers three keys with these queries, one after the other, and tells which a write to a row of a table ends. */
const endedBy = (
  table: typeof books | typeof authors | typeof reviews,
  id: number,
  ...builds: ReadonlyArray<Build>
) =>
  Effect.gen(function* () {
    yield* Cacheme.invalidate(Book)
    yield* Cacheme.getAll(three, (missing) =>
      Effect.as(
        Effect.forEach(builds, (build) =>
          Db.query((db: AnyDatabase) =>
            build(
              db,
              missing.map((node) => node.id)
            )
          )
        ),
        missing.map((node) => [node, 1] as const)
      )
    )
    yield* Db.mutate((db: AnyDatabase) => db.delete(table).where(eq(table.id, id)))
    const ended: Array<number> = []
    for (const node of three)
      if ((yield* Cacheme.explain(node)).reason._tag === "Invalidated") ended.push(node.id)
    return ended
  })

const [pglite] = databases

describe("a batch that is answered by a query", () => {
  const check = (name: string, body: () => Effect.Effect<void, unknown, Db | Cacheme>) =>
    it.effect(name, () => on(pglite, setUp, body))

  check("for its keys rests on a row each", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* endedBy(books, 2, byIds), [2])
      const joined: Build = (db, ids) =>
        db
          .select()
          .from(books)
          .innerJoin(reviews, eq(reviews.bookId, books.id))
          .where(inArray(books.id, [...ids]))
      assert.deepStrictEqual(yield* endedBy(reviews, 1, joined), [1])
    })
  )

  check("for its keys, and by another for what that has found, rests on all of the latter", () =>
    Effect.gen(function* () {
      const theirAuthors: Build = (db) =>
        db
          .select()
          .from(authors)
          .where(inArray(authors.id, [2, 3, 1]))
      assert.deepStrictEqual(yield* endedBy(authors, 2, byIds, theirAuthors), [1, 2, 3])
    })
  )

  check("that names a row besides rests on that, whichever number it has", () =>
    Effect.gen(function* () {
      const withBook: Build = (db, ids) =>
        db
          .select()
          .from(books)
          .leftJoin(other, eq(other.id, 2))
          .where(inArray(books.id, [...ids]))
      assert.deepStrictEqual(yield* endedBy(books, 2, withBook), [1, 2, 3])
      const withAuthor: Build = (db, ids) =>
        db
          .select()
          .from(books)
          .innerJoin(authors, eq(authors.id, 3))
          .where(inArray(books.id, [...ids]))
      assert.deepStrictEqual(yield* endedBy(authors, 3, withAuthor), [1, 2, 3])
    })
  )

  check("that asks for two lists rests on all of both", () =>
    Effect.gen(function* () {
      const twice: Build = (db, ids) =>
        db
          .select()
          .from(books)
          .innerJoin(other, eq(other.authorId, books.authorId))
          .where(and(inArray(books.id, [...ids]), inArray(other.id, [1, 3])))
      assert.deepStrictEqual(yield* endedBy(books, 3, twice), [1, 2, 3])
      const either: Build = (db, ids) =>
        db
          .select()
          .from(books)
          .where(or(inArray(books.authorId, [1, 2, 3]), inArray(books.id, [...ids])))
      assert.deepStrictEqual(yield* endedBy(books, 4, either), [1, 2, 3])
    })
  )

  check("that gets what is computed of several rows rests on all of them", () =>
    Effect.gen(function* () {
      const mixing = [
        sql`select * from books where id in (1, 2, 3) order by id limit 2`,
        sql`select * from books where id in (1, 2, 3) order by id offset 1`,
        sql`select distinct on (title is null) * from books where id in (1, 2, 3) order by title is null, id`,
        sql`select id, row_number() over (order by id) from books where id in (1, 2, 3)`,
        sql`select max(id) from books where id in (1, 2, 3)`,
        sql`select stddev(id) from books where id in (1, 2, 3)`,
        sql`select percentile_cont(0.5) within group (order by id) from books where id in (1, 2, 3)`,
        sql`select json_object_agg(id, title) from books where id in (1, 2, 3)`,
        sql`select (select sum(books.id)) from books where id in (1, 2, 3)`,
        sql`select json_arrayagg(id) from books where id in (1, 2, 3)`,
        sql`select id, json_arrayagg(id) over () from books where id in (1, 2, 3)`,
        sql`select title is null, count(*) from books where id in (1, 2, 3) group by 1`,
        sql`select * from (select * from books where id in (1, 2, 3) order by id limit 2) b`,
        sql`with b as (select max(id) from books where id in (1, 2, 3)) select * from b`,
        sql`select exists (select 1 from books where id in (1, 2, 3))`,
        sql`select id from books where id in (1, 2, 3) union all select 1`
      ]
      for (const statement of mixing)
        assert.deepStrictEqual(yield* endedBy(books, 4, (db) => db.execute(statement)), [])
      for (const statement of mixing) {
        assert.deepStrictEqual(yield* endedBy(books, 3, (db) => db.execute(statement)), [1, 2, 3])
        yield* Db.mutate((db: AnyDatabase) => db.insert(books).values({ id: 3, authorId: 1, title: "c" }))
      }
      const grouped = sql`select id, count(*) from books where id in (1, 2, 3) group by id`
      assert.deepStrictEqual(yield* endedBy(books, 3, (db) => db.execute(grouped)), [3])
      const counted = sql`select id, (select count(*) from reviews r where r.book_id = books.id)
        from books where id in (1, 2, 3)`
      assert.deepStrictEqual(yield* endedBy(books, 1, (db) => db.execute(counted)), [1])
      const filtered = sql`select lower(title) from books where id in (1, 2, 3) and title in ('a', 'b')`
      assert.deepStrictEqual(yield* endedBy(books, 2, (db) => db.execute(filtered)), [2])
    })
  )

  check("that asks for one list twice rests on all of both: nothing says that the values are the same", () =>
    Effect.gen(function* () {
      const constants: Build = (db) =>
        db.execute(
          sql`select * from books join books b on b.author_id <> books.author_id
              where books.id in (1, 2, 3) and b.id in (1, 2, 3)`
        )
      assert.deepStrictEqual(yield* endedBy(books, 2, constants), [1, 2, 3])
    })
  )

  check("that gets each row of its list rests on a row each, also of a list that is one parameter", () =>
    Effect.gen(function* () {
      const joined: Build = (db, ids) =>
        db.execute(
          sql`select * from books b left join reviews r on r.book_id = b.id where b.id = any(${sql.param(ids)}::int[])`
        )
      assert.deepStrictEqual(yield* endedBy(reviews, 2, joined), [2])
    })
  )
})
