/**
 * How a write is made to tell each changed row as it was and as it is now, in one round trip and without a lock that it
 * would not take itself.
 *
 * - **An insert** returns the new row, **a delete** the old one, on every server.
 * - **An update** returns both where the server has them (`old.c`, `new.c`: Postgres 18). Elsewhere, if it assigns no
 *   column that tags need, and no trigger can, the row that it returns has the values of both.
 * - **An update that does assign one**, before Postgres 18, gets a common table expression in front that locks the rows
 *   and reads them, and a condition that makes it run first. The statement's own condition stays, so it does what it did
 *   before. A row whose old values were not read (it did not match when the locks were taken) is told to be unknown.
 * - **An upsert** the same: the rows that have one of its keys are locked and read before the first of them is updated.
 *   (The condition is looked at when a conflict was found, its row locked, and nothing changed yet.)
 *
 * A common table expression that only reads is not enough: under concurrent writes it sees rows as they were before the
 * write that this one has waited for. Neither is one that is joined by `ctid`: an updated row has another.
 */
import { type Column, is, SQL, type SQLWrapper, sql } from "drizzle-orm"
import {
  type Additions,
  aliasOf,
  type Builder,
  columnName,
  columnOf,
  columnsOf,
  conflictOf,
  type Dialect,
  plainValue,
  sourcesOf,
  textArray
} from "./builders.ts"
import type { TableInfo } from "./catalog.ts"
import type { Connection } from "./Connection.ts"
import type { KeyColumn, ModelDefinition, ServerRow } from "./Model.ts"
import { callsOf } from "./statementTables.ts"

/** A changed row. */
interface Change {
  readonly old: ServerRow | undefined
  readonly now: ServerRow | undefined
  /** The groups of columns in which it differs; `undefined` stands for the plain ones. */
  readonly groups: ReadonlyArray<string | undefined>
}

/** What a write must return, and how that is read. */
export interface Images {
  readonly additions: Pick<Additions, "fields" | "before" | "condition">
  /** The change of one row; `undefined` if it is not known. */
  readonly read: (row: Readonly<Record<string, string | null>>) => Change | undefined
}

/** From this version on, RETURNING tells old and new values. */
const returningOldAndNew = 180_000

/** The groups of columns that a write may change; `undefined` stands for the plain ones. */
export type Groups = ReadonlyArray<string | undefined>

/** Who rests on a group rests on the plain columns too, so a change of these needs to be told only once. */
export const toTell = (groups: Groups): Groups => (groups.includes(undefined) ? [undefined] : groups)

/** How a write is made to tell its rows; a text says why it cannot be. */
export const imagesOf = (
  builder: Builder,
  connection: Connection,
  info: TableInfo,
  model: ModelDefinition,
  /** The columns that it can change, as `changedColumns` tells them. */
  changed: ReadonlySet<string> | undefined,
  groups: Groups
): Images | string => {
  const columns = model.columns.map((column) => ({
    ...column,
    name: columnName(builder.dialect, column.column)
  }))
  const table = aliasOf(builder.config.table)!
  const current = fieldsOf(columns, "n", table)
  const told = toTell(groups)
  if (builder.kind === "delete") {
    return {
      additions: { fields: current },
      read: (row) => ({ old: rowOf(columns, "n", row), now: undefined, groups: told })
    }
  }
  if (builder.kind === "insert" && !builder.isUpsert) {
    return {
      additions: { fields: current },
      read: (row) => ({ old: undefined, now: rowOf(columns, "n", row), groups: told })
    }
  }
  const isNamedOldOrNew = sourcesOf(builder).some((source) => /^(old|new)$/i.test(aliasOf(source) ?? "old"))
  if (connection.serverVersion >= returningOldAndNew && !isNamedOldOrNew) {
    return oldAndNew(builder, info, model, columns, changed, groups)
  }
  if (changed !== undefined && !columns.some(({ name }) => changed.has(name))) {
    return {
      additions: { fields: current },
      read: (row) => {
        const image = rowOf(columns, "n", row)
        return { old: image, now: image, groups: told }
      }
    }
  }
  return locked(builder, info, columns, told, changed)
}

