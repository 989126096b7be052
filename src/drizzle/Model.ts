/**
 * A model binds a Drizzle table to tags, so that writes can say which rows they changed and queries which they read.
 *
 * There is a tag for each row (by primary key), for each value of each declared key, and two for the table: `all`,
 * "some row changed", and `unknown`, "rows changed that nobody can name". An entry that rests on a row or a key carries
 * `unknown` beside it; a write that can name its rows invalidates these and `all`, one that cannot `all` and `unknown`.
 *
 * Models are known by their table's name, in the whole process: a write finds the model of the table it writes.
 */
import type { PgTable } from "drizzle-orm/pg-core"
import { describe } from "../CachemeError.ts"
import * as Definition from "../Definition.ts"
import type * as Tag from "../Tag.ts"
import { typesWithText } from "./columnText.ts"
import {
  allTold,
  type Declaration,
  invalidDefinition,
  invalidKey,
  type KeyColumn,
  registerUnsafe,
  schemaOf,
  type TableSchema,
  told,
  type ToldColumn,
  written,
  writtenGroups
} from "./modelDefinition.ts"
import { restOf, tableTags } from "./modelTags.ts"

export { type Link, link, type Side, type Sides } from "./Link.ts"
export { find, type KeyColumn, type ModelDefinition } from "./modelDefinition.ts"
export {
  changedIds,
  idsOfTables,
  type ServerRow,
  tableIds,
  tableName,
  unknownChangeIds
} from "./modelTags.ts"

type ColumnName<T extends PgTable> = Extract<keyof T["_"]["columns"], string>

/** The declared keys of a model: for each name, the columns that make it. */
export type Keys<T extends PgTable> = {
  readonly [name: string]: readonly [ColumnName<T>, ...Array<ColumnName<T>>]
}

type PrimaryKeyName<T extends PgTable> = {
  [C in ColumnName<T>]: T["_"]["columns"][C]["_"]["isPrimaryKey"] extends true ? C : never
}[ColumnName<T>]

type VolatileName<T extends PgTable> = Exclude<ColumnName<T>, PrimaryKeyName<T>>

/** The groups of volatile columns of a model, by name. */
export type Volatile<T extends PgTable> = {
  readonly [group: string]: readonly [VolatileName<T>, ...Array<VolatileName<T>>]
}

/** What tells a row: its primary key, or a row that has it. */
export type RowKey<T extends PgTable> = [PrimaryKeyName<T>] extends [never]
  ? Partial<T["$inferSelect"]>
  : { readonly [C in PrimaryKeyName<T>]: T["$inferSelect"][C] }

/** The columns of one declared key, with their values. */
export type DeclaredKey<T extends PgTable, K extends Keys<T>> = {
  [N in keyof K]: { readonly [C in K[N][number]]: T["$inferSelect"][C] }
}[keyof K]

/** The tags of a table, for entries that rest on some of its columns. */
export interface View<T extends PgTable, K extends Keys<T>> {
  /** The row with this primary key. Throws `InvalidKey` for a value that is missing or of another type. */
  readonly row: (key: RowKey<T>) => Tag.Tag
  /** The rows with these values in a declared key. Throws `InvalidKey` for what is not a declared key. */
  readonly by: (key: DeclaredKey<T, K>) => Tag.Tag
  /** Some row. */
  readonly all: Tag.Tag
  /** Rows that changed in a way that could not be told. */
  readonly unknown: Tag.Tag
}

/**
 * A table, bound to tags. Its own tags are for entries that rest on none of the volatile columns; where there are none,
 * for all entries.
 */
export interface Model<T extends PgTable, K extends Keys<T>, V extends Volatile<T> = {}> extends View<T, K> {
  readonly table: T
  /**
   * The tags for entries that rest on groups of volatile columns as well: they are stale when any other column changed,
   * or one of these groups. Invalidating such a tag by hand reaches whoever the model's own tag reaches, too. Throws
   * `InvalidKey` for a group that is not declared.
   *
   * **Example** (A page that shows how often a book was viewed, and a title that does not)
   *
   * ```ts
   * import { Node } from "cacheme"
   * import { Model } from "cacheme/drizzle"
   * import { integer, pgTable, text } from "drizzle-orm/pg-core"
   * import { Schema } from "effect"
   *
   * const books = pgTable("books", { id: integer().primaryKey(), title: text(), views: integer() })
   * const Books = Model.make(books, { volatile: { stats: ["views"] } })
   *
   * class TitleNode extends Node.Class<TitleNode>()("title", {
   *   key: { id: Schema.Int },
   *   value: Schema.String,
   *   tags: ({ id }) => Books.row({ id })
   * }) {}
   *
   * class PageNode extends Node.Class<PageNode>()("page", {
   *   key: { id: Schema.Int },
   *   value: Schema.Struct({ title: Schema.String, views: Schema.Int }),
   *   tags: ({ id }) => Books.including("stats").row({ id })
   * }) {}
   * ```
   */
  readonly including: (...groups: readonly [Group<V>, ...Array<Group<V>>]) => View<T, K>
}

