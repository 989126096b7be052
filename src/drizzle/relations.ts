/**
 * What the server, Drizzle's schema and the models know together of the tables and functions that a query names: the facts
 * that `queryReads.ts` asks for.
 */
import type { RangeVar } from "libpg-query"
import type { FunctionInfo, TableInfo } from "./catalog.ts"
import { kindOfServerType } from "./columnText.ts"
import { type Dialect, columnName } from "./builders.ts"
import { find, type ModelDefinition, type ToldColumn } from "./modelDefinition.ts"
import { tableName } from "./modelTags.ts"
import { expressionOf, type Parse, selectOf } from "./parser.ts"
import type { FunctionNature, Relation, RelationKey, RelationModel } from "./queryReads.ts"
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
    columns,
    model: definition && modelIn(definition, dialect, columns, uniques),
    uniques,
    foreignKeys: info.foreignKeys.map(({ columns, referenced, names }) => ({
      columns,
      referenced,
      refersTo: names
    })),
    view,
    policies: policies.filter((policy) => policy !== undefined),
    untold: info.isSystem
      ? `the system table ${name}`
      : info.isForeign
        ? `the foreign table ${name}`
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
  const isBuiltIn = schema === undefined || schema === "pg_catalog"
  if (isBuiltIn && common.has(name)) return "scalar"
  const found = known(name)?.filter((one) => schema === undefined || one.schema === schema)
  if (found === undefined) return undefined
  const own = found.filter(({ schema }) => schema !== "pg_catalog")
  // One that reads tables though it is declared to be immutable is a mistake that the server makes something of as well.
  if (found.length === 0 || own.some(({ volatility }) => volatility !== "i")) return "unknown"
  if (own.length === found.length) return "pure"
  if (readers.test(name)) return "unknown"
  return momentary.has(name) || found.some(({ volatility }) => volatility === "v") ? "volatile" : "pure"
}

/** Functions of the server's that do nothing but compute one value, and are called so often that it need not be asked. */
const common: ReadonlySet<string> = new Set(
  `abs array_agg array_to_json array_length array_position avg bool_and bool_or btrim cardinality ceil ceiling char_length
   concat concat_ws count date_part date_trunc dense_rank every extract first_value floor format greatest initcap
   json_agg json_build_array json_build_object jsonb_agg jsonb_build_array jsonb_build_object lag last_value lead least
   left length lower lpad ltrim max md5 min mod nullif power rank regexp_replace repeat replace reverse right round
   row_number row_to_json rtrim sign split_part sqrt string_agg strpos substr substring sum to_json to_jsonb trim trunc
   upper`.split(/\s+/)
)

/** Functions of the server's that are stable, and answer otherwise in another moment or session. */
const momentary: ReadonlySet<string> = new Set(
  `age current_schema current_schemas current_setting has_any_column_privilege has_column_privilege has_schema_privilege
   has_table_privilege inet_client_addr inet_client_port inet_server_addr now pg_backend_pid pg_current_xact_id
   pg_get_userbyid pg_my_temp_schema pg_postmaster_start_time row_security_active statement_timestamp to_regclass
   transaction_timestamp txid_current txid_current_if_assigned version`.split(/\s+/)
)

/** Functions of the server's that read tables which they are given by name, or as a text. */
const readers = /^(query|table|cursor|schema|database)_to_xml|^ts_stat$|^dblink|^pg_get_viewdef$/
