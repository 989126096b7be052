import { assert, describe, it } from "@effect/vitest"
import { eq, sql } from "drizzle-orm"
import { integer, pgTable, text } from "drizzle-orm/pg-core"
import { Effect, Layer, Logger, Metric, Schema } from "effect"
import { Db, Model } from "../../src/drizzle/index.ts"
import { Cacheme, Node } from "../../src/index.ts"
import { databases, NotingCache, on, tagsPublished } from "../support/databases.ts"

const films = pgTable("films", { id: integer().primaryKey(), title: text() })
const journal = pgTable("journal", { what: text() })
const Films = Model.make(films)
const shelves = pgTable("shelves", { id: integer().primaryKey(), name: text(), seen: integer() })
Model.make(shelves, { volatile: { visits: ["seen"] } })

const setUp = `
  create table films (id int primary key, title text);
  create table ratings (film int);
  create table journal (at timestamptz default now(), what text);
  create table seen (film int);
  create table shelves (id int primary key, name text, seen int);
  insert into films values (1, 'Emma');
`

/** A trigger with this body. */
const trigger = (when: string, body: string, on = "films") => `
  create function f_${on}() returns trigger language plpgsql as $f$ begin ${body}; return coalesce(new, old); end $f$;
  create trigger t_${on} ${when} on ${on} for each row execute function f_${on}();`

const rename = (db: any) => db.update(films).set({ title: "x" }).where(eq(films.id, 1))
const add = (db: any) => db.insert(films).values({ id: 2, title: "y" })
const film = (id: number) => ["@films:*", `@films:id=${id}`]
const table = (name: string) => [`@${name}:*`, `@${name}:?`]

for (const database of databases) {
  describe(`effects on ${database.name}`, () => {
    const writes = (
      name: string,
      sqlBefore: string,
      f: Parameters<typeof Db.mutate>[0],
      ...expected: ReadonlyArray<ReadonlyArray<string>>
    ) =>
      it.effect(name, () =>
        on(database, setUp + sqlBefore, () =>
          Effect.gen(function* () {
            yield* Db.mutate(f)
            assert.deepStrictEqual(tagsPublished(), expected.flat().toSorted())
          })
        )
      )

    writes(
      "a trigger's: the tables that its function writes",
      trigger(
        "after update",
        "if new.title = 'x' then update ratings set film = 1; else insert into journal (what) values ('update seen'); end if"
      ),
      rename,
      film(1),
      table("ratings"),
      table("journal")
    )
    writes(
      "a trigger's that changes a volatile column: nobody but who rests on that",
      trigger("after update", "update shelves set seen = seen + 1 where id = 1"),
      rename,
      film(1),
      ["@shelves~*:*", "@shelves~visits:*", "@shelves~visits:?"]
    )
    writes(
      "a trigger's that changes another column as well",
      trigger("after update", "update shelves set seen = seen + 1, name = 'x' where id = 1"),
      rename,
      film(1),
      table("shelves")
    )
    writes(
      "raw SQL's that changes a volatile column",
      "",
      (db) => db.execute(sql`update shelves set seen = 1`),
      ["@shelves~*:*", "@shelves~visits:*", "@shelves~visits:?"]
    )
    writes("no trigger's that does not fire", trigger("after delete", "delete from ratings"), rename, film(1))
    writes(
      "a trigger's through a function that it calls, and through another table's trigger",
      `create function note(what text) returns void language sql as $n$ insert into journal (what) values (what) $n$;
       ${trigger("after insert or update", "perform note('x')")}
       ${trigger("before insert", "insert into seen values (1)", "journal")}`,
      add,
      film(2),
      table("journal"),
      table("seen")
    )
    writes(
      "a trigger's that writes the same table again: by table",
      trigger("after insert", "update films set title = upper(title) where id <> new.id"),
      add,
      table("films")
    )
    writes(
      "a trigger's for the whole statement, though no row was changed",
      `create function f() returns trigger language plpgsql as $$ begin insert into journal (what) values (''); return null; end $$;
       create trigger t after update on films for each statement execute function f()`,
      (db) => db.update(films).set({ title: "x" }).where(eq(films.id, 99)),
      table("journal")
    )
    writes(
      "a trigger's through a function that is called by another spelling, and one with a search path of its own",
      `drop schema if exists shop cascade; create schema shop; create table shop.audit (what text);
       create function add_audit(what text) returns void language sql set search_path = shop, pg_temp as
         $n$ insert into audit values (what) $n$;
       create or replace function f_films() returns trigger language plpgsql as
         $f$ begin perform Add_Audit('x'); return null; end; -- no more
         $f$;
       create trigger t after update on films for each row execute function f_films()`,
      rename,
      film(1),
      table("shop.audit"),
      table("audit"),
      table("pg_temp.audit")
    )
    writes(
      "a trigger's for inserts and deletes, by an update that moves a row to another partition",
      `drop table films; create table films (id int, title text, primary key (id)) partition by range (id);
       create table films_a partition of films for values from (0) to (10);
       create table films_b partition of films for values from (10) to (20);
       insert into films values (1, '');
       ${trigger("after insert or delete", "insert into journal (what) values (tg_op)")}`,
      (db) => db.execute(sql`update films set id = 15`),
      ...["films", "films_a", "films_b", "journal"].map(table)
    )
    writes(
      "a trigger's on TRUNCATE",
      `create function f() returns trigger language plpgsql as $$ begin delete from journal; return null; end $$;
       create trigger t after truncate on films for each statement execute function f()`,
      (db) => db.execute(sql`truncate films`),
      table("films"),
      table("journal")
    )
    writes(
      "a common table expression's, though the statement itself changes no row",
      "insert into seen values (1); create table crowds (id int primary key); alter table seen add foreign key (film) references films on delete cascade",
      (db) => {
        const gone = db.$with("gone").as(db.delete(films).where(eq(films.id, 1)).returning())
        return db.with(gone).update(journal).set({ what: "x" }).where(eq(journal.what, "none"))
      },
      table("films"),
      table("seen"),
      table("journal")
    )
    it.effect("tables that are named, though no row was changed", () =>
      on(database, setUp, () =>
        Effect.gen(function* () {
          yield* Db.mutate((db) => db.update(films).set({ title: "" }).where(eq(films.id, 99)), {
            tables: [journal]
          })
          assert.deepStrictEqual(tagsPublished(), table("journal"))
        })
      )
    )
    writes(
      "TRUNCATE … CASCADE: all that refers to the table, whatever its foreign keys do",
      `alter table ratings add foreign key (film) references films;
       create table stars (id int primary key, film int references films);
       create table crowds (star int references stars)`,
      (db) => db.execute(sql`truncate films cascade`),
      ...["films", "ratings", "stars", "crowds"].map(table)
    )

    it.effect("of a trigger that runs text made at run time cannot be told: it is warned of, once", () => {
      const lines: Array<string> = []
      const log = Logger.layer([Logger.make(({ message }) => lines.push(String(message)))])
      return on(database, `${setUp} ${trigger("after update", "execute 'delete from seen'")}`, () =>
        Effect.gen(function* () {
          yield* Db.mutate(rename)
          yield* Db.mutate(rename)
          assert.lengthOf(
            lines.filter((line) => line.includes(`table "films" has triggers`) && line.includes("t_films")),
            1
          )
        }).pipe(Effect.provide(log))
      )
    })
  })
}

