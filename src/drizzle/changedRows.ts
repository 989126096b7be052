/**
 * Which tags does a write change?
 *
 * **Exactly**, where the server can tell: one insert, update or delete of Drizzle's, of a table with a model, on a
 * server that returns old and new values (Postgres 18, PGlite). The statement's own RETURNING is extended by the
 * columns that tags need, and what was asked for comes back unchanged.
 *
 * **Coarsely** everywhere else: the statement is sent as it is, and `all` and `unknown` of every table found in it are
 * invalidated. So it is where RETURNING would change what the statement does (views, rules, row-level security, columns
 * that may not be read), where equal values have unlike texts, and where a table is called `old` or `new`.
 *
 * What foreign keys change in other tables is told by table (`all` and `unknown`), from the server's catalog.
 */
import { getTableName, is, type Column, type SQLWrapper, sql } from "drizzle-orm"
import { PgDeleteBase, PgInsertBase, PgTable, PgUpdateBase } from "drizzle-orm/pg-core"
import { PgRaw } from "drizzle-orm/pg-core/query-builders/raw"
import * as Effect from "effect/Effect"
import type { Catalog, TableInfo, TableRef } from "./catalog.ts"
import { serverTypes } from "./columnText.ts"
import { type Connection, rowsOf, runNow } from "./Connection.ts"
import { DbError, UnknownTables } from "./DbError.ts"
import * as Model from "./Model.ts"
import { writesOf } from "./statementTables.ts"

/** A built statement of Drizzle's: it runs when it is awaited. (Relational queries hide `getSQL` in their type.) */
export type Statement<A = unknown> = PromiseLike<A> &
  (SQLWrapper | { readonly _: { readonly dialect: "pg" } })

/** What a statement that has run answers, and the ids that it invalidates. */
interface Written {
  readonly answer: unknown
  readonly ids: ReadonlyArray<string>
}

/** A statement ready to run. */
export interface Plan {
  readonly run: () => PromiseLike<Written>
  /** What it could invalidate at most: for when its outcome is not known. */
  readonly atMost: ReadonlyArray<string>
  /** True when it changes tables themselves. */
  readonly isDefinition: boolean
}

/** More changed rows than these are told by table. */
const rowLimit = 1000

/** From this version on, RETURNING tells old and new values. */
const returningOldAndNew = 180_000

/** Decides how a statement is run so that its changes can be told. Fails with `UnknownTables` if they cannot be. */
export const plan = (
  catalog: Catalog,
  connection: Connection,
  statement: Statement,
  named: ReadonlyArray<PgTable> | undefined
): Effect.Effect<Plan, DbError> =>
  Effect.gen(function* () {
    const builder = builderOf(statement)
    if (builder === undefined || builder.config.withList?.length > 0) {
      return yield* byText(catalog, connection, statement, named)
    }
    const ref = refOf(builder.config.table)
    const info = yield* catalog.describe(connection, ref)
    const table = Model.tableName(ref.schema, ref.name)
    const besides = [...cascadesOf(info, builder), ...(named ?? []).map(nameOf)]
    const atMost = tableIds([table, ...(info?.relatives ?? []), ...besides])
    const model = Model.find(table)
    const obstacle = obstacleOf(connection, builder, info, model)
    if (obstacle !== undefined) {
      yield* Effect.logDebug(`cacheme: a write to "${table}" is told by table: ${obstacle}`)
      return coarse(statement, atMost)
    }
    const beside = [...tableIds(info!.relatives), ...tableIds(besides)]
    return {
      atMost,
      isDefinition: false,
      run: async () => {
        const { answer, changes } = await returning(builder, model!.columns)
        if (changes.length === 0) return { answer, ids: [] }
        if (changes.length > rowLimit) return { answer, ids: atMost }
        const rows = changes.flatMap(({ old, now }) => [old, now]).filter((row) => row !== undefined)
        const ids = new Set(rows.flatMap((row) => Model.changedIds(model!, row)))
        return { answer, ids: [Model.tableIds(table).all, ...ids, ...beside] }
      }
    }
  })

/** True for what writes: a query is not to. Only raw SQL and common table expressions need to be read for that. */
export const isWrite = (connection: Connection, statement: Statement): boolean => {
  if (builderOf(statement) !== undefined) return true
  const { config } = statement as { readonly config?: { readonly withList?: ReadonlyArray<unknown> } }
  const mayWrite = is(statement, PgRaw) || (config?.withList ?? []).length > 0
  return mayWrite && writesOf(textOf(connection, statement)).tables.length > 0
}

/** The text of a statement, as Drizzle sends it. */
const textOf = (connection: Connection, statement: Statement): string => {
  const { dialect } = connection.db as unknown as { readonly dialect: Dialect }
  return dialect.sqlToQuery((statement as SQLWrapper).getSQL()).sql
}

