/**
 * The questions that are asked of the film rental after every step, with the tags that a careful programmer would give
 * them by hand. Each can be answered in two ways: by a query, as programs do, and from a copy of all tables, which is
 * how the right answer to all of them is known at once.
 */
import { and, asc, type Column, count, eq, isNull, sql, sum } from "drizzle-orm"
import { alias } from "drizzle-orm/pg-core"
import * as Model from "../../../src/drizzle/Model.ts"
import type { Statement } from "../../../src/drizzle/builders.ts"
import * as Tag from "../../../src/Tag.ts"
import type { AnyDatabase } from "../../../src/drizzle/Connection.ts"
import { columnsOf, type Data, orderOf, type Row, type TableName, tables } from "./copy.ts"
import * as schema from "./schema.ts"

const {
  actors,
  customers,
  filmActor,
  films,
  filmSequel,
  inventory,
  languages,
  payments,
  rentals,
  staff,
  stores
} = schema

// --------------------------------------------------------------------------------------------------------- questions

/** A question, and what its answer rests on. An answer is a text: rows, written as lists. */
export interface Question {
  readonly name: string
  /** What it is about: questions that differ only in their key are of one kind. */
  readonly kind: string
  readonly tags: Tag.Tags
  /** Tags that its answer tells. */
  readonly valueTags: ((rows: ReadonlyArray<ReadonlyArray<any>>) => Tag.Tags) | undefined
  /** The tables that it reads. */
  readonly reads: ReadonlyArray<TableName>
  readonly ask: (db: AnyDatabase) => Statement<ReadonlyArray<Row>>
  /** The names of what is selected, in the order of the answer. */
  readonly fields: ReadonlyArray<string>
  readonly expect: (data: Data) => ReadonlyArray<ReadonlyArray<unknown>>
}

type Kind = Omit<Question, "name" | "valueTags"> & { readonly valueTags?: Question["valueTags"] }

const called = ({ valueTags, ...kind }: Kind, key: object): Question => ({
  ...kind,
  valueTags,
  name: `${kind.kind} ${JSON.stringify(key)}`
})

const ids = (limit: number): ReadonlyArray<number> => Array.from({ length: limit }, (_, i) => i + 1)
const orNull = <A>(these: ReadonlyArray<A>): ReadonlyArray<A | null> => [...these, null]

/** A value by which the server's equality is that of texts. */
const comparable = (column: Column, value: unknown): unknown => {
  if (typeof value !== "string") return value
  const type = column.getSQLType()
  if (type === "numeric") return Number(value)
  if (type.startsWith("char")) return value.trimEnd()
  return type === "uuid" ? value.toLowerCase() : value
}

/** The rows of a table with these values. */
const rowsWith = (
  kind: string,
  name: TableName,
  key: Readonly<Record<string, unknown>>,
  tags: Tag.Tags,
  fields: ReadonlyArray<string> = columnsOf(tables[name]).map(([property]) => property)
): Question => {
  const table = tables[name]
  const columns: Record<string, any> = Object.fromEntries(columnsOf(table))
  const selected = Object.fromEntries(fields.map((field) => [field, columns[field]]))
  const where = and(
    ...Object.entries(key).map(([property, value]) =>
      value === null ? isNull(columns[property]) : eq(columns[property], value)
    )
  )
  return called(
    {
      kind: `${name} ${kind}`,
      tags,
      reads: [name],
      fields,
      ask: (db) =>
        db
          .select(selected)
          .from(table)
          .where(where)
          .orderBy(...orderOf(table).map((column) => asc(column))),
      expect: (data) =>
        data[name]
          .filter((row) =>
            Object.entries(key).every(
              ([property, value]) =>
                comparable(columns[property], row[property]) === comparable(columns[property], value)
            )
          )
          .map((row) => fields.map((field) => row[field]))
    },
    key
  )
}

