import { assert, describe, it } from "@effect/vitest"
import {
  bigint,
  bigserial,
  boolean,
  char,
  customType,
  date,
  integer,
  json,
  numeric,
  pgEnum,
  pgSchema,
  pgTable,
  primaryKey,
  text,
  timestamp,
  uuid,
  varchar
} from "drizzle-orm/pg-core"
import { Effect, Schema } from "effect"
import { CachemeError } from "../../src/index.ts"
import { Model } from "../../src/drizzle/index.ts"
import { kindOf } from "../../src/drizzle/columnText.ts"
import { changedIds, find, tableName } from "../../src/drizzle/Model.ts"

const books = pgTable("model_books", {
  id: integer().primaryKey(),
  title: text().notNull(),
  authorId: integer("author_id"),
  shelf: varchar({ length: 10 })
})
const Books = Model.make(books, { keys: { byAuthor: ["authorId"], byPlace: ["shelf", "authorId"] } })

const reasonOf = (f: () => unknown) => {
  try {
    f()
  } catch (error) {
    if (error instanceof CachemeError) return error.reason
    throw error
  }
  return assert.fail("nothing was thrown")
}

describe("Model", () => {
  it("has a tag for rows, declared keys, and the table", () => {
    const row = { id: 7, title: "Emma", authorId: 3, shelf: null }
    assert.strictEqual(Books.row({ id: 7 }).id, "@model_books:id=7")
    assert.strictEqual(Books.row(row).id, "@model_books:id=7")
    assert.strictEqual(Books.by({ authorId: 3 }).id, "@model_books:author_id=3")
    assert.strictEqual(Books.by({ authorId: null }).id, "@model_books:author_id=%null")
    assert.strictEqual(Books.by({ shelf: "null", authorId: 3 }).id, "@model_books:author_id=3,shelf=null")
    assert.strictEqual(Books.by({ authorId: 3, shelf: "null" }).id, "@model_books:author_id=3,shelf=null")
    assert.strictEqual(Books.all.id, "@model_books:*")
    assert.strictEqual(Books.unknown.id, "@model_books:?")
    assert.strictEqual(Books.table, books)
  })

  it("keeps rows apart whatever their text", () => {
    const place = (shelf: string) => Books.by({ shelf, authorId: 1 }).id
    const texts = ["a", "a,", "a=", "a%", "%null", "null", "*", "?", ".", "a:b", "A", " a", ""]
    assert.strictEqual(new Set(texts.map(place)).size, texts.length)
    assert.strictEqual(tableName("a.b", "c"), "a%2Eb.c")
    assert.notStrictEqual(tableName("a", "b.c"), tableName("a.b", "c"))
    assert.strictEqual(tableName("public", "c"), tableName(undefined, "c"))
  })

  it("takes keys of several columns, schemas, and every type that is told by its text", () => {
    const shop = pgSchema("model_shop")
    const lines = shop.table(
      "lines",
      {
        order: bigint({ mode: "bigint" }),
        line: bigserial({ mode: "number" }),
        sku: uuid(),
        isOpen: boolean()
      },
      (table) => [primaryKey({ columns: [table.order, table.line] })]
    )
    const Lines = Model.make(lines, { keys: { bySku: ["sku"], open: ["isOpen"] } })
    assert.strictEqual(
      Lines.row({ line: 2, order: 2n ** 60n }).id,
      "@model_shop.lines:line=2,order=1152921504606846976"
    )
    const sku = "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"
    assert.strictEqual(Lines.by({ sku }).id, Lines.by({ sku: sku.toLowerCase() }).id)
    assert.strictEqual(Lines.by({ isOpen: false }).id, "@model_shop.lines:isOpen=false")
  })

  describe("bad input", () => {
    it("a key with an unknown column, of another type, empty, or named twice", () => {
      // @ts-expect-error no such column
      const unknown = reasonOf(() => Model.make(books, { keys: { byPublisher: ["publisherId"] } }))
      assert(unknown._tag === "InvalidDefinition")
      assert.strictEqual(unknown.definition, `model "model_books"`)
      assert.strictEqual(unknown.field, `key "byPublisher"`)
      assert.include(unknown.message, "publisherId")
      assert.include(unknown.expected, "authorId")

      const other = pgTable("model_other", { id: integer().primaryKey(), at: timestamp(), a: text() })
      const type = reasonOf(() => Model.make(other, { keys: { byTime: ["at"] } }))
      assert(type._tag === "InvalidDefinition")
      assert.include(type.actual, "timestamp")
      // @ts-expect-error a key has at least one column
      assert.strictEqual(reasonOf(() => Model.make(other, { keys: { none: [] } }))._tag, "InvalidDefinition")
      assert.strictEqual(
        reasonOf(() => Model.make(other, { keys: { twice: ["a", "a"] } }))._tag,
        "InvalidDefinition"
      )
      assert.strictEqual(
        reasonOf(() => Model.make(other, { keys: { one: ["a"], two: ["a"] } }))._tag,
        "InvalidDefinition"
      )
      assert.isUndefined(find("model_other"))
    })

    it("a row that lacks the column, or has another type, names model and column", () => {
      for (const [make, field, actual] of [
        // @ts-expect-error the key is missing
        [() => Books.row({ title: "Emma" }), "id", "missing"],
        // @ts-expect-error a string is no integer
        [() => Books.row({ id: "seven" }), "id", `"seven"`],
        [() => Books.row({ id: 1.5 }), "id", "1.5"],
        [() => Books.row({ id: Number.NaN }), "id", "NaN"],
        // @ts-expect-error a primary key is never null
        [() => Books.row({ id: null }), "id", "null"],
        // @ts-expect-error undefined is no value
        [() => Books.by({ authorId: undefined }), "authorId", "missing"],
        // @ts-expect-error no declared key
        [() => Books.by({ title: "Emma" }), "title", `{"title":"Emma"}`]
      ] as const) {
        const reason = reasonOf(make)
        assert(reason._tag === "InvalidKey")
        assert.deepInclude(reason, { definition: `model "model_books"`, field, actual })
      }
      assert.strictEqual(
        reasonOf(() => Model.make(pgTable("model_keyless", { a: text() }), { keys: { a: ["a"] } }).row({}))
          ._tag,
        "InvalidKey"
      )
    })

    it("a tag over 1 KiB", () => {
      const long = pgTable("model_long", { name: text().primaryKey() })
      const Long = Model.make(long)
      assert.strictEqual(reasonOf(() => Long.row({ name: "x".repeat(1100) }))._tag, "InvalidKey")
      // Nobody can carry it, so a write need not tell it.
      assert.deepStrictEqual(changedIds(find("model_long")!, { name: "x".repeat(1100) }), [])
    })

    it("two different models of one table; the same one again is fine", () => {
      Model.make(books, { keys: { byPlace: ["authorId", "shelf"], byAuthor: ["authorId"] } })
      const reason = reasonOf(() => Model.make(books, { keys: { byAuthor: ["authorId"] } }))
      assert(reason._tag === "DefinitionConflict")
      assert.strictEqual(reason.name, `model "model_books"`)
      assert.match(reason.first, /Model\.test\.ts:\d+/)
      assert.match(reason.second, /Model\.test\.ts:\d+/)
      assert.strictEqual(reason.difference, "keys")
    })
  })
})

