import { assert, describe, it } from "@effect/vitest"
import { writesOf } from "../../src/drizzle/statementTables.ts"

const tables = (text: string) =>
  writesOf(text).tables.map(({ schema, name }) => (schema === undefined ? name : `${schema}.${name}`))

describe("statementTables", () => {
  const finds = (text: string, ...expected: ReadonlyArray<string>) =>
    it(text.replaceAll(/\s+/g, " "), () => assert.deepStrictEqual(tables(text), expected))

  describe("finds what is written", () => {
    finds(`insert into books (id) values (1)`, "books")
    finds(`INSERT INTO "Books" values (1) on conflict (id) do update set a = 1`, "Books")
    finds(`update only "shop"."order ""lines""" set a = 1`, `shop.order "lines"`)
    finds(`update main.public.books b set a = 1 from authors`, "public.books")
    finds(`delete from books using authors`, "books")
    finds(
      `merge into books using a on true when matched then update set x = 1 when not matched then insert values (1)`,
      "books"
    )
    finds(
      `with a as (delete from x returning *), b as (update y set z = 1) insert into w select * from a`,
      "x",
      "y",
      "w"
    )
    finds(`truncate books, only shop.lines restart identity`, "books", "shop.lines")
    finds(`TRUNCATE TABLE books`, "books")
    finds(`copy books from stdin`, "books")
    finds(`refresh materialized view concurrently top`, "top")
    finds(`alter table if exists only books add a int`, "books")
    finds(`drop table books, authors`, "books", "authors")
    finds(`explain analyze update books set a = 1`, "books")
    finds(`update books set a = 1; delete from authors`, "books", "authors")
    finds(`update bücher set a = 1`, "bücher")
  })

  describe("finds no writing in", () => {
    finds(`select * from books for update`)
    finds(`select * from books for no key update of books`)
    finds(`select update from books`)
    finds(
      `select 'update books set a = 1', "insert into x", e'it\\'s update y', $$ delete from z $$, $a$ truncate $$ $a$`
    )
    finds(`select 1 -- update books
      /* insert into x /* delete from y */ update z */`)
    finds(`select "update" from "books"`)
    finds(`select 1`)
    finds(``)
  })

  it("tells what changes tables themselves", () => {
    for (const text of ["create table a (b int)", " ALTER TABLE a add b int", "drop index i"]) {
      assert.isTrue(writesOf(text).isDefinition, text)
    }
    for (const text of ["update books set a = 1", "select 1", "truncate books"]) {
      assert.isFalse(writesOf(text).isDefinition, text)
    }
  })

  it("tells what happens to a table", () => {
    const told = (text: string) =>
      writesOf(text).tables.map(({ events, assigned }) => [
        [...events].join(),
        assigned && [...assigned].join()
      ])
    assert.deepStrictEqual(told("insert into books values (1)"), [["insert", undefined]])
    assert.deepStrictEqual(told("insert into books values (1) on conflict do update set a = 1"), [
      ["insert,update,delete", undefined]
    ])
    assert.deepStrictEqual(
      told(
        `update books as b set a = (select x from y where z = 1), "B" = b.c = 1, d = 'e = 1, f = 2' where g = 1`
      ),
      [["update", "a,B,d"]]
    )
    assert.deepStrictEqual(told("begin update books set a = new.a; new.b = 1; return new; end"), [
      ["update", "a"]
    ])
    assert.deepStrictEqual(told("with x as (update books set a = 1) select 1, b = 2"), [["update", "a"]])
    assert.deepStrictEqual(told("update books set a = b is distinct from c, id = 5 from d"), [
      ["update", "a,id"]
    ])
    assert.deepStrictEqual(told("update books set (a, b) = (1, 2)"), [["update", undefined]])
    assert.deepStrictEqual(told("delete from books"), [["delete", undefined]])
    assert.deepStrictEqual(told("truncate books"), [["truncate", undefined]])
    assert.deepStrictEqual(told("merge into books using a on true when matched then delete"), [
      ["insert,update,delete", undefined]
    ])
  })
})
