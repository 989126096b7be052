/**
 * Which rows of other tables does a delete take along, by foreign keys?
 *
 * It is told row by row where the foreign key is a declared key of the other table's model, at any depth; else by table
 * (`effects.ts`). Such rows are in no answer of the server's, so they are asked for before the delete, in one
 * transaction with it: first the rows to be deleted are locked, then those that refer to them, level by level.
 *
 * Each level is a statement of its own. One for all of them would see the tables as they were when it began, and miss
 * what others committed while it waited for a lock; a statement that begins later sees it, and while the row that they
 * refer to is locked no more can come. What was deleted and had not been locked (it matched the condition only later) is
 * told by table.
 */
import { type Column, type SQL, type SQLWrapper, sql } from "drizzle-orm"
import * as Effect from "effect/Effect"
import { aliasOf, type Builder, columnName, columnOf, refOf, textArray } from "./builders.ts"
import type { Catalog, Reference, TableInfo } from "./catalog.ts"
import type { Connection } from "./Connection.ts"
import type { DbError } from "./DbError.ts"
import type { ChangedTables } from "./ChangedTables.ts"
import { effectsOf, noTables } from "./effects.ts"
import * as Model from "./Model.ts"
import { columnObstacle } from "./rowImages.ts"
import { callsOf } from "./statementTables.ts"

/** How the rows that a delete takes along are asked for. */
export interface Cascades {
  /** The foreign keys of the table itself whose rows are told here. */
  readonly told: ReadonlySet<Reference>
  /** Locks the rows to be deleted, and returns their keys. */
  readonly locking: SQL
  /** For the rows that go along, level by level. */
  readonly questions: ReadonlyArray<Question>
  /** What is invalidated where the rows cannot be told after all. */
  readonly tables: ChangedTables
}

/** A statement that locks rows and returns some of their columns as text. */
interface Question {
  readonly query: SQL
  /** The ids of what one of its rows rests on. */
  readonly idsOf: (row: ReadonlyArray<string | null>) => ReadonlyArray<string>
  /** Tables that change with its rows, and are told by table. */
  readonly besides: ChangedTables
  /** True when they may change also without a row: by a trigger for a whole statement. */
  readonly isAlways: boolean
}

/** What is asked before the delete, in this order. */
export const questionsOf = ({ locking, questions }: Cascades): ReadonlyArray<SQL> => [
  locking,
  ...questions.map(({ query }) => query)
]

/** Deeper ones are told by table. */
const deepest = 4

/** Plans the questions; `undefined` if there is nothing to be told row by row. */
export const cascadesOf = (
  catalog: Catalog,
  connection: Connection,
  builder: Builder,
  info: TableInfo,
  rowLimit: number
): Effect.Effect<Cascades | undefined, DbError> =>
  Effect.gen(function* () {
    const { config, dialect } = builder
    const where = config.where as SQLWrapper | undefined
    const key = info.primaryKey
    if (builder.kind !== "delete" || key.length === 0 || !info.isLockable || !areReadable(info, key))
      return undefined
    if ((config.withList ?? []).length > 0) return undefined
    // It is asked more than once, and what it rests on must be locked.
    const text = where === undefined ? "" : dialect.sqlToQuery(where.getSQL()).sql
    if (callsOf(text).length > 0 || /\bselect\b/i.test(text)) return undefined

    const table = aliasOf(config.table)!
    const condition = where === undefined ? sql`` : sql` where ${where}`
    const nameOf = (column: Column) => columnName(dialect, column)
    const rows = (columns: ReadonlyArray<string>) =>
      sql`select ${listOf(table, columns)} from ${config.table}${condition}`
    const limited = sql`limit ${sql.raw(String(rowLimit + 1))} for update`
    const locking = sql`select ${textsOf(table, key)} from ${config.table}${condition} ${limited}`
    const questions: Array<Question> = []
    const told = new Set<Reference>()
    const tables = noTables(connection)
    const levels: Array<Level> = [{ info, rows, depth: 0, event: "delete", told }]
    const seen = new Set([Model.tableName(refOf(config.table).schema, refOf(config.table).name)])
    for (let level = levels.shift(); level !== undefined; level = levels.shift()) {
      for (const reference of level.event === "delete" ? level.info.references : []) {
        if (reference.onDelete === "nothing" || level.depth >= deepest) continue
        const name = Model.tableName(reference.table.schema, reference.table.name)
        const child = yield* childOf(catalog, connection, reference, nameOf)
        // A table that is reached twice is told by table: its rows may change twice.
        if (child === undefined || seen.has(name) || !areReadable(level.info, reference.referenced)) continue
        seen.add(name)
        level.told.add(reference)
        const alias = `__cm_${questions.length}`
        const source = sql`${tableOf(reference)} as ${sql.identifier(alias)}`
        const foreignKey = listOf(alias, reference.columns)
        const matches = sql`from ${source} where (${foreignKey}) in (${level.rows(reference.referenced)})`
        const columns = child.model.columns.map(({ column }) => nameOf(column))
        const besides = noTables(connection)
        tables.add(name)
        for (const other of [...reference.names, ...child.info.relatives]) {
          tables.add(other)
          if (other !== name) besides.add(other)
        }
        questions.push({
          query: sql`select ${textsOf(alias, columns)} ${matches} ${limited}`,
          idsOf: (texts) => idsOf(child.model, reference, nameOf, texts),
          besides,
          isAlways: child.info.triggers.some(({ writes }) => writes.length > 0)
        })
        levels.push({
          info: child.info,
          rows: (asked) => sql`select ${listOf(alias, asked)} ${matches}`,
          depth: level.depth + 1,
          event: reference.onDelete === "cascade" ? "delete" : "update",
          told: new Set(),
          reference,
          besides
        })
      }
      const { besides, reference } = level
      if (besides === undefined || reference === undefined) continue
      const occurrence = { events: new Set([level.event]), assigned: new Set(reference.set) }
      const effects = yield* effectsOf(catalog, connection, level.info, occurrence, level.told)
      besides.addAll(effects)
      tables.addAll(effects)
    }
    return told.size === 0 ? undefined : { told, locking, questions, tables }
  })

