/** What queries read, as tags: run on real servers, each with a recorder. */
import { assert, describe, it } from "@effect/vitest"
import {
  and,
  count,
  desc,
  eq,
  exists,
  gt,
  inArray,
  isNotNull,
  isNull,
  max,
  ne,
  not,
  notExists,
  or,
  type SQL,
  sql
} from "drizzle-orm"
import {
  alias,
  char,
  customType,
  except,
  integer,
  numeric,
  pgTable,
  type PgTable,
  text,
  timestamp,
  union,
  uuid
} from "drizzle-orm/pg-core"
import { Effect, Schema } from "effect"
import type { AnyDatabase } from "../../src/drizzle/Connection.ts"
import { Db, type DbError, Model } from "../../src/drizzle/index.ts"
import { Cacheme, Node } from "../../src/index.ts"
import { CurrentRecorder, Recorder } from "../../src/Recorder.ts"
import {
  authors,
  books,
  bookTags,
  cheap,
  checkAll,
  countries,
  type Form,
  idsOf,
  lines,
  noted,
  reviews,
  setUp,
  tags
} from "../support/bookshop.ts"
import { databases, on } from "../support/databases.ts"

/** For each book of an author's the number of its reviews, by a lateral query. */
const counted = (rest: string) =>
  `select b.id, s.n from books b left join lateral
    (select count(*) n from reviews r where r.book_id = b.id) s on true ${rest}`

/** How many reviews a book has, asked in each of its rows. */
const reviewCount = sql`(select count(*) from reviews r where r.book_id = books.id)`
/** How many reviews each book has, as a query in FROM. */
const reviewCounts = (db: AnyDatabase) =>
  db
    .select({ b: reviews.bookId, n: count().as("n") })
    .from(reviews)
    .groupBy(reviews.bookId)
    .as("counts")

const title = { title: books.title }
const b2 = alias(books, "b2")
const one = { x: sql`1` }

/** What is selected, as the drivers answer builders: in lists. */
const selected = (columns: ReadonlyArray<string>, from: SQL) => (db: AnyDatabase) =>
  db.select(Object.fromEntries(columns.map((column) => [column, sql.raw(column)]))).from(from)

/** Books with their authors, of which the answer shows the key. */
const withAuthors = (db: AnyDatabase) =>
  db
    .select({ id: books.id, authorId: books.authorId, name: authors.name })
    .from(books)
    .leftJoin(authors, eq(authors.id, books.authorId))

/** What is skipped, is told by how many rows a lateral query has for each book. */
const skipping = (lateral: SQL, skipped: SQL) =>
  selected(
    ["b.id"],
    sql`books b left join lateral (${lateral}) s on true order by b.id offset ${skipped} limit 1`
  )

/** Forms that only newer servers understand. */
const newer: ReadonlyArray<Form> = [
  [
    "JSON of other rows, filtered outside",
    (db) =>
      db.execute(sql`select * from (select id, json_arrayagg(price) over () from books) s where s.id = 7`),
    "books:* books~stats:*"
  ],
  [
    "JSON of other rows, with a limit",
    selected(
      ["b.id", "b.author_id", "json_arrayagg(a.name) over ()"],
      sql`books b left join authors a on a.id = b.author_id order by b.id limit 1`
    ),
    "authors:* books:*"
  ],
  [
    "a query in JSON_ARRAY",
    (db) =>
      db.execute(
        sql`with c as (select id, price from books)
            select c.id, json_array(select price from c) from c where c.id = 7`
      ),
    "books:*"
  ]
]