describe("columnText", () => {
  const status = pgEnum("status", ["open", "shut"])
  const citext = customType<{ data: string }>({ dataType: () => "citext" })
  const table = pgTable("types", {
    int: integer(),
    big: bigint({ mode: "number" }),
    bool: boolean(),
    id: uuid(),
    text: text(),
    name: varchar({ length: 3 }),
    status: status(),
    char: char({ length: 3 }),
    date: date(),
    json: json(),
    numeric: numeric(),
    at: timestamp(),
    citext: citext()
  })
  const told = (column: keyof typeof table & keyof (typeof table)["_"]["columns"]) => kindOf(table[column])

  it("knows the types whose equality is that of their text", () => {
    for (const column of ["int", "big", "bool", "id", "text", "name", "status"] as const)
      assert.isDefined(told(column))
    for (const column of ["char", "date", "json", "numeric", "at", "citext"] as const)
      assert.isUndefined(told(column))
  })

  it.effect.prop("writes an integer as the server does, however it was given", [Schema.BigInt], ([n]) =>
    Effect.sync(() => {
      const texts = [n, String(n), ` ${n} `, n >= 0n ? `+0${n}` : `-0${-n}`]
      for (const text of texts) assert.strictEqual(told("int")!.text(text), String(n))
    })
  )

  it("refuses what is no value of the type", () => {
    for (const value of ["", "1e3", "1.5", Number.NaN, Infinity, 2 ** 60, {}]) {
      assert.isUndefined(told("int")!.text(value))
    }
    for (const value of ["t", 1, "TRUE", ""]) assert.isUndefined(told("bool")!.text(value))
    for (const value of ["", "a0eebc99", 7]) assert.isUndefined(told("id")!.text(value))
    for (const value of [1, true, {}]) assert.isUndefined(told("text")!.text(value))
  })
})
