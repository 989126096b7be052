/** What is known of the tables and functions that a query names, as far as it shows in what is noted. */
import { assert, describe, it } from "@effect/vitest"
import { eq, sql } from "drizzle-orm"
import { integer, pgTable, text } from "drizzle-orm/pg-core"
import { Effect } from "effect"
import { Catalog } from "../../src/drizzle/catalog.ts"
import { Db, type DbError, Model } from "../../src/drizzle/index.ts"
import * as pgliteDriver from "../../src/drizzle/pgliteDriver.ts"
import { CurrentRecorder, Recorder } from "../../src/Recorder.ts"
import { databases, on } from "../support/databases.ts"

const authors = pgTable("authors", { id: integer().primaryKey(), name: text() })
const books = pgTable("books", {
  id: integer().primaryKey(),
  authorId: integer("author_id"),
  title: text()
})
const tags = pgTable("tags", { id: integer().primaryKey(), label: text() })
Model.make(authors)
Model.make(books)
Model.make(tags)

const setUp = `
create table authors (id int primary key, name text);
create table books (id int primary key, author_id int references authors, title text);
create table tags (id int primary key, label text);
insert into authors values (3, 'Ann'), (4, 'Bo');
insert into books values (7, 3, 't'), (8, 4, 'u');
insert into tags values (1, 'l');
`

/** Two views of one name: the search path says which. */
const twoViews = `
create schema shop;
create table shop.lines (id int primary key);
create view v as select id from books;
create view shop.v as select id from tags;
`

/** Runs a query in a lookup, and tells the ids of what it reads but `unknown` and those of groups of volatile columns. */
const idsOf = (query: Effect.Effect<unknown, DbError, Db>) =>
  Effect.gen(function* () {
    const recorder = new Recorder()
    yield* Effect.exit(Effect.provideService(query, CurrentRecorder, recorder))
    return recorder
      .close()
      .reads.flatMap((read) => [...read.ids, ...[...read.idsByValue.values()].flatMap((own) => [...own])])
      .filter((id) => !/:\?$|~/.test(id))
      .toSorted()
      .join(" ")
  })

const inLookup = (query: string, recorder = new Recorder()) =>
  Effect.provideService(raw(query), CurrentRecorder, recorder)

const raw = (query: string) => Db.query((db) => db.execute(sql.raw(query)))

const reads = (query: string) => idsOf(raw(query))

const untold = (query: string) =>
  Effect.gen(function* () {
    const recorder = new Recorder()
    yield* inLookup(query, recorder)
    return recorder.close().reads[0]!.untold.join(", ")
  })

/** Built, because what a query of raw SQL answers does not tell rows. */
const withAuthors = Db.query((db) =>
  db
    .select({ authorId: books.authorId, name: authors.name })
    .from(books)
    .innerJoin(authors, eq(authors.id, books.authorId))
)

describe("a table that was not there", () => {
  const trigger = `
    create function f() returns trigger language plpgsql as
      $$ begin if new.id < 0 then insert into later values (1); end if; return null; end $$;
    create trigger t after insert on tags for each row execute function f();`

  it.effect("is asked for again", () =>
    on(databases[0], setUp + trigger, ({ run }) =>
      Effect.gen(function* () {
        // What the trigger may write is looked for.
        yield* Db.mutate((db) => db.insert(tags).values({ id: 5 }))
        yield* run("create table later (id int primary key)")
        assert.strictEqual(yield* reads("select id from later"), "@later:*")
      })
    )
  )

  it.effect("is what a failed query rests on", () =>
    on(databases[0], setUp, ({ run }) =>
      Effect.gen(function* () {
        assert.strictEqual(yield* reads("select id from later"), "@later:*")
        yield* run("create table later (id int primary key)")
        assert.strictEqual(yield* reads("select id from later"), "@later:*")
        assert.strictEqual(yield* reads("select id from later join books using (kind)"), "@books:* @later:*")
        yield* run("alter table later add kind int; alter table books add kind int")
        assert.strictEqual(
          yield* reads("select l.id from later l join books using (kind)"),
          "@books:* @later:*"
        )
      })
    )
  )

  it.effect("is not what another one of its name in a view hides", () =>
    on(databases[0], setUp, ({ run }) =>
      Effect.gen(function* () {
        assert.strictEqual(yield* reads("select id from w where id = 7"), "@w:*")
        yield* run("create view w as select id from books")
        assert.strictEqual(yield* reads("select id from w where id = 7"), "@books:id=7 @w:*")
      })
    )
  )
})

