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
import { eq } from "drizzle-orm"
import { Arbitrary, Effect, Equal, Schema } from "effect"
import { Cacheme, Node } from "../../src/index.ts"
import { Db, Model } from "../../src/drizzle/index.ts"
import { kindOf } from "../../src/drizzle/columnText.ts"
import { changedIds, find, tableIds, tableName } from "../../src/drizzle/Model.ts"
import { carriedIds, flattenUnsafe, type Tag } from "../../src/Tag.ts"
import { databases, on, tagsPublished } from "../support/databases.ts"
import { reasonOf } from "../support/reasonOf.ts"

const books = pgTable("model_books", {
  id: integer().primaryKey(),
  title: text().notNull(),
  authorId: integer("author_id"),
  shelf: varchar({ length: 10 })
})
const Books = Model.make(books, { keys: { byAuthor: ["authorId"], byPlace: ["shelf", "authorId"] } })

const films = pgTable("model_films", {
  id: integer().primaryKey(),
  title: text().notNull(),
  directorId: integer("director_id"),
  views: integer().notNull().default(0),
  lastSeen: timestamp("last_seen"),
  updatedAt: timestamp("updated_at")
})
const Films = Model.make(films, {
  keys: { byDirector: ["directorId"] },
  volatile: { stats: ["views", "lastSeen"], stamps: ["updatedAt"] }
})