const forms: ReadonlyArray<Form> = [
  // ------------------------------------------------------------------------ what tells by way of others which rows are shown
  [
    "a missing row that is joined by what is shown",
    (db) => withAuthors(db).leftJoin(reviews, eq(reviews.stars, authors.countryId)).where(isNull(reviews.id)),
    "authors:* books:* reviews:*"
  ],
  [
    "an order by what is joined by what is shown",
    (db) =>
      withAuthors(db)
        .leftJoin(countries, eq(countries.id, authors.countryId))
        .orderBy(countries.name)
        .limit(1),
    "authors:* books:* countries:*"
  ],
  [
    "an order by a lateral query of what is shown",
    selected(
      ["b.id", "b.author_id"],
      sql`books b left join authors a on a.id = b.author_id left join lateral (select a.name n) s on true
          order by s.n desc limit 1`
    ),
    "authors:* books:*"
  ],
  [
    "a function of what is shown",
    selected(
      ["b.id", "b.author_id"],
      sql`books b left join authors a on a.id = b.author_id
          left join lateral generate_series(1, a.country_id) g(n) on true where g.n is null`
    ),
    "authors:* books:*"
  ],
  [
    "rows that are skipped by how many are joined by what is shown",
    (db) =>
      withAuthors(db)
        .leftJoin(reviews, eq(reviews.userId, authors.countryId))
        .orderBy(desc(books.id))
        .limit(1)
        .offset(1),
    "authors:* books:* reviews:*"
  ],
  [
    "what is joined by what is shown, and asked for by nothing",
    (db) =>
      withAuthors(db).leftJoin(reviews, eq(reviews.userId, authors.countryId)).orderBy(books.id).limit(2),
    "authors:id=3 books:* reviews:*"
  ],
  [
    "an inner join on the nullable side, of which a null is shown",
    selected(
      ["a.id", "b.id"],
      sql`authors s left join (books b join authors a on a.id = b.publisher_id) on a.id = s.country_id
          where s.id = 3`
    ),
    "authors:* authors:id=3 books:*"
  ],
  [
    "a lateral list beside a set",
    skipping(
      sql`select json_agg(r.id) j, unnest(array_agg(r.id)) u from reviews r where r.book_id = b.id`,
      sql`1`
    ),
    "books:* reviews:*"
  ],
  [
    "a lateral row with its equals",
    skipping(
      sql`select x.id from
        (select r.id from reviews r where r.book_id = b.id order by r.book_id fetch first ${1} rows with ties) x`,
      sql`1`
    ),
    "books:* reviews:*"
  ],
  [
    "a set of a lateral row",
    skipping(
      sql`select generate_series(1, x.stars) from
        (select r.stars from reviews r where r.book_id = b.id limit ${1}) x`,
      sql`3`
    ),
    "books:* reviews:*"
  ],
  [
    "totals of a lateral row",
    skipping(
      sql`select x.id from (select r.id from reviews r where r.book_id = b.id limit ${1}) x group by rollup(x.id)`,
      sql`2`
    ),
    "books:* reviews:*"
  ],

  // ------------------------------------------------------------------------------------------------- whose a name is
  [
    "the name of a join in the ON of another one",
    (db) =>
      db.execute(
        sql`select j.id from authors j where j.id = 3 and exists (
              select 1 from (authors a cross join (select 1 one) k) as j join books c on c.author_id = j.id
              where c.price > 100)`
      ),
    "authors:* authors:id=3 books:*"
  ],
  [
    "the name of a join in a query in the ON of another one",
    (db) =>
      db.execute(
        sql`select j.id from authors j where j.id = 3 and exists (
              select 1 from (authors a cross join (select 1 one) k) as j join countries c on exists (
                select 1 from books b where b.author_id = j.id and b.price > 100))`
      ),
    "authors:* authors:id=3 books:* countries:*"
  ],
  [
    "the name of what USING compares",
    (db) =>
      db.execute(
        sql`select x.id from authors x where x.id = 3 and exists (
              select 1 from authors a join authors b using (id) as x, books c
              where c.author_id = x.id and c.price > 100)`
      ),
    "authors:* authors:id=3 books:*"
  ],
  [
    "a column of the system's, which another one outside is called like",
    (db) =>
      db.execute(
        sql`select 1 from (select a.id as tableoid from authors a where a.id = 3) x
            where exists (select 1 from books b where b.author_id = tableoid)`
      ),
    "authors:id=3 books:*"
  ],
  [
    "rows that are compared by stars",
    (db) =>
      db.execute(
        sql`select b.id from (select 1 x, 2 y) s, (select 7 z, 3 w) t, books b
            where row(s.*, b.id, 3) = row(1, 2, t.*)`
      ),
    "books:* books~stats:*"
  ],
  [
    "a parameter in several places, whose type the first one tells",
    (db) => db.execute(sql`select title from books where id = ${3} or author_id = $1`),
    "books:*"
  ],

  // -------------------------------------------------------------------------------------------------- one table
  ["primary key", (db) => db.select(title).from(books).where(eq(books.id, 7)), "books:id=7"],
  ["nothing found", (db) => db.select(title).from(books).where(eq(books.id, 77)), "books:id=77"],
  [
    "a filter beside it, an order, a limit",
    (db) =>
      db
        .select(title)
        .from(books)
        .where(and(eq(books.id, 7), gt(books.price, 3)))
        .orderBy(desc(books.price))
        .limit(1),
    "books:id=7"
  ],
  [
    "a list",
    (db) =>
      db
        .select(title)
        .from(books)
        .where(inArray(books.id, [1, 2])),
    "books:id=1 books:id=2"
  ],
  ["an empty list", (db) => db.select(title).from(books).where(inArray(books.id, [])), "books:?"],
  ["a unique column", (db) => db.select(title).from(books).where(eq(books.slug, "s,7")), "books:slug=s%2C7"],
  ["a declared key", (db) => db.select(title).from(books).where(eq(books.authorId, 3)), "books:author_id=3"],
  [
    "the key that tells fewest",
    (db) =>
      db
        .select(title)
        .from(books)
        .where(and(eq(books.authorId, 3), eq(books.id, 7))),
    "books:id=7"
  ],
  [
    "the key of most columns",
    (db) =>
      db
        .select(one)
        .from(reviews)
        .where(and(eq(reviews.bookId, 7), eq(reviews.userId, 5))),
    "reviews:book_id=7,user_id=5"
  ],
  [
    "alternatives",
    (db) =>
      db
        .select(title)
        .from(books)
        .where(or(eq(books.id, 1), eq(books.authorId, 3), and(eq(books.slug, "s"), gt(books.price, 1)))),
    "books:author_id=3 books:id=1 books:slug=s"
  ],
  [
    "an alternative without a key",
    (db) =>
      db
        .select(title)
        .from(books)
        .where(or(eq(books.id, 1), gt(books.price, 1))),
    "books:*"
  ],
  [
    "an `or` that binds less than it looks",
    (db) => db.execute(sql`select title from books where price > 3 or title = 't' and id = 3`),
    "books:*"
  ],
  ["a range", (db) => db.select(title).from(books).where(gt(books.id, 3)), "books:*"],
  [
    "a negation",
    (db) =>
      db
        .select(title)
        .from(books)
        .where(not(eq(books.id, 3))),
    "books:*"
  ],
  ["no key", (db) => db.select(title).from(books).where(eq(books.price, 3)), "books:*"],
  ["is null", (db) => db.select(title).from(books).where(isNull(books.authorId)), "books:author_id=%null"],
  ["is not null", (db) => db.select(title).from(books).where(isNotNull(books.authorId)), "books:*"],
  ["true", (db) => db.select(title).from(books).where(eq(books.isOpen, true)), "books:is_open=true"],
  [
    "a boolean by itself",
    (db) =>
      db
        .select(title)
        .from(books)
        .where(sql`${books.isOpen}`),
    "books:is_open=true"
  ],
  [
    "not a boolean",
    (db) =>
      db
        .select(title)
        .from(books)
        .where(not(sql`${books.isOpen}`)),
    "books:is_open=false"
  ],
  ["everything", (db) => db.select(title).from(books), "books:*"],
  [
    "never",
    (db) =>
      db
        .select({ n: count() })
        .from(books)
        .where(sql`false`),
    "books:?"
  ],
  ["count", (db) => db.select({ n: count() }).from(books).where(eq(books.authorId, 3)), "books:author_id=3"],
  ["$count", (db) => db.$count(books, eq(books.authorId, 3)) as any, "books:author_id=3"],
  [
    "group by, having",
    (db) =>
      db
        .select({ a: books.authorId, m: max(books.price) })
        .from(books)
        .where(inArray(books.authorId, [3, 4]))
        .groupBy(books.authorId)
        .having(gt(count(), 1)),
    "books:author_id=3 books:author_id=4"
  ],
  [
    "distinct",
    (db) => db.selectDistinct(title).from(books).where(eq(books.authorId, 3)),
    "books:author_id=3"
  ],
  ["another schema", (db) => db.select(one).from(lines).where(eq(lines.id, 7)), "shop.lines:id=7"],
  // ------------------------------------------------------------------------------------------- volatile columns
  [
    "a volatile column",
    (db) => db.select({ v: books.views }).from(books).where(eq(books.id, 7)),
    "books:id=7 books~stats:id=7"
  ],
  ["all columns", (db) => db.select().from(books).where(eq(books.id, 7)), "books:id=7 books~stats:id=7"],
  [
    "an order by it",
    (db) => db.select(title).from(books).where(eq(books.authorId, 3)).orderBy(books.views),
    "books:author_id=3 books~stats:author_id=3"
  ],
  [
    "a whole row",
    (db) => db.execute(sql`select to_json(b) from books b where id = 7`),
    "books:id=7 books~stats:id=7"
  ],
  ["a star", (db) => db.execute(sql`select b.* from books b where id = 7`), "books:id=7 books~stats:id=7"],
  [
    "a star that is named outside",
    (db) => db.execute(sql`select s.title from (select * from books where id = 7) s`),
    "books:id=7"
  ],
  // ------------------------------------------------------------------------------------------------------ joins
  [
    "left, shown",
    (db) =>
      db
        .select({ a: books.authorId, n: authors.name })
        .from(books)
        .leftJoin(authors, eq(authors.id, books.authorId))
        .where(eq(books.id, 7)),
    "authors:id=3 books:id=7"
  ],
  [
    "left, not shown",
    (db) =>
      db
        .select({ n: authors.name })
        .from(books)
        .leftJoin(authors, eq(authors.id, books.authorId))
        .where(eq(books.id, 7)),
    "authors:* books:id=7"
  ],
  [
    "left, with a limit that hides rows",
    (db) =>
      db
        .select({ a: books.authorId, n: authors.name })
        .from(books)
        .leftJoin(authors, eq(authors.id, books.authorId))
        .where(eq(books.publisherId, 1))
        .orderBy(authors.name)
        .limit(1),
    "authors:* books:*"
  ],
  [
    "left, a condition on what is joined",
    (db) =>
      db
        .select({ a: books.authorId, n: authors.name })
        .from(books)
        .leftJoin(authors, eq(authors.id, books.authorId))
        .where(and(eq(books.publisherId, 1), ne(authors.name, "Bo"))),
    "authors:* books:*"
  ],
  [
    "inner, one row found",
    (db) =>
      db
        .select({ a: books.authorId, n: authors.name })
        .from(books)
        .innerJoin(authors, and(eq(authors.id, books.authorId), ne(authors.name, "x")))
        .where(eq(books.id, 7)),
    "authors:id=3 books:id=7"
  ],
  [
    "inner, nothing found",
    (db) =>
      db
        .select({ a: books.authorId, n: authors.name })
        .from(books)
        .innerJoin(authors, and(eq(authors.id, books.authorId), ne(authors.name, "Ann")))
        .where(eq(books.id, 7)),
    "authors:* books:id=7"
  ],
  [
    "inner, where many rows may have the null of a unique column",
    (db) =>
      db
        .select({ a: books.authorId, n: authors.name })
        .from(books)
        .innerJoin(authors, and(eq(authors.id, books.authorId), ne(authors.name, "x")))
        .where(isNull(books.slug)),
    "authors:* books:slug=%null"
  ],
  [
    "inner, of a list of values of a unique column",
    (db) =>
      db
        .select({ a: books.authorId, n: authors.name })
        .from(books)
        .innerJoin(authors, and(eq(authors.id, books.authorId), ne(authors.name, "Ann")))
        .where(sql`${books.id} = any(${"{7,9}"}::int[])`),
    "authors:* books:id=7 books:id=9"
  ],
  [
    "groups, and all together: a row that is shown though none was found",
    (db) =>
      db
        .select({ a: books.authorId, n: count() })
        .from(books)
        .innerJoin(authors, and(eq(authors.id, books.authorId), ne(authors.name, "Ann")))
        .where(eq(books.id, 7))
        .groupBy(sql`rollup (${books.authorId})`),
    "authors:* books:id=7"
  ],
  [
    "by way of one row, which is not there where what is joined to it hides it",
    (db) =>
      db
        .select({ id: books.id, a: b2.authorId })
        .from(books)
        .leftJoin(b2, and(eq(b2.id, 7), eq(b2.price, books.price)))
        .leftJoin(authors, eq(authors.id, b2.authorId))
        .where(sql`coalesce(${authors.name}, '') <> 'Ann'`),
    "authors:* books:* books:id=7"
  ],
  [
    "inner along a foreign key",
    (db) =>
      db
        .select({ a: books.authorId, n: authors.name })
        .from(books)
        .innerJoin(authors, eq(authors.id, books.authorId))
        .where(gt(books.price, 0)),
    "authors:id=3 authors:id=4 books:*"
  ],
  [
    "inner along what is no foreign key",
    (db) =>
      db
        .select({ b: reviews.bookId, t: books.title })
        .from(reviews)
        .innerJoin(books, eq(books.id, reviews.bookId))
        .where(eq(reviews.bookId, 7)),
    "books:id=7 reviews:book_id=7"
  ],
  [
    "inner along no foreign key, unpinned",
    (db) =>
      db
        .select({ b: reviews.bookId, t: books.title })
        .from(reviews)
        .innerJoin(books, eq(books.id, reviews.bookId))
        .where(gt(reviews.stars, 0)),
    "books:* reviews:*"
  ],
  [
    "a link and what it leads to",
    (db) =>
      db
        .select({ t: bookTags.tagId, l: tags.label })
        .from(bookTags)
        .innerJoin(tags, eq(tags.id, bookTags.tagId))
        .where(eq(bookTags.bookId, 7)),
    "book_tags:book_id=7 tags:id=1 tags:id=2"
  ],
  [
    "a link and what it leads to, whose own key is shown",
    (db) =>
      db
        .select({ id: tags.id, l: tags.label })
        .from(bookTags)
        .innerJoin(tags, eq(tags.id, bookTags.tagId))
        .where(eq(bookTags.bookId, 7)),
    "book_tags:book_id=7 tags:id=1 tags:id=2"
  ],
  [
    "left, whose own key is shown: there may be none yet",
    (db) =>
      db
        .select({ id: authors.id })
        .from(books)
        .leftJoin(authors, eq(authors.id, books.authorId))
        .where(eq(books.id, 7)),
    "authors:* books:id=7"
  ],
  [
    "the children of one",
    (db) =>
      db.select(title).from(authors).leftJoin(books, eq(books.authorId, authors.id)).where(eq(authors.id, 3)),
    "authors:id=3 books:author_id=3"
  ],
  [
    "ON leaves out of the right side only",
    (db) =>
      db
        .select({ n: authors.name, t: books.title })
        .from(authors)
        .leftJoin(books, and(eq(books.authorId, 3), eq(authors.id, 3))),
    "authors:* books:author_id=3"
  ],
  [
    "right",
    (db) =>
      db
        .select({ n: authors.name, t: books.title })
        .from(books)
        .rightJoin(authors, and(eq(books.authorId, authors.id), eq(books.id, 7)))
        .where(eq(authors.id, 3)),
    "authors:id=3 books:id=7"
  ],
  [
    "full",
    (db) =>
      db
        .select({ n: authors.name, t: books.title })
        .from(books)
        .fullJoin(authors, and(eq(books.authorId, authors.id), eq(books.id, 7))),
    "authors:* books:*"
  ],
  [
    "full, where one side is asked for",
    (db) =>
      db
        .select({ n: authors.name, t: books.title })
        .from(books)
        .fullJoin(authors, eq(books.authorId, authors.id))
        .where(eq(authors.id, 3)),
    "authors:id=3 books:author_id=3"
  ],
  [
    "what has no partner",
    (db) =>
      db
        .select({ id: books.id })
        .from(books)
        .leftJoin(authors, eq(authors.id, books.authorId))
        .where(isNull(authors.id)),
    "authors:* books:*"
  ],
  [
    "an alias of the same table",
    (db) =>
      db
        .select({ id: b2.id })
        .from(books)
        .innerJoin(b2, eq(b2.authorId, books.authorId))
        .where(eq(books.authorId, 3)),
    "books:author_id=3"
  ],
  // ------------------------------------------------------------------------------ what hides rows, and what does not
  [
    "the first table is not told by what is joined to it",
    (db) =>
      db
        .select({ a: books.authorId, id: authors.id })
        .from(books)
        .innerJoin(authors, eq(authors.id, books.authorId))
        .where(gt(books.price, 5)),
    "authors:id=3 authors:id=4 books:*"
  ],
  ["a column that equals itself", (db) => db.execute(sql`select id from books where id = id`), "books:*"],
  [
    "two columns of one table",
    (db) => db.select({ a: books.authorId }).from(books).where(eq(books.authorId, books.publisherId)),
    "books:*"
  ],
  [
    "a chain of foreign keys: a null in between hides rows",
    (db) =>
      db
        .select({ a: books.authorId, c: authors.countryId, n: countries.name })
        .from(books)
        .innerJoin(authors, eq(authors.id, books.authorId))
        .innerJoin(countries, eq(countries.id, authors.countryId))
        .where(eq(books.publisherId, 2)),
    "authors:* books:* countries:?"
  ],
  [
    "a chain of left joins hides none",
    (db) =>
      db
        .select({ a: books.authorId, c: authors.countryId, n: countries.name })
        .from(books)
        .leftJoin(authors, eq(authors.id, books.authorId))
        .leftJoin(countries, eq(countries.id, authors.countryId))
        .where(eq(books.publisherId, 1)),
    "authors:id=3 books:* countries:id=1"
  ],
  [
    "a left join behind a limit",
    (db) =>
      db
        .select({ a: books.authorId, n: authors.name })
        .from(books)
        .leftJoin(authors, eq(authors.id, books.authorId))
        .orderBy(desc(books.price), books.id)
        .limit(2),
    "authors:id=3 authors:id=4 books:*"
  ],
  [
    "a left join that multiplies rows, behind an offset",
    (db) =>
      db
        .select({ id: books.id, s: reviews.stars })
        .from(books)
        .leftJoin(reviews, eq(reviews.bookId, books.id))
        .orderBy(books.id)
        .limit(1)
        .offset(1),
    "books:* reviews:*"
  ],
  [
    "the children of what is found",
    (db) =>
      db
        .select({ id: books.id, s: reviews.stars })
        .from(authors)
        .innerJoin(books, eq(books.authorId, authors.id))
        .leftJoin(reviews, eq(reviews.bookId, books.id))
        .where(eq(authors.id, 3)),
    "authors:id=3 books:author_id=3 reviews:book_id=7 reviews:book_id=8"
  ],
  [
    "counts of what is found",
    (db) => {
      const counts = reviewCounts(db)
      return db
        .select({ id: books.id, n: counts.n })
        .from(books)
        .leftJoin(counts, eq(counts.b, books.id))
        .where(eq(books.authorId, 3))
    },
    "books:author_id=3 reviews:book_id=7 reviews:book_id=8"
  ],
  [
    "null in a query in FROM: of a row, or of none",
    (db) =>
      db.execute(
        sql`select s.id from (select b.id, r.id as rid from books b left join reviews r on r.book_id = b.id) s
          where s.rid is null`
      ),
    "books:* reviews:*"
  ],
  [
    "a function that answers a set may hide a row",
    (db) =>
      db
        .select({ a: books.authorId, x: sql`unnest(string_to_array(${authors.name}, ''))` })
        .from(books)
        .leftJoin(authors, eq(authors.id, books.authorId))
        .where(eq(books.publisherId, 1)),
    "authors:* books:*"
  ],
  ["lateral", (db) => db.execute(sql.raw(counted("where b.author_id = 3"))), "books:author_id=3 reviews:*"],
  [
    "an order by a place",
    (db) =>
      db
        .select({ id: books.id, n: reviewCount })
        .from(books)
        .orderBy(sql`2 desc`)
        .limit(1),
    "books:* reviews:*"
  ],
  [
    "an order by an output",
    (db) =>
      db
        .select({
          id: books.id,
          n: reviewCount.as("total")
        })
        .from(books)
        .orderBy(sql`total desc`)
        .limit(1),
    "books:* reviews:*"
  ],
  [
    "a window over what a limit hides",
    (db) =>
      db
        .select({
          id: books.id,
          n: sql`sum(${reviewCount}) over ()`
        })
        .from(books)
        .orderBy(books.id)
        .limit(1),
    "books:* reviews:*"
  ],
  // ---------------------------------------------------------------------------------------------------- names
  [
    "columns with other names",
    (db) =>
      db.execute(
        sql`with t(author_id, id) as (select id, author_id from books) select author_id from t where id = 3`
      ),
    "books:author_id=3 books~stats:author_id=3"
  ],
  [
    "columns of a query with other names",
    (db) =>
      db.execute(sql`select s.id from (select id, author_id from books) s(author_id, id) where s.id = 3`),
    "books:author_id=3 books~stats:author_id=3"
  ],
  [
    "a column that the server has a name for",
    (db) =>
      db.execute(
        sql`select (select 1 from (select max(9) from tags) s join books b on b.id = max) from (select 7 as max) o`
      ),
    "books:* tags:*"
  ],
  [
    "ON sees its own join, and what is outside",
    (db) =>
      db.execute(
        sql`select 1 from reviews o where o.book_id = 7 and exists (
          select 1 from book_tags a, tags d join books c on c.id = book_id where a.book_id = 8)`
      ),
    "book_tags:book_id=8 books:id=7 reviews:book_id=7 tags:*"
  ],
  // ---------------------------------------------------------------------------------------------------- queries
  [
    "exists, of one",
    (db) =>
      db
        .select(title)
        .from(books)
        .where(
          and(eq(books.id, 7), exists(db.select(one).from(reviews).where(eq(reviews.bookId, books.id))))
        ),
    "books:id=7 reviews:book_id=7"
  ],
  [
    "not exists, of all",
    (db) =>
      db
        .select(title)
        .from(books)
        .where(
          notExists(
            db
              .select(one)
              .from(reviews)
              .where(and(eq(reviews.bookId, books.id), eq(reviews.userId, 5)))
          )
        ),
    "books:* reviews:*"
  ],
  [
    "in a query",
    (db) =>
      db
        .select(title)
        .from(books)
        .where(
          inArray(books.id, db.select({ id: bookTags.bookId }).from(bookTags).where(eq(bookTags.tagId, 2)))
        ),
    "book_tags:tag_id=2 books:*"
  ],
  [
    "a query in each row",
    (db) =>
      db
        .select({
          id: books.id,
          n: reviewCount
        })
        .from(books)
        .where(eq(books.authorId, 3)),
    "books:author_id=3 reviews:book_id=7 reviews:book_id=8"
  ],
  [
    "alternatives, and a query for each",
    (db) =>
      db
        .select({ id: b2.id, x: exists(db.select(one).from(reviews).where(eq(reviews.bookId, b2.id))) })
        .from(b2)
        .where(or(eq(b2.id, 7), and(eq(b2.id, 8), gt(b2.price, 1)))),
    "books:id=7 books:id=8 reviews:book_id=7 reviews:book_id=8"
  ],
  [
    "a query in FROM",
    (db) => {
      const counts = reviewCounts(db)
      return db
        .select({ id: books.id, n: counts.n })
        .from(books)
        .leftJoin(counts, eq(counts.b, books.id))
        .where(eq(books.id, 7))
    },
    "books:id=7 reviews:book_id=7"
  ],
  [
    "a query in FROM, which a limit closes",
    (db) => {
      const some = db.select({ b: reviews.bookId }).from(reviews).orderBy(reviews.stars).limit(3).as("some")
      return db
        .select({ id: books.id })
        .from(books)
        .innerJoin(some, eq(some.b, books.id))
        .where(eq(books.id, 7))
    },
    "books:id=7 reviews:*"
  ],
  [
    "a common table expression",
    (db) => {
      const own = db.$with("own").as(db.select({ id: books.id }).from(books).where(eq(books.authorId, 3)))
      return db.with(own).select({ id: own.id }).from(own)
    },
    "books:author_id=3"
  ],
  [
    "one that is called like its table",
    (db) => db.execute(sql`with books as (select * from books where id = 7) select title from books`),
    "books:id=7"
  ],
  [
    "a recursive one",
    (db) =>
      db.execute(
        sql`with recursive t(id) as (
          select id from books where id = 7 union all select b.id from books b join t on b.publisher_id = t.id
        ) select id from t`
      ),
    // Its columns have other names, which may stand for any.
    "books:* books:id=7 books~stats:* books~stats:id=7"
  ],
  [
    "union",
    (db) =>
      union(
        db.select({ n: authors.name }).from(authors).where(eq(authors.id, 3)),
        db.select({ n: tags.label }).from(tags).where(eq(tags.id, 1))
      ),
    "authors:id=3 tags:id=1"
  ],
  [
    "except",
    (db) =>
      except(
        db.select({ b: bookTags.bookId }).from(bookTags).where(eq(bookTags.tagId, 1)),
        db.select({ b: reviews.bookId }).from(reviews)
      ),
    "book_tags:tag_id=1 reviews:*"
  ],
  // -------------------------------------------------------------------------------------------------------- raw
  ["raw", (db) => db.execute(sql`select title from books where id = ${7} and price > 0`), "books:id=7"],
  [
    "constants",
    (db) => db.execute(sql`select title from books where slug in ('a', 'b')`),
    "books:slug=a books:slug=b"
  ],
  [
    "any",
    (db) => db.execute(sql`select title from books where id = any(array[7, 8])`),
    "books:id=7 books:id=8"
  ],
  [
    "any of a parameter that is cast to a list",
    (db) => db.execute(sql`select 1 from books where id = any(${sql.param([7, 8])}::bigint[])`),
    "books:id=7 books:id=8"
  ],
  [
    "any of a parameter that is a list as a text",
    (db) => db.execute(sql`select 1 from books where id = any(${"{7,-8}"}::int[])`),
    "books:id=-8 books:id=7"
  ],
  [
    "any of a text with what may be written otherwise",
    (db) => db.execute(sql`select 1 from books where id = any(${'{"7",null}'}::int[])`),
    "books:*"
  ],
  [
    "any of texts as a text",
    (db) => db.execute(sql`select 1 from books where slug = any(${"{s7,s8}"}::text[])`),
    "books:*"
  ],
  [
    "any of a constant that is cast to a list",
    (db) => db.execute(sql`select 1 from books where id = any('{7,8}'::int[])`),
    "books:id=7 books:id=8"
  ],
  ["any of nothing", (db) => db.execute(sql`select 1 from books where id = any('{}'::int[])`), "books:?"],
  [
    "any of a list that is cast",
    (db) => db.execute(sql`select 1 from books where id = any(array['7', ${8}, null]::int[])`),
    "books:id=7 books:id=8"
  ],
  [
    "any of a list whose cast changes the values",
    (db) => db.execute(sql`select 1 from books where id = any(array[7.5]::int[])`),
    "books:*"
  ],
  [
    "any of a list of another type",
    (db) => db.execute(sql`select 1 from books where id = any('{7}'::numeric[])`),
    "books:*"
  ],
  [
    "rows",
    (db) => db.execute(sql`select 1 from book_tags where (book_id, tag_id) in ((7, 1))`),
    "book_tags:book_id=7,tag_id=1"
  ],
  [
    "casts",
    (db) => db.execute(sql`select 1 from books where id = ${7}::int or id = '8'::bigint`),
    "books:id=7 books:id=8"
  ],
  ["another type", (db) => db.execute(sql`select 1 from books where id = 7.0`), "books:*"],
  [
    "a comment, a string",
    (db) => db.execute(sql`select '-- from tags' /* from tags */ from books where id = 7`),
    "books:id=7"
  ],
  [
    "lists of tables",
    (db) => db.execute(sql`select b.title from books b, reviews r where r.book_id = b.id and b.id = 7`),
    "books:id=7 reviews:book_id=7"
  ],
  [
    "USING",
    (db) => db.execute(sql`select id from books join tags using (id) where books.id = 7`),
    "books:* tags:*"
  ],
  ["a view", (db) => db.select(one).from(cheap).where(eq(cheap.authorId, 3)), "books:author_id=3 cheap:*"],
  ["a materialized view", (db) => db.execute(sql`select id from top where id = 7`), "top:*"],
  [
    "a function that computes",
    (db) => db.execute(sql`select doubled(id) from books where id = 7`),
    "books:id=7"
  ],
  [
    "a table in a place that is not looked into",
    (db) => db.execute(sql`select 1 from books tablesample system (100) where id = 7`),
    "books:*"
  ]
]