const byRow = (
  name: TableName,
  model: { readonly row: (key: any) => Tag.Tag },
  keys: ReadonlyArray<object>,
  fields?: ReadonlyArray<string>
) => keys.map((key) => rowsWith("row", name, { ...key }, model.row(key), fields))

const byKey = (
  name: TableName,
  model: { readonly by: (key: any) => Tag.Tag },
  keys: ReadonlyArray<object>,
  fields?: ReadonlyArray<string>
) => keys.map((key) => rowsWith(`by ${Object.keys(key).join(", ")}`, name, { ...key }, model.by(key), fields))

const whole = (name: TableName, model: { readonly all: Tag.Tag }, fields?: ReadonlyArray<string>) =>
  rowsWith("all", name, {}, model.all, fields)

const keyed = (property: string, values: ReadonlyArray<unknown>): ReadonlyArray<object> =>
  values.map((value) => ({ [property]: value }))

const pairs = (
  first: readonly [string, ReadonlyArray<unknown>],
  second: readonly [string, ReadonlyArray<unknown>]
): ReadonlyArray<object> => first[1].flatMap((a) => second[1].map((b) => ({ [first[0]]: a, [second[0]]: b })))

/** What films are, without what is counted. */
const plainFilm = [
  "id",
  "title",
  "languageId",
  "originalLanguageId",
  "rating",
  "code",
  "rate",
  "slug",
  "doubled"
]

const plainStore = ["id", "city", "managerId"]
// A numeric is told as it was written.
const plainCustomer = ["id", "storeId", "email", "active", "card", "token"]
const plainInventory = ["storeId", "copy", "filmId", "worn"]

const byId = (data: Data, name: TableName, id: unknown): Row | undefined =>
  data[name].find((row) => row["id"] === id)

const filmPage = (id: number): Question =>
  called(
    {
      kind: "film page",
      tags: [schema.Films.row({ id }), schema.Casting.of({ film: id })],
      valueTags: (rows) => [
        ...rows.slice(0, 1).map(([, languageId]) => schema.Languages.row({ id: languageId })),
        ...rows.flatMap(([, , , actorId]) => (actorId === null ? [] : [schema.Actors.row({ id: actorId })]))
      ],
      reads: ["films", "languages", "filmActor", "actors"],
      fields: ["title", "languageId", "language", "actorId", "name"],
      ask: (db) =>
        db
          .select({
            title: films.title,
            languageId: films.languageId,
            language: languages.name,
            actorId: filmActor.actorId,
            name: actors.firstName
          })
          .from(films)
          .leftJoin(languages, eq(languages.id, films.languageId))
          .leftJoin(filmActor, eq(filmActor.filmId, films.id))
          .leftJoin(actors, eq(actors.id, filmActor.actorId))
          .where(eq(films.id, id))
          .orderBy(asc(filmActor.actorId)),
      expect: (data) => {
        const film = byId(data, "films", id)
        if (film === undefined) return []
        const language = byId(data, "languages", film["languageId"])
        const cast = data.filmActor.filter((row) => row["filmId"] === id)
        return (cast.length === 0 ? [undefined] : cast).map((row) => [
          film["title"],
          film["languageId"],
          language?.["name"] ?? null,
          row?.["actorId"] ?? null,
          byId(data, "actors", row?.["actorId"])?.["firstName"] ?? null
        ])
      }
    },
    { id }
  )

const filmsInLanguage = (id: number): Question =>
  called(
    {
      kind: "films in language",
      tags: [schema.Films.by({ languageId: id }), schema.Languages.row({ id })],
      reads: ["films", "languages"],
      fields: ["language", "title"],
      ask: (db) =>
        db
          .select({ language: languages.name, title: films.title })
          .from(films)
          .innerJoin(languages, eq(languages.id, films.languageId))
          .where(eq(films.languageId, id))
          .orderBy(asc(films.id)),
      expect: (data) =>
        data.films
          .filter((film) => film["languageId"] === id)
          .map((film) => [byId(data, "languages", id)?.["name"], film["title"]])
    },
    { id }
  )

