/** The databases that the tests of `cacheme/drizzle` run on, each with a cache whose invalidations are noted. */
import type { PGlite } from "@electric-sql/pglite"
import { Effect, Layer } from "effect"
import { beforeAll, inject } from "vitest"
import { Db } from "../../src/drizzle/index.ts"
import { Cacheme, MemoryStore } from "../../src/index.ts"
import type { Request } from "../../src/Invalidation.ts"
import { CurrentTransaction } from "../../src/Transaction.ts"
import { makePglite } from "./pglite.ts"
import { connect, freshDatabase } from "./postgres.ts"

/** An empty database. */
export interface TestDatabase {
  /** Runs SQL beside the program under test, on a connection of its own where there is one. */
  readonly run: (sql: string) => Effect.Effect<ReadonlyArray<Record<string, any>>>
  /** Runs SQL beside it in one session: what it begins or locks stays so. */
  readonly session: (sql: string) => Effect.Effect<unknown>
  /** The service under test, with a cache. */
  readonly layer: Layer.Layer<Db | Cacheme>
  /** The url, for the servers that have one. */
  readonly url: string | undefined
}

/** What was published, in order: the tags of each invalidation. */
export const published: Array<Request> = []

/** The tags of all that was published since this was last asked. */
export const tagsPublished = (): ReadonlyArray<string> => {
  const tags = published.splice(0).flatMap((request) => request.tags)
  return [...new Set(tags)].toSorted()
}

/** A cache in memory that notes what is published. */
export const NotingCache = Layer.effect(
  Cacheme,
  Effect.map(Cacheme, (cacheme) => ({
    ...cacheme,
    publish: (request, definitions) =>
      Effect.flatMap(CurrentTransaction, (transaction) => {
        if (transaction === undefined) published.push(request)
        return cacheme.publish(request, definitions)
      })
  }))
).pipe(Layer.provide(Cacheme.layer()), Layer.provide(MemoryStore.layer()), Layer.orDie)

let pglite: Promise<PGlite> | undefined

// Not within a test's own time: on a busy machine it can take a while.
beforeAll(() => (pglite ??= makePglite()))

const inProcess = Effect.promise(async (): Promise<TestDatabase> => {
  const client = await (pglite ??= makePglite())
  await client.exec(
    `reset role; drop schema if exists public cascade; drop schema if exists shop cascade;
     create schema public; grant all on schema public to public`
  )
  return {
    run: (sql) => Effect.promise(async () => (await client.exec(sql)).at(-1)?.rows ?? []),
    session: (sql) => Effect.promise(() => client.exec(sql)),
    layer: Layer.orDie(Db.layerPglite({ client })).pipe(Layer.provideMerge(NotingCache)),
    url: undefined
  }
})

const onServer = (server: "postgres18" | "postgres15", maxConnections: number) =>
  Effect.gen(function* (): Effect.fn.Return<TestDatabase, never, import("effect").Scope.Scope> {
    const url = yield* Effect.promise(() => freshDatabase(inject(server)))
    const client = Effect.acquireRelease(
      Effect.sync(() => connect(url)),
      (connected) => Effect.promise(() => connected.end({ timeout: 1 }))
    )
    const admin = yield* client
    const session = yield* client
    return {
      run: (sql) => Effect.promise(async () => [...(await admin.unsafe(sql))]),
      session: (sql) => Effect.promise(() => session.unsafe(sql)),
      layer: Layer.orDie(Db.layerPostgres({ url, maxConnections })).pipe(Layer.provideMerge(NotingCache)),
      url
    }
  })

/** The databases by name, and whether they return old and new values. */
export const databases = [
  { name: "PGlite", isExact: true, make: () => inProcess },
  {
    name: "Postgres 18",
    isExact: true,
    make: (maxConnections = 3) => onServer("postgres18", maxConnections)
  },
  {
    name: "Postgres 15",
    isExact: false,
    make: (maxConnections = 3) => onServer("postgres15", maxConnections)
  }
] as const

/** Runs a test on an empty database, after some SQL. */
export const on = <A, E, R>(
  database: (typeof databases)[number],
  setUp: string,
  test: (database: TestDatabase) => Effect.Effect<A, E, R>,
  maxConnections?: number
) =>
  Effect.scoped(
    Effect.gen(function* () {
      const made = yield* database.make(maxConnections)
      yield* made.run(setUp)
      published.length = 0
      return yield* Effect.provide(test(made), made.layer)
    })
  )