describe("what a query reads", () => {
  for (const database of databases) {
    it.effect(`is told on ${database.name}`, () =>
      on(database, setUp, () => checkAll(forms, (build) => Db.query(build)))
    )
  }

  it.effect("is told of what newer servers understand", () =>
    on(databases[0], setUp, () => checkAll(newer, (build) => Db.query(build)))
  )

  it.effect("says why a table is read whole, and which key would help", () =>
    on(databases[0], setUp, () =>
      Effect.gen(function* () {
        const fallbacks = function* (build: Form[1]) {
          const { reads } = yield* noted(Db.query(build))
          return reads[0]!.fallbacks
        }
        const byPublisher = yield* Effect.gen(() =>
          fallbacks((db) => db.select(title).from(books).where(eq(books.publisherId, 1)))
        )
        assert.deepStrictEqual(byPublisher, [
          { table: "books", because: `"publisher_id" is no declared key`, key: ["publisherId"] }
        ])
        const byViews = yield* Effect.gen(() =>
          fallbacks((db) => db.select(title).from(books).where(eq(books.views, 1)))
        )
        assert.isUndefined(byViews[0]!.key)
        const fromTop = yield* Effect.gen(() =>
          fallbacks((db) => db.execute(sql`select * from top where id = 1`))
        )
        assert.deepStrictEqual(fromTop, [{ table: "top", because: "it has no model", key: undefined }])
      })
    )
  )

  it.effect("tells no more combinations than it can, and does not make them first", () =>
    on(databases[0], setUp, () =>
      Effect.gen(function* () {
        const read = (length: number) => {
          const some = sql.param(Array.from({ length }, (_, i) => i))
          return Effect.map(
            noted(
              Db.query((db) =>
                db.execute(
                  sql`select 1 from book_tags where book_id = any(${some}) and tag_id = any(${some})`
                )
              )
            ),
            ({ reads }) => reads[0]!
          )
        }
        assert.strictEqual([...(yield* read(70)).ids].length, 70 * 70 + 2)
        const { ids, fallbacks } = yield* read(10_000)
        assert.deepStrictEqual([...ids].toSorted(), ["@book_tags:*", "@book_tags:?", "@book_tags~*:*"])
        assert.deepStrictEqual(fallbacks, [
          { table: "book_tags", because: "too many of its rows are named", key: undefined }
        ])
      })
    )
  )

  it.effect("says what no write tells of", () =>
    on(databases[0], setUp, () =>
      Effect.gen(function* () {
        const untold = (query: string) =>
          Effect.map(noted(Db.query((db) => db.execute(sql.raw(query)))), ({ reads }) =>
            reads[0]!.untold.join(", ")
          )
        assert.strictEqual(yield* untold("select now() from books"), "now()")
        assert.strictEqual(yield* untold("select current_date"), "current_date")
        assert.strictEqual(yield* untold("select random(), gen_random_uuid()"), "random(), gen_random_uuid()")
        assert.strictEqual(yield* untold("select current_setting('app.tenant', true)"), "current_setting()")
        assert.strictEqual(yield* untold("select 1 from books where title > 'now'"), "'now'")
        assert.strictEqual(yield* untold("select ctid from books"), "ctid")
        assert.strictEqual(yield* untold("select relname from pg_class limit 1"), "the system table pg_class")
        assert.strictEqual(yield* untold("select lower(title), count(*) from books group by 1"), "")
      })
    )
  )

  it.effect("counts on one row of a lateral query only where its limit is one", () =>
    on(databases[0], setUp, () =>
      Effect.gen(function* () {
        const second = (n: number | null) =>
          Db.query(
            (db) => {
              const own = db
                .select()
                .from(reviews)
                .where(eq(reviews.bookId, books.id))
                .limit(sql.placeholder("n"))
                .as("own")
              const shown = db.select({ stars: own.stars }).from(own).as("shown")
              return db
                .select({ id: books.id, stars: shown.stars })
                .from(books)
                .leftJoinLateral(shown, sql`true`)
                .orderBy(books.id)
                .limit(1)
                .offset(1)
            },
            { values: { n } }
          )
        assert.strictEqual(idsOf(yield* noted(second(1))), "books:* reviews:book_id=8")
        for (const n of [2, null]) assert.strictEqual(idsOf(yield* noted(second(n))), "books:* reviews:*")
      })
    )
  )

  it.effect("is an error where not even the tables are known, unless they are named", () =>
    on(databases[0], setUp, () =>
      Effect.gen(function* () {
        const lucky = Db.query((db) => db.execute(sql`select lucky()`))
        const inLookup = (query: Effect.Effect<unknown, DbError, Db>, recorder = new Recorder()) =>
          Effect.provideService(query, CurrentRecorder, recorder)
        const refused = yield* Effect.flip(inLookup(lucky))
        assert.strictEqual(refused.reason._tag, "UnknownReads")
        assert.include(refused.message, "lucky(), which may read tables")
        // Outside of a lookup, and where tags are given by hand, nobody needs to know.
        yield* lucky
        yield* inLookup(lucky, new Recorder(false))
        const named = Db.query((db) => db.execute(sql`select lucky()`), { reads: [books] })
        assert.strictEqual(idsOf(yield* noted(named)), "books:*")
        const shown = yield* Effect.flip(inLookup(Db.query((db) => db.execute(sql`show search_path`))))
        assert.strictEqual(shown.reason._tag, "UnknownReads")
      })
    )
  )

  it.effect("follows the server: a view that is replaced, a model that is declared later", () =>
    on(databases[0], setUp, ({ run }) =>
      Effect.gen(function* () {
        const late = pgTable("late", { id: integer().primaryKey(), kind: integer() })
        yield* run("create table late (id int primary key, kind int)")
        const byKind = noted(Db.query((db) => db.select(one).from(late).where(eq(late.kind, 1))))
        assert.strictEqual(idsOf(yield* byKind), "late:*")
        Model.make(late, { keys: { byKind: ["kind"] } })
        assert.strictEqual(idsOf(yield* byKind), "late:kind=1")
        const view = noted(Db.query((db) => db.execute(sql`select id from cheap where id = 7`)))
        assert.strictEqual(idsOf(yield* view), "books:id=7 cheap:*")
        for (const change of ["drop view cheap", "create view cheap as select id from tags"])
          yield* Db.mutate((db) => db.execute(sql.raw(change)), { tables: [cheap] })
        assert.strictEqual(idsOf(yield* view), "cheap:* tags:id=7")
      })
    )
  )
})