const titlesOfActor = (id: number): Question =>
  called(
    {
      kind: "titles of actor",
      tags: schema.Casting.of({ actor: id }),
      valueTags: (rows) => rows.map(([filmId]) => schema.Films.row({ id: filmId })),
      reads: ["filmActor", "films"],
      fields: ["filmId", "title"],
      ask: (db) =>
        db
          .select({ filmId: films.id, title: films.title })
          .from(filmActor)
          .innerJoin(films, eq(films.id, filmActor.filmId))
          .where(eq(filmActor.actorId, id))
          .orderBy(asc(films.id)),
      expect: (data) =>
        data.filmActor
          .filter((row) => row["actorId"] === id)
          .map((row) => [row["filmId"], byId(data, "films", row["filmId"])?.["title"]])
    },
    { id }
  )

const whereToGet = (filmId: number): Question =>
  called(
    {
      kind: "where to get film",
      tags: schema.Inventory.by({ filmId }),
      valueTags: (rows) => rows.map(([storeId]) => schema.Stores.row({ id: storeId })),
      reads: ["inventory", "stores"],
      fields: ["storeId", "city"],
      ask: (db) =>
        db
          .select({ storeId: stores.id, city: stores.city })
          .from(inventory)
          .innerJoin(stores, eq(stores.id, inventory.storeId))
          .where(eq(inventory.filmId, filmId))
          .orderBy(asc(inventory.storeId), asc(inventory.copy)),
      expect: (data) =>
        data.inventory
          .filter((row) => row["filmId"] === filmId)
          .map((row) => [row["storeId"], byId(data, "stores", row["storeId"])?.["city"]])
    },
    { filmId }
  )

const boss = alias(staff, "boss")
const bossOf = (id: number): Question =>
  called(
    {
      kind: "boss of staff",
      tags: schema.Staff.row({ id }),
      valueTags: ([row]) =>
        row?.[1] === undefined || row[1] === null ? [] : schema.Staff.row({ id: row[1] }),
      reads: ["staff"],
      fields: ["name", "bossId", "boss"],
      ask: (db) =>
        db
          .select({ name: staff.name, bossId: staff.reportsTo, boss: boss.name })
          .from(staff)
          .leftJoin(boss, eq(boss.id, staff.reportsTo))
          .where(eq(staff.id, id)),
      expect: (data) =>
        data.staff
          .filter((row) => row["id"] === id)
          .map((row) => [
            row["name"],
            row["reportsTo"],
            byId(data, "staff", row["reportsTo"])?.["name"] ?? null
          ])
    },
    { id }
  )

const sequelsOf = (film: number): Question =>
  called(
    {
      kind: "sequels of film",
      tags: schema.Sequels.of({ film }),
      valueTags: (rows) => rows.map(([id]) => schema.Films.row({ id })),
      reads: ["filmSequel", "films"],
      fields: ["id", "title"],
      ask: (db) =>
        db
          .select({ id: films.id, title: films.title })
          .from(filmSequel)
          .innerJoin(films, eq(films.id, filmSequel.sequelId))
          .where(eq(filmSequel.filmId, film))
          .orderBy(asc(films.id)),
      expect: (data) =>
        data.filmSequel
          .filter((row) => row["filmId"] === film)
          .map((row) => [row["sequelId"], byId(data, "films", row["sequelId"])?.["title"]])
    },
    { film }
  )

const takings = (storeId: number): Question =>
  called(
    {
      kind: "takings of store",
      tags: [schema.Rentals.all, schema.Payments.all],
      reads: ["rentals", "payments"],
      fields: ["total"],
      ask: (db) =>
        db
          .select({ total: sql<number>`coalesce(${sum(payments.amount)}, 0)::int` })
          .from(payments)
          .innerJoin(rentals, eq(rentals.id, payments.rentalId))
          .where(eq(rentals.storeId, storeId)),
      expect: (data) => [
        [
          data.payments
            .filter((row) => byId(data, "rentals", row["rentalId"])?.["storeId"] === storeId)
            .reduce((total, row) => total + row["amount"], 0)
        ]
      ]
    },
    { storeId }
  )