/** Rows that are deleted or changed. */
interface Level {
  readonly info: TableInfo
  /** The rows, as a query for some of their columns. */
  readonly rows: (columns: ReadonlyArray<string>) => SQL
  readonly depth: number
  readonly event: "delete" | "update"
  /** The foreign keys to it whose rows are told one by one. */
  readonly told: Set<Reference>
  /** What has brought them here; nothing at the top. */
  readonly reference?: Reference
  readonly besides?: ChangedTables
}

/** The table that has a foreign key, if its rows can be told; `undefined` if not. */
const childOf = (
  catalog: Catalog,
  connection: Connection,
  reference: Reference,
  nameOf: (column: Column) => string
) =>
  Effect.gen(function* () {
    const model = Model.find(Model.tableName(reference.table.schema, reference.table.name))
    const names = new Set(reference.columns)
    const isDeclared = (columns: ReadonlyArray<Model.KeyColumn>) =>
      columns.length === names.size && columns.every(({ column }) => names.has(nameOf(column)))
    if (
      model === undefined ||
      reference.onDelete === "set default" ||
      ![model.primaryKey, ...model.keys].some(isDeclared)
    )
      return undefined
    const info = yield* catalog.describe(connection, reference.table)
    // A foreign key does not ask what policies hide.
    if (info === undefined || !info.isPlain || !info.isLockable || !areReadable(info, reference.columns))
      return undefined
    const isGenerated = ({ column }: Model.KeyColumn) =>
      info.columns.get(nameOf(column))?.isGenerated === true
    if (reference.onDelete === "set null" && model.columns.some(isGenerated)) return undefined
    const changesRow = info.triggers.some(
      ({ changesRow, events }) =>
        changesRow && events.has(reference.onDelete === "cascade" ? "delete" : "update")
    )
    if (changesRow || columnObstacle(info, model, nameOf) !== undefined) return undefined
    return { model, info }
  })

const areReadable = ({ columns }: TableInfo, names: ReadonlyArray<string>): boolean =>
  names.every((name) => columns.get(name)?.isReadable === true)

/** What a row that goes along rests on: as it was, and as it is if only its key was taken away. */
const idsOf = (
  model: Model.ModelDefinition,
  reference: Reference,
  nameOf: (column: Column) => string,
  texts: ReadonlyArray<string | null>
): ReadonlyArray<string> => {
  const row = Object.fromEntries(model.columns.map(({ property }, i) => [property, texts[i]!]))
  const ids = Model.changedIds(model, row)
  if (reference.onDelete === "cascade") return ids
  const set = new Set(reference.set)
  const now = Object.fromEntries(
    model.columns.map(({ property, column }) => [property, set.has(nameOf(column)) ? null : row[property]!])
  )
  return [...ids, ...Model.changedIds(model, now)]
}

const tableOf = ({ table }: Reference): SQL =>
  table.schema === undefined
    ? sql`${sql.identifier(table.name)}`
    : sql`${sql.identifier(table.schema)}.${sql.identifier(table.name)}`

const listOf = (of: string, columns: ReadonlyArray<string>): SQL =>
  sql.raw(columns.map((column) => columnOf(of, column)).join(", "))

const textsOf = (table: string, columns: ReadonlyArray<string>): SQL =>
  sql.raw(`${textArray(table, columns)} as "__cm"`)

/** What is invalidated with the rows that went along; `undefined` if they were not told after all. */
export const takenAlong = (
  { questions }: Cascades,
  [locked, ...answers]: ReadonlyArray<ReadonlyArray<string>>,
  deleted: ReadonlyArray<string>,
  rowLimit: number
): ReadonlyArray<string> | undefined => {
  const known = new Set(locked)
  if (!deleted.every((key) => known.has(key))) return undefined
  if (answers.some((rows) => rows.length > rowLimit)) return undefined
  return questions.flatMap(({ idsOf, besides, isAlways }, i) => {
    const rows = answers[i]!
    const others = rows.length > 0 || isAlways ? besides.ids : []
    return [...rows.flatMap((texts) => idsOf(JSON.parse(texts))), ...others]
  })
}
