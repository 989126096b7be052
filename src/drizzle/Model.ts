/**
 * A model binds a Drizzle table to tags, so that writes can say which rows they changed and entries which they read.
 *
 * There is a tag for each row (by primary key), for each value of each declared key, and two for the table: `all`,
 * "some row changed", and `unknown`, "rows changed that nobody can name". An entry that rests on a row or a key carries
 * `unknown` beside it; a write that can name its rows invalidates these and `all`, one that cannot `all` and `unknown`.
 *
 * Models are known by their table's name, in the whole process: a write finds the model of the table it writes.
 */
import { Column, is } from "drizzle-orm"
import { getTableConfig, type PgTable } from "drizzle-orm/pg-core"
import { CachemeError, describe, InvalidDefinition, InvalidKey } from "../CachemeError.ts"
import * as Definition from "../Definition.ts"
import * as Key from "../Key.ts"
import * as Tag from "../Tag.ts"
import { kindOf } from "./columnText.ts"

type ColumnName<T extends PgTable> = Extract<keyof T["_"]["columns"], string>

/** The declared keys of a model: for each name, the columns that make it. */
export type Keys<T extends PgTable> = {
  readonly [name: string]: readonly [ColumnName<T>, ...Array<ColumnName<T>>]
}

type PrimaryKeyName<T extends PgTable> = {
  [C in ColumnName<T>]: T["_"]["columns"][C]["_"]["isPrimaryKey"] extends true ? C : never
}[ColumnName<T>]

/** What tells a row: its primary key, or a row that has it. */
export type RowKey<T extends PgTable> = [PrimaryKeyName<T>] extends [never]
  ? Partial<T["$inferSelect"]>
  : { readonly [C in PrimaryKeyName<T>]: T["$inferSelect"][C] }

/** The columns of one declared key, with their values. */
export type DeclaredKey<T extends PgTable, K extends Keys<T>> = {
  [N in keyof K]: { readonly [C in K[N][number]]: T["$inferSelect"][C] }
}[keyof K]

/** A table, bound to tags. */
export interface Model<T extends PgTable, K extends Keys<T>> {
  readonly table: T
  /** The row with this primary key. Throws `InvalidKey` for a value that is missing or of another type. */
  readonly row: (key: RowKey<T>) => Tag.Tag
  /** The rows with these values in a declared key. Throws `InvalidKey` for what is not a declared key. */
  readonly by: (key: DeclaredKey<T, K>) => Tag.Tag
  /** Some row. */
  readonly all: Tag.Tag
  /** Rows that changed in a way that could not be told. */
  readonly unknown: Tag.Tag
}

/** The options of a model: see {@link make}. */
export interface Options<T extends PgTable, K extends Keys<T>> {
  /** Sets of columns by which rows are looked for; the primary key is one without saying so. */
  readonly keys?: K | undefined
}

/** A column that tells rows apart. */
export interface KeyColumn {
  /** Its name in the table object, and in tags. */
  readonly property: string
  readonly column: Column
}

/** What is known of a table in this process. */
export interface ModelDefinition extends Definition.Definition {
  readonly kind: "model"
  /** The columns of the primary key; none if there is no such key, or one whose values have no canonical text. */
  readonly primaryKey: ReadonlyArray<KeyColumn>
  readonly keys: ReadonlyArray<ReadonlyArray<KeyColumn>>
  /** Groups of columns whose changes alone leave other readers' entries fresh. */
  readonly volatile: ReadonlyMap<string, ReadonlyArray<KeyColumn>>
  /** All columns that a tag may need. */
  readonly columns: ReadonlyArray<KeyColumn>
}

const models = new Map<string, ModelDefinition>()

/** The model of the table with this name, if one has been made. */
export const find = (table: string): ModelDefinition | undefined => models.get(table)

