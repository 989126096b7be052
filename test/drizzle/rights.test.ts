import { assert, describe, it } from "@effect/vitest"
import { eq, sql } from "drizzle-orm"
import { customType, integer, pgTable, text } from "drizzle-orm/pg-core"
import { Effect } from "effect"
import { Db, Model } from "../../src/drizzle/index.ts"
import { databases, on, tagsPublished } from "../support/databases.ts"

const books = pgTable("books", { id: integer().primaryKey(), authorId: integer("author_id"), title: text() })
const copies = pgTable("copies", { id: integer().primaryKey(), bookId: integer("book_id") })
const strict = customType<{ data: string; driverData: string }>({
  dataType: () => "text",
  fromDriver: (value) => {
    if (value === "unreadable") throw new Error("not read")
    return value
  }
})
const picky = pgTable("books", { id: integer().primaryKey(), title: strict() })
Model.make(books, { keys: { byAuthor: ["authorId"] } })
Model.make(copies, { keys: { byBook: ["bookId"] } })

const setUp = (role: string) => `
  create table books (id int primary key, author_id int, title text);
  create table copies (id int primary key, book_id int references books on delete cascade);
  insert into books values (1, 1, 'a'), (2, 1, 'b'), (3, 2, 'c');
  insert into copies values (10, 1);
  create role ${role};
`

/** Runs as a role that has other rights than the one before it. */
const as = <A, E, R>(role: string, effect: Effect.Effect<A, E, R>) =>
  Db.transaction(
    Effect.andThen(
      Db.query((db) => db.execute(sql`select set_config('role', ${role}, true)`)),
      effect
    )
  )

let roles = 0

for (const database of databases) {
  describe(`rights on ${database.name}`, () => {
    const withRole = (
      name: string,
      more: (role: string) => string,
      test: (role: string) => Effect.Effect<unknown, unknown, Db>
    ) =>
      it.effect(name, () => {
        const role = `role_${process.pid}_${database.name.replaceAll(/\W/g, "")}_${++roles}`.toLowerCase()
        return on(database, setUp(role) + more(role), () => test(role))
      })

    withRole(
      "are those of the role that writes, and not of the one that was asked about before",
      (role) => `
        grant select, insert, update, delete on books to ${role};
        alter table books enable row level security;
        create policy reads on books for select to ${role} using (id = 1);
        create policy adds on books for insert to ${role} with check (true)`,
      (role) =>
        Effect.gen(function* () {
          yield* Db.mutate((db) => db.insert(books).values({ id: 8 }))
          tagsPublished()
          // A row that the policy hides: with RETURNING it would be refused.
          yield* as(
            role,
            Db.mutate((db) => db.insert(books).values({ id: 9 }))
          )
          assert.deepStrictEqual(tagsPublished(), ["@books:*", "@books:?"])
        })
    )

    withRole(
      "to read a schema are not needed where a foreign key or a trigger reaches it",
      (role) => `
        drop schema if exists priv cascade; create schema priv;
        create table priv.kept (book int references books on delete cascade);
        create table priv.log (what text);
        create function f() returns trigger language plpgsql security definer as
          $$ begin insert into priv.log values ('x'); return null; end $$;
        create trigger t after insert on books for each row execute function f();
        grant all on books, copies to ${role}`,
      (role) =>
        Effect.gen(function* () {
          yield* as(
            role,
            Effect.andThen(
              Db.mutate((db) => db.insert(books).values({ id: 9 })),
              Db.mutate((db) => db.delete(books).where(eq(books.id, 9)))
            )
          )
          assert.includeMembers([...tagsPublished()], ["@priv.log:*", "@priv.kept:?", "@books:id=9"])
        })
    )

    withRole(
      "to some columns are enough for an upsert",
      (role) => `grant select (id, author_id), insert, update on books to ${role}`,
      (role) =>
        Effect.gen(function* () {
          yield* as(
            role,
            Db.mutate((db) =>
              db
                .insert(books)
                .values({ id: 1, authorId: 7, title: "" })
                .onConflictDoUpdate({ target: books.id, set: { authorId: 7 } })
            )
          )
          assert.includeMembers(
            [...tagsPublished()],
            database.isExact ? ["@books:author_id=1", "@books:author_id=7"] : ["@books:?"]
          )
        })
    )

    withRole(
      "to see rows are not what a foreign key asks: they are told by table",
      (role) => `
        alter table copies enable row level security;
        create policy hidden on copies for select using (false);
        grant all on books, copies to ${role}`,
      (role) =>
        Effect.gen(function* () {
          yield* as(
            role,
            Db.mutate((db) => db.delete(books).where(eq(books.id, 1)))
          )
          assert.includeMembers([...tagsPublished()], ["@books:id=1", "@copies:?"])
        })
    )

    it.effect("a write whose answer cannot be read has been kept, and is told", () =>
      on(database, setUp(`unused_${process.pid}_${++roles}`), () =>
        Effect.gen(function* () {
          const write = Db.mutate((db) =>
            db.update(picky).set({ title: "unreadable" }).where(eq(picky.id, 1)).returning()
          )
          yield* Effect.flip(write)
          assert.includeMembers([...tagsPublished()], ["@books:*", "@books:?"])
          yield* Db.transaction(Effect.ignore(write))
          assert.includeMembers([...tagsPublished()], ["@books:*", "@books:?"])
        })
      )
    )
  })
}
