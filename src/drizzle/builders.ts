/**
 * Drizzle's builders of writes, as far as they have to be looked into: their parts beyond the public types, and
 * how one is run so that it returns more than it was asked for. Both Drizzle 0.45 and 1.0 are read here.
 */
import { Column, getTableName, is, Param, SQL, type SQLWrapper, sql, StringChunk, Table } from "drizzle-orm"
import { PgDeleteBase, PgInsertBase, PgTable, PgUpdateBase } from "drizzle-orm/pg-core"
import { WithSubquery } from "drizzle-orm/subquery"
import { type Connection, rowsOf, runNow } from "./Connection.ts"
import type { TableRef } from "./statementTables.ts"

/** A built statement of Drizzle's: it runs when it is awaited. (Relational queries hide `getSQL` in their type.) */
export type Statement<A = unknown> = PromiseLike<A> &
  (SQLWrapper | { readonly _: { readonly dialect: "pg" } })

/** What builds SQL. */
export interface Dialect {
  /** Of 0.45; in 1.0 a column has its name. */
  readonly casing?: { readonly getColumnCasing: (column: Column) => string }
  readonly sqlToQuery: (query: unknown) => { readonly sql: string }
  readonly buildFromTable: (table: unknown) => SQLWrapper
  readonly buildJoins: (joins: unknown) => SQLWrapper | undefined
}

/** What builds the SQL of a connection. */
export const dialectOf = ({ db }: Connection): Dialect =>
  (db as unknown as { readonly dialect: Dialect }).dialect

interface Source extends SQLWrapper, PromiseLike<unknown> {
  readonly config: {
    readonly table: PgTable
    withList?: ReadonlyArray<unknown> | undefined
    where?: unknown
    onConflict?: SQL | undefined
    readonly set: Readonly<Record<string, unknown>>
    readonly from?: unknown
    readonly joins?: ReadonlyArray<{ readonly table: unknown }>
    /** Of an insert: rows of SQL and Params (in 1.0 the values themselves) by property, or a query. */
    readonly values: ReadonlyArray<Readonly<Record<string, unknown>>>
    readonly select?: boolean
    returning: unknown
    returningFields: Record<string, unknown>
  }
  readonly dialect: Dialect
  readonly session: { readonly execute: (query: unknown) => Promise<unknown> }
  readonly returning: (fields: object) => unknown
}

/** A builder of a write. */
export interface Builder {
  readonly kind: "insert" | "update" | "delete"
  /** True for an insert that may update. */
  readonly isUpsert: boolean
  readonly statement: Source
  readonly config: Source["config"]
  readonly dialect: Dialect
}

/** Looks into a statement; `undefined` for what is no insert, update or delete of Drizzle's. */
export const builderOf = (statement: Statement): Builder | undefined => {
  const kind = is(statement, PgInsertBase)
    ? "insert"
    : is(statement, PgUpdateBase)
      ? "update"
      : is(statement, PgDeleteBase)
        ? "delete"
        : undefined
  if (kind === undefined) return undefined
  const source = statement as unknown as Source
  const { config, dialect } = source
  const isUpsert =
    kind === "insert" &&
    config.onConflict !== undefined &&
    /do update/.test(dialect.sqlToQuery(config.onConflict).sql)
  return { kind, isUpsert, statement: source, config, dialect }
}

/** The text of a statement, as it is sent. */
export const textOf = (dialect: Dialect, statement: unknown): string =>
  dialect.sqlToQuery((statement as SQLWrapper).getSQL()).sql

/** The table, as it is written. */
export const refOf = (table: PgTable): TableRef => {
  const symbols = (
    PgTable as unknown as { readonly Symbol: { readonly Schema: symbol; readonly OriginalName: symbol } }
  ).Symbol
  const parts = table as unknown as Record<symbol, string | undefined>
  return { schema: parts[symbols.Schema], name: parts[symbols.OriginalName]! }
}

/** The name of a source of rows in its statement: its alias, or its own. */
export const aliasOf = (source: unknown): string | undefined =>
  is(source, Table) ? getTableName(source) : (source as { readonly _?: { readonly alias?: string } })._?.alias

/** The sources of rows of a statement: its table, and what it is joined with. */
export const sourcesOf = ({ config }: Builder): ReadonlyArray<unknown> =>
  [config.table, config.from, ...(config.joins ?? []).map(({ table }) => table)].filter(
    (source) => source !== undefined
  )

