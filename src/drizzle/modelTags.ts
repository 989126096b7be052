/**
 * The tags of a table, and how their ids are written.
 *
 * There is a tag for each row (`@books:id=7`), for each value of each declared key (`@books:author_id=3`), and two for
 * the table: `all` (`@books:*`) and `unknown` (`@books:?`). Each of them has a twin in each group of volatile columns
 * (`@books~stats:id=7`), which a write invalidates that has changed nothing but that group, and with them `@books~*:*`,
 * "some group", for readers that do not know the groups.
 *
 * An id is put together here and nowhere else, for those who read and for those who write; where table, groups and the
 * rest stand in it is told in `tagIds.ts`, for whoever reads one.
 */
import type { Definition } from "../Definition.ts"
import * as Key from "../Key.ts"
import * as Tag from "../Tag.ts"
import * as TagIds from "../tagIds.ts"
import type { ModelDefinition, ToldColumn } from "./modelDefinition.ts"

/** The name of a table in tags: without the schema if it is the default one. */
export const tableName = (schema: string | undefined, name: string): string =>
  schema === undefined || schema === "public" ? escape(name) : `${escape(schema)}.${escape(name)}`

/** The ids of a table's two tags, or of their twins in a group of volatile columns, as readers carry them. */
export const tableIds = (
  table: string,
  group?: string
): { readonly all: string; readonly unknown: string } => {
  const prefix = rowsPrefix(table, group)
  return { all: prefix + all, unknown: prefix + unknown }
}

/** Both tags of each table. */
export const idsOfTables = (tables: Iterable<string>): ReadonlyArray<string> =>
  [...tables].flatMap((table) => Object.values(tableIds(table)))

/** What precedes {@link restOf} in the id of rows, or of its twin in a group of volatile columns. */
export const rowsPrefix = (table: string, group?: string): string =>
  TagIds.tablePrefix(table, group === undefined ? [] : [escape(group)])

/**
 * The ids of a table's two tags, and of {@link someGroupId}: for readers who cannot say which groups of volatile columns
 * there are.
 */
export const idsOfEveryGroup = (table: string): ReadonlyArray<string> => [
  ...Object.values(tableIds(table)),
  someGroupId(table)
]

/** The ids that tell that some row has changed, all of it or a group: whoever names the row tells these as well. */
const changedTableIds = (table: string, group?: string): ReadonlyArray<string> => {
  const { all } = tableIds(table, group)
  return group === undefined ? [all] : [all, someGroupId(table)]
}

/** The ids that tell that rows have changed which nobody can name, all of them or a group. */
export const unknownChangeIds = (table: string, group?: string): ReadonlyArray<string> => [
  ...changedTableIds(table, group),
  tableIds(table, group).unknown
]

/** The values of a row's key columns as the server writes them, by property. */
export type ServerRow = Readonly<Record<string, string | null | undefined>>

/**
 * The ids that tell that a row has changed: those of {@link changedTableIds}, of the row and of its declared keys, or of
 * their twins in a group of volatile columns. Keys whose tag nobody could make are left out: those over 1 KiB, and those
 * of a value that has no text.
 */
export const changedIds = (
  definition: ModelDefinition,
  row: ServerRow,
  group?: string
): ReadonlyArray<string> => {
  const prefix = rowsPrefix(definition.name, group)
  const ids: Array<string> = [...changedTableIds(definition.name, group)]
  const add = (
    columns: ReadonlyArray<ToldColumn>,
    textOf: (column: ToldColumn) => string | null | undefined
  ) => {
    const rest = restOf(columns, textOf)
    if (rest !== undefined && !Key.isTooLong(prefix + rest)) ids.push(prefix + rest)
  }
  const textOf = ({ property, kind }: ToldColumn) => {
    const text = row[property] ?? null
    return text === null ? null : kind.text(text)
  }
  // A row without a primary key is none: there was no old one.
  if (definition.primaryKey.length > 0) add(definition.primaryKey, (column) => textOf(column) ?? undefined)
  for (const columns of definition.keys) add(columns, textOf)
  return ids
}

/** What makes the tags of one table for readers that rest on its plain columns, and on groups of volatile ones. */
export interface TableTags {
  /** The tag of the rows with these values; see {@link restOf}. */
  readonly rows: (rest: string) => Tag.Tag
  readonly all: Tag.Tag
  readonly unknown: Tag.Tag
}

/** The tags of a table for readers that rest on these groups too. */
export const tableTags = (definition: Definition, groups: ReadonlyArray<string> = []): TableTags => {
  const { name } = definition
  const prefixes = [rowsPrefix(name), ...groups.map((group) => rowsPrefix(name, group))]
  // Of its own for each set of groups, because tags with equal ids are the same tag.
  const own = TagIds.tablePrefix(name, groups.map(escape))
  const tag = (rest: string, carried: ReadonlyArray<string>, reached: ReadonlyArray<string>) => {
    const id = own + rest
    const ids = (rests: ReadonlyArray<string>) =>
      prefixes.flatMap((prefix) => rests.map((rest) => prefix + rest)).filter((other) => other !== id)
    return Tag.makeUnsafe(definition, id, { carries: ids(carried), reaches: ids(reached) })
  }
  return {
    rows: (rest) => tag(rest, [rest, unknown], [rest, all]),
    all: tag(all, [all, unknown], [all, unknown]),
    unknown: tag(unknown, [unknown], [unknown, all])
  }
}

/** What follows the table in the id of a row or key; `undefined` if a value has no text. */
export const restOf = (
  columns: ReadonlyArray<ToldColumn>,
  textOf: (column: ToldColumn, index: number) => string | null | undefined
): string | undefined => {
  let rest = ""
  for (let i = 0; i < columns.length; i++) {
    const column = columns[i]!
    const text = textOf(column, i)
    if (text === undefined) return undefined
    if (rest !== "") rest += ","
    rest += column.label + (text === null ? nullText : column.kind.isPlain ? text : escape(text))
  }
  return rest
}

/** What precedes a value in an id. */
export const labelOf = (columnName: string): string => `${escape(columnName)}=`

const { allRows: all, unknownRows: unknown } = TagIds

/**
 * Some group of a table's volatile columns has changed. Readers that have no model of the table carry it: they do not know
 * the groups of those who write. No group is called so: its name is escaped.
 */
export const someGroupId = (table: string): string => TagIds.tablePrefix(table, [TagIds.someGroup]) + all

/** A null is written so that no text can be: after a % there are always two digits, or a u and four. */
const nullText = "%null"

const escape = (text: string): string =>
  mayNeedEscaping.test(text)
    ? Key.escape(text).replaceAll(/[=,.?~]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`)
    : text

const mayNeedEscaping = /[%:>*#@=,.?~\uD800-\uDFFF]/
