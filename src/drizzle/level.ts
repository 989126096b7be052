/**
 * One level of a query: SELECT … FROM … WHERE …, without what is nested in it.
 *
 * A level has sources of rows (tables, queries in the place of a table, functions), which its joins make trees of. A column
 * of a source is a place: what is known of a query is known of places. A reference means a place of its own level, or, if
 * there is none, one of a query around it, as far as the scope that it stands in reaches. Where which one it is cannot be
 * told, it means none, and nothing is concluded from it.
 */
import type { ColumnRef, Node, RangeVar, SelectStmt } from "libpg-query"
import type { Kind } from "./columnText.ts"
import type { Conjunction } from "./conditions.ts"
import { columnPath, functionName, namesOf, walk } from "./parser.ts"
import type { Relation } from "./queryFacts.ts"
import type { Values } from "./regions.ts"
import { hasWindow, isLimited } from "./selectShape.ts"

/** SELECT … FROM … WHERE …. */
export interface Level {
  readonly select: SelectStmt
  /** Its FROM: one tree for each of its items. */
  readonly trees: ReadonlyArray<Tree>
  /** What its expressions may name: the sources in its trees, and joins that have a name. */
  readonly sources: ReadonlyArray<Source>
  /** What else they may name. */
  readonly around: Surroundings
}

/** What stands around a query, and may be named in it. */
export interface Surroundings {
  readonly commonTables: CommonTables
  /** Where columns of the queries around it are found. */
  readonly outer: Scope | undefined
}

/** Common table expressions by their names. */
export type CommonTables = ReadonlyMap<string, CommonTable>

interface CommonTable {
  /** `undefined` if it is no SELECT. */
  readonly select: SelectStmt | undefined
  /** The names that are given to its columns. */
  readonly names: ReadonlyArray<string>
  readonly around: Surroundings
}

/**
 * What a query may name of one that it stands in, and what holds there. A condition may have alternatives, and what stands
 * in it is looked at in each of them: a scope belongs to one.
 */
export interface Scope {
  /** The sources that can be named where the query stands. */
  readonly sources: ReadonlyArray<Source>
  /** The values that a column has, if they are known. */
  readonly valuesOf: (place: Place) => Values | undefined
  readonly outer: Scope | undefined
}

/** A source of rows at one level of a query. */
export interface Source {
  /** By what it is named; `undefined` if it cannot be. */
  readonly alias: string | undefined
  /** The schema that may stand before its name. */
  readonly schema: string | undefined
  readonly table: { readonly range: RangeVar; readonly relation: Relation } | undefined
  readonly nested: Nested | undefined
  /** What else it is: a function, say, whose arguments may have queries in them. */
  readonly other: Node | undefined
  /** Its columns in order, if they are known. */
  readonly outputs: ReadonlyArray<Output> | undefined
}

/** A query in the place of a table: in parentheses, a common table expression, or what a view shows. */
export interface Nested {
  readonly select: SelectStmt
  /** What it may name, if it is not lateral. A lateral one may name columns of what stands before it as well. */
  readonly around: Surroundings
  readonly isLateral: boolean
}

/** A column that a source has. */
export interface Output {
  readonly name: string
  readonly kind: Kind | undefined
  /** Values, one of which it has in every row. */
  readonly values: Values | undefined
  /** True when rows with another value in it may be left out before everything else is done. */
  readonly isFilterable: boolean
}

/** A column of a source. */
export interface Place {
  readonly source: Source
  readonly column: string
}

/** A source, or a join of two trees. */
export type Tree = { readonly source: Source } | Join

export interface Join {
  /** As it is written. Which rows it leaves out may make it another one. */
  readonly type: JoinType
  readonly left: Tree
  readonly right: Tree
  /** The alternatives of its ON; `undefined` for what is not a condition: USING, NATURAL. */
  readonly on: ReadonlyArray<Conjunction> | undefined
  /** ON, as it is written. */
  readonly quals: Node | undefined
  /** Itself, if it has a name: what can be named by that is not looked for. */
  readonly named: Source | undefined
}

export type JoinType = "inner" | "left" | "right" | "full"

// -------------------------------------------------------------------------------------------------------- trees

/** The sources of a tree, from left to right. */
export const sourcesOf = (tree: Tree): ReadonlyArray<Source> =>
  "source" in tree ? [tree.source] : [...sourcesOf(tree.left), ...sourcesOf(tree.right)]

/** The joins of a tree, each after those within it. */
export const joinsOf = (tree: Tree): ReadonlyArray<Join> =>
  "source" in tree ? [] : [...joinsOf(tree.left), ...joinsOf(tree.right), tree]

/** What can be named of a tree: its sources, and the joins that have a name. */
export const nameableIn = (tree: Tree): ReadonlyArray<Source> => {
  if ("source" in tree) return [tree.source]
  const within = [...nameableIn(tree.left), ...nameableIn(tree.right)]
  return tree.named === undefined ? within : [...within, tree.named]
}

/** True for `on true`. */
export const isOnTrue = ({ on }: Join): boolean => on?.length === 1 && on[0]!.length === 0

// ------------------------------------------------------------------------------------------------------- places

/** The type of values of a column, if that is known, and equal ones have one text. */
export const kindOf = ({ source, column }: Place): Kind | undefined => {
  const named = source.outputs?.filter(({ name }) => name === column) ?? []
  return named.length === 1 ? named[0]!.kind : undefined
}

const hasColumn = ({ outputs }: Source, name: string): boolean =>
  outputs?.some((output) => output.name === name) === true