// ------------------------------------------------------------------------------------- models that are elsewhere

describe("a reader that does not know the groups of volatile columns", () => {
  const late = pgTable("unknown_groups", { id: integer().primaryKey(), hits: integer() })
  const linked = pgTable("unknown_linked", {
    id: integer().primaryKey(),
    a: integer(),
    b: integer(),
    n: integer()
  })
  Model.link(linked, { a: linked.a, b: linked.b })
  const setUpLate = `
create table unknown_groups (id int primary key, hits int);
insert into unknown_groups values (1, 0);
create table unknown_linked (id int primary key, a int, b int, n int);
insert into unknown_linked values (1, 1, 1, 0);
`
  class Hits extends Node.Class<Hits>()("unknownHits", { key: { from: Schema.String }, value: Schema.Int }) {}

  it.effect("is told when one of them changes, by row or by table", () =>
    on(databases[0], setUpLate, () =>
      Effect.gen(function* () {
        const read = (from: string, query: string, reads: ReadonlyArray<PgTable> = []) =>
          Effect.orDie(
            Cacheme.memoize(
              Effect.map(
                Db.query((db) => db.execute(sql.raw(query)), reads.length === 0 ? {} : { reads }),
                ({ rows }: any) => rows[0].n as number
              ),
              new Hits({ from })
            )
          )
        const readAll = Effect.all([
          read("table", "select hits as n from unknown_groups"),
          read("named", "select hits as n from unknown_groups", [late]),
          read("link", "select n from unknown_linked where a = 1")
        ])
        assert.deepStrictEqual(yield* readAll, [0, 0, 0])
        // In another process, this has been so from the beginning.
        Model.make(late, { volatile: { stats: ["hits"] } })
        Model.make(linked, { volatile: { stats: ["n"] } })
        yield* Db.mutate((db) => db.update(late).set({ hits: 1 }).where(eq(late.id, 1)))
        yield* Db.mutate((db) => db.update(linked).set({ n: 1 }).where(eq(linked.id, 1)))
        assert.deepStrictEqual(yield* readAll, [1, 1, 1])
      })
    )
  )

  it.effect("is told of tables that are named, whichever way the write is told", () =>
    on(databases[0], setUpLate, () =>
      Effect.gen(function* () {
        const read = Effect.orDie(
          Cacheme.memoize(
            Effect.map(
              Db.query((db) => db.execute(sql`select hits as n from unknown_groups`), { reads: [late] }),
              ({ rows }: any) => rows[0].n as number
            ),
            new Hits({ from: "named" })
          )
        )
        assert.strictEqual(yield* read, 0)
        yield* Db.mutate((db) => db.execute(sql`update unknown_groups set hits = 2`))
        assert.strictEqual(yield* read, 2)
      })
    )
  )
})

