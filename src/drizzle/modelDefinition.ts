/**
 * What this process knows of a table beyond Drizzle's schema: the keys by which its rows are told in tags, and its groups
 * of volatile columns.
 *
 * A table may be declared twice, as a model and as a link. A write must tell the tags of both, so they are one definition
 * here, with the keys of both. Definitions are known by their table's name, in the whole process.
 */
import { Column, is } from "drizzle-orm"
import { getTableConfig, IndexedColumn, type PgTable } from "drizzle-orm/pg-core"
import { CachemeError, InvalidDefinition, InvalidKey } from "../CachemeError.ts"
import { declareTable } from "../Declared.ts"
import * as Definition from "../Definition.ts"
import { type Kind, kindOf } from "./columnText.ts"
import { labelOf, tableName } from "./modelTags.ts"

/** A column of a table. */
export interface KeyColumn {
  /** Its name in the table object. */
  readonly property: string
  readonly column: Column
}

/** A column whose values are told in tags. */
export interface ToldColumn extends KeyColumn {
  readonly kind: Kind
  /** What precedes its value in an id. */
  readonly label: string
}

/** What is known of a table in this process. */
export interface ModelDefinition extends Definition.Definition {
  readonly kind: "model"
  /** The columns of the primary key; none if there is no such key, or one whose values have no canonical text. */
  readonly primaryKey: ReadonlyArray<ToldColumn>
  /** The declared keys, the sides of a link, and what Drizzle's schema says is unique. */
  readonly keys: ReadonlyArray<ReadonlyArray<ToldColumn>>
  /** All columns of the table. */
  readonly every: ReadonlyArray<KeyColumn>
  /** The groups of columns whose changes alone leave entries fresh that do not rest on them. */
  readonly volatile: ReadonlyMap<string, ReadonlyArray<KeyColumn>>
  /** All columns that a tag may need. */
  readonly columns: ReadonlyArray<ToldColumn>
}

/** How a table is declared: the same way twice must be the same. */
type Source = "model" | "link"

/** What a model or a link declares of a table. */
export interface Declaration extends Pick<ModelDefinition, "primaryKey" | "keys" | "volatile"> {
  readonly name: string
  readonly schema: TableSchema
  readonly definedAt: string
  /** What must be equal for two declarations to be the same one, beside the primary key. */
  readonly parts: Readonly<Record<string, string>>
}

/** What tags bear: one for each table, whichever way it is declared, and however often. */
interface Known {
  readonly identity: Definition.Definition
  readonly declarations: Readonly<Partial<Record<Source, Declaration>>>
  readonly definition: ModelDefinition
}

const known = new Map<string, Known>()

/** What is known of the table with this name, if it has been declared. */
export const find = (table: string): ModelDefinition | undefined => known.get(table)?.definition

/** True when a table has a model here. A link does not tell of groups of volatile columns. */
export const hasModel = (table: string): boolean => known.get(table)?.declarations.model !== undefined

/**
 * Makes a declaration known, and answers what tags of the table bear. Throws `DefinitionConflict` if it differs from an
 * earlier one, `InvalidDefinition` if a link's side is a volatile column.
 */
export const registerUnsafe = (source: Source, declaration: Declaration): Definition.Definition => {
  const { name, definedAt } = declaration
  const before = known.get(name)
  const same = before?.declarations[source]
  if (same !== undefined) Definition.assertSameUnsafe(comparable(same), comparable(declaration))
  const declarations = { ...before?.declarations, [source]: declaration }
  const definition = uniteUnsafe(name, declarations)
  const identity = before?.identity ?? {
    kind: "model",
    name,
    definedAt,
    parts: () => find(name)!.parts()
  }
  known.set(name, { identity, declarations, definition })
  declareTable(name, {
    row: definition.primaryKey.length === 0 ? undefined : written(definition.primaryKey),
    keys: new Map(
      definition.keys.map((columns) => [columns.map(({ label }) => label).join(), written(columns)])
    ),
    groups: writtenGroups(definition.volatile)
  })
  return identity
}

const comparable = (
  { name, definedAt, primaryKey, parts }: Declaration,
  others = parts
): Definition.Definition => ({
  kind: "model",
  name,
  definedAt,
  parts: () => ({ "primary key": written(primaryKey), ...others })
})

/** One definition with the keys of all declarations of a table. */
const uniteUnsafe = (
  name: string,
  { model, link }: Readonly<Partial<Record<Source, Declaration>>>
): ModelDefinition => {
  if (model !== undefined && link !== undefined) assertAgreeUnsafe(model, link)
  const declarations = [model, link].filter((declaration) => declaration !== undefined)
  const [{ primaryKey, definedAt, schema }] = declarations as [Declaration]
  const volatile = model?.volatile ?? new Map<string, ReadonlyArray<KeyColumn>>()
  const declared = declarations.flatMap((declaration) => declaration.keys)
  const keys = new Map(
    [...declared, ...uniqueKeys(schema, volatile)].map((columns) => [written(columns), columns])
  )
  keys.delete(written(primaryKey))
  const told = [primaryKey, ...keys.values()]
  return {
    kind: "model",
    name,
    definedAt,
    primaryKey,
    keys: [...keys.values()],
    volatile,
    every: schema.columns,
    columns: [...new Map(told.flat().map((column) => [column.property, column])).values()],
    parts: () => ({
      "primary key": written(primaryKey),
      keys: [...keys.keys()].toSorted().join(" "),
      volatile: writtenGroups(volatile)
    })
  }
}

