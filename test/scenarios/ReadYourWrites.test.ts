import { assert, describe, it } from "@effect/vitest"
import { asc, eq, sql } from "drizzle-orm"
import { integer, pgTable } from "drizzle-orm/pg-core"
import { Effect, Layer, Schema } from "effect"
import { Db, Model } from "../../src/drizzle/index.ts"
import { Cacheme, Node } from "../../src/index.ts"
import { databases, on } from "../support/databases.ts"
import { until } from "../support/processes.ts"
import { layerOf, ownPrefix, sharedStores } from "../support/shared.ts"

/**
 * No read that starts after a write has completed is given what was there before: by row, by key and by table, with
 * readers, writers and transactions side by side. Each row counts its own versions, so that an answer tells how old it is.
 */
const items = pgTable("items", {
  id: integer().primaryKey(),
  shelf: integer().notNull(),
  version: integer().notNull()
})
Model.make(items, { keys: { byShelf: ["shelf"] } })
const setUp = `create table items (id int primary key, shelf int not null, version int not null);
  insert into items select i, i % 3, 0 from generate_series(1, 9) i`

const Version = Schema.Struct({ id: Schema.Int, version: Schema.Int })
class ItemNode extends Node.Class<ItemNode>()("item", {
  key: { id: Schema.Int },
  value: Schema.Int
}) {}
class ShelfNode extends Node.Class<ShelfNode>()("shelf", {
  key: { shelf: Schema.Int },
  value: Schema.Array(Version)
}) {}
class AllNode extends Node.Class<AllNode>()("all", { key: {}, value: Schema.Array(Version) }) {}
/** An answer over other answers: it rests on what they rest on. */
class SumNode extends Node.Class<SumNode>()("sum", { key: {}, value: Schema.Int }) {}

const item = Cacheme.fn(ItemNode, ({ id }) =>
  Effect.map(
    Db.query((db) => db.select().from(items).where(eq(items.id, id))),
    ([row]) => row!.version
  )
)
const shelf = Cacheme.fn(ShelfNode, (key) =>
  Db.query((db) => db.select().from(items).where(eq(items.shelf, key.shelf)).orderBy(asc(items.id)))
)
const all = Cacheme.fn(AllNode, () => Db.query((db) => db.select().from(items)))
const sum = Cacheme.fn(SumNode, () =>
  Effect.map(
    Effect.forEach([1, 2, 3, 4, 5, 6, 7, 8, 9], (id) => item({ id }), { concurrency: 3 }),
    (versions) => versions.reduce((a, b) => a + b, 0)
  )
)
const bump = (id: number) =>
  Db.mutate((db) =>
    db
      .update(items)
      .set({ version: sql`${items.version} + 1` })
      .where(eq(items.id, id))
  )

/** The service and cache of one process. */
type Process<R> = <A, E>(self: Effect.Effect<A, E, Db | Cacheme>) => Effect.Effect<A, E, R>

/**
 * Reads and writes in processes side by side. What another process has written may go unseen for `allowance`
 * milliseconds, what a process has written itself never.
 */
const readAndWrite = <R>(processes: ReadonlyArray<Process<R>>, allowance = 0) =>
  Effect.gen(function* () {
    const processOf = (n: number) => n % processes.length
    // The writes that have completed, of which row, by whom and when.
    const completed: Array<{ readonly id: number; readonly by: number; readonly at: number }> = []
    let stale = 0
    let reads = 0
    /** How many writes of each row a process must see that asks now. */
    const required = (reader: number) => {
      const now = performance.now()
      const versions = new Map<number, number>()
      for (const { id, by, at } of completed)
        if (by === reader || now - at > allowance) versions.set(id, (versions.get(id) ?? 0) + 1)
      return versions
    }
    const atLeast = (
      reader: number,
      seen: Effect.Effect<ReadonlyArray<{ id: number; version: number }>, unknown, Db | Cacheme>
    ) =>
      Effect.suspend(() => {
        const before = required(reader)
        return Effect.map(processes[reader]!(seen), (rows) => {
          reads++
          if (rows.some(({ id, version }) => version < (before.get(id) ?? 0))) stale++
        })
      })
    const total = (reader: number) =>
      Effect.suspend(() => {
        const before = [...required(reader).values()].reduce((a, b) => a + b, 0)
        return Effect.map(processes[reader]!(sum()), (versions) => {
          reads++
          if (versions < before) stale++
        })
      })
    const write = (id: number, i: number) =>
      Effect.gen(function* () {
        const bumped =
          i % 4 === 0 ? Db.transaction(Effect.andThen(bump(id), Db.transaction(item({ id })))) : bump(id)
        // Rolled back, it must be as if it had never been.
        if (i % 5 === 0) yield* Effect.ignore(Db.transaction(Effect.andThen(bump(id), Effect.fail("no"))))
        yield* bumped
      })
    // One writer for each row, so that its versions are completed in order; in whichever process.
    const writer = (id: number) =>
      Effect.forEach(
        Array.from({ length: 12 }),
        (_, i) => {
          const by = processOf(id + Math.floor(i / 3))
          return Effect.map(processes[by]!(write(id, i)), () => {
            completed.push({ id, by, at: performance.now() })
          })
        },
        { discard: true }
      )
    const reader = (n: number) =>
      Effect.forEach(
        Array.from({ length: 60 }),
        (_, i) => {
          const id = 1 + ((i * 7 + n) % 9)
          const by = processOf(n)
          return [
            atLeast(
              by,
              Effect.map(item({ id }), (version) => [{ id, version }])
            ),
            atLeast(by, shelf({ shelf: id % 3 })),
            atLeast(by, all()),
            total(by)
          ][i % 4]!
        },
        { discard: true }
      )
    yield* Effect.all([...[1, 2, 3, 4, 5].map(writer), ...[0, 1, 2, 3, 4, 5].map(reader)], {
      concurrency: "unbounded",
      discard: true
    })
    assert.strictEqual(reads, 360)
    assert.strictEqual(stale, 0)
    // In the end everybody sees everything.
    const versions = [12, 12, 12, 12, 12, 0, 0, 0, 0]
    const last = Math.max(...completed.map(({ at }) => at))
    yield* until(Effect.sync(() => performance.now() - last > allowance))
    for (const process of processes) {
      assert.strictEqual(yield* process(sum()), 60)
      assert.deepStrictEqual(
        (yield* process(all())).toSorted((a, b) => a.id - b.id).map(({ version }) => version),
        versions
      )
    }
  })

describe("ReadYourWrites", () => {
  for (const database of databases) {
    it.effect(`on ${database.name}`, () =>
      on(database, setUp, () => readAndWrite<Db | Cacheme>([(self) => self]))
    )
  }

  for (const kind of sharedStores) {
    it.live(`in processes that share a cache (${kind})`, () =>
      Effect.scoped(
        Effect.gen(function* () {
          const { run, url = "" } = yield* databases[1].make()
          yield* run(setUp)
          const bound = 150
          const options = { prefix: ownPrefix(), bound }
          const start = Effect.map(
            Layer.build(
              Db.layerPostgres({ url, maxConnections: 3 }).pipe(
                Layer.provideMerge(Cacheme.layer().pipe(Layer.provide(layerOf(kind, options))))
              )
            ),
            (context): Process<never> =>
              (self) =>
                Effect.provideContext(self, context)
          )
          const processes = yield* Effect.all([start, start])
          yield* readAndWrite(processes, kind === "bounded" ? bound : 0)
        })
      )
    )
  }
})