/** Why the columns that tags need cannot be asked for, if so. */
export const columnObstacle = (
  info: TableInfo,
  model: ModelDefinition,
  nameOf: (column: Column) => string
): string | undefined => {
  for (const { column, kind } of model.columns) {
    const name = nameOf(column)
    const server = info.columns.get(name)
    if (server === undefined) return `the server knows no column "${name}"`
    if (!server.isReadable) return `column "${name}" may not be read`
    if (!server.isDeterministic) return `equal values of column "${name}" may have unlike texts`
    if (!kind.serverTypes.includes(server.type)) return `column "${name}" is of type ${server.type}`
  }
  return undefined
}

/** A column that tags need, with its name on the server. */
interface NamedColumn extends KeyColumn {
  readonly name: string
}

type Row = Readonly<Record<string, string | null>>

/** At least one field, so that the rows are counted. */
const fieldsOf = (columns: ReadonlyArray<NamedColumn>, letter: string, of: string): Record<string, string> =>
  columns.length === 0
    ? { [letter]: "1" }
    : Object.fromEntries(columns.map(({ name }, i) => [letter + i, `${columnOf(of, name)}::text`]))

const rowOf = (columns: ReadonlyArray<NamedColumn>, letter: string, row: Row): ServerRow => {
  const image: Record<string, string | null> = {}
  for (let i = 0; i < columns.length; i++) image[columns[i]!.property] = row[letter + i]!
  return image
}

// -------------------------------------------------------------------------------------- by the server's old and new

const oldAndNew = (
  builder: Builder,
  info: TableInfo,
  model: ModelDefinition,
  columns: ReadonlyArray<NamedColumn>,
  changed: ReadonlySet<string> | undefined,
  groups: Groups
): Images | string => {
  const groupOf = groupsByColumn(builder.dialect, model)
  const differs = Object.fromEntries(
    groups.map((group, i) => {
      const looked = [...(changed ?? info.columns.keys())].filter((name) => groupOf.get(name) === group)
      return [`d${i}`, differenceOf(info, looked)]
    })
  )
  // Of an upsert: whether there was a row.
  const key = info.primaryKey.find((column) => info.columns.get(column)?.isReadable === true)
  if (builder.isUpsert && key === undefined && (!info.isReadable || info.columns.has("old")))
    return "it cannot be told which rows were there before"
  const wasThere = key === undefined ? `not ("old" is null)` : `${columnOf("old", key)} is not null`
  return {
    additions: {
      fields: {
        ...fieldsOf(columns, "o", "old"),
        ...fieldsOf(columns, "n", "new"),
        ...differs,
        ...(builder.isUpsert ? { was: `(${wasThere})::text` } : {})
      }
    },
    read: (row) => {
      const now = rowOf(columns, "n", row)
      if (row["was"] === "false") return { old: undefined, now, groups: [undefined] }
      const changed = groups.filter((_, i) => row[`d${i}`] === "true")
      return { old: rowOf(columns, "o", row), now, groups: toTell(changed) }
    }
  }
}

/** The groups of a model's volatile columns, by their names on the server. */
export const groupsByColumn = (
  dialect: Dialect,
  { volatile }: Pick<ModelDefinition, "volatile">
): ReadonlyMap<string, string> =>
  new Map(
    [...volatile].flatMap(([group, columns]) =>
      columns.map(({ column }) => [columnName(dialect, column), group] as const)
    )
  )

/**
 * Whether a row differs in some columns, as an expression. By the images of its values: those that are equal may still be
 * printed differently (1.0 and 1.00). Only columns that the statement can have changed are looked at, because large
 * values would have to be fetched for it.
 */
const differenceOf = (info: TableInfo, looked: ReadonlyArray<string>): string => {
  if (looked.length === 0) return "'false'"
  if (looked.some((name) => info.columns.get(name)?.isReadable !== true)) return "'true'"
  const image = (of: string) => `row(${looked.map((name) => columnOf(of, name)).join(", ")})`
  return `record_image_ne(${image("old")}, ${image("new")})::text`
}

// ----------------------------------------------------------------------------------- by rows that were locked first

const locks = "__cm_locked"