const customersOf = (storeId: number | null): Question =>
  called(
    {
      kind: "number of customers of store",
      tags: schema.Customers.by({ storeId }),
      reads: ["customers"],
      fields: ["total"],
      ask: (db) =>
        db
          .select({ total: count() })
          .from(customers)
          .where(storeId === null ? isNull(customers.storeId) : eq(customers.storeId, storeId)),
      expect: (data) => [[data.customers.filter((row) => row["storeId"] === storeId).length]]
    },
    { storeId }
  )

/** The notes have a model in some other process only: this is how a tag of it is written. */
const someNote = Tag.makeUnsafe(Model.find("languages")!, "@notes:*", { carries: ["@notes:?"] })

const counted = schema.Films.including("counts")
const visited = schema.Stores.including("visits")
const worn = schema.Inventory.including("wear")
const { token } = schema

const filmIds = ids(6)
const storeIds = ids(4)
const customerIds = ids(5)
const copies = ids(3)
const rentalIds = ids(8)
const staffIds = ids(5)
const actorIds = ids(5)
const categoryIds = ids(4)

/** All questions. */
export const questions: ReadonlyArray<Question> = [
  ...byRow("films", schema.Films, keyed("id", filmIds), plainFilm),
  ...byKey(
    "films",
    schema.Films,
    [
      ...keyed("languageId", ids(4)),
      ...keyed("originalLanguageId", orNull(ids(4))),
      ...keyed("rating", ["G", "PG", "R", null]),
      ...keyed("code", ["A", "B", "C", "D", null]),
      ...keyed("rate", ["$0", "$1", "$2", "$3"]),
      ...keyed("slug", ["emma", "alien", "aliens", "clueless", "playtime"]),
      ...keyed("doubled", [0, 2, 4, 6]),
      ...pairs(["languageId", ids(2)], ["rating", ["G", "PG", null]])
    ],
    plainFilm
  ),
  whole("films", schema.Films, plainFilm),
  ...filmIds.map((id) =>
    rowsWith("counts", "films", { id }, counted.row({ id }), ["title", "views", "likes"])
  ),
  ...ids(3).map((languageId) =>
    rowsWith("counts by language", "films", { languageId }, counted.by({ languageId }), ["id", "views"])
  ),
  rowsWith("all counts", "films", {}, counted.all, ["id", "likes"]),
  ...filmIds.map(filmPage),
  ...ids(4).map(filmsInLanguage),
  ...byRow("languages", schema.Languages, keyed("id", ids(4))),
  whole("languages", schema.Languages),
  ...byRow("categories", schema.Categories, keyed("id", categoryIds)),
  ...byKey("categories", schema.Categories, keyed("parentId", orNull(categoryIds))),
  ...byRow("actors", schema.Actors, keyed("id", actorIds)),
  ...byKey("actors", schema.Actors, keyed("initial", ["A", "B", "C", null])),
  ...actorIds.map(titlesOfActor),
  ...keyed("filmId", filmIds).map((key: any) =>
    rowsWith("of film", "filmActor", key, schema.Casting.of({ film: key.filmId }))
  ),
  ...keyed("actorId", actorIds).map((key: any) =>
    rowsWith("of actor", "filmActor", key, schema.Casting.of({ actor: key.actorId }))
  ),
  ...byRow(
    "filmActor",
    schema.Castings,
    pairs(["filmId", filmIds.slice(0, 2)], ["actorId", actorIds.slice(0, 2)])
  ),
  rowsWith("all", "filmActor", {}, schema.Casting.all),
  ...keyed("filmId", filmIds).map((key: any) =>
    rowsWith("of film", "filmCategory", key, schema.Sorting.of({ film: key.filmId }))
  ),
  ...keyed("categoryId", categoryIds).map((key: any) =>
    rowsWith("of category", "filmCategory", key, schema.Sorting.of({ category: key.categoryId }))
  ),
  ...filmIds.map(sequelsOf),
  ...keyed("sequelId", filmIds).map((key: any) =>
    rowsWith("of sequel", "filmSequel", key, schema.Sequels.of({ sequel: key.sequelId }))
  ),
  ...byRow("stores", schema.Stores, keyed("id", storeIds), plainStore),
  ...byKey("stores", schema.Stores, keyed("managerId", orNull(staffIds)), plainStore),
  whole("stores", schema.Stores, plainStore),
  ...storeIds.map((id) => rowsWith("visits", "stores", { id }, visited.row({ id }), ["city", "visits"])),
  rowsWith("all visits", "stores", {}, visited.all, ["visits"]),
  ...byRow("staff", schema.Staff, keyed("id", staffIds)),
  ...byKey("staff", schema.Staff, [...keyed("storeId", storeIds), ...keyed("reportsTo", orNull(staffIds))]),
  ...staffIds.map(bossOf),
  ...byRow("customers", schema.Customers, keyed("id", customerIds), plainCustomer),
  ...byKey(
    "customers",
    schema.Customers,
    [
      ...keyed("storeId", orNull(storeIds)),
      ...keyed("email", ["a@x", "b@x", "c@x", "d@x", null]),
      ...keyed("active", [true, false]),
      ...keyed("discount", ["1.5", "0.00", "10", null]),
      ...keyed("card", ["ab", "c   ", null]),
      ...keyed("token", [token, token.toUpperCase(), null])
    ],
    plainCustomer
  ),
  ...orNull(storeIds).map(customersOf),
  ...byRow("inventory", schema.Inventory, pairs(["storeId", storeIds], ["copy", copies]), plainInventory),
  ...byKey(
    "inventory",
    schema.Inventory,
    [...keyed("storeId", storeIds), ...keyed("filmId", filmIds), ...keyed("worn", [true, false])],
    plainInventory
  ),
  ...storeIds.map((storeId) =>
    rowsWith("wear by store", "inventory", { storeId }, worn.by({ storeId }), ["copy", "wear"])
  ),
  ...byRow("holds", schema.Holds, keyed("id", ids(4))),
  ...byKey("holds", schema.Holds, [
    ...keyed("customerId", orNull(customerIds)),
    ...pairs(["storeId", ids(2)], ["copy", [1, 2, null]])
  ]),
  ...filmIds.map(whereToGet),
  ...byRow("rentals", schema.Rentals, keyed("id", rentalIds)),
  ...byKey("rentals", schema.Rentals, [
    ...keyed("customerId", orNull(customerIds)),
    ...keyed("staffId", orNull(staffIds)),
    ...pairs(["storeId", storeIds.slice(0, 3)], ["copy", copies.slice(0, 2)])
  ]),
  ...storeIds.map(takings),
  ...byRow("payments", schema.Payments, pairs(["id", ids(5)], ["month", [1, 5, 9]])),
  ...byKey("payments", schema.Payments, [
    ...keyed("rentalId", orNull(rentalIds)),
    ...keyed("customerId", orNull(customerIds)),
    ...keyed("month", [1, 2, 5, 9])
  ]),
  ...byRow(
    "reviews",
    schema.Reviews,
    pairs(["filmId", filmIds.slice(0, 4)], ["customerId", customerIds.slice(0, 4)])
  ),
  ...byKey("reviews", schema.Reviews, [
    ...keyed("filmId", filmIds),
    ...keyed("customerId", customerIds),
    ...keyed("place", [1, 2, 3, null])
  ]),
  whole("reviews", schema.Reviews),
  ...byKey("audit", schema.Audit, keyed("customerId", orNull(customerIds))),
  whole("audit", schema.Audit),
  ...keyed("filmId", filmIds).map((key: any) => rowsWith("of film", "notes", key, someNote))
]
