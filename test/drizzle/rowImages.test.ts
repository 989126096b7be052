import { assert, describe, it } from "@effect/vitest"
import { and, eq, gt, inArray, lt, sql } from "drizzle-orm"
import { alias, integer, pgSchema, pgTable, primaryKey, text } from "drizzle-orm/pg-core"
import { Effect, Fiber } from "effect"
import { Db, Model } from "../../src/drizzle/index.ts"
import { databases, on, published, tagsPublished } from "../support/databases.ts"

const seats = pgTable("seats", { id: integer().primaryKey(), holder: integer(), note: text() })
const places = pgTable(
  "places",
  { hall: integer(), seat: text(), holder: integer(), note: text() },
  (table) => [primaryKey({ columns: [table.hall, table.seat] })]
)
Model.make(seats, { keys: { byHolder: ["holder"] } })
Model.make(places, { keys: { byHolder: ["holder"] } })

const setUp = `
  create table seats (id int primary key, holder int, note text);
  create table places (hall int, seat text, holder int, note text, primary key (hall, seat));
  insert into seats select g, -g, '' from generate_series(1, 3) g;
  insert into places values (1, 'a', 1, ''), (1, 'b,"', 2, ''), (2, 'a', null, '');
`

const [, postgres18, postgres15] = databases

describe("what a write under concurrent writes was told of the old rows", () => {
  /**
   * Each write gives a row a holder that no other write gives. So every holder but the last of its row is told twice: when
   * it came, and when it went. One that is told once has been missed.
   */
  const missed = (writes: (n: number) => Parameters<typeof Db.mutate>[0], count: number) =>
    Effect.gen(function* () {
      const numbers = Array.from({ length: count }, (_, i) => 1000 + i)
      yield* Effect.forEach(numbers, (n) => Effect.retry(Db.mutate(writes(n)), { times: 20 }), {
        concurrency: 8,
        discard: true
      })
      const requests = published.splice(0)
      const isUnknown = requests.filter(({ tags }) => tags.includes("@seats:?")).length
      const told = new Map<string, number>()
      for (const { tags } of requests) for (const tag of tags) told.set(tag, (told.get(tag) ?? 0) + 1)
      const left = yield* Db.query((db) => db.select({ holder: seats.holder }).from(seats))
      const lasting = new Set(left.map(({ holder }) => holder))
      const gone = numbers.filter((n) => told.has(`@seats:holder=${n}`) && !lasting.has(n))
      return {
        isUnknown,
        seen: gone.length,
        missed: gone.filter((n) => told.get(`@seats:holder=${n}`)! < 2).length
      }
    })

  for (const database of [postgres18, postgres15]) {
    it.live(`by updates: every one (${database.name})`, () =>
      on(
        database,
        setUp,
        () =>
          Effect.gen(function* () {
            const {
              missed: none,
              seen,
              isUnknown
            } = yield* missed(
              (n) => (db) =>
                db
                  .update(seats)
                  .set({ holder: n })
                  .where(eq(seats.id, 1 + (n % 3))),
              300
            )
            assert.strictEqual(none, 0)
            assert.strictEqual(seen, 297)
            assert.strictEqual(isUnknown, 0)
          }),
        8
      )
    )

    it.live(`by upserts among deletes: every one, or that some are unknown (${database.name})`, () =>
      on(
        database,
        setUp,
        () =>
          Effect.gen(function* () {
            const outcome = yield* missed(
              (n) =>
                n % 5 === 0
                  ? (db) => db.delete(seats).where(eq(seats.id, 1 + (n % 3)))
                  : (db) =>
                      db
                        .insert(seats)
                        .values([
                          { id: 1 + (n % 3), holder: n },
                          { id: 4 + n, holder: -n }
                        ])
                        .onConflictDoUpdate({ target: seats.id, set: { holder: sql`excluded.holder` } }),
              300
            )
            // A write that was told by table names neither the holder that went nor the one that came.
            assert.isAtMost(outcome.missed, 2 * outcome.isUnknown)
            assert.isAbove(outcome.seen, 100)
            assert.isBelow(outcome.isUnknown, database.isExact ? 1 : 60)
          }),
        8
      )
    )
  }

  it.live("by an update that waited while the row's key was changed: it does what it did, and says so", () =>
    on(postgres15, setUp, ({ session }) =>
      Effect.gen(function* () {
        yield* session("begin; update seats set id = 9 where id = 1")
        const update = yield* Effect.forkChild(
          Db.mutate((db) => db.update(seats).set({ holder: 5 }).where(eq(seats.holder, -1)).returning())
        )
        yield* Effect.sleep("100 millis")
        yield* session("commit")
        assert.deepStrictEqual(yield* Fiber.join(update), [{ id: 9, holder: 5, note: "" }])
        assert.includeMembers([...tagsPublished()], ["@seats:id=9", "@seats:holder=-1", "@seats:holder=5"])
      })
    )
  )
})

