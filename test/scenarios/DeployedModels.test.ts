import type { PGlite } from "@electric-sql/pglite"
import { assert, describe, it } from "@effect/vitest"
import { eq } from "drizzle-orm"
import { integer, pgTable, text } from "drizzle-orm/pg-core"
import { type Context, Effect, Exit, Layer, Option, Schema, Scope } from "effect"
import { afterAll, beforeAll, inject, vi } from "vitest"
import * as Names from "../../src/store/redis/names.ts"
import { makePglite } from "../support/pglite.ts"
import { rawClient } from "../support/processes.ts"
import { ownPrefix } from "../support/shared.ts"

/**
 * Two versions of a program side by side, or two programs, that share a database and a cache and declare different
 * models of a table: neither misses what the other writes, and what both declare alike is told as precisely as ever.
 */
const books = pgTable("books", {
  id: integer().primaryKey(),
  authorId: integer(),
  title: text(),
  views: integer()
})

type Program = typeof import("../../src/index.ts") & typeof import("../../src/drizzle/index.ts")

type Models = "no model" | "plain" | "by author" | "by title" | "stats" | "other stats"
const declarations: Readonly<Record<Models, object | undefined>> = {
  "no model": undefined,
  plain: {},
  "by author": { keys: { byAuthor: ["authorId"] } },
  "by title": { keys: { byTitle: ["title"] } },
  stats: { volatile: { stats: ["views"] } },
  "other stats": { volatile: { stats: ["views", "title"] } }
}

type Near = "validated" | "bounded"

let client: PGlite
const processes = new Map<string, ReturnType<typeof makeProcess>>()
const prefixes = { validated: ownPrefix(), bounded: ownPrefix() }
const scope = Scope.makeUnsafe()

// What a process declares is known in all of it: so each version has the library for itself, and what that loads when it is
// used, too.
beforeAll(async () => {
  client = await makePglite()
  for (const [models, options] of Object.entries(declarations)) {
    vi.resetModules()
    const program = {
      ...(await import("../../src/index.ts")),
      ...(await import("../../src/drizzle/index.ts"))
    }
    if (options !== undefined) program.Model.make(books, options)
    for (const near of ["validated", "bounded"] as const)
      for (const number of [1, 2])
        processes.set(
          `${models} ${near} ${number}`,
          makeProcess(program, await Effect.runPromise(Scope.provide(contextOf(program, near), scope)))
        )
  }
}, 120_000)
afterAll(async () => {
  await Effect.runPromise(Scope.close(scope, Exit.void))
  await client.close()
})

const contextOf = ({ Cacheme, Db, TieredStore }: Program, near: Near) => {
  const prefix = prefixes[near]
  const store = { url: inject("redisUrl"), deadline: "5 seconds", prefix, near } as const
  return Layer.build(
    Db.layerPglite({ client }).pipe(
      Layer.provideMerge(Cacheme.layer({ prefix })),
      Layer.provide(TieredStore.layer(store))
    )
  )
}

const makeProcess = ({ Cacheme, Node, Db }: Program, context: Context.Context<any>) => {
  class Shown extends Node.Class<Shown>()("shown", {
    key: { pin: Schema.String },
    value: Schema.Array(Schema.String)
  }) {}
  const as = <A, E>(self: Effect.Effect<A, E, any>): Effect.Effect<A, E> =>
    Effect.provideContext(self, context)
  const [title, counted] = [{ title: books.title }, { title: books.title, views: books.views }]
  const queries = {
    "title of a row": Db.query((db) => db.select(title).from(books).where(eq(books.id, 1))),
    row: Db.query((db) => db.select(counted).from(books).where(eq(books.id, 1))),
    author: Db.query((db) => db.select(counted).from(books).where(eq(books.authorId, 3)))
  }
  return {
    /** What there is, by an answer that is kept under this name. */
    show: (pin: Pin) => {
      const query: Effect.Effect<ReadonlyArray<object>, unknown, any> = queries[pin]
      return as(
        Effect.map(query, (rows) => rows.map((row) => Object.values(row).join())).pipe(
          Cacheme.memoize(new Shown({ pin }))
        )
      )
    },
    isKept: (pin: Pin) => as(Effect.map(Cacheme.peek(new Shown({ pin })), Option.isSome)),
    write: (id: number, change: Partial<typeof books.$inferInsert>) =>
      as(Db.mutate((db) => db.update(books).set(change).where(eq(books.id, id))))
  }
}

