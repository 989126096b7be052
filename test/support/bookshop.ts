/** A bookshop's tables, and what queries are noted to read of them. */
import { assert } from "@effect/vitest"
import { boolean, integer, pgSchema, pgTable, primaryKey, text } from "drizzle-orm/pg-core"
import { Effect } from "effect"
import type { Statement } from "../../src/drizzle/builders.ts"
import type { AnyDatabase } from "../../src/drizzle/Connection.ts"
import { Model } from "../../src/drizzle/index.ts"
import { CurrentRecorder, Recorder, type Recording } from "../../src/Recorder.ts"

export const countries = pgTable("countries", { id: integer().primaryKey(), name: text() })
export const authors = pgTable("authors", {
  id: integer().primaryKey(),
  countryId: integer("country_id").references(() => countries.id),
  name: text(),
  country: text(),
  email: text().unique()
})
export const books = pgTable("books", {
  id: integer().primaryKey(),
  authorId: integer("author_id").references(() => authors.id),
  publisherId: integer("publisher_id"),
  title: text(),
  price: integer(),
  views: integer(),
  slug: text().unique(),
  isOpen: boolean("is_open")
})
export const tags = pgTable("tags", { id: integer().primaryKey(), label: text() })
export const bookTags = pgTable(
  "book_tags",
  { bookId: integer("book_id"), tagId: integer("tag_id"), weight: integer() },
  (table) => [primaryKey({ columns: [table.bookId, table.tagId] })]
)
export const reviews = pgTable("reviews", {
  id: integer().primaryKey(),
  bookId: integer("book_id"),
  userId: integer("user_id"),
  stars: integer()
})
export const lines = pgSchema("shop").table("lines", {
  id: integer().primaryKey(),
  bookId: integer("book_id")
})
export const cheap = pgTable("cheap", { id: integer(), authorId: integer("author_id"), name: text() })

Model.make(countries)
Model.make(authors)
Model.make(books, { keys: { byAuthor: ["authorId"], byOpen: ["isOpen"] }, volatile: { stats: ["views"] } })
Model.make(tags)
Model.link(bookTags, { book: bookTags.bookId, tag: bookTags.tagId })
Model.make(reviews, { keys: { byBook: ["bookId"], byBookAndUser: ["bookId", "userId"] } })
Model.make(lines, { keys: { byBook: ["bookId"] } })

export const setUp = `
create schema if not exists shop;
create table countries (id int primary key, name text);
create table authors (
  id int primary key, country_id int references countries, name text, country text, email text unique
);
create table books (
  id int primary key, author_id int references authors, publisher_id int, title text, price int, views int, slug text unique,
  is_open boolean
);
create table tags (id int primary key, label text);
create table book_tags (
  book_id int references books, tag_id int references tags, weight int, primary key (book_id, tag_id)
);
create table reviews (id int primary key, book_id int, user_id int, stars int);
create table shop.lines (id int primary key, book_id int);
create view cheap as select id, author_id, title as name from books where price < 5;
create materialized view top as select id from books;
create function lucky() returns int language sql stable as 'select max(id) from books';
create function doubled(int) returns int language sql immutable as 'select $1 * 2';
insert into countries values (1, 'England');
insert into authors values (3, 1, 'Ann', 'x', 'a@x'), (4, null, 'Bo', 'y', 'b@x');
insert into books (id, author_id, publisher_id, title, price, slug) values
  (7, 3, 1, 't', 1, 's7'), (8, 3, 1, 'u', 9, 's8'), (9, 4, 2, 'v', 9, null);
insert into tags values (1, 'l'), (2, 'm');
insert into book_tags values (7, 1, 1), (7, 2, 1), (8, 2, 1);
insert into reviews values (1, 7, 5, 3);
`

/** What is noted of a query. */
export const noted = (query: Effect.Effect<unknown, unknown, any>): Effect.Effect<Recording, never, any> =>
  Effect.gen(function* () {
    const recorder = new Recorder()
    yield* Effect.orDie(Effect.provideService(query, CurrentRecorder, recorder))
    return recorder.close()
  })

/** The ids of a recording without `unknown`, which every table that is read has, and without those of any group. */
export const idsOf = ({ ids, reads }: Recording): string => {
  const all = [
    ...ids,
    ...reads.flatMap((read) => [...read.ids, ...[...read.idsByValue.values()].flatMap((own) => [...own])])
  ].filter((id) => !id.endsWith("~*:*"))
  const unknown = new Set(all.filter((id) => id.endsWith(":?")).map((id) => id.slice(0, -1)))
  for (const id of all) assert.isTrue(unknown.has(id.replace(/:.*/, ":")), `${id} without unknown`)
  const others = [...unknown].filter((table) => !all.some((id) => id.startsWith(table) && !id.endsWith("?")))
  return [...new Set(all.filter((id) => !id.endsWith(":?"))), ...others.map((table) => `${table}?`)]
    .map((id) => id.slice(1))
    .toSorted()
    .join(" ")
}

/** A query, and what it is noted to read. */
export type Form = readonly [name: string, query: (db: AnyDatabase) => Statement<any>, expected: string]

export const checkAll = (
  forms: ReadonlyArray<Form>,
  query: (build: Form[1]) => Effect.Effect<unknown, unknown, any>
) =>
  Effect.gen(function* () {
    const found: Record<string, string> = {}
    for (const [name, build] of forms) found[name] = idsOf(yield* noted(query(build)))
    assert.deepStrictEqual(found, Object.fromEntries(forms.map(([name, , expected]) => [name, expected])))
  })