for (const database of databases) {
  describe(`rowImages on ${database.name}`, () => {
    const told = (f: Parameters<typeof Db.mutate>[0], ...expected: ReadonlyArray<string>) =>
      Effect.gen(function* () {
        const answer = yield* Db.mutate(f)
        assert.deepStrictEqual(tagsPublished(), [...expected].toSorted())
        return answer
      })

    it.effect("a composite key, with values that need quoting", () =>
      on(database, setUp, () =>
        told(
          (db) =>
            db
              .update(places)
              .set({ holder: sql`${places.holder} + 10` })
              .where(eq(places.hall, 1)),
          "@places:*",
          "@places:hall=1,seat=a",
          `@places:hall=1,seat=b%2C"`,
          ...[1, 11, 2, 12].map((holder) => `@places:holder=${holder}`)
        )
      )
    )

    it.effect("an alias, other tables joined in every way, and common table expressions", () =>
      on(database, setUp, () =>
        Effect.gen(function* () {
          const s = alias(seats, "s")
          const other = alias(places, "other")
          yield* told(
            (db) => {
              const first = db
                .$with("first")
                .as(db.select({ id: seats.id }).from(seats).where(lt(seats.id, 3)))
              return db
                .with(first)
                .update(s)
                .set({ holder: sql`coalesce(${other.holder}, 70)` })
                .from(places)
                .fullJoin(other, and(eq(places.hall, other.hall), gt(places.hall, 1)))
                .where(and(eq(s.id, 2), eq(other.hall, 2), inArray(s.id, sql`(select id from ${first})`)))
            },
            "@seats:*",
            "@seats:id=2",
            "@seats:holder=-2",
            "@seats:holder=70"
          )
        })
      )
    )

    it.effect("an upsert of several rows, with conditions", () =>
      on(database, setUp, () =>
        Effect.gen(function* () {
          const upsert = (db: any) =>
            db
              .insert(places)
              .values([
                { hall: 1, seat: "a", holder: 8 },
                { hall: 1, seat: `b,"`, holder: 9 },
                { hall: 7, seat: "z", holder: 7 }
              ])
              .onConflictDoUpdate({
                target: [places.hall, places.seat],
                set: { holder: sql`excluded.holder` },
                setWhere: sql`${places.holder} = 1 or false`
              })
          yield* told(
            upsert,
            "@places:*",
            "@places:hall=1,seat=a",
            "@places:hall=7,seat=z",
            "@places:holder=1",
            "@places:holder=8",
            "@places:holder=7"
          )
        })
      )
    )

    it.effect("a column without a model's need of it, and rows that did not change", () =>
      on(database, setUp, () =>
        Effect.gen(function* () {
          yield* Db.mutate((db) => db.update(seats).set({ note: "" }).where(eq(seats.id, 1)))
          assert.deepStrictEqual(
            tagsPublished(),
            database.isExact ? [] : ["@seats:*", "@seats:holder=-1", "@seats:id=1"]
          )
        })
      )
    )

    it.effect("answers as Drizzle does when more rows were changed than are told", () =>
      on(database, setUp, () =>
        Effect.gen(function* () {
          yield* Db.mutate((db) =>
            db.insert(seats).select(sql`select g, g, '' from generate_series(100, 2000) g`)
          )
          assert.deepStrictEqual(tagsPublished(), ["@seats:*", "@seats:?"])
          const answer: any = yield* Db.mutate((db) =>
            db.update(seats).set({ holder: 5 }).where(gt(seats.id, 99))
          )
          assert.deepStrictEqual(tagsPublished(), ["@seats:*", "@seats:?"])
          assert.deepInclude(
            database.name === "PGlite" ? answer : { command: answer.command, count: answer.count },
            database.name === "PGlite"
              ? { rows: [], fields: [], command: "UPDATE", affectedRows: 1901, rowCount: 1901 }
              : { command: "UPDATE", count: 1901 }
          )
          const asked = yield* Db.mutate((db) =>
            db.delete(seats).where(gt(seats.id, 99)).returning({ id: seats.id })
          )
          assert.lengthOf(asked, 1901)
          assert.deepStrictEqual(tagsPublished(), ["@seats:*", "@seats:?"])
        })
      )
    )

    it.effect("tables that inherit, whose primary keys meet", () =>
      on(
        database,
        `${setUp} create table heirs () inherits (seats); insert into heirs values (1, 77, '')`,
        () =>
          Effect.gen(function* () {
            yield* Db.mutate((db) => db.update(seats).set({ holder: 5 }))
            const told = [...tagsPublished()]
            assert.isTrue(told.includes("@seats:?") || told.includes("@seats:holder=77"))
            assert.isTrue(told.includes("@seats:?") || told.includes("@seats:holder=-1"))
          })
      )
    )

    it.effect("two tables of one name in two schemas", () =>
      on(
        database,
        `${setUp} drop schema if exists shop cascade; create schema shop; create table shop.seats (id int primary key)`,
        () =>
          Effect.gen(function* () {
            const others = pgSchema("shop").table("seats", { id: integer().primaryKey() })
            yield* Db.mutate((db) =>
              db
                .update(seats)
                .set({ holder: 4 })
                .from(others)
                .where(sql`"public"."seats"."id" = 1 and "shop"."seats"."id" = 1`)
            )
          })
      )
    )

    if (!database.isExact) {
      it.effect("a condition that calls a function of the program's own, whatever its name: by table", () =>
        on(
          database,
          `${setUp} drop schema if exists shop cascade; create schema shop;
           create function shop.abs(int) returns int language sql volatile as 'select $1'`,
          () =>
            told(
              (db) =>
                db
                  .update(seats)
                  .set({ holder: 4 })
                  .where(sql`shop.abs(${seats.id}) = 1`),
              "@seats:*",
              "@seats:?"
            )
        )
      )
      it.effect("a condition that calls a function is not run twice: the rows are told by table", () =>
        on(database, setUp, () =>
          told(
            (db) =>
              db
                .update(seats)
                .set({ holder: 4 })
                .where(sql`${seats.id} = abs(-1) and random() >= 0`),
            "@seats:*",
            "@seats:?"
          )
        )
      )
    }
  })
}