describe("what could not be told by row", () => {
  const [database] = databases
  class Film extends Node.Class<Film>()("effects/film", {
    key: { id: Schema.Int },
    value: Schema.Int,
    tags: ({ id }) => Films.row({ id })
  }) {}
  const cached = Effect.succeed(1).pipe(Cacheme.memoize(new Film({ id: 1 })))

  it.effect("is counted, and explained", () =>
    on(database, setUp, () =>
      Effect.gen(function* () {
        const counted = (told: string) =>
          Effect.map(
            Metric.value(
              Metric.counter("cacheme_writes_total", {
                description: "Statements that wrote, and whether their changed rows were told one by one",
                incremental: true,
                attributes: { table: "films", told }
              })
            ),
            ({ count }) => count
          )
        const before = [yield* counted("row"), yield* counted("table")]
        yield* cached
        yield* Db.mutate(rename)
        const precise = yield* Cacheme.explain(new Film({ id: 1 }))
        assert.deepInclude(precise.reason, { _tag: "Invalidated", by: "@films:id=1" })
        yield* cached
        yield* Db.mutate((db) => db.execute(sql`update films set title = 'raw'`))
        const { reason, message } = yield* Cacheme.explain(new Film({ id: 1 }))
        assert.deepInclude(reason, { _tag: "Invalidated", by: "@films:?" })
        assert.include(
          message,
          "a write could not be told by row: it is no insert, update or delete of Drizzle's"
        )
        assert.deepStrictEqual(
          [yield* counted("row"), yield* counted("table")],
          [before[0]! + 1, before[1]! + 1]
        )
      })
    )
  )

  it.effect("are more rows than the layer allows", () =>
    Effect.gen(function* () {
      yield* Db.mutate((db) => db.execute(sql`create table films (id int primary key, title text)`))
      tagsPublished()
      yield* Db.mutate((db) =>
        db.insert(films).values([
          { id: 1, title: "" },
          { id: 2, title: "" }
        ])
      )
      assert.deepStrictEqual(tagsPublished(), ["@films:*", "@films:?"])
      yield* Db.mutate((db) => db.delete(films).where(eq(films.id, 1)))
      assert.deepStrictEqual(tagsPublished(), ["@films:*", "@films:id=1"])
    }).pipe(
      Effect.provide(Layer.orDie(Db.layerPglite({ rowLimit: 1 })).pipe(Layer.provideMerge(NotingCache)))
    )
  )

  it.effect("by a limit that is none: an error that names it", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(
        Effect.scoped(Layer.build(Db.layerPglite({ rowLimit: 1.5 }).pipe(Layer.provide(NotingCache))))
      )
      assert.include(error.message, "rowLimit is 1.5, expected an integer of at least 0")
    })
  )
})