for (const database of databases.slice(0, 2))
  describe(`the search path on ${database.name}`, () => {
    const inShop = "set local search_path to shop, public"
    const setInShop = sql`set_config('search_path', 'shop, public', true)`
    const test = (name: string, effect: Effect.Effect<void, unknown, Db>) =>
      it.effect(name, () => on(database, setUp + twoViews, () => Db.transaction(effect)))

    test(
      "lets a table have two names, and who writes may know either",
      Effect.gen(function* () {
        yield* raw(inShop)
        assert.strictEqual(yield* reads("select id from lines"), "@lines:* @shop.lines:*")
        assert.strictEqual(yield* reads("select id from shop.lines"), "@lines:* @shop.lines:*")
        assert.strictEqual(yield* reads("select id from public.tags where id = 1"), "@tags:id=1")
      })
    )

    test(
      "does not find what is written with another schema",
      Effect.gen(function* () {
        yield* raw(inShop)
        assert.strictEqual(yield* reads("select id from v where id = 7"), "@shop.v:* @tags:id=7 @v:*")
        assert.strictEqual(yield* reads("select id from public.v where id = 7"), "@books:id=7 @v:*")
      })
    )

    // Built: after raw SQL, tables are asked for anew in any case.
    const shown = idsOf(Db.query((db) => db.select({ id: sql`id` }).from(sql`v`)))

    test(
      "may be set by a query that is built",
      Effect.gen(function* () {
        assert.strictEqual(yield* shown, "@books:* @v:*")
        yield* Db.query((db) => db.select({ x: setInShop }).from(tags))
        assert.strictEqual(yield* shown, "@shop.v:* @tags:* @v:*")
      })
    )

    test(
      "may be set by a write that is built",
      Effect.gen(function* () {
        assert.strictEqual(yield* shown, "@books:* @v:*")
        yield* Db.mutate((db) => db.update(tags).set({ label: setInShop as any }))
        assert.strictEqual(yield* shown, "@shop.v:* @tags:* @v:*")
      })
    )

    test(
      "is what it was after a savepoint that was rolled back",
      Effect.gen(function* () {
        const inside = Effect.gen(function* () {
          yield* raw(inShop)
          assert.strictEqual(yield* shown, "@shop.v:* @tags:* @v:*")
          return yield* Effect.fail("no")
        })
        yield* Effect.flip(Db.transaction(inside))
        assert.strictEqual(yield* shown, "@books:* @v:*")
      })
    )
  })

describe("row-level security", () => {
  const secured = `
    alter table authors enable row level security;
    create policy tagged on authors using (exists (select 1 from tags where tags.label = authors.name));`

  it.effect("is not there: along a foreign key, each row has a partner", () =>
    on(databases[0], setUp, () =>
      Effect.gen(function* () {
        assert.strictEqual(yield* idsOf(withAuthors), "@authors:id=3 @authors:id=4 @books:*")
      })
    )
  )

  it.effect("hides rows that a foreign key says are there", () =>
    on(databases[0], setUp, ({ run }) =>
      Effect.gen(function* () {
        yield* run("alter table authors enable row level security")
        assert.strictEqual(yield* idsOf(withAuthors), "@authors:* @books:*")
      })
    )
  )

  it.effect("reads what its policies name, whoever asks: a view has the rights of its owner", () =>
    on(databases[0], setUp + secured, () =>
      Effect.gen(function* () {
        assert.strictEqual(yield* reads("select name from authors where id = 3"), "@authors:id=3 @tags:*")
        assert.strictEqual(yield* idsOf(withAuthors), "@authors:* @books:* @tags:*")
      })
    )
  )

  it.effect("has policies that are read whole where the query is too complicated to be looked into", () =>
    on(databases[0], setUp + secured, () =>
      Effect.gen(function* () {
        const parts = " and exists (select from books where id = 7)".repeat(400)
        const query = `select id from books where id = 7${parts}`
        assert.strictEqual(yield* reads(query), "@books:*")
        assert.strictEqual(
          yield* reads(`${query} and exists (select from authors)`),
          "@authors:* @books:* @tags:*"
        )
      })
    )
  )
})

describe("a foreign key", () => {
  it.effect("leads to its own table, and not to another one that is called the same", () =>
    on(
      databases[0],
      `${setUp}; create schema shop; create table shop.authors (id int primary key, name text)`,
      () =>
        Db.transaction(
          Effect.gen(function* () {
            yield* raw("set local search_path to shop, public")
            assert.strictEqual(yield* idsOf(withAuthors), "@authors:* @books:* @shop.authors:*")
          })
        )
    )
  )

  it.effect("does not bind rows of tables that inherit", () =>
    on(databases[0], setUp, ({ run }) =>
      Effect.gen(function* () {
        yield* run("create table old_books () inherits (books); insert into old_books values (9, 5, 'old')")
        assert.include(yield* idsOf(withAuthors), "@authors:*")
      })
    )
  )

  it.effect("over periods, or one that is not enforced, is none along which each row has a partner", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const driver = yield* pgliteDriver.make({}, {})
        yield* driver.use((connection) =>
          Effect.gen(function* () {
            for (const statement of [
              "create table p (id int4range, at daterange, n int unique, primary key (id, at without overlaps))",
              `create table c (
                id int4range, at daterange, n int references p (n),
                foreign key (id, period at) references p (id, period at),
                foreign key (n) references p (n) not enforced
              )`
            ])
              yield* Effect.promise(
                async () => connection.start((db) => db.execute(sql.raw(statement))).answer
              )
            const info = yield* new Catalog().describe(connection, { schema: undefined, name: "c" })
            assert.deepStrictEqual(
              info?.foreignKeys.map(({ columns }) => columns),
              [["n"]]
            )
          })
        )
      })
    )
  )
})