const locked = (
  builder: Builder,
  info: TableInfo,
  columns: ReadonlyArray<NamedColumn>,
  groups: Groups,
  changed: ReadonlySet<string> | undefined
): Images | string => {
  const { config } = builder
  const table = aliasOf(config.table)!
  const key = info.primaryKey
  if (key.length === 0) return "the server does not return old values, and it has no primary key"
  // A trigger could change it too. If all keys are found, they are the same ones, though in another order.
  if (changed !== undefined && key.some((column) => changed.has(column)))
    return "the server does not return old values, and its primary key is assigned"
  if (key.some((column) => info.columns.get(column)?.isReadable !== true))
    return "its primary key may not be read"
  if (info.hasHeirs) return "the server does not return old values, and tables inherit from it"
  const aliases = sourcesOf(builder).map(aliasOf)
  if (new Set(aliases).size < aliases.length) return "two tables go by one name"
  if (builder.kind === "insert" && !info.isReadable)
    return "the server does not return old values, and may not tell which rows were inserted"
  const rows = builder.kind === "insert" ? conflictingRows(builder, info) : matchingRows(builder)
  if (typeof rows === "string") return rows
  const names = columns.map(({ name }) => name)
  const keyText = textArray(table, key)
  return {
    additions: {
      before: {
        name: locks,
        query: sql`select ${sql.raw(`${keyText} as "__cm_key", ${textArray(table, names)} as "__cm_values"`)} from ${rows} for no key update of ${sql.identifier(table)}`
      },
      // It is always true; to know that, all the rows must have been locked and read.
      condition: sql.raw(`(select count(*) from ${locks}) is not null`),
      fields: {
        ...fieldsOf(columns, "n", table),
        old: `(select jsonb_object_agg("__cm_key", "__cm_values") from ${locks}) ->> ${keyText}`,
        ...(builder.kind === "insert" ? { inserted: `(${columnOf(table, "xmax")} = 0)::text` } : {})
      }
    },
    read: (row) => {
      const now = rowOf(columns, "n", row)
      if (row["inserted"] === "true") return { old: undefined, now, groups }
      const old = row["old"]
      if (old === null || old === undefined) return undefined
      const texts: ReadonlyArray<string | null> = JSON.parse(old)
      return { old: Object.fromEntries(columns.map(({ property }, i) => [property, texts[i]!])), now, groups }
    }
  }
}

/** The rows that an update changes: its table, joined as the update joins it. */
const matchingRows = (builder: Builder): SQL | string => {
  const { config, dialect } = builder
  const { where, from, joins } = config
  const text = dialect.sqlToQuery(sql`${where}${from}${dialect.buildJoins(joins)}`).sql
  const calls = callsOf(text)
  // It would be called twice.
  if (calls.length > 0) return `the server does not return old values, and its condition calls ${calls[0]}`
  const joined = dialect.buildJoins(joins)
  const source = from === undefined ? undefined : dialect.buildFromTable(from)
  return sql.join([
    sql`${targetOf(builder)}`,
    ...(source === undefined
      ? []
      : [joined === undefined ? sql` cross join ${source}` : sql` cross join (${source}${joined})`]),
    ...(where === undefined ? [] : [sql` where ${where}`])
  ])
}

/** The rows that have a key of an upsert's. */
const conflictingRows = (builder: Builder, info: TableInfo): SQL | string => {
  if (info.isPartitioned) return "the server does not tell which rows of a partitioned table were inserted"
  const { config, dialect } = builder
  const conflict = conflictOf(builder)
  const columns = columnsOf(builder)
  const target = (conflict?.target ?? []).map((name) => columns.get(name))
  if (conflict === undefined || target.length === 0 || !target.every((column) => column !== undefined))
    return "the columns of the conflict are not told"
  if (config.select === true) return "the server does not return old values, and a query gives the rows"
  const properties = Object.entries(config.table as unknown as Record<string, unknown>)
  const names = target.map((column) => properties.find(([, value]) => value === column)![0])
  const keys = config.values.map((row) => names.map((name, i) => plainValue(row[name], target[i]!)))
  if (keys.some((values) => values.includes(undefined)))
    return "the server does not return old values, and a key is not given as a value"
  const list = (chunks: ReadonlyArray<SQLWrapper>) => sql`(${sql.join([...chunks], sql`, `)})`
  const table = aliasOf(config.table)!
  return sql`${dialect.buildFromTable(config.table)} where ${list(
    conflict.target.map((name) => sql.raw(columnOf(table, name)))
  )} in ${list(keys.map((values) => list(values as ReadonlyArray<SQLWrapper>)))}`
}

/** The table of an update, by its alias if it has one. */
const targetOf = ({ config, dialect }: Builder): SQLWrapper => {
  const source = dialect.buildFromTable(config.table)
  return is(source, SQL) ? source : sql`${source}`
}