/** What Drizzle's schema says is unique, and can be told: none whose columns have no canonical text, or are volatile. */
const uniqueKeys = (
  { uniques }: TableSchema,
  volatile: ModelDefinition["volatile"]
): ReadonlyArray<ReadonlyArray<ToldColumn>> => {
  const isVolatile = ({ property }: KeyColumn) =>
    [...volatile.values()].flat().some((column) => column.property === property)
  return uniques
    .filter((columns) => !columns.some(isVolatile))
    .map(allTold)
    .filter((columns) => columns.length > 0)
}

const assertAgreeUnsafe = (model: Declaration, link: Declaration): void => {
  // What a property is called in both must be one column: a changed row is told by properties.
  const all = ({ primaryKey, keys }: Declaration) =>
    new Map([primaryKey, ...keys].flat().map((column) => [column.property, column]))
  const shared = (of: Declaration, other: Declaration) => {
    const names = all(other)
    const columns = [...all(of).values()].filter(({ property }) => names.has(property))
    return {
      columns: columns
        .map((column) => `${column.property}: ${written([column])}`)
        .toSorted()
        .join()
    }
  }
  Definition.assertSameUnsafe(comparable(model, shared(model, link)), comparable(link, shared(link, model)))
  for (const [group, columns] of model.volatile) {
    const side = columns.find(({ column }) =>
      link.keys.flat().some((told) => told.column.name === column.name)
    )
    if (side === undefined) continue
    throw invalidDefinition(
      `model "${model.name}"`,
      `volatile group "${group}"`,
      "columns of no key and of no link",
      `"${side.property}", a side of the link at ${link.definedAt}`
    )
  }
}

// ---------------------------------------------------------------------------------------------- tables and columns

/** What Drizzle's schema tells of a table. */
export interface TableSchema {
  readonly name: string
  readonly columns: ReadonlyArray<KeyColumn>
  /** The columns of the primary key, whatever their types. */
  readonly primaryKey: ReadonlyArray<KeyColumn>
  /** Sets of columns that are unique, whatever their types. */
  readonly uniques: ReadonlyArray<ReadonlyArray<KeyColumn>>
}

/** What Drizzle's schema tells of a table. */
export const schemaOf = (table: PgTable): TableSchema => {
  const config = getTableConfig(table)
  const columns = columnsOf(table)
  const primary = config.columns.filter((column) => column.primary)
  const composite = config.primaryKeys[0]?.columns ?? []
  // By name: a constraint of several columns holds other objects for the same columns.
  const own = ({ name }: { readonly name: string }) => columns.find(({ column }) => column.name === name)!
  const indexes = config.indexes.flatMap(({ config: { unique, where, columns } }) =>
    unique && where === undefined && columns.every((column) => is(column, IndexedColumn))
      ? [columns as ReadonlyArray<{ readonly name: string }>]
      : []
  )
  const constraints = config.uniqueConstraints.map(({ columns }) => columns)
  const single = config.columns.filter(({ isUnique }) => isUnique).map((column) => [column])
  return {
    name: tableName(config.schema, config.name),
    columns,
    primaryKey: (primary.length > 0 ? primary : composite).map(own),
    uniques: [...single, ...constraints, ...indexes].map((columns) => columns.map(own))
  }
}

/** The columns of a table object. */
export const columnsOf = (table: PgTable): ReadonlyArray<KeyColumn> =>
  Object.entries(table).flatMap(([property, column]) => (is(column, Column) ? [{ property, column }] : []))

/** A column with what tags need of it; `undefined` if its values have no canonical text. */
export const told = ({ property, column }: KeyColumn): ToldColumn | undefined => {
  const kind = kindOf(column)
  return kind === undefined ? undefined : { property, column, kind, label: labelOf(column.name) }
}

/** Columns with what tags need of them, in one order whatever the order of declaration; none if one has no text. */
export const allTold = (columns: ReadonlyArray<KeyColumn>): ReadonlyArray<ToldColumn> => {
  const found = columns.map(told).filter((column) => column !== undefined)
  return found.length === columns.length ? sorted(found) : []
}

const sorted = <C extends KeyColumn>(columns: ReadonlyArray<C>): ReadonlyArray<C> =>
  columns.toSorted((a, b) => (a.column.name < b.column.name ? -1 : 1))

/** Columns as a text that is equal for equal columns. */
export const written = (columns: ReadonlyArray<KeyColumn>): string =>
  columns.map(({ column }) => `${column.name} ${column.getSQLType()}`).join(",")

/** Groups of columns as a text that is equal for equal groups. */
export const writtenGroups = (groups: ReadonlyMap<string, ReadonlyArray<KeyColumn>>): string =>
  [...groups]
    .map(([group, columns]) => `${group}: ${written(sorted(columns))}`)
    .toSorted()
    .join("; ")

// --------------------------------------------------------------------------------------------------------- errors

/** The error of a declaration. */
export const invalidDefinition = (definition: string, field: string, expected: string, actual: string) =>
  new CachemeError({ reason: new InvalidDefinition({ definition, field, expected, actual }) })

/** The error of values that make no tag. */
export const invalidKey = (definition: string, field: string, expected: string, actual: string) =>
  new CachemeError({ reason: new InvalidKey({ definition, field, expected, actual }) })