/** The column of one of these sources that a reference means; `undefined` where that cannot be told, or is none of theirs. */
export const placeIn = (sources: ReadonlyArray<Source>, column: ColumnRef): Place | undefined => {
  const path = columnPath(column)
  const found = path === undefined ? "unclear" : meantIn(sources, path)
  return typeof found === "string" ? undefined : found
}

/** A column that a reference means. */
interface Meant {
  readonly place: Place
  /** The scope it was found in, if it is a column of a query around. */
  readonly scope: Scope | undefined
}

/** The column that a reference means: of these sources, or of queries around; `undefined` where that cannot be told. */
export const meantBy = (
  column: ColumnRef,
  sources: ReadonlyArray<Source>,
  outer: Scope | undefined
): Meant | undefined => {
  const path = columnPath(column)
  if (path === undefined) return undefined
  let scope: Scope | undefined
  let found = meantIn(sources, path)
  for (let next = outer; found === "none" && next !== undefined; next = next.outer) {
    scope = next
    found = meantIn(scope.sources, path)
  }
  return typeof found === "string" ? undefined : { place: found, scope }
}

/** Columns of the system that change also where nothing else does. */
export const momentaryColumns: ReadonlySet<string> = new Set(["ctid", "xmin", "xmax", "cmin", "cmax"])

const systemColumns: ReadonlySet<string> = new Set([...momentaryColumns, "tableoid"])

/** What a name means among these sources: a column of one; none, so that it may be one outside; or it is unclear. */
const meantIn = (sources: ReadonlyArray<Source>, path: ReadonlyArray<string>): Place | "none" | "unclear" => {
  const [name, alias, schema] = path.toReversed()
  if (alias === undefined && sources.some(({ outputs }) => outputs === undefined)) return "unclear"
  // Each table has these, and they are in no list of its columns.
  if (alias === undefined && systemColumns.has(name!) && sources.some(({ table }) => table !== undefined))
    return "unclear"
  const meant = sources.filter((source) =>
    alias === undefined ? hasColumn(source, name!) : source.alias === alias
  )
  const [source, ...others] = meant
  if (source === undefined) return "none"
  // A table that was named without its schema may be the one that is named with it here.
  const isMeant = schema === undefined || source.schema === schema
  return others.length === 0 && isMeant && hasColumn(source, name!) ? { source, column: name! } : "unclear"
}

/** True when a tree may name a column of a source. */
export const mayName = (tree: unknown, source: Source): boolean => {
  let isFound = false
  walk({ tree }, (kind, part) => {
    if (kind === "ColumnRef") {
      const path = namesOf(part.fields)
      isFound ||=
        path.length === 1
          ? path[0] === undefined || path[0] === source.alias || mayHave(source, path[0])
          : path.includes(source.alias) || source.alias === undefined
    }
    return !isFound
  })
  return isFound
}

const mayHave = (source: Source, column: string): boolean =>
  source.outputs === undefined || hasColumn(source, column)

// ---------------------------------------------------------------------------------------------- what is selected

/** A column of an answer, and of which source it is, if it is one. */
interface Selected {
  readonly name: string
  readonly place: Place | undefined
}

/** The columns of a level's answer; `undefined` if they cannot be told. */
export const selectedBy = ({ select, sources }: Level): ReadonlyArray<Selected> | undefined => {
  const selected: Array<Selected> = []
  for (const node of select.targetList ?? []) {
    if (!("ResTarget" in node) || node.ResTarget.val === undefined) return undefined
    const { name, val } = node.ResTarget
    const path = "ColumnRef" in val ? namesOf(val.ColumnRef.fields) : []
    const isStar = "ColumnRef" in val && path.at(-1) === undefined
    if (!isStar) {
      const called = name ?? nameOf(val)
      if (called === undefined) return undefined
      const place = "ColumnRef" in val ? placeIn(sources, val.ColumnRef) : undefined
      selected.push({ name: called, place })
      continue
    }
    const meant = path.length === 1 ? sources : sources.filter(({ alias }) => alias === path[0])
    if (meant.length === 0 || path.length > 2) return undefined
    for (const source of meant) {
      if (source.outputs === undefined) return undefined
      for (const { name } of source.outputs) selected.push({ name, place: { source, column: name } })
    }
  }
  return selected.length === 0 ? undefined : selected
}

/** What the server calls an expression. It has names for more of them than these. */
const nameOf = (value: Node): string | undefined => {
  if ("ColumnRef" in value) return namesOf(value.ColumnRef.fields).at(-1)
  return "FuncCall" in value ? functionName(value.FuncCall).name : undefined
}

/**
 * True when rows with other values in a column may be left out before a query does anything else: what is asked of its
 * answer is asked of its rows. With a limit others would come in their place; a window looks at them; of a group, they are
 * left out only as a whole, if the column is one that it is made by.
 */
export const isFilterable = ({ select, sources }: Level, place: Place): boolean => {
  const { distinctClause, groupClause } = select
  const isDistinctOn = (distinctClause ?? []).some((node) => Object.keys(node).length > 0)
  if (isLimited(select) || isDistinctOn || hasWindow(select)) return false
  if (groupClause === undefined) return true
  const grouped = groupClause.map((node) =>
    "ColumnRef" in node ? placeIn(sources, node.ColumnRef) : undefined
  )
  return (
    !grouped.includes(undefined) &&
    grouped.some((column) => column!.source === place.source && column!.column === place.column)
  )
}