describe("functions", () => {
  const own = `
    create function length(books) returns int language sql stable as 'select count(*)::int from tags';
    create function added(int, int) returns int language sql stable as 'select $1 + count(*)::int from tags';
    create aggregate added_up(int) (sfunc = added, stype = int, initcond = '0');
    create function doubled(int) returns int language sql immutable as 'select $1 * 2';
    create function twice(int) returns setof int language sql immutable as 'select $1 union all select $1';
    create sequence numbers;`
  const isUnknown = (query: string) =>
    Effect.map(Effect.flip(inLookup(query)), ({ reason }) =>
      assert.strictEqual(reason._tag, "UnknownReads", query)
    )

  it.effect("that are written with their schema, by the parser too, are found", () =>
    on(databases[0], setUp, () =>
      Effect.gen(function* () {
        for (const call of [
          "pg_catalog.translate(title, 'a', 'b')",
          "position('a' in title)",
          "overlay(title placing 'a' from 1)",
          "title similar to 'a%'",
          "'2020-01-01'::timestamp at time zone 'UTC'",
          "pg_catalog.lower(title)"
        ])
          assert.strictEqual(yield* reads(`select ${call} from books`), "@books:*", call)
      })
    )
  )

  it.effect("of the database's own may read tables, though they have a well-known name", () =>
    on(databases[0], setUp + own, () =>
      Effect.gen(function* () {
        yield* isUnknown("select length(b), 1 from books b where true")
        yield* isUnknown("select added_up(id) from books")
        yield* isUnknown(`select ts_rewrite('a'::tsquery, 'select ''b''::tsquery, ''c''::tsquery from tags')`)
      })
    )
  )

  it.effect("that may answer several rows, or none, are told from those that compute one value", () =>
    on(databases[0], setUp + own, () =>
      Effect.gen(function* () {
        const shown = (call: string) =>
          idsOf(
            Db.query((db) =>
              db
                .select({ authorId: books.authorId, name: authors.name, call: sql.raw(call) })
                .from(books)
                .leftJoin(authors, eq(authors.id, books.authorId))
                .where(eq(books.id, 7))
            )
          )
        assert.strictEqual(yield* shown("doubled(books.id)"), "@authors:id=3 @books:id=7")
        assert.strictEqual(
          yield* shown("reverse(translate(books.title, 'a', 'b'))"),
          "@authors:id=3 @books:id=7"
        )
        assert.strictEqual(yield* shown("twice(books.id)"), "@authors:* @books:id=7")
        assert.strictEqual(yield* shown("generate_series(1, books.id)"), "@authors:* @books:id=7")
      })
    )
  )

  it.effect("of the server that tell of itself, and sequences, are told by no write", () =>
    on(databases[0], setUp + own, () =>
      Effect.gen(function* () {
        assert.strictEqual(
          yield* untold("select pg_relation_size('books'), pg_typeof(1)"),
          "pg_relation_size()"
        )
        assert.strictEqual(
          yield* untold("select has_sequence_privilege('numbers', 'usage')"),
          "has_sequence_privilege()"
        )
        assert.strictEqual(yield* untold("select last_value from numbers"), "the sequence numbers")
      })
    )
  )

  it.effect("of extensions, compiled, know nothing of tables unless they are known to", () =>
    on(databases[1], setUp, ({ run }) =>
      Effect.gen(function* () {
        yield* run(`create extension pgcrypto; create extension tablefunc`)
        assert.strictEqual(yield* untold("select gen_random_bytes(3) from books"), "gen_random_bytes()")
        yield* isUnknown("select * from crosstab('select 1, 2, 3') as t(a int, b int)")
      })
    )
  )
})

describe("a statement that fails in a lookup", () => {
  it.effect("fails as the database says, and its answer is not stored", () =>
    on(databases[0], setUp, () =>
      Effect.gen(function* () {
        const recorder = new Recorder()
        const { reason } = yield* Effect.flip(inLookup("select nowhere() from books", recorder))
        assert.deepInclude(reason, { _tag: "StatementFailed", code: "42883" })
        assert.isFalse(recorder.close().isComplete)
      })
    )
  )
})
