/** What relational queries read, whose rows have the values of others in JSON, by each driver. */
import { describe, it } from "@effect/vitest"
import { desc, eq, relations, sql } from "drizzle-orm"
import { Effect, Layer } from "effect"
import { inject } from "vitest"
import type { Statement } from "../../src/drizzle/builders.ts"
import { Db } from "../../src/drizzle/index.ts"
import { authors, books, bookTags, checkAll, setUp, tags } from "../support/bookshop.ts"
import { NotingCache } from "../support/databases.ts"
import { makePglite } from "../support/pglite.ts"
import { freshDatabase } from "../support/postgres.ts"

const authorRelations = relations(authors, ({ many }) => ({ books: many(books) }))
const bookRelations = relations(books, ({ one, many }) => ({
  author: one(authors, { fields: [books.authorId], references: [authors.id] }),
  links: many(bookTags)
}))
const linkRelations = relations(bookTags, ({ one }) => ({
  book: one(books, { fields: [bookTags.bookId], references: [books.id] }),
  tag: one(tags, { fields: [bookTags.tagId], references: [tags.id] })
}))
const schema = { authors, books, bookTags, tags, authorRelations, bookRelations, linkRelations }

class RelatedDb extends Db.Service<RelatedDb, typeof schema>()("test/RelatedDb") {}

const relational: ReadonlyArray<readonly [string, (db: any) => Statement<any>, string]> = [
  [
    "many",
    (db) =>
      db.query.authors.findMany({
        where: eq(authors.id, 3),
        with: { books: { columns: { id: true }, limit: 1 } }
      }),
    "authors:id=3 books:author_id=3"
  ],
  [
    "one",
    (db) =>
      db.query.books.findFirst({
        columns: { authorId: true },
        where: eq(books.id, 7),
        with: { author: true }
      }),
    "authors:id=3 books:id=7"
  ],
  [
    "one, not shown",
    (db) =>
      db.query.books.findFirst({ columns: { title: true }, where: eq(books.id, 7), with: { author: true } }),
    "authors:* books:id=7"
  ],
  [
    "through links",
    (db) =>
      db.query.authors.findFirst({
        where: eq(authors.id, 3),
        with: { books: { columns: { id: true }, with: { links: { with: { tag: true } } } } }
      }),
    "authors:id=3 book_tags:book_id=7 book_tags:book_id=8 books:author_id=3 tags:id=1 tags:id=2"
  ],
  [
    "a page",
    (db) =>
      db.query.books.findMany({
        columns: { id: true, authorId: true },
        orderBy: desc(books.id),
        limit: 1,
        offset: 1,
        with: { author: { columns: { name: true } } }
      }),
    "authors:id=3 books:*"
  ],
  [
    "a condition that binds less than it looks",
    (db) =>
      db.query.authors.findFirst({
        where: eq(authors.id, 3),
        with: { books: { columns: { id: true }, where: sql`${books.price} > 1 or ${books.title} = 't'` } }
      }),
    "authors:id=3 books:*"
  ]
]

describe("what a relational query reads", () => {
  it.effect("is told on Postgres", () =>
    Effect.gen(function* () {
      const url = yield* Effect.promise(() => freshDatabase(inject("postgres18")))
      const layer = RelatedDb.layerPostgres({ url, schema }).pipe(Layer.provide(NotingCache))
      yield* Effect.gen(function* () {
        yield* RelatedDb.mutate((db) => db.execute(sql.raw(setUp)), { tables: [books] })
        yield* checkAll(relational, (build) => RelatedDb.query(build as any))
      }).pipe(Effect.provide(layer))
    })
  )

  it.effect("is told in PGlite", () =>
    Effect.gen(function* () {
      for (const statement of setUp.split(";\n").filter((text) => text.trim() !== ""))
        yield* RelatedDb.mutate((db) => db.execute(sql.raw(statement)), { tables: [books] })
      yield* checkAll(relational, (build) => RelatedDb.query(build as any))
    }).pipe(
      Effect.provide(
        Layer.unwrap(
          Effect.map(Effect.promise(makePglite), (client) => RelatedDb.layerPglite({ client, schema }))
        ).pipe(Layer.provide(NotingCache))
      )
    )
  )
})
