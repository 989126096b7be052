/**
 * A link binds a table of links between rows (many to many) to its sides: which books a user reads, and who reads a book.
 *
 * There is a tag for each value of each side: all links that one user, or one book, has. A write to the link table
 * through `Db.mutate` changes the tags of both sides of each link that it adds, removes or moves, as it was and as it is.
 * They are the tags of keys of one column each, and a table may have a `Model` beside its link.
 */
import { Column, is } from "drizzle-orm"
import { getTableConfig, type PgTable } from "drizzle-orm/pg-core"
import { describe } from "../CachemeError.ts"
import * as Definition from "../Definition.ts"
import type * as Tag from "../Tag.ts"
import { type Kind, typesWithText } from "./columnText.ts"
import {
  allTold,
  columnsOf,
  type Declaration,
  invalidDefinition,
  invalidKey,
  type KeyColumn,
  registerUnsafe,
  schemaOf,
  type TableSchema,
  told,
  type ToldColumn,
  written
} from "./modelDefinition.ts"
import { restOf, tableName, tableTags } from "./modelTags.ts"

/** The sides of a link: for each name, the column that refers to the rows on that side. */
export type Sides<T extends PgTable> = {
  readonly [side: string]: T["_"]["columns"][keyof T["_"]["columns"]]
}

/** One side of a link, and a row there: the row itself, or the id by which the link refers to it. */
export type Side<S extends { readonly [side: string]: Column }> = {
  readonly [N in keyof S]: { readonly [P in N]: Id<S[P]> | Row } & {
    readonly [P in Exclude<keyof S, N>]?: never
  }
}[keyof S]

/** A column of a type that the program made maps its values itself, so they are given as the program has them. */
type Id<C extends Column> = C["_"]["columnType"] extends "PgCustomColumn"
  ? Extract<C["_"]["data"], number | bigint | string>
  : C["_"]["data"] extends number | bigint
    ? number | bigint | string
    : C["_"]["data"] extends string
      ? C["_"]["data"]
      : string

/** A row of the table that a column refers to. Which one that is, Drizzle's types do not tell. A list is none. */
type Row = ({ readonly [property: string]: unknown } | object) & { readonly [Symbol.iterator]?: never }

/** A table of links, bound to tags. */
export interface Link<T extends PgTable, S extends Sides<T>> {
  readonly table: T
  /**
   * The links of one row. Throws `InvalidKey`, naming the side, for anything but one side with a row that has the column
   * that is referred to, or with an id.
   */
  readonly of: (side: Side<S>) => Tag.Tag
  /** Some link. */
  readonly all: Tag.Tag
  /** Links that changed in a way that could not be told. */
  readonly unknown: Tag.Tag
}

/**
 * Binds a table of links to tags, one for each row on each side.
 *
 * **Details**
 *
 * A side is given as a row of the table that its column refers to, or as an id: a number, a bigint, or the text of one.
 * Of a row the referenced column is taken, which is found by the foreign key that Drizzle knows (`.references()` or
 * `foreignKey()`); where there is none, the property `id`. A table that links its rows with one another has two sides
 * too.
 *
 * Throws `CachemeError`: `InvalidDefinition` for fewer than two sides, for what is no column of the table, for a column
 * that is two sides, or one of a type that is not told by its text; `DefinitionConflict` for a second, different link of
 * one table.
 *
 * **Example** (Who reads what)
 *
 * ```ts
 * import { Node } from "cacheme"
 * import { Model } from "cacheme/drizzle"
 * import { integer, pgTable, primaryKey, text } from "drizzle-orm/pg-core"
 * import { Schema } from "effect"
 *
 * const users = pgTable("users", { id: integer().primaryKey(), name: text() })
 * const books = pgTable("books", { id: integer().primaryKey(), title: text() })
 * const usersToBooks = pgTable(
 *   "users_to_books",
 *   {
 *     userId: integer().references(() => users.id),
 *     bookId: integer().references(() => books.id)
 *   },
 *   (table) => [primaryKey({ columns: [table.userId, table.bookId] })]
 * )
 *
 * const Reading = Model.link(usersToBooks, { user: usersToBooks.userId, book: usersToBooks.bookId })
 *
 * class ReadByNode extends Node.Class<ReadByNode>()("readBy", {
 *   key: { userId: Schema.Int },
 *   value: Schema.Array(Schema.Int),
 *   tags: ({ userId }) => Reading.of({ user: userId })
 * }) {}
 * ```
 */
export const link = <T extends PgTable, const S extends Sides<T>>(table: T, sides: S): Link<T, S> => {
  const schema = schemaOf(table)
  const known = sidesUnsafe(table, schema, sides)
  const definition = registerUnsafe("link", declarationOf(schema, known, Definition.locate(link)))
  const tags = tableTags(definition)
  return {
    table,
    of: (given) => tags.rows(readUnsafe(schema, known, given)),
    all: tags.all,
    unknown: tags.unknown
  }
}

interface KnownSide {
  readonly name: string
  readonly column: ToldColumn
  /** The column that this one refers to, and its table; asked for late, when all tables have been made. */
  readonly referenced: () => Referenced
}

