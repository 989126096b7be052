/**
 * Values for the placeholders of a statement (`sql.placeholder("id")`), filled in before anybody looks at it.
 *
 * Drizzle fills placeholders when it executes, where it is too late: which rows a statement touches is told by its
 * values. So they are put into the parts that the statement was built of. Those may belong to other statements too, and
 * are copied for it.
 */
import {
  Column,
  is,
  isSQLWrapper,
  Name,
  Param,
  Placeholder,
  SQL,
  type SQLWrapper,
  StringChunk,
  Subquery,
  Table,
  View
} from "drizzle-orm"
import { PgRaw } from "drizzle-orm/pg-core/query-builders/raw"
import type { AnyDatabase } from "./Connection.ts"

/** Values by the names of their placeholders; `null` is one. */
export type Values = Readonly<Record<string, unknown>>

/** Fills values into statements. Throws for a placeholder without a value, and for a value without a placeholder. */
export const fillUnsafe = <S>(
  owner: string,
  db: AnyDatabase,
  statements: ReadonlyArray<S>,
  values: Values
): ReadonlyArray<S> => {
  const filler = new Filler(owner, values)
  const filled = statements.map((statement) => filler.statement(db, statement))
  const superfluous = Object.keys(values).find((name) => !filler.used.has(name))
  if (superfluous !== undefined) {
    const known = [...filler.used].map((name) => JSON.stringify(name)).join(", ")
    throw new TypeError(
      `${owner}: a value was given for "${superfluous}", which is no placeholder of the statement; ` +
        (known === "" ? "it has none" : `it has ${known}`)
    )
  }
  return filled
}

/** What Drizzle says where a placeholder was met that has no value. */
const withoutValue = /^No value for placeholder "(.*)" was provided$/

/** The name of the placeholder that a statement has failed for, if it has. */
export const missingIn = (error: unknown): string | undefined =>
  error instanceof Error ? withoutValue.exec(error.message)?.[1] : undefined

/** A statement that has placeholders, and none of their values. */
export const missing = (owner: string, name: string): TypeError =>
  new TypeError(
    `${owner}: no value was given for the placeholder "${name}"; values are given beside the statement: ` +
      `${owner}(f, { values: { ${/^\w+$/.test(name) ? name : JSON.stringify(name)}: … } })`
  )

/** What is looked at of a builder beside its SQL. */
const parts = ["set", "values", "onConflict", "joins", "where", "having", "limit", "offset"] as const

/** What is used of Drizzle's statements beyond their public types. */
interface Internals {
  config?: Record<(typeof parts)[number], unknown>
  getSQL?: (...how: Array<any>) => SQL
  /** Of a relational query. */
  _getQuery?: (...how: Array<any>) => { readonly sql: SQL }
  /** Of `$count`, in 0.45 and in 1.0. */
  sql?: unknown
  countConfig?: { readonly filters?: unknown }
}

class Filler {
  readonly used = new Set<string>()
  readonly #owner: string
  readonly #values: Values

  constructor(owner: string, values: Values) {
    this.#owner = owner
    this.#values = values
  }