// ------------------------------------------------------------------------------------------------------- coarsely

const byText = (
  catalog: Catalog,
  connection: Connection,
  statement: Statement,
  named: ReadonlyArray<PgTable> | undefined
): Effect.Effect<Plan, DbError> =>
  Effect.gen(function* () {
    const text = textOf(connection, statement)
    const { tables, isDefinition } = writesOf(text)
    const refs = [...tables, ...(named ?? []).map(refOf)]
    if (refs.length === 0 && !isDefinition) {
      return yield* new DbError({ reason: new UnknownTables({ statement: text.slice(0, 200) }) })
    }
    const names = yield* Effect.forEach(refs, (ref) =>
      Effect.map(catalog.describe(connection, ref), (info) => [
        Model.tableName(ref.schema, ref.name),
        ...(info?.relatives ?? []),
        ...(info?.cascades ?? []).flatMap((cascade) => cascade.tables)
      ])
    )
    yield* Effect.logDebug(
      `cacheme: a write to ${names.flat().join(", ")} is told by table: it is not one plain statement`
    )
    return { ...coarse(statement, tableIds(names.flat())), isDefinition }
  })

const coarse = (statement: Statement, ids: ReadonlyArray<string>): Plan => ({
  run: async () => ({ answer: await runNow(statement), ids }),
  atMost: ids,
  isDefinition: false
})

const tableIds = (names: ReadonlyArray<string>): ReadonlyArray<string> => [
  ...new Set(names.flatMap((name) => Object.values(Model.tableIds(name))))
]

/** Names of the tables that foreign keys may change. */
const cascadesOf = (info: TableInfo | undefined, builder: Builder): ReadonlyArray<string> => {
  const insertsOnly = builder.kind === "insert" && !/do update/.test(conflictText(builder))
  if (info === undefined || insertsOnly) return []
  const assigned = assignedColumns(info, builder)
  return info.cascades
    .filter(({ onDelete, onUpdate, columns }) =>
      builder.kind === "delete"
        ? onDelete
        : onUpdate && (assigned === undefined || columns.some((column) => assigned.has(column)))
    )
    .flatMap(({ tables }) => tables)
}

/** The columns that an update assigns; `undefined` if it could be any: by a trigger, a generated column, an upsert. */
const assignedColumns = (info: TableInfo, builder: Builder): ReadonlySet<string> | undefined => {
  if (builder.kind !== "update" || info.triggers.length > 0) return undefined
  if ([...info.columns.values()].some(({ isGenerated }) => isGenerated)) return undefined
  const columns = Object.entries(builder.config.table as unknown as Record<string, Column>)
  return new Set(
    columns
      .filter(
        ([property, column]) => builder.config.set[property] !== undefined || column?.onUpdateFn !== undefined
      )
      .map(([, column]) => builder.dialect.casing.getColumnCasing(column))
  )
}

// -------------------------------------------------------------------------------------------------------- exactly

/** Why the rows of a write cannot be told, if so. */
const obstacleOf = (
  connection: Connection,
  builder: Builder,
  info: TableInfo | undefined,
  model: Model.ModelDefinition | undefined
): string | undefined => {
  if (model === undefined) return "it has no model here"
  if (connection.serverVersion < returningOldAndNew) return "the server does not return old and new values"
  if (info === undefined) return "the server does not know the table"
  if (!info.isPlain) return "it is a view, or has rules or row-level security"
  const names = [
    builder.config.table,
    builder.config.from,
    ...(builder.config.joins ?? []).map((join) => join.table)
  ]
  if (names.some((source) => source !== undefined && !isNamedElse(source)))
    return "a table may be called old or new"
  for (const { column } of model.columns) {
    const name = builder.dialect.casing.getColumnCasing(column)
    const server = info.columns.get(name)
    if (server === undefined) return `the server knows no column "${name}"`
    if (!server.isReadable) return `column "${name}" may not be read`
    if (!server.isDeterministic) return `equal values of column "${name}" may have unlike texts`
    if (server.type !== "enum" && !serverTypes.has(server.type))
      return `column "${name}" is of type ${server.type}`
  }
  return undefined
}

/** True when a source of rows has a name that is neither old nor new. */
const isNamedElse = (source: unknown): boolean => {
  const name = is(source, PgTable)
    ? getTableName(source)
    : (source as { readonly _?: { readonly alias?: string } })._?.alias
  return name !== undefined && !/^(old|new)$/i.test(name)
}

interface Change {
  readonly old: Model.ServerRow | undefined
  readonly now: Model.ServerRow | undefined
}

/**
 * Runs a statement whose RETURNING is extended by old and new values of some columns. The addition comes last and is
 * taken off again, so that the answer is the one that was asked for.
 */