const pins = ["title of a row", "row", "author"] as const
type Pin = (typeof pins)[number]

const each = (
  name: string,
  body: (
    processOf: (models: Models, number: 1 | 2) => ReturnType<typeof makeProcess>
  ) => Effect.Effect<void, unknown>
) => {
  for (const near of ["validated", "bounded"] as const)
    it.live(`${name} (${near})`, () =>
      Effect.gen(function* () {
        yield* Effect.promise(() =>
          client.exec(
            `drop table if exists books;
             create table books (id int primary key, "authorId" int, title text, views int);
             insert into books values (1, 3, 'Solaris', 0), (2, 4, 'Emma', 0)`
          )
        )
        // The cell begins anew: nothing is stored, and nobody has declared anything.
        const redis = yield* rawClient
        const names = Names.make(prefixes[near])
        yield* Effect.promise(() => redis.del(names.state(0), names.log(0), names.position(0)))
        for (const [name, process] of processes)
          for (const pin of name.includes(near) ? pins : []) assert.isFalse(yield* process.isKept(pin))
        yield* body((models, number) => processes.get(`${models} ${near} ${number}`)!)
      }).pipe(Effect.scoped)
    )
}

describe("an answer that rests on", () => {
  const cases: ReadonlyArray<
    readonly [
      what: string,
      reader: Models,
      pin: Pin,
      writer: Models,
      change: Partial<typeof books.$inferInsert>
    ]
  > = [
    ["a key that the writer does not declare", "by author", "author", "plain", { title: "Fiasco" }],
    ["a key, where the writer declares another one", "by author", "author", "by title", { title: "Fiasco" }],
    ["a row, of which the writer changes a volatile column", "plain", "row", "stats", { views: 1 }],
    ["a key, of which the writer changes a volatile column", "by author", "author", "stats", { views: 1 }],
    ["a group that the writer has otherwise", "stats", "row", "other stats", { views: 1 }],
    [
      "a column that the writer has in the group",
      "stats",
      "title of a row",
      "other stats",
      { title: "Fiasco" }
    ],
    ["a table of which it declares nothing", "no model", "row", "stats", { views: 1 }]
  ]
  for (const [what, reader, pin, writer, change] of cases)
    each(what, (processOf) =>
      Effect.gen(function* () {
        const [one, other] = [processOf(reader, 1), processOf(writer, 1)]
        for (const version of [1, 2]) {
          const before = yield* one.show(pin)
          assert.isTrue(yield* one.isKept(pin), "it is kept")
          // The writer, too, is given it from Redis, and keeps it in its memory.
          assert.isTrue(yield* other.isKept(pin))
          const [column] = Object.keys(change)
          yield* other.write(1, { [column!]: column === "title" ? `Fiasco ${version}` : version })
          assert.isFalse(yield* one.isKept(pin), "it is not kept any more")
          assert.isFalse(yield* other.isKept(pin))
          assert.notDeepEqual(yield* one.show(pin), before)
        }
      })
    )
})

describe("what both declare alike", () => {
  each("is told precisely, whatever else one of them declares", (processOf) =>
    Effect.gen(function* () {
      const [one, other] = [processOf("by author", 1), processOf("by title", 1)]
      yield* one.show("row")
      yield* other.write(2, { title: "Clueless" })
      assert.isTrue(yield* one.isKept("row"))
      yield* other.write(1, { title: "Fiasco" })
      assert.isFalse(yield* one.isKept("row"))
    })
  )

  for (const [pin, models] of [
    ["author", "by author"],
    ["title of a row", "stats"]
  ] as const)
    each(`is told precisely where it is all: ${models}`, (processOf) =>
      Effect.gen(function* () {
        const [one, other] = [processOf(models, 1), processOf(models, 2)]
        yield* one.show(pin)
        yield* other.write(2, { title: "Clueless" })
        if (models === "stats") yield* other.write(1, { views: 7 })
        assert.isTrue(yield* one.isKept(pin))
        yield* other.write(1, { title: "Fiasco" })
        assert.isFalse(yield* one.isKept(pin))
      })
    )
})