/**
 * Binds a table to tags.
 *
 * **Details**
 *
 * `keys` declares by which columns rows are looked for, beside the primary key. Only columns whose equality is that of
 * their text can be declared: integers, boolean, uuid, text and varchar (under a deterministic collation), enums.
 * Throws `CachemeError`: `InvalidDefinition` for a column that is unknown, of another type, or named twice, and
 * `DefinitionConflict` for a second, different model of one table.
 *
 * **Example** (Books, looked for by author)
 *
 * ```ts
 * import { Model } from "cacheme/drizzle"
 * import { integer, pgTable, text } from "drizzle-orm/pg-core"
 *
 * const books = pgTable("books", { id: integer().primaryKey(), authorId: integer(), title: text() })
 *
 * const Books = Model.make(books, { keys: { byAuthor: ["authorId"] } })
 *
 * const tags = [Books.row({ id: 7 }), Books.by({ authorId: 3 }), Books.all]
 * ```
 */
export const make = <T extends PgTable, const K extends Keys<T> = {}>(
  table: T,
  options: Options<T, K> = {}
): Model<T, K> => {
  const definition = defineUnsafe(table, options.keys ?? {}, Definition.locate(make))
  const known = models.get(definition.name)
  if (known !== undefined) Definition.assertSameUnsafe(known, definition)
  models.set(definition.name, definition)
  const { all, unknown } = tableIds(definition.name)
  const row = (key: object) => {
    if (definition.primaryKey.length === 0) {
      throw invalidKey(
        definition,
        "row",
        "a table with a primary key whose values have a canonical text",
        "none"
      )
    }
    return rowsTag(definition, definition.primaryKey, key, false)
  }
  return {
    table,
    row,
    by: (key) => rowsTag(definition, declaredUnsafe(definition, key), key, true),
    all: Tag.makeUnsafe(definition, all, { carries: [unknown], reaches: [unknown] }),
    unknown: Tag.makeUnsafe(definition, unknown, { reaches: [all] })
  }
}

/** The ids of a table's two tags. */
export const tableIds = (
  table: string,
  _group?: string
): { readonly all: string; readonly unknown: string } => ({
  all: `@${table}:*`,
  unknown: `@${table}:?`
})

/** The name of a table in tags: without the schema if it is the default one. */
export const tableName = (schema: string | undefined, name: string): string =>
  schema === undefined || schema === "public" ? escape(name) : `${escape(schema)}.${escape(name)}`

/** The values of a row's key columns as the server writes them, by property. */
export type ServerRow = Readonly<Record<string, string | null | undefined>>

/** The ids of the row and of its declared keys. Keys whose tag nobody could make (over 1 KiB) are left out. */
export const changedIds = (
  definition: ModelDefinition,
  row: ServerRow,
  _group?: string
): ReadonlyArray<string> =>
  [definition.primaryKey, ...definition.keys].flatMap((columns) => {
    if (columns.length === 0) return []
    if (columns === definition.primaryKey && columns.some(({ property }) => (row[property] ?? null) === null))
      return []
    const id = idOf(definition, columns, ({ property, column }) => {
      const text = row[property]
      return text === null || text === undefined ? null : kindOf(column)?.text(text)
    })
    return id === undefined || Key.isTooLong(id) ? [] : [id]
  })

const rowsTag = (
  definition: ModelDefinition,
  columns: ReadonlyArray<KeyColumn>,
  key: object,
  allowsNull: boolean
): Tag.Tag => {
  const { all, unknown } = tableIds(definition.name)
  const id = idOf(definition, columns, ({ property, column }) => {
    const value = (key as Record<string, unknown>)[property]
    if (value === null && allowsNull) return null
    const kind = kindOf(column)!
    const text = value === undefined || value === null ? undefined : kind.text(column.mapToDriverValue(value))
    if (text === undefined) {
      throw invalidKey(definition, property, kind.expected, value === undefined ? "missing" : describe(value))
    }
    return text
  })
  return Tag.makeUnsafe(definition, id!, { carries: [unknown], reaches: [all] })
}

/** A null is written so that no text can be: after a % there are always two digits. */
const nullText = "%null"

const idOf = (
  definition: ModelDefinition,
  columns: ReadonlyArray<KeyColumn>,
  textOf: (column: KeyColumn) => string | null | undefined
): string | undefined => {
  const parts: Array<string> = []
  for (const column of columns) {
    const text = textOf(column)
    if (text === undefined) return undefined
    parts.push(`${escape(column.column.name)}=${text === null ? nullText : escape(text)}`)
  }
  return `@${definition.name}:${parts.join(",")}`
}