const returning = async (
  builder: Builder,
  columns: ReadonlyArray<Model.KeyColumn>
): Promise<{ readonly answer: unknown; readonly changes: ReadonlyArray<Change> }> => {
  const { config, dialect, statement } = builder
  const asked = config.returning
  const askedFields = config.returningFields
  const additions = Object.fromEntries(
    columns.flatMap(({ column }, i) => {
      const name = `"${dialect.casing.getColumnCasing(column).replaceAll('"', '""')}"`
      return [
        [`o${i}`, sql.raw(`old.${name}::text`).as(`__cm_o${i}`)],
        [`n${i}`, sql.raw(`new.${name}::text`).as(`__cm_n${i}`)]
      ]
    })
  )
  // At least one column, so that the rows are counted.
  if (columns.length === 0) additions["n"] = sql.raw("1").as("__cm_n")
  const valuesOf = (row: Record<string, unknown>, prefix: string): Model.ServerRow =>
    Object.fromEntries(columns.map(({ property }, i) => [property, row[prefix + i] as string | null]))
  const isUpsert = builder.kind === "insert" && conflictText(builder) !== ""
  const changeOf = (row: Record<string, unknown>, prefix: string): Change => ({
    old:
      builder.kind === "update" || builder.kind === "delete" || isUpsert
        ? valuesOf(row, `${prefix}o`)
        : undefined,
    now: builder.kind === "delete" ? undefined : valuesOf(row, `${prefix}n`)
  })
  statement.returning({ ...(asked === undefined ? {} : askedFields), __cm: additions })
  try {
    if (asked !== undefined) {
      const rows = (await runNow(statement)) as Array<Record<string, any>>
      const changes = rows.map((row) => {
        const added = row["__cm"]
        delete row["__cm"]
        return changeOf(added, "")
      })
      return { answer: rows, changes }
    }
    // Without a RETURNING of its own the answer is the driver's, which tells how many rows were changed.
    const query = dialect.sqlToQuery(statement.getSQL())
    const raw = await statement.session.prepareQuery(query, undefined, undefined, true).execute()
    const changes = rowsOf(raw).map((row) => changeOf(row, "__cm_"))
    return { answer: withoutRows(raw), changes }
  } finally {
    config.returning = asked
    config.returningFields = askedFields
  }
}

/** The driver's answer as it is for a statement that returns nothing. */
const withoutRows = (raw: unknown): unknown => {
  if (!Array.isArray(raw)) return { ...(raw as object), rows: [], fields: [] }
  raw.length = 0
  return Object.assign(raw, { columns: [] })
}

// -------------------------------------------------------------------------------------------- Drizzle's builders

interface Dialect {
  readonly casing: { readonly getColumnCasing: (column: Column) => string }
  readonly sqlToQuery: (query: unknown) => { readonly sql: string }
}

/** What is used of Drizzle's builders beyond their public types (0.45). */
interface Builder {
  readonly kind: "insert" | "update" | "delete"
  readonly statement: Internals
  readonly config: Internals["config"]
  readonly dialect: Dialect
}

interface Internals extends SQLWrapper, PromiseLike<unknown> {
  readonly config: {
    readonly table: PgTable
    readonly withList?: any
    readonly set: Readonly<Record<string, unknown>>
    readonly from?: unknown
    readonly joins?: ReadonlyArray<{ readonly table: unknown }>
    readonly onConflict?: { readonly queryChunks: ReadonlyArray<unknown> }
    returning: unknown
    returningFields: Record<string, unknown>
  }
  readonly dialect: Dialect
  readonly session: {
    readonly prepareQuery: (...args: ReadonlyArray<unknown>) => { readonly execute: () => Promise<unknown> }
  }
  readonly returning: (fields: object) => unknown
}

const builderOf = (statement: Statement): Builder | undefined => {
  const kind = is(statement, PgInsertBase)
    ? "insert"
    : is(statement, PgUpdateBase)
      ? "update"
      : is(statement, PgDeleteBase)
        ? "delete"
        : undefined
  if (kind === undefined) return undefined
  const internals = statement as unknown as Internals
  return { kind, statement: internals, config: internals.config, dialect: internals.dialect }
}

const conflictText = (builder: Builder): string =>
  builder.config.onConflict === undefined ? "" : builder.dialect.sqlToQuery(builder.config.onConflict).sql

const refOf = (table: PgTable): TableRef => {
  const symbols = (
    PgTable as unknown as { readonly Symbol: { readonly Schema: symbol; readonly OriginalName: symbol } }
  ).Symbol
  const parts = table as unknown as Record<symbol, string | undefined>
  return { schema: parts[symbols.Schema], name: parts[symbols.OriginalName]! }
}

const nameOf = (table: PgTable): string => {
  const { schema, name } = refOf(table)
  return Model.tableName(schema, name)
}