interface Referenced extends KeyColumn {
  readonly table: string
}

const ownerOf = ({ name }: TableSchema) => `link "${name}"`

const declarationOf = (
  schema: TableSchema,
  sides: ReadonlyArray<KnownSide>,
  definedAt: string
): Declaration => ({
  name: schema.name,
  schema,
  definedAt,
  primaryKey: allTold(schema.primaryKey),
  keys: sides.map(({ column }) => [column]),
  volatile: new Map(),
  parts: {
    sides: sides
      .map(({ name, column }) => `${name}: ${written([column])}`)
      .toSorted()
      .join("; ")
  }
})

const sidesUnsafe = (
  table: PgTable,
  schema: TableSchema,
  sides: { readonly [side: string]: unknown }
): ReadonlyArray<KnownSide> => {
  const entries = Object.entries(sides)
  if (entries.length < 2) {
    const actual = entries.map(([side]) => side).join(", ") || "none"
    throw invalidDefinition(ownerOf(schema), "sides", "two sides or more", actual)
  }
  const names = new Map<unknown, string>()
  return entries.map(([name, given]) => {
    const field = `side "${name}"`
    const known = schema.columns.find(({ column }) => column === given)
    if (known === undefined) {
      const expected = `a column of "${schema.name}" (${schema.columns.map(({ property }) => property).join(", ")})`
      const actual = is(given, Column) ? `the column "${given.name}" of another table` : describe(given)
      throw invalidDefinition(ownerOf(schema), field, expected, actual)
    }
    const column = told(known)
    if (column === undefined) {
      const expected = `a column of a type that is told by its text: ${typesWithText}`
      const actual = `${describe(known.property)} of type ${known.column.getSQLType()}`
      throw invalidDefinition(ownerOf(schema), field, expected, actual)
    }
    const other = names.get(given)
    if (other !== undefined) {
      const actual = `${describe(known.property)}, which is the side "${other}"`
      throw invalidDefinition(ownerOf(schema), field, "a column of no other side", actual)
    }
    names.set(given, name)
    let found: Referenced | undefined
    return { name, column, referenced: () => (found ??= referencedBy(table, schema, column)) }
  })
}

/** The column that a column refers to by a foreign key, the shortest if there are several; else an `id`. */
const referencedBy = (table: PgTable, schema: TableSchema, { column }: KeyColumn): Referenced => {
  const [key] = getTableConfig(table)
    .foreignKeys.map((foreignKey) => foreignKey.reference())
    .filter(({ columns }) => columns.some(({ name }) => name === column.name))
    .toSorted((a, b) => a.columns.length - b.columns.length)
  if (key === undefined) return { table: `what "${schema.name}" refers to`, property: "id", column }
  const { name } = key.foreignColumns[key.columns.findIndex((own) => own.name === column.name)]!
  const { schema: of, name: called } = getTableConfig(key.foreignTable)
  return {
    table: `"${tableName(of, called)}"`,
    ...columnsOf(key.foreignTable).find((foreign) => foreign.column.name === name)!
  }
}

/** The value of the one side that is given, as it is written in ids. */
const readUnsafe = (schema: TableSchema, sides: ReadonlyArray<KnownSide>, given: object): string => {
  const isObject = typeof given === "object" && given !== null
  const entries = isObject ? Object.entries(given).filter(([, value]) => value !== undefined) : []
  const [name, value] = entries[0] ?? []
  const side = entries.length === 1 ? sides.find((known) => known.name === name) : undefined
  if (side === undefined) {
    const field = (entries.length > 0 ? entries : Object.entries(given ?? {})).map(([key]) => key).join(", ")
    const expected = `one side of ${sides.map((known) => known.name).join(", ")}`
    throw invalidKey(ownerOf(schema), field, expected, describe(given))
  }
  const { column, referenced } = side
  if (typeof value !== "object" || value === null) {
    const text = textOf(column.column, column.kind, value)
    if (text !== undefined) return restOf([column], () => text)!
    throw invalidKey(ownerOf(schema), side.name, expectedOf(side), describe(value))
  }
  const { property, column: read } = referenced()
  const id = (value as Readonly<Record<string, unknown>>)[property]
  const text = textOf(read, column.kind, id)
  if (text !== undefined) return restOf([column], () => text)!
  const actual = `an object whose ${property} is ${id === undefined ? "missing" : describe(id)}`
  throw invalidKey(ownerOf(schema), side.name, expectedOf(side), actual)
}

const expectedOf = ({ column, referenced }: KnownSide): string => {
  const { table, property } = referenced()
  return `${column.kind.expected}, or a row of ${table} with ${property}`
}

/** The text of an id, as a program has it in this column. */
const textOf = (column: Column, kind: Kind, id: unknown): string | undefined => {
  if (typeof id !== "number" && typeof id !== "bigint" && typeof id !== "string") return undefined
  const isText = typeof id === "string" && !/^(string|custom)\b/.test(column.dataType)
  // A text where the column's own values are none: only as the server writes it, and as no program value.
  if (isText) return kind.text(id) === id ? id : undefined
  return kind.text(column.mapToDriverValue(id))
}