  statement<S>(db: AnyDatabase, statement: S): S {
    // Its parameters are settled when it is made.
    if (is(statement, PgRaw)) return db.execute(this.#sql(statement.getSQL())) as S
    const internals = statement as Internals
    if (internals.config !== undefined) {
      for (const part of parts) {
        const given = internals.config[part]
        const filled = part === "values" ? this.#rows(given) : this.#part(given)
        if (filled !== internals.config[part]) internals.config[part] = filled
      }
    }
    const { getSQL, _getQuery } = internals
    if (_getQuery !== undefined) {
      internals._getQuery = (...how) => {
        const query = _getQuery.apply(statement, how)
        return { ...query, sql: this.#sql(query.sql) }
      }
      internals._getQuery()
    } else if (is(internals.sql, SQL)) internals.sql = this.#sql(internals.sql)
    else if (internals.countConfig !== undefined) {
      const { filters } = internals.countConfig
      internals.countConfig = { ...internals.countConfig, filters: this.#part(filters) }
    } else if (getSQL !== undefined) {
      internals.getSQL = (...how) => this.#sql(getSQL.apply(statement, how))
      // Now, to learn which placeholders it has.
      internals.getSQL()
    }
    return statement
  }

  /** Fills the rows of an insert, which in 1.0 hold values as they are. (A query is filled with the whole statement.) */
  #rows(rows: unknown): unknown {
    if (!Array.isArray(rows)) return rows
    return this.#each(rows, (row) => {
      const before = Object.values(row)
      const after = this.#each(before, (value) =>
        is(value, Placeholder) ? this.#take(value.name) : this.#part(value)
      )
      return after === before ? row : Object.fromEntries(Object.keys(row).map((name, i) => [name, after[i]]))
    })
  }

  /** Fills a part of a builder: SQL, or plain objects and lists of it. */
  #part(part: unknown): unknown {
    if (Array.isArray(part)) return this.#each(part, (item) => this.#part(item))
    if (typeof part !== "object" || part === null) return part
    if (Object.getPrototypeOf(part) !== Object.prototype) return isSQL(part) ? this.#chunk(part) : part
    const before = Object.values(part)
    const after = this.#each(before, (item) => this.#part(item))
    if (after === before) return part
    return Object.fromEntries(Object.keys(part).map((name, i) => [name, after[i]]))
  }

  /** Fills a chunk of SQL. What has no placeholder in it is given back itself. */
  #chunk(chunk: unknown): unknown {
    if (Array.isArray(chunk)) return this.#each(chunk, (item) => this.#chunk(item))
    if (is(chunk, Placeholder)) return new Param(this.#take(chunk.name))
    if (is(chunk, Param)) {
      return is(chunk.value, Placeholder) ? new Param(this.#take(chunk.value.name), chunk.encoder) : chunk
    }
    if (is(chunk, SQL)) return this.#sql(chunk)
    if (is(chunk, Subquery)) {
      // A common table expression is only named here.
      if ((chunk._ as { readonly isWith: boolean }).isWith) return chunk
      const { sql, alias } = chunk._ as unknown as { readonly sql: SQL; readonly alias: string }
      const filled = this.#sql(sql)
      return filled === sql
        ? chunk
        : new SQL([new StringChunk("("), filled, new StringChunk(") "), new Name(alias)])
    }
    if (!isBuilder(chunk)) return chunk
    const sql = chunk.getSQL()
    const filled = this.#sql(sql)
    if (filled === sql) return chunk
    return chunk.shouldOmitSQLParens?.() === true
      ? filled
      : new SQL([new StringChunk("("), filled, new StringChunk(")")])
  }

  #sql(sql: SQL): SQL {
    const queryChunks = this.#each(sql.queryChunks, (chunk) => this.#chunk(chunk))
    return queryChunks === sql.queryChunks
      ? sql
      : Object.assign(Object.create(Object.getPrototypeOf(sql)), sql, { queryChunks })
  }

  #each<A>(items: Array<A>, fill: (item: A) => unknown): Array<A> {
    const filled = items.map(fill) as Array<A>
    return filled.every((item, i) => item === items[i]) ? items : filled
  }

  #take(name: string): unknown {
    const value = Object.hasOwn(this.#values, name) ? this.#values[name] : undefined
    if (value === undefined) throw missing(this.#owner, name)
    this.used.add(name)
    return value
  }
}

const isSQL = (part: unknown): boolean =>
  is(part, SQL) || is(part, Param) || is(part, Placeholder) || isBuilder(part)

/** A query inside another one. */
const isBuilder = (chunk: unknown): chunk is SQLWrapper & { readonly shouldOmitSQLParens?: () => boolean } =>
  typeof chunk === "object" &&
  isSQLWrapper(chunk) &&
  ![Table, Column, View, Name, StringChunk, Subquery, SQL.Aliased].some((kind) => is(chunk, kind as never))