const escape = (text: string): string =>
  Key.escape(text).replaceAll(/[=,.?]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`)

/** The declared key that has just these columns. */
const declaredUnsafe = (definition: ModelDefinition, key: object): ReadonlyArray<KeyColumn> => {
  const given = Object.keys(key)
  const found = definition.keys.find(
    (columns) => columns.length === given.length && columns.every(({ property }) => given.includes(property))
  )
  if (found !== undefined) return found
  const declared = definition.keys.map(
    (columns) => `{ ${columns.map(({ property }) => property).join(", ")} }`
  )
  throw invalidKey(
    definition,
    given.join(", "),
    `the columns of a declared key: ${declared.join(", ") || "none is declared"}`,
    describe(key)
  )
}

const defineUnsafe = (
  table: PgTable,
  keys: { readonly [name: string]: ReadonlyArray<string> },
  definedAt: string
): ModelDefinition => {
  const config = getTableConfig(table)
  const name = tableName(config.schema, config.name)
  const owner = `model "${name}"`
  const tableColumns = Object.entries(table).filter(([, column]) => is(column, Column)) as Array<
    [string, Column]
  >
  // By name: a composite primary key holds other objects for the same columns.
  const named = ({ name }: Column): KeyColumn => {
    const [property, column] = tableColumns.find(([, column]) => column.name === name)!
    return { property, column }
  }
  const invalid = (field: string, expected: string, actual: string) =>
    new CachemeError({ reason: new InvalidDefinition({ definition: owner, field, expected, actual }) })

  const declared = Object.entries(keys).map(([key, columns]) => {
    const field = `key "${key}"`
    if (!Array.isArray(columns) || columns.length === 0)
      throw invalid(field, "a list of columns", describe(columns))
    if (new Set(columns).size < columns.length) throw invalid(field, "each column once", describe(columns))
    return columns.map((property): KeyColumn => {
      const column = tableColumns.find(([known]) => known === property)?.[1]
      if (column === undefined) {
        const known = tableColumns.map(([known]) => known).join(", ")
        throw invalid(field, `columns of "${name}" (${known})`, describe(property))
      }
      if (kindOf(column) === undefined) {
        throw invalid(
          field,
          "columns of a type that is told by its text: integers, boolean, uuid, text, varchar, enums",
          `${describe(property)} of type ${column.getSQLType()}`
        )
      }
      return { property, column }
    })
  })
  const sets = declared.map((columns) =>
    sorted(columns)
      .map(({ property }) => property)
      .join()
  )
  const repeated = sets.find((set, i) => sets.indexOf(set) < i)
  if (repeated !== undefined) throw invalid("keys", "each set of columns once", repeated)

  const primary = config.columns.filter((column) => column.primary)
  const composite = config.primaryKeys[0]?.columns ?? []
  const primaryKey = (primary.length > 0 ? primary : composite).map(named)
  const usable = primaryKey.every(({ column }) => kindOf(column) !== undefined) ? sorted(primaryKey) : []
  const all = [usable, ...declared.map(sorted)]
  return {
    kind: "model",
    name,
    definedAt,
    primaryKey: usable,
    keys: all.slice(1),
    volatile: new Map(),
    columns: [...new Map(all.flat().map((column) => [column.property, column])).values()],
    parts: () => ({
      "primary key": written(usable),
      keys: all.slice(1).map(written).toSorted().join(" ")
    })
  }
}

/** In one order, whatever the order of declaration. */
const sorted = (columns: ReadonlyArray<KeyColumn>): ReadonlyArray<KeyColumn> =>
  columns.toSorted((a, b) => (a.column.name < b.column.name ? -1 : 1))

const written = (columns: ReadonlyArray<KeyColumn>): string =>
  columns.map(({ column }) => `${column.name} ${column.getSQLType()}`).join(",")

const invalidKey = (definition: ModelDefinition, field: string, expected: string, actual: string) =>
  new CachemeError({
    reason: new InvalidKey({ definition: `model "${definition.name}"`, field, expected, actual })
  })
