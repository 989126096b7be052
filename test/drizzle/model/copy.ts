/** A copy of all tables in this process: what the right answers are found in. */
import { Column, is } from "drizzle-orm"
import { getTableConfig, type PgTable } from "drizzle-orm/pg-core"
import {
  actors,
  audit,
  categories,
  customers,
  filmActor,
  filmCategory,
  films,
  holds,
  filmSequel,
  inventory,
  languages,
  notes,
  payments,
  rentals,
  reviews,
  staff,
  stores
} from "./schema.ts"

/** A row as Drizzle gives it. */
export type Row = Readonly<Record<string, any>>

/** All tables, in the order in which rows are compared. */
export const tables = {
  actors,
  audit,
  categories,
  customers,
  filmActor,
  filmCategory,
  films,
  holds,
  filmSequel,
  inventory,
  languages,
  notes,
  payments,
  rentals,
  reviews,
  staff,
  stores
} satisfies Record<string, PgTable>
export type TableName = keyof typeof tables
export const tableNames = Object.keys(tables) as ReadonlyArray<TableName>

/** All rows of all tables. */
export type Data = Readonly<Record<TableName, ReadonlyArray<Row>>>

/** The columns of a table, by their property. */
export const columnsOf = (table: PgTable): ReadonlyArray<readonly [string, Column]> =>
  Object.entries(table).filter((entry): entry is [string, Column] => is(entry[1], Column))

/** The properties of a table's primary key. */
export const keyOf = (table: PgTable): ReadonlyArray<string> => {
  const names = getTableConfig(table).primaryKeys[0]?.columns.map(({ name }) => name) ?? []
  return columnsOf(table)
    .filter(([, column]) => column.primary || names.includes(column.name))
    .map(([property]) => property)
}

/** The columns in whose order rows are compared. */
export const orderOf = (table: PgTable): ReadonlyArray<Column> => {
  const key = keyOf(table)
  const columns = columnsOf(table)
  return (key.length === 0 ? columns : columns.filter(([property]) => key.includes(property))).map(
    ([, column]) => column
  )
}

const textOf = (name: TableName): string => {
  const { schema, name: called } = getTableConfig(tables[name])
  const order = orderOf(tables[name]).map((column) => `t."${column.name}"`)
  const from = schema === undefined ? `"${called}"` : `"${schema}"."${called}"`
  return `(select coalesce(json_agg(t order by ${order.join(", ")}), '[]') from ${from} t)::text`
}

/** Defines a function that copies all tables, each as the text of a list: the server plans it once. */
export const copyDefinition = `
create function copied(${tableNames.map((name) => `out "${name}" text`).join(", ")}) language plpgsql as $$ begin
  select ${tableNames.map(textOf).join(", ")} into ${tableNames.map((name) => `"${name}"`).join(", ")};
end $$;
`

/** Copies all tables. */
export const copied = "select * from copied()"

/** Reads one table of a copy. */
export const rowsOf = (name: TableName, text: string): ReadonlyArray<Row> => {
  const columns = columnsOf(tables[name])
  return (JSON.parse(text) as ReadonlyArray<Row>).map((row) =>
    Object.fromEntries(
      columns.map(([property, column]) => {
        const value = row[column.name]
        return [property, value === null ? null : column.mapFromDriverValue(value)]
      })
    )
  )
}