/** A column, quoted, of the old row, the new one, or the statement's table. */
export const columnOf = (of: string, column: string): string => `${quoted(of)}.${quoted(column)}`

/** A name, as it is written in SQL. */
export const quoted = (name: string): string => `"${name.replaceAll('"', '""')}"`

/** Columns as text, in one value. */
export const textArray = (of: string, columns: ReadonlyArray<string>): string =>
  `jsonb_build_array(${columns.map((column) => `${columnOf(of, column)}::text`).join(", ")})::text`

/** The name of a column on the server. */
export const columnName = ({ casing }: Dialect, column: Column): string =>
  casing === undefined ? column.name : casing.getColumnCasing(column)

/** The columns of a table object, by their names on the server. */
export const columnsOf = ({ config, dialect }: Builder): ReadonlyMap<string, Column> =>
  new Map(
    Object.values(config.table as unknown as Record<string, unknown>)
      .filter((column): column is Column => is(column, Column))
      .map((column) => [columnName(dialect, column), column])
  )

/** The columns that an update, or the update of an upsert, assigns; `undefined` if that cannot be told. */
export const assignedColumns = (builder: Builder): ReadonlySet<string> | undefined => {
  if (builder.isUpsert) return conflictOf(builder)?.assigned
  if (builder.kind !== "update") return new Set()
  const columns = Object.entries(builder.config.table as unknown as Record<string, Column>)
  return new Set(
    columns
      .filter(
        ([property, column]) => builder.config.set[property] !== undefined || column?.onUpdateFn !== undefined
      )
      .map(([, column]) => columnName(builder.dialect, column))
  )
}

/** The update of an upsert. */
export interface Conflict {
  /** The columns whose equality is the conflict. */
  readonly target: ReadonlyArray<string>
  readonly assigned: ReadonlySet<string>
  /** The same clause, which updates only where a condition holds too. */
  readonly onlyWhere: (condition: SQL) => SQL
}

/**
 * The parts of `on conflict (…) do update set …`, which Drizzle keeps as SQL only; `undefined` for what is not of that
 * shape.
 */
export const conflictOf = (builder: Builder): Conflict | undefined => {
  const chunks = builder.config.onConflict?.queryChunks ?? []
  const middle = chunks.findIndex((chunk) => isText(chunk, /^ do update set $/))
  const set = chunks[middle + 1]
  const target = chunks.slice(0, middle).find((chunk) => is(chunk, SQL))
  if (middle < 0 || !is(set, SQL) || !is(target, SQL)) return undefined
  const assigned = set.queryChunks
    .filter(
      (chunk): chunk is SQL => is(chunk, SQL) && chunk.queryChunks.some((part) => isText(part, /^ = $/))
    )
    .map(
      ({ queryChunks }) =>
        (queryChunks.find((part) => !is(part, StringChunk)) as { readonly value: string }).value
    )
  const names = [...builder.dialect.sqlToQuery(target).sql.matchAll(/"((?:[^"]|"")*)"/g)]
  const condition = chunks.slice(middle + 2).find((chunk): chunk is SQL => is(chunk, SQL))
  const withoutCondition = new SQL(chunks.slice(0, middle + 2))
  const asked = condition === undefined ? undefined : new SQL(condition.queryChunks.slice(1))
  return {
    target: names.map(([, name]) => name!.replaceAll('""', '"')),
    assigned: new Set(assigned),
    onlyWhere: (more) =>
      asked === undefined
        ? sql`${withoutCondition} where ${more}`
        : sql`${withoutCondition} where (${asked}) and ${more}`
  }
}

const isText = (chunk: unknown, text: RegExp): boolean =>
  is(chunk, StringChunk) && text.test([chunk.value].flat().join(""))

/** A value of an insert's that is sent as it is; `undefined` for an expression, or nothing. */
export const plainValue = (value: unknown, column: Column): Param | undefined => {
  if (value === undefined || is(value, SQL) || is(value, StringChunk)) return undefined
  if (!is(value, Param)) return new Param(value, column)
  return value.value === undefined ? undefined : value
}

