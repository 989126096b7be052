/**
 * What the server, Drizzle's schema and the models know together of the tables and functions that a query names: the facts
 * that `queryReads.ts` asks for (`queryFacts.ts`).
 */
import type { RangeVar } from "libpg-query"
import { type FunctionInfo, type TableInfo, writtenName } from "./catalog.ts"
import { kindOfServerType } from "./columnText.ts"
import { type Dialect, columnName } from "./builders.ts"
import { find, type ModelDefinition, type ToldColumn } from "./modelDefinition.ts"
import { tableName } from "./modelTags.ts"
import { expressionOf, type Parse, selectOf } from "./parser.ts"
import type { FunctionNature, Relation, RelationKey, RelationModel } from "./queryFacts.ts"
import type { TableRef } from "./statementTables.ts"

/** A table as it is named in a parsed statement. */
export const refOf = ({ schemaname, relname = "" }: RangeVar): TableRef => ({
  schema: schemaname,
  name: relname
})

/** The model of a table, and what it is called in tags. */
export const modelOf = (
  { names }: TableInfo,
  ref: TableRef
): { readonly name: string; readonly definition: ModelDefinition | undefined } => {
  // A table that the search path finds may be declared with its schema, or without.
  const written = tableName(ref.schema, ref.name)
  const candidates = [written, ...names].filter((name) => names.includes(name))
  const name = candidates.find((candidate) => find(candidate) !== undefined) ?? candidates[0] ?? written
  return { name, definition: find(name) }
}

/** Puts together what is known of a table. */
export const relationOf = (parse: Parse, dialect: Dialect, info: TableInfo, ref: TableRef): Relation => {
  const { name, definition } = modelOf(info, ref)
  const columns = new Map(
    [...info.columns].map(([column, { type, isDeterministic }]) => [
      column,
      isDeterministic ? kindOfServerType(type) : undefined
    ])
  )
  // Rows of tables that inherit from it are its rows too, and may have the same key.
  const uniques = info.hasHeirs ? [] : info.uniques
  const view = info.view === undefined ? undefined : selectOf(parse(info.view)?.[0])
  const policies = info.policies.map((policy) => expressionOf(parse, policy))
  return {
    name,
    identity: writtenName(info.table),
    columns,
    model: definition && modelIn(definition, dialect, columns, uniques),
    uniques,
    // They do not bind rows of tables that inherit from it.
    foreignKeys: (info.hasHeirs ? [] : info.foreignKeys).map(({ columns, referenced, table }) => ({
      columns,
      referenced,
      refersTo: writtenName(table)
    })),
    view,
    hidesRows: info.hasRowSecurity,
    policies: policies.filter((policy) => policy !== undefined),
    untold: info.isSystem
      ? `the system table ${name}`
      : info.isForeign
        ? `the foreign table ${name}`
        : info.isSequence
          ? `the sequence ${name}`
          : (info.view !== undefined && view === undefined) || policies.includes(undefined)
            ? `what ${name} shows, which is not understood`
            : undefined
  }
}

const modelIn = (
  { primaryKey, keys, every, volatile }: ModelDefinition,
  dialect: Dialect,
  columns: Relation["columns"],
  uniques: Relation["uniques"]
): RelationModel => {
  const keyOf = (told: ReadonlyArray<ToldColumn>): RelationKey => {
    const named = told.map((column) => ({ ...column, name: columnName(dialect, column.column) }))
    const isUnique = uniques.some(
      (unique) => unique.length === named.length && named.every(({ name }) => unique.includes(name))
    )
    return { columns: named, isUnique }
  }
  return {
    keys: [primaryKey, ...keys]
      .filter((told) => told.length > 0)
      .map(keyOf)
      // Of another type than it was declared, a write tells by table.
      .filter((key) => key.columns.every(({ name, kind }) => columns.get(name) === kind)),
    properties: new Map(every.map((column) => [columnName(dialect, column.column), column])),
    volatile: new Map(
      [...volatile].map(([group, members]) => [
        group,
        new Set(members.map(({ column }) => columnName(dialect, column)))
      ])
    )
  }
}

/** What a function may be, of which the server tells these; `undefined` where it must be asked. */
export const natureOf = (
  schema: string | undefined,
  name: string,
  known: (name: string) => ReadonlyArray<FunctionInfo> | undefined
): FunctionNature | undefined => {
  const found = known(name)?.filter((one) => schema === undefined || one.schema === schema)
  if (found === undefined) return undefined
  const own = found.filter(({ schema }) => schema !== "pg_catalog")
  if (found.length === 0 || own.some(mayRead)) return "unknown"
  const isCompiled = found.length > own.length || own.some(({ isCompiled }) => isCompiled)
  if (isCompiled && readers.test(name)) return "unknown"
  const isMomentary = found.length > own.length && (momentary.has(name) || ofServer.test(name))
  // An aggregate's volatility is nothing but what it has when nobody says another one.
  if (isMomentary || found.some(isVolatile)) return "volatile"
  if (found.some(({ isSet }) => isSet)) return "pure"
  return found.some(({ isAggregate }) => isAggregate) ? "aggregate" : "scalar"
}

/**
 * True for a function of the database's own that may read tables. One that reads them though it is declared to be
 * immutable is a mistake that the server makes something of as well; one of an extension's that is compiled, and not
 * known to read, knows nothing of tables.
 */
const mayRead = ({ volatility, isAggregate, isCompiled, isOfExtension }: FunctionInfo): boolean =>
  !(isOfExtension && (isCompiled || isAggregate)) && (isAggregate || volatility !== "i")

/** True when it answers otherwise another time; of compiled ones that do not come with the server, what is not immutable. */
const isVolatile = ({ schema, volatility }: FunctionInfo): boolean =>
  volatility === "v" || (volatility === "s" && schema !== "pg_catalog")

/** Functions of the server's that are stable, and answer otherwise in another moment or session. */
const momentary: ReadonlySet<string> = new Set(
  `age col_description current_schema current_schemas current_setting format_type inet_client_addr inet_client_port
   inet_server_addr inet_server_port now obj_description row_security_active shobj_description statement_timestamp
   transaction_timestamp txid_current txid_current_if_assigned version`.split(/\s+/)
)

/** Functions of the server's that tell of itself: its tables, roles, locks, files. */
const ofServer = /^pg_(?!typeof$)|^has_\w+_privilege$|^to_reg/

/** Compiled functions that read tables which they are given by name, or as a text. */
const readers =
  /^(query|table|cursor|schema|database)_to_xml|^ts_(stat|rewrite)$|^pg_get_viewdef$|^(dblink|crosstab|connectby|xpath_table|_?pgr_)/