// ------------------------------------------------------------------------------------------------- canonical types

describe("values that are written in several ways", () => {
  const price = customType<{ data: string; driverData: number }>({
    dataType: () => "integer",
    toDriver: (value) => Number(value.slice(1)),
    fromDriver: (value) => `$${value}`
  })
  const things = pgTable("things", {
    id: integer().primaryKey(),
    token: uuid(),
    card: char({ length: 4 }),
    amount: numeric({ precision: 10, scale: 2 }),
    price: price(),
    name: text(),
    folded: text(),
    label: text(),
    at: timestamp()
  })
  Model.make(things, {
    keys: {
      byToken: ["token"],
      byCard: ["card"],
      byAmount: ["amount"],
      byPrice: ["price"],
      byName: ["name"],
      byFolded: ["folded"],
      byLabel: ["label"]
    }
  })
  const table = `
create collation if not exists anycase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
create table things (
  id int primary key, token uuid, card char(4), amount numeric(10, 2), price int, name text,
  folded text collate anycase, label varchar(20), at timestamp
);
create table others (id int primary key, name text collate anycase, label text);
insert into others values (1, 'A', 'A');
`
  for (const database of databases.slice(1)) {
    it.effect(`have one tag, or none, on ${database.name}`, () =>
      on(database, table, () =>
        checkAll(
          [
            [
              "uuid",
              (db) =>
                db.select(one).from(things).where(eq(things.token, "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11")),
              "things:token=a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
            ],
            ["char", (db) => db.select(one).from(things).where(eq(things.card, "ab  ")), "things:card=ab"],
            [
              "char as text",
              (db) => db.execute(sql`select 1 from things where card = 'ab  '::text`),
              "things:*"
            ],
            [
              "numeric",
              (db) => db.select(one).from(things).where(eq(things.amount, "1.50")),
              "things:amount=1.5"
            ],
            [
              "numeric with an exponent",
              (db) => db.select(one).from(things).where(eq(things.amount, "15e-1")),
              "things:*"
            ],
            [
              "a type of the program's",
              (db) => db.select(one).from(things).where(eq(things.price, "$7")),
              "things:price=7"
            ],
            ["text", (db) => db.select(one).from(things).where(eq(things.name, "A ")), "things:name=A "],
            ["half a pair", (db) => db.select(one).from(things).where(eq(things.name, "\ud800")), "things:*"],
            [
              "half a pair in char",
              (db) =>
                db
                  .select(one)
                  .from(things)
                  .where(inArray(things.card, ["a", "\udc00 "])),
              "things:*"
            ],
            [
              "a whole pair",
              (db) => db.select(one).from(things).where(eq(things.name, "\ud83d\ude00")),
              "things:name=\ud83d\ude00"
            ],
            ["varchar", (db) => db.select(one).from(things).where(eq(things.label, "A")), "things:label=A"],
            [
              "another collation",
              (db) => db.select(one).from(things).where(eq(things.folded, "a")),
              "things:*"
            ],
            [
              "a collation that is asked for",
              (db) => db.execute(sql`select 1 from things where name = 'a' collate anycase`),
              "things:*"
            ],
            [
              "a value that comes from a column of another collation",
              (db) =>
                db.execute(
                  sql`select 1 from others o join things t on t.name = o.name collate "C" where o.name = 'a'`
                ),
              "others:* things:*"
            ],
            [
              "a value that comes from a column of the same kind",
              (db) =>
                db.execute(sql`select 1 from others o join things t on t.name = o.label where o.label = 'A'`),
              "others:* things:name=A"
            ],
            ["a time", (db) => db.execute(sql`select 1 from things where at = '2020-01-01'`), "things:*"],
            // What is equal to null is for a setting of the server to say.
            ["a null", (db) => db.execute(sql`select 1 from things where name = null`), "things:*"],
            ["nulls", (db) => db.execute(sql`select 1 from things where name in (null, null)`), "things:?"]
          ],
          (build) => Db.query(build)
        )
      )
    )
  }
})