/** The column that a condition compares with one value, and does nothing else. */
export const equalColumn = (condition: unknown): Column | undefined => {
  const chunks = is(condition, SQL) ? condition.queryChunks.filter((chunk) => !isText(chunk, /^$/)) : []
  const [column, sign] = chunks
  return chunks.length === 3 && is(column, Column) && isText(sign, /^ = $/) ? column : undefined
}

/** What is done to a statement before it runs. */
export interface Additions {
  /** Expressions that each changed row is to return too, as SQL: a builder of each would cost more than all the rest. */
  readonly fields: Readonly<Record<string, string>>
  /** A common table expression in front. */
  readonly before?: { readonly name: string; readonly query: SQL } | undefined
  /** A condition for the rows to be changed. */
  readonly condition?: SQL | undefined
  /** At most so many rows are sent, where none were asked for. */
  readonly atMost?: number | undefined
}

/** What a statement with additions has answered. */
export interface Returned {
  /** What was asked for. */
  readonly answer: unknown
  /** The fields that were added, of each changed row; of some, if there are more. */
  readonly rows: ReadonlyArray<Readonly<Record<string, string | null>>>
  /** How many rows were changed. */
  readonly count: number
}

const prefix = "__cm_"

/** Runs a query of our own in the session of a statement. */
export const ask = async (
  { statement }: Builder,
  query: SQL
): Promise<ReadonlyArray<Record<string, unknown>>> => rowsOf(await statement.session.execute(query))

/**
 * Runs a statement that returns more than was asked for. What is added comes last and is taken off again, so that the
 * answer is the one that was asked for.
 */
export const runWith = async (builder: Builder, additions: Additions): Promise<Returned> => {
  const { config, statement } = builder
  const { returning: asked, returningFields: askedFields, where, withList, onConflict } = config
  const { before, condition } = additions
  const fields = Object.entries(additions.fields)
  if (before !== undefined) {
    config.withList = [...(withList ?? []), new WithSubquery(before.query, {}, before.name, true)]
  }
  if (condition !== undefined) {
    if (builder.kind === "insert") config.onConflict = conflictOf(builder)!.onlyWhere(condition)
    else config.where = where === undefined ? condition : sql`(${where}) and ${condition}`
  }
  statement.returning(
    asked === undefined
      ? { [prefix]: sql.raw(fields.map(([name, value]) => `${value} as "${prefix}${name}"`).join(", ")) }
      : {
          ...askedFields,
          [prefix]: Object.fromEntries(
            fields.map(([name, value]) => [name, sql.raw(value).as(prefix + name)])
          )
        }
  )
  try {
    if (asked !== undefined) {
      const answer = (await runNow(statement)) as Array<Record<string, any>>
      const rows = answer.map((row) => {
        const added = row[prefix]
        delete row[prefix]
        return added
      })
      return { answer, rows, count: rows.length }
    }
    // Without a RETURNING of its own the answer is the driver's, which tells how many rows were changed.
    const query =
      additions.atMost === undefined ? statement.getSQL() : counted(statement.getSQL(), additions.atMost)
    const raw = await statement.session.execute(query)
    const rows = rowsOf(raw).map(
      (row) =>
        Object.fromEntries(fields.map(([name]) => [name, row[prefix + name]])) as Record<
          string,
          string | null
        >
    )
    const count = additions.atMost === undefined ? rows.length : Number(rowsOf(raw)[0]?.[countName] ?? 0)
    return { answer: asIfNothingReturned(raw, builder.kind, count), rows, count }
  } finally {
    Object.assign(config, { returning: asked, returningFields: askedFields, where, withList, onConflict })
  }
}

const countName = `${prefix}count`

/** A statement that runs whole and counts the rows that it returns, but sends only some. */
const counted = (statement: SQLWrapper, atMost: number): SQL => {
  const changes = sql.identifier(`${prefix}changes`)
  return sql`with ${changes} as (${statement}) select ${changes}.*, (select count(*) from ${changes}) as ${sql.identifier(countName)} from ${changes} limit ${sql.raw(String(atMost))}`
}

/** The driver's answer as it is for a statement that returns nothing. */
const asIfNothingReturned = (raw: unknown, kind: Builder["kind"], count: number): unknown => {
  const command = kind.toUpperCase()
  if (!Array.isArray(raw))
    return { ...(raw as object), rows: [], fields: [], command, affectedRows: count, rowCount: count }
  raw.length = 0
  return Object.assign(raw, { columns: [], command, count })
}