/** The ids that an entry with a tag carries, and those that are invalidated with it. */
const carried = (tag: Tag) => [...carriedIds([tag])].toSorted()
const reached = (tag: Tag) => [tag.id, ...(tag.reaches ?? [])].toSorted()

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
    assert.strictEqual(tableName("a~b", "c~d"), "a%7Eb.c%7Ed")
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
        isOpen: boolean(),
        price: numeric({ precision: 10, scale: 2 }),
        weight: numeric({ mode: "number" }),
        country: char({ length: 3 })
      },
      (table) => [primaryKey({ columns: [table.order, table.line] })]
    )
    const Lines = Model.make(lines, {
      keys: {
        bySku: ["sku"],
        open: ["isOpen"],
        byPrice: ["price"],
        byWeight: ["weight"],
        byCountry: ["country"]
      }
    })
    assert.strictEqual(
      Lines.row({ line: 2, order: 2n ** 60n }).id,
      "@model_shop.lines:line=2,order=1152921504606846976"
    )
    const sku = "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"
    assert.strictEqual(Lines.by({ sku }).id, Lines.by({ sku: sku.toLowerCase() }).id)
    assert.strictEqual(Lines.by({ isOpen: false }).id, "@model_shop.lines:isOpen=false")
    assert.strictEqual(Lines.by({ price: "1.50" }).id, "@model_shop.lines:price=1.5")
    assert.strictEqual(Lines.by({ weight: 1.5 }).id, "@model_shop.lines:weight=1.5")
    assert.strictEqual(Lines.by({ country: "nl " }).id, "@model_shop.lines:country=nl")
  })

  it("tells a changed row as its readers do", () => {
    assert.deepStrictEqual(changedIds(find("model_books")!, { id: "7", authorId: "3", shelf: "a~b,c" }), [
      Books.all.id,
      Books.row({ id: 7 }).id,
      Books.by({ authorId: 3 }).id,
      Books.by({ authorId: 3, shelf: "a~b,c" }).id
    ])
    assert.deepStrictEqual(changedIds(find("model_books")!, { id: "7", authorId: null, shelf: null }), [
      Books.all.id,
      Books.row({ id: 7 }).id,
      Books.by({ authorId: null }).id,
      Books.by({ authorId: null, shelf: null }).id
    ])
  })

  it("tells no tag of a value that has no text, because nobody can make it", () => {
    const prices = pgTable("model_prices", { id: integer().primaryKey(), price: numeric() })
    const Prices = Model.make(prices, { keys: { byPrice: ["price"] } })
    assert.deepStrictEqual(changedIds(find("model_prices")!, { id: "7", price: "NaN" }), [
      "@model_prices:*",
      "@model_prices:id=7"
    ])
    assert.strictEqual(reasonOf(() => Prices.by({ price: "NaN" }))._tag, "InvalidKey")
    // The server gets another character for half of a surrogate pair.
    assert.strictEqual(reasonOf(() => Books.by({ authorId: 3, shelf: "\ud800" }))._tag, "InvalidKey")
  })

  describe("volatile columns", () => {
    it("leave the model's own tags as they are", () => {
      assert.deepStrictEqual(carried(Films.row({ id: 7 })), ["@model_films:?", "@model_films:id=7"])
      assert.deepStrictEqual(reached(Films.row({ id: 7 })), ["@model_films:*", "@model_films:id=7"])
      assert.deepStrictEqual(carried(Films.all), ["@model_films:*", "@model_films:?"])
      assert.deepStrictEqual(carried(Films.unknown), ["@model_films:?"])
      assert.deepStrictEqual(reached(Films.unknown), ["@model_films:*", "@model_films:?"])
    })

    it("have twins of all tags, which a reader of the group carries beside the plain ones", () => {
      const WithStats = Films.including("stats")
      for (const [tag, plain, rest] of [
        [WithStats.row({ id: 7 }), Films.row({ id: 7 }), "id=7"],
        [WithStats.by({ directorId: null }), Films.by({ directorId: null }), "director_id=%null"],
        [WithStats.all, Films.all, "*"],
        [WithStats.unknown, Films.unknown, "?"]
      ] as const) {
        const twins = [`@model_films~stats:${rest}`, "@model_films~stats:?"]
        assert.deepStrictEqual(carried(tag), [...new Set([...carried(plain), ...twins])].toSorted())
        assert.include(reached(tag), `@model_films~stats:${rest}`)
        assert.include(reached(tag), "@model_films~stats:*")
        assert.includeMembers(reached(tag), reached(plain))
      }
      assert.isTrue(reached(WithStats.all).includes("@model_films~stats:?"))
      assert.isFalse(reached(WithStats.row({ id: 7 })).includes("@model_films~stats:?"))
    })

    it("of several groups are carried together, in any order", () => {
      const tag = Films.including("stats", "stamps").row({ id: 7 })
      assert.includeMembers(
        [...carried(tag)],
        [
          ...carried(Films.including("stats").row({ id: 7 })),
          ...carried(Films.including("stamps").row({ id: 7 }))
        ]
      )
      assert.isTrue(Equal.equals(tag, Films.including("stamps", "stats", "stamps").row({ id: 7 })))
    })

    it("are lost by no merge with tags that rest on less", () => {
      const tags = [
        Films.including("stats", "stamps").row({ id: 7 }),
        Films.including("stats").row({ id: 7 }),
        Films.including("stamps").row({ id: 7 }),
        Films.row({ id: 7 })
      ]
      assert.deepStrictEqual(flattenUnsafe(tags), tags)
    })

    it("are told of a changed row by the twins", () => {
      const row = { id: "7", directorId: "3" }
      assert.deepStrictEqual(changedIds(find("model_films")!, row, "stats"), [
        "@model_films~stats:*",
        // Some group: for those who do not know them.
        "@model_films~*:*",
        "@model_films~stats:id=7",
        "@model_films~stats:director_id=3"
      ])
      assert.deepStrictEqual(tableIds("model_films", "stats"), {
        all: "@model_films~stats:*",
        unknown: "@model_films~stats:?"
      })
      const { volatile, columns } = find("model_films")!
      const properties = new Map(
        [...volatile].map(([group, columns]) => [group, columns.map((column) => column.property)])
      )
      assert.deepStrictEqual(
        properties,
        new Map([
          ["stats", ["views", "lastSeen"]],
          ["stamps", ["updatedAt"]]
        ])
      )
      assert.deepStrictEqual(
        columns.map(({ property }) => property),
        ["id", "directorId"]
      )
    })

    it("keep tables and groups apart whatever their names", () => {
      const ids = new Set([
        tableIds(tableName(undefined, "a"), "b").all,
        tableIds(tableName(undefined, "a~b")).all,
        tableIds(tableName(undefined, "a"), "b.c").all,
        tableIds(tableName("a", "b"), "c").all,
        tableIds(tableName("a~b", "c")).all,
        tableIds(tableName(undefined, "a"), "b/c").all
      ])
      assert.strictEqual(ids.size, 6)
      assert.strictEqual(tableIds("a", "b.c").all, "@a~b%2Ec:*")
    })

    it.effect("when written alone, make nothing stale but what rests on their group", () =>
      on(
        databases[0],
        `create table model_films (
           id int primary key, title text not null, director_id int, views int not null default 0,
           last_seen timestamp, updated_at timestamp
         );
         insert into model_films values (1, 'Emma', 1), (2, 'Clueless', 2)`,
        () =>
          Effect.gen(function* () {
            class TitleNode extends Node.Class<TitleNode>()("filmTitle", {
              key: { id: Schema.Int },
              value: Schema.String,
              dependencies: "manual",
              tags: ({ id }) => Films.row({ id })
            }) {}
            class ViewsNode extends Node.Class<ViewsNode>()("filmViews", {
              key: { directorId: Schema.Int },
              value: Schema.Int,
              dependencies: "manual",
              tags: ({ directorId }) => Films.including("stats").by({ directorId })
            }) {}
            class AnyViewsNode extends Node.Class<AnyViewsNode>()("allViews", {
              key: {},
              value: Schema.Int,
              dependencies: "manual",
              tags: () => Films.including("stats", "stamps").all
            }) {}
            const rows = Db.query((db) => db.select().from(films).orderBy(films.id))
            const views = Effect.map(rows, (all) => all.reduce((sum, row) => sum + row.views, 0))
            const read = Effect.all([
              Cacheme.memoize(
                Effect.map(rows, ([row]) => row!.title),
                new TitleNode({ id: 1 })
              ),
              Cacheme.memoize(
                Effect.map(rows, ([row]) => row!.views),
                new ViewsNode({ directorId: 1 })
              ),
              Cacheme.memoize(
                Effect.map(rows, (all) => all[1]!.views),
                new ViewsNode({ directorId: 2 })
              ),
              Cacheme.memoize(views, new AnyViewsNode())
            ])
            const areAnswered = Effect.forEach(
              [
                new TitleNode({ id: 1 }),
                new ViewsNode({ directorId: 1 }),
                new ViewsNode({ directorId: 2 }),
                new AnyViewsNode()
              ],
              (node) => Effect.map(Cacheme.explain(node), ({ answered }) => answered)
            )
            const update = (set: Partial<typeof films.$inferInsert>) =>
              Db.mutate((db) => db.update(films).set(set).where(eq(films.id, 1)))

            assert.deepStrictEqual(yield* read, ["Emma", 0, 0, 0])
            yield* update({ views: 1 })
            assert.deepStrictEqual(yield* areAnswered, [true, false, true, false])
            assert.deepStrictEqual(
              [...tagsPublished()],
              [
                "@model_films~*:*",
                "@model_films~stats:*",
                "@model_films~stats:director_id=1",
                "@model_films~stats:id=1"
              ]
            )
            assert.deepStrictEqual(yield* read, ["Emma", 1, 0, 1])
            yield* update({ updatedAt: new Date(0) })
            assert.deepStrictEqual(yield* areAnswered, [true, true, true, false])
            yield* read
            yield* update({ title: "Emma!", views: 2 })
            assert.deepStrictEqual(yield* areAnswered, [false, false, true, false])
            assert.deepStrictEqual(yield* read, ["Emma!", 2, 0, 2])

            yield* Cacheme.invalidate(Films.row({ id: 1 }))
            assert.deepStrictEqual(yield* areAnswered, [false, true, true, false])
            yield* read
            yield* Cacheme.invalidate(Films.including("stats").by({ directorId: 1 }))
            assert.deepStrictEqual(yield* areAnswered, [true, false, true, false])
            yield* read
            yield* Cacheme.invalidate(Films.all)
            assert.deepStrictEqual(yield* areAnswered, [false, false, false, false])
          })
      )
    )
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

    it("a volatile group that is no list of columns, or of unknown ones", () => {
      // @ts-expect-error no such column
      const unknown = reasonOf(() => Model.make(books, { volatile: { stats: ["views"] } }))
      assert(unknown._tag === "InvalidDefinition")
      assert.deepInclude(unknown, {
        definition: `model "model_books"`,
        field: `volatile group "stats"`,
        actual: `"views"`
      })
      // @ts-expect-error a group has at least one column
      const empty = reasonOf(() => Model.make(books, { volatile: { stats: [] } }))
      assert.deepInclude(empty, { _tag: "InvalidDefinition", expected: "a list of columns", actual: "[]" })
      // @ts-expect-error a list, not a name
      const text = reasonOf(() => Model.make(books, { volatile: { stats: "title" } }))
      assert.deepInclude(text, { _tag: "InvalidDefinition", expected: "a list of columns" })
      const twice = reasonOf(() => Model.make(books, { volatile: { stats: ["title", "title"] } }))
      assert.deepInclude(twice, { _tag: "InvalidDefinition", expected: "each column once" })
    })

    it("a volatile column that is in a key, in the primary key, or in another group", () => {
      for (const [make, field, actual] of [
        [
          () =>
            Model.make(books, { keys: { byAuthor: ["authorId"] }, volatile: { a: ["title", "authorId"] } }),
          `volatile group "a"`,
          `"authorId", which is in a key`
        ],
        [
          // @ts-expect-error the primary key tells rows
          () => Model.make(books, { volatile: { a: ["id"] } }),
          `volatile group "a"`,
          `"id", which is in a key`
        ],
        [
          () => Model.make(books, { volatile: { a: ["title"], b: ["shelf", "title"] } }),
          `volatile group "b"`,
          `"title", which is in the group "a"`
        ]
      ] as const) {
        const reason = reasonOf(make)
        assert(reason._tag === "InvalidDefinition")
        assert.deepInclude(reason, { definition: `model "model_books"`, field, actual })
      }
      const stamped = pgTable(
        "model_stamped",
        { at: timestamp(), line: integer(), note: text() },
        (table) => [primaryKey({ columns: [table.at, table.line] })]
      )
      const reason = reasonOf(() => Model.make(stamped, { volatile: { a: ["at"] } }))
      assert.deepInclude(reason, { _tag: "InvalidDefinition", actual: `"at", which is in a key` })
    })

    it("a volatile group whose name is no name", () => {
      for (const name of ["", "1", "a~b", "a b", "a:b", "a".repeat(101)]) {
        const reason = reasonOf(() => Model.make(books, { volatile: { [name]: ["title"] } }))
        assert(reason._tag === "InvalidDefinition", name)
        assert.include(reason.field, "volatile group")
        assert.include(reason.expected, "a letter or _")
      }
    })

    it("a view that includes a group that is not declared, or none", () => {
      for (const [make, actual] of [
        // @ts-expect-error no such group
        [() => Films.including("stat"), `"stat"`],
        // @ts-expect-error no such group
        [() => Films.including("stats", "stat"), `"stat"`],
        // @ts-expect-error at least one group
        [() => Films.including(), "none"],
        // @ts-expect-error no group is declared
        [() => Books.including("stats"), `"stats"`]
      ] as const) {
        const reason = reasonOf(make)
        assert(reason._tag === "InvalidKey")
        assert.deepInclude(reason, { field: "including", actual })
      }
    })

    it("a tag over 1 KiB", () => {
      const long = pgTable("model_long", { name: text().primaryKey() })
      const Long = Model.make(long)
      assert.strictEqual(reasonOf(() => Long.row({ name: "x".repeat(1100) }))._tag, "InvalidKey")
      // Nobody can carry it, so a write need not tell it.
      assert.deepStrictEqual(changedIds(find("model_long")!, { name: "x".repeat(1100) }), [Long.all.id])
    })

    it("two different models of one table; the same one again is fine", () => {
      Model.make(books, { keys: { byPlace: ["authorId", "shelf"], byAuthor: ["authorId"] } })
      const reason = reasonOf(() => Model.make(books, { keys: { byAuthor: ["authorId"] } }))
      assert(reason._tag === "DefinitionConflict")
      assert.strictEqual(reason.name, `model "model_books"`)
      assert.match(reason.first, /Model\.test\.ts:\d+/)
      assert.match(reason.second, /Model\.test\.ts:\d+/)
      assert.strictEqual(reason.difference, "keys")
      const volatile = reasonOf(() =>
        Model.make(films, { keys: { byDirector: ["directorId"] }, volatile: { stats: ["views"] } })
      )
      assert(volatile._tag === "DefinitionConflict")
      assert.strictEqual(volatile.difference, "volatile")
      Model.make(films, {
        keys: { byDirector: ["directorId"] },
        volatile: { stamps: ["updatedAt"], stats: ["lastSeen", "views"] }
      })
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
    for (const column of ["int", "big", "bool", "id", "text", "name", "status", "char", "numeric"] as const)
      assert.isDefined(told(column))
    for (const column of ["date", "json", "at", "citext"] as const) assert.isUndefined(told(column))
    const spelled = pgTable("spelled", {
      wide: numeric({ precision: 5 }),
      exact: numeric({ precision: 5, scale: 2 }),
      one: char(),
      any: customType<{ data: string }>({ dataType: () => "bpchar" })(),
      list: numeric().array()
    })
    for (const column of ["wide", "exact", "one", "any"] as const) assert.isDefined(kindOf(spelled[column]))
    assert.isUndefined(kindOf(spelled.list))
  })

  it("knows the types by which the server calls a column whose texts are those of its own", () => {
    assert.includeMembers([...told("int")!.serverTypes], ["smallint", "integer", "bigint"])
    assert.includeMembers([...told("text")!.serverTypes], ["text", "character varying", "enum"])
    assert.deepStrictEqual(told("status"), told("text"))
    assert.deepStrictEqual(told("numeric")!.serverTypes, ["numeric"])
    assert.deepStrictEqual(told("char")!.serverTypes, ["character"])
    // Declared as another type than it has: texts that are equal there would be unlike here.
    for (const type of ["character", "uuid", "numeric"]) assert.notInclude(told("text")!.serverTypes, type)
    assert.notInclude(told("int")!.serverTypes, "numeric")
  })

  it.effect("calls the types as the server does", () =>
    on(databases[0], "", ({ run }) =>
      Effect.gen(function* () {
        for (const [column, type] of [
          ["int", "int"],
          ["int", "smallint"],
          ["big", "bigint"],
          ["bool", "boolean"],
          ["id", "uuid"],
          ["text", "text"],
          ["name", "varchar(3)"],
          ["char", "char(3)"],
          ["char", "bpchar"],
          ["numeric", "numeric(5, 2)"]
        ] as const) {
          const [row] = yield* run(`select format_type(pg_typeof(null::${type}), null) as name`)
          assert.include(told(column)!.serverTypes, row!["name"])
        }
      })
    )
  )

  it.effect.prop("writes an integer as the server does, however it was given", [Schema.BigInt], ([n]) =>
    Effect.sync(() => {
      const texts = [n, String(n), ` ${n} `, n >= 0n ? `+0${n}` : `-0${-n}`]
      for (const text of texts) assert.strictEqual(told("int")!.text(text), String(n))
    })
  )

  describe("gives values that are equal to Postgres equal texts, from programs and from the server", () => {
    /** Texts put together from some parts. */
    const texts = (...parts: ReadonlyArray<ReadonlyArray<string>>) =>
      Arbitrary.map(
        Arbitrary.all(parts.map((choices) => Arbitrary.schema(Schema.Literals(choices)))),
        (chosen) => chosen.join("")
      )
    const spellings = {
      numeric: texts(
        ["", " "],
        ["", "+", "-"],
        ["", "0", "00"],
        ["0", "1", "10"],
        ["", ".", ".0", ".10", ".010"]
      ),
      char: texts(["", "a", "b", " a", "a\t", "a b"], ["", " ", "  "]),
      text: texts(["", "a", "A", "a "], ["", "b", " "]),
      int: texts(["", " "], ["", "+", "-"], ["", "0", "00"], ["0", "1", "10"], ["", " "]),
      id: texts(
        ["", "{"],
        ["a0eebc99", "A0EEBC99"],
        ["-9c0b-4ef8-", "9c0b4ef8"],
        ["bb6d-6bb9bd380a1", "BB6D6BB9BD380A1"],
        ["1", "2"]
      ).pipe(Arbitrary.map((text) => (text.startsWith("{") ? `${text}}` : text)))
    }
    for (const [column, type] of [
      ["numeric", "numeric"],
      ["char", "char(6)"],
      ["text", "text"],
      ["int", "int"],
      ["id", "uuid"]
    ] as const) {
      it.effect(type, () =>
        on(databases[0], "", ({ run }) =>
          Effect.gen(function* () {
            const pair = Arbitrary.all({ a: spellings[column], b: spellings[column] })
            const pairs = yield* Arbitrary.sampleEffect(pair, { count: 1000 })
            const rows = yield* run(
              `select p.a as "given a", p.b as "given b", p.a::${type}::text as a, p.b::${type}::text as b,
                 p.a::${type} = p.b::${type} as equal
               from json_to_recordset('${JSON.stringify(pairs)}') as p(a text, b text)`
            )
            assert.lengthOf(rows, 1000)
            // Of text, each value has one spelling.
            const equal = rows.filter((row) => row["equal"])
            assert.isTrue(equal.some((row) => type === "text" || row["given a"] !== row["given b"]))
            const text = (value: unknown) => told(column)!.text(value)
            for (const row of rows) {
              const message = JSON.stringify(row)
              assert.isDefined(text(row["a"]), message)
              assert.strictEqual(text(row["given a"]), text(row["a"]), message)
              assert.strictEqual(text(row["given b"]), text(row["b"]), message)
              assert.strictEqual(text(row["a"]) === text(row["b"]), row["equal"], message)
            }
          })
        )
      )
    }
  })

  it("refuses what is no value of the type", () => {
    for (const value of ["", "1e3", "1.5", Number.NaN, Infinity, 2 ** 60, {}]) {
      assert.isUndefined(told("int")!.text(value))
    }
    for (const value of ["t", 1, "TRUE", ""]) assert.isUndefined(told("bool")!.text(value))
    for (const value of ["", "a0eebc99", 7]) assert.isUndefined(told("id")!.text(value))
    for (const value of [1, true, {}]) assert.isUndefined(told("text")!.text(value))
    for (const value of [1, null, {}]) assert.isUndefined(told("char")!.text(value))
    for (const value of [
      "",
      ".",
      "-",
      "1e3",
      1e21,
      1e-7,
      "NaN",
      Number.NaN,
      "Infinity",
      "1.2.3",
      "0x1",
      "1_0",
      {}
    ])
      assert.isUndefined(told("numeric")!.text(value))
  })
})