type Group<V> = Extract<keyof V, string>

/** The options of a model: see {@link make}. */
export interface Options<T extends PgTable, K extends Keys<T>, V extends Volatile<T> = {}> {
  /** Sets of columns by which rows are looked for; the primary key, and what is unique, are without saying so. */
  readonly keys?: K | undefined
  /** Groups of columns that change often and are read seldom; see {@link Model.including}. */
  readonly volatile?: V | undefined
}

/**
 * Binds a table to tags.
 *
 * **Details**
 *
 * `keys` declares by which columns rows are looked for, beside the primary key and what Drizzle's schema says is unique:
 * a query that asks for rows by them rests on those rows only. Only columns whose equality is that of
 * their text can be declared: integers, numeric, boolean, uuid, text, varchar and char (under a deterministic
 * collation), enums.
 *
 * `volatile` declares groups of columns, of any type, whose changes alone leave entries fresh: a counter of views, the
 * time of the last visit. An entry that rests on such a column says so by `including`.
 *
 * Throws `CachemeError`: `InvalidDefinition` for a column that is unknown, of another type, or named twice, and for a
 * volatile column that is in a key, in the primary key or in another group; `DefinitionConflict` for a second, different
 * model of one table.
 *
 * **Gotchas**
 *
 * A query tells which volatile columns it names. An entry with tags by hand that shows one, and carries the model's own
 * tag, is not told of its changes: whoever declares a group looks through these.
 *
 * **Example** (Books, looked for by author, with a counter)
 *
 * ```ts
 * import { Model } from "cacheme/drizzle"
 * import { integer, pgTable, text } from "drizzle-orm/pg-core"
 *
 * const books = pgTable("books", {
 *   id: integer().primaryKey(),
 *   authorId: integer(),
 *   title: text(),
 *   views: integer()
 * })
 *
 * const Books = Model.make(books, { keys: { byAuthor: ["authorId"] }, volatile: { stats: ["views"] } })
 *
 * const tags = [Books.row({ id: 7 }), Books.by({ authorId: 3 }), Books.all, Books.including("stats").row({ id: 7 })]
 * ```
 */
export const make = <T extends PgTable, const K extends Keys<T> = {}, const V extends Volatile<T> = {}>(
  table: T,
  options: Options<T, K, V> = {}
): Model<T, K, V> => {
  const declaration = declareUnsafe(
    schemaOf(table),
    options.keys ?? {},
    options.volatile ?? {},
    Definition.locate(make)
  )
  const definition = registerUnsafe("model", declaration)
  const viewOf = (groups?: ReadonlyArray<string>): View<T, K> => {
    const tags = tableTags(definition, groups)
    const rows = (columns: ReadonlyArray<ToldColumn>, key: object, allowsNull: boolean) =>
      tags.rows(readUnsafe(declaration, columns, key, allowsNull))
    return {
      row: (key) => rows(primaryKeyUnsafe(declaration), key, false),
      by: (key) => rows(declaredKeyUnsafe(declaration, key), key, true),
      all: tags.all,
      unknown: tags.unknown
    }
  }
  return {
    table,
    ...viewOf(),
    including: (...groups) => viewOf(groupsUnsafe(declaration, groups))
  }
}

// ------------------------------------------------------------------------------------------------------ for readers

const ownerOf = ({ name }: { readonly name: string }) => `model "${name}"`

/** The values of some columns as they are written in ids. */
const readUnsafe = (
  declaration: Declaration,
  columns: ReadonlyArray<ToldColumn>,
  key: object,
  allowsNull: boolean
): string =>
  restOf(columns, ({ property, column, kind }) => {
    const value = (key as Readonly<Record<string, unknown>>)[property]
    if (value === null && allowsNull) return null
    const text = value === undefined || value === null ? undefined : kind.text(column.mapToDriverValue(value))
    if (text === undefined) {
      const actual = value === undefined ? "missing" : describe(value)
      throw invalidKey(ownerOf(declaration), property, kind.expected, actual)
    }
    return text
  })!

const primaryKeyUnsafe = (declaration: Declaration): ReadonlyArray<ToldColumn> => {
  if (declaration.primaryKey.length > 0) return declaration.primaryKey
  const expected = "a table with a primary key whose values have a canonical text"
  throw invalidKey(ownerOf(declaration), "row", expected, "none")
}

