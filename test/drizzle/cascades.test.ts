import { assert, describe, it } from "@effect/vitest"
import { eq, gt, inArray, sql } from "drizzle-orm"
import { boolean, integer, pgTable, text } from "drizzle-orm/pg-core"
import { Effect, Fiber } from "effect"
import { Db, Model } from "../../src/drizzle/index.ts"
import { databases, on, published, tagsPublished } from "../support/databases.ts"

const shops = pgTable("shops", { id: integer().primaryKey(), name: text() })
const shelves = pgTable("shelves", {
  id: integer().primaryKey(),
  shopId: integer("shop_id"),
  place: text()
})
const copies = pgTable("copies", {
  id: integer().primaryKey(),
  shelfId: integer("shelf_id"),
  title: text()
})
const loans = pgTable("loans", { id: integer().primaryKey(), copyId: integer("copy_id") })
const audits = pgTable("audits", { id: integer().primaryKey(), shopId: integer("shop_id") })
const orphans = pgTable("orphans", {
  id: integer().primaryKey(),
  shopId: integer("shop_id"),
  orphan: boolean()
})
Model.make(shops)
Model.make(shelves, { keys: { byShop: ["shopId"], byPlace: ["place"] } })
Model.make(copies, { keys: { byShelf: ["shelfId"] } })
// Its foreign key is not declared.
Model.make(loans)
Model.make(audits, { keys: { byShop: ["shopId"] } })

const setUp = `
  create table shops (id int primary key, name text);
  create table shelves (id int primary key, shop_id int references shops on delete cascade, place text);
  create table copies (id int primary key, shelf_id int references shelves on delete cascade, title text);
  create table loans (id int primary key, copy_id int references copies on delete cascade);
  create table audits (id int primary key, shop_id int references shops on delete set null);
  insert into shops values (1, 'a'), (2, 'b'), (3, 'c');
  insert into shelves values (11, 1, 'left'), (12, 1, 'right'), (21, 2, 'left');
  insert into copies values (111, 11, ''), (112, 11, ''), (211, 21, '');
  insert into loans values (1111, 111);
  insert into audits values (10, 1), (20, 2);
`

const shelf = (id: number, shopId: number, place: string) => [
  `@shelves:id=${id}`,
  `@shelves:shop_id=${shopId}`,
  `@shelves:place=${place}`
]
const copy = (id: number, shelfId: number) => [`@copies:id=${id}`, `@copies:shelf_id=${shelfId}`]
const tags = (...ids: ReadonlyArray<string | ReadonlyArray<string>>) => [...new Set(ids.flat())].toSorted()
const deleteShop = Db.mutate((db) => db.delete(shops).where(eq(shops.id, 1)))

for (const database of databases) {
  describe(`cascades on ${database.name}`, () => {
    it.effect("of a delete: every row at every level whose foreign key is declared, else its table", () =>
      on(database, setUp, () =>
        Effect.gen(function* () {
          const expected = tags(
            "@shops:*",
            "@shops:id=1",
            "@shelves:*",
            shelf(11, 1, "left"),
            shelf(12, 1, "right"),
            "@copies:*",
            copy(111, 11),
            copy(112, 11),
            "@loans:*",
            "@loans:?",
            "@audits:*",
            "@audits:id=10",
            "@audits:shop_id=1",
            "@audits:shop_id=%null"
          )
          yield* deleteShop
          assert.deepStrictEqual(tagsPublished(), expected)
          assert.lengthOf(yield* Db.query((db) => db.select().from(copies)), 1)
        })
      )
    )

    it.effect("of a delete in a transaction, which may not come to be", () =>
      on(database, setUp, () =>
        Effect.gen(function* () {
          yield* Effect.ignore(Db.transaction(Effect.andThen(deleteShop, Effect.fail("no"))))
          assert.deepStrictEqual(tagsPublished(), [])
          yield* Db.transaction(deleteShop)
          assert.includeMembers([...tagsPublished()], ["@copies:id=112", "@shelves:place=right"])
        })
      )
    )

    it.effect("of a delete that changes nothing, or fails: nothing, and it is the statement's failure", () =>
      on(
        database,
        `${setUp} create table keeps (shop int references shops); insert into keeps values (1)`,
        () =>
          Effect.gen(function* () {
            yield* Db.mutate((db) => db.delete(shops).where(eq(shops.id, 99)))
            const error = yield* Effect.flip(deleteShop)
            assert.strictEqual(error.reason._tag, "ConstraintViolation")
            assert.deepStrictEqual(tagsPublished(), [])
          })
      )
    )

    it.effect("of a delete whose condition asks other tables: by table", () =>
      on(database, setUp, () =>
        Effect.gen(function* () {
          yield* Db.mutate((db) =>
            db.delete(shops).where(inArray(shops.id, sql`(select shop_id from audits where id = 10)`))
          )
          assert.includeMembers(
            [...tagsPublished()],
            ["@shops:id=1", "@shelves:?", "@copies:?", "@loans:?", "@audits:?"]
          )
        })
      )
    )

    it.effect("with more rows than are told, by table", () =>
      on(database, `${setUp} insert into copies select g, 21, '' from generate_series(1000, 2500) g`, () =>
        Effect.gen(function* () {
          yield* Db.mutate((db) => db.delete(shops).where(gt(shops.id, 1)))
          assert.includeMembers([...tagsPublished()], ["@shops:id=2", "@shelves:?", "@copies:?"])
        })
      )
    )

    it.effect("of a key that is set to null, where another column is computed from it: by table", () =>
      on(
        database,
        `${setUp} alter table audits add orphan boolean generated always as (shop_id is null) stored`,
        () =>
          Effect.gen(function* () {
            Model.make(orphans, { keys: { byShop: ["shopId"], byOrphan: ["orphan"] } })
            yield* Db.mutate((db) => db.execute(sql`alter table audits rename to orphans`))
            tagsPublished()
            yield* deleteShop
            assert.includeMembers([...tagsPublished()], ["@orphans:?"])
          })
      )
    )

    it.effect("answers what was asked for", () =>
      on(database, setUp, () =>
        Effect.gen(function* () {
          assert.deepStrictEqual(
            yield* Db.mutate((db) => db.delete(shops).where(eq(shops.id, 3)).returning({ n: shops.name })),
            [{ n: "c" }]
          )
          assert.deepStrictEqual(tagsPublished(), ["@shops:*", "@shops:id=3"])
        })
      )
    )
  })
}

for (const database of databases.slice(1)) {
  it.live(`a row that came while the delete waited for its lock is told too (${database.name})`, () =>
    on(database, setUp, ({ session }) =>
      Effect.gen(function* () {
        yield* session(
          "begin; insert into shelves values (13, 1, 'new'); insert into copies values (131, 13, ''), (113, 11, '')"
        )
        const deleting = yield* Effect.forkChild(deleteShop)
        yield* Effect.sleep("100 millis")
        assert.isEmpty(published)
        yield* session("commit")
        yield* Fiber.join(deleting)
        assert.includeMembers(
          [...tagsPublished()],
          ["@shelves:id=13", "@shelves:place=new", "@copies:id=131", "@copies:id=113"]
        )
      })
    )
  )
}