/** The declared key that has just these columns. */
const declaredKeyUnsafe = (declaration: Declaration, key: object): ReadonlyArray<ToldColumn> => {
  const given = Object.keys(key)
  const found = declaration.keys.find(
    (columns) => columns.length === given.length && columns.every(({ property }) => given.includes(property))
  )
  if (found !== undefined) return found
  const declared = declaration.keys.map(
    (columns) => `{ ${columns.map(({ property }) => property).join(", ")} }`
  )
  throw invalidKey(
    ownerOf(declaration),
    given.join(", "),
    `the columns of a declared key: ${declared.join(", ") || "none is declared"}`,
    describe(key)
  )
}

/** Declared groups, in one order, each once. */
const groupsUnsafe = (declaration: Declaration, given: ReadonlyArray<string>): ReadonlyArray<string> => {
  const groups = [...new Set(given)].toSorted()
  const wrong = groups.find((group) => !declaration.volatile.has(group))
  if (wrong === undefined && groups.length > 0) return groups
  const declared = [...declaration.volatile.keys()].join(", ")
  throw invalidKey(
    ownerOf(declaration),
    "including",
    `groups of volatile columns (${declared || "none is declared"})`,
    groups.length === 0 ? "none" : describe(wrong)
  )
}

// ------------------------------------------------------------------------------------------------- what is declared

type ColumnLists = { readonly [name: string]: ReadonlyArray<string> }

const declareUnsafe = (
  schema: TableSchema,
  keys: ColumnLists,
  volatile: ColumnLists,
  definedAt: string
): Declaration => {
  const declared = keysUnsafe(schema, keys)
  const groups = groupsOfUnsafe(schema, volatile, declared)
  return {
    name: schema.name,
    schema,
    definedAt,
    primaryKey: allTold(schema.primaryKey),
    keys: declared,
    volatile: groups,
    parts: { keys: declared.map(written).toSorted().join(" "), volatile: writtenGroups(groups) }
  }
}

const keysUnsafe = (schema: TableSchema, keys: ColumnLists): Declaration["keys"] => {
  const declared = Object.entries(keys).map(([name, properties]) => {
    const field = `key "${name}"`
    const columns = columnsUnsafe(schema, field, properties)
    const other = columns.find((column) => told(column) === undefined)
    if (other !== undefined) {
      throw invalidDefinition(
        ownerOf(schema),
        field,
        `columns of a type that is told by its text: ${typesWithText}`,
        `${describe(other.property)} of type ${other.column.getSQLType()}`
      )
    }
    return allTold(columns)
  })
  const sets = declared.map((columns) => columns.map(({ property }) => property).join())
  const repeated = sets.find((set, i) => sets.indexOf(set) < i)
  if (repeated !== undefined)
    throw invalidDefinition(ownerOf(schema), "keys", "each set of columns once", repeated)
  return declared
}

const groupName = /^[A-Za-z_][\w.\-/]{0,99}$/

const groupsOfUnsafe = (
  schema: TableSchema,
  volatile: ColumnLists,
  keys: Declaration["keys"]
): Declaration["volatile"] => {
  const inKeys = new Map([...schema.primaryKey, ...keys.flat()].map(({ property }) => [property, "in a key"]))
  const groups = new Map<string, ReadonlyArray<KeyColumn>>()
  for (const [group, properties] of Object.entries(volatile)) {
    const field = `volatile group ${describe(group)}`
    if (!groupName.test(group)) {
      const expected = "named by a letter or _, then at most 99 letters, digits, or . _ - /"
      throw invalidDefinition(ownerOf(schema), field, expected, describe(group))
    }
    const columns = columnsUnsafe(schema, field, properties)
    for (const { property } of columns) {
      const use = inKeys.get(property)
      if (use !== undefined) {
        const expected = "columns of no key and of no other group"
        throw invalidDefinition(ownerOf(schema), field, expected, `${describe(property)}, which is ${use}`)
      }
      inKeys.set(property, `in the group "${group}"`)
    }
    groups.set(group, columns)
  }
  return groups
}

/** The columns of these names. */
const columnsUnsafe = (
  schema: TableSchema,
  field: string,
  properties: ReadonlyArray<string>
): ReadonlyArray<KeyColumn> => {
  if (!Array.isArray(properties) || properties.length === 0)
    throw invalidDefinition(ownerOf(schema), field, "a list of columns", describe(properties))
  if (new Set(properties).size < properties.length)
    throw invalidDefinition(ownerOf(schema), field, "each column once", describe(properties))
  return properties.map((property) => {
    const column = schema.columns.find((known) => known.property === property)
    if (column !== undefined) return column
    const known = schema.columns.map((known) => known.property).join(", ")
    throw invalidDefinition(
      ownerOf(schema),
      field,
      `columns of "${schema.name}" (${known})`,
      describe(property)
    )
  })
}
