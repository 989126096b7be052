/**
 * What stands in the FROM of a query: makes its level (`level.ts`).
 *
 * A name in FROM is a common table expression, a view, or a table. The first two are queries in the place of a table, and
 * so are those in parentheses: of their columns it is told which of their own they are, and what holds of them in every row
 * without regard to who asks, so that this is known outside.
 */
import type { JoinExpr, Node, RangeVar, SelectStmt } from "libpg-query"
import { alternativesOf } from "./conditions.ts"
import type { FoundTables } from "./foundTables.ts"
import {
  type CommonTables,
  isFilterable,
  type JoinType,
  kindOf,
  type Level,
  nameableIn,
  type Nested,
  type Output,
  type Place,
  selectedBy,
  type Source,
  type Surroundings,
  type Tree
} from "./level.ts"
import { commonTables, functionName, namesOf, selectOf, walk } from "./parser.ts"
import type { Values } from "./regions.ts"
import { solutionsOf } from "./solutions.ts"

const noCommonTables: CommonTables = new Map()

/** Around a statement, and what a view shows, there is nothing. */
export const nothingAround: Surroundings = { commonTables: noCommonTables, outer: undefined }

/** What a query may name, with its own common table expressions. */
export const withCommonTables = (select: SelectStmt, around: Surroundings): Surroundings => {
  const own = commonTables(select)
  if (own.length === 0) return around
  const { outer } = around
  const known = new Map(around.commonTables)
  const isRecursive = select.withClause?.recursive === true
  for (const { ctename = "", ctequery, aliascolnames } of own) {
    known.set(ctename, {
      select: selectOf(ctequery),
      names: namesOf(aliascolnames) as ReadonlyArray<string>,
      // One that is not recursive sees those before it.
      around: { commonTables: isRecursive ? known : new Map(known), outer }
    })
  }
  return { commonTables: known, outer }
}

/** What of a source cannot be named where it stands: its columns, or itself, either. */
type Hidden = "nothing" | "columns" | "names"

type Outputs = ReadonlyArray<Output> | undefined

/** Makes the levels of one statement, and notes the views that it meets. */
export class FromClauses {
  readonly #tables: FoundTables
  readonly #onView: (view: SelectStmt) => void
  /** The columns of queries that have been told. */
  readonly #outputs = new Map<SelectStmt, Outputs>()
  /** Queries that are being looked into. */
  readonly #open = new Set<SelectStmt>()

  constructor(tables: FoundTables, onView: (view: SelectStmt) => void) {
    this.#tables = tables
    this.#onView = onView
  }

  /** The level of a query that is no set operation. */
  levelOf(select: SelectStmt, around: Surroundings): Level {
    const trees = (select.fromClause ?? []).map((node) => this.#tree(node, around, "nothing"))
    return { select, trees, sources: trees.flatMap(nameableIn), around }
  }

  /** Looks into a query. Where it is named in itself, it is what has been found so far. */
  inside<A>(select: SelectStmt, look: () => A): A {
    const isOpen = this.#open.has(select)
    this.#open.add(select)
    const seen = look()
    if (!isOpen) this.#open.delete(select)
    return seen
  }

  #tree(node: Node, around: Surroundings, hidden: Hidden): Tree {
    if ("JoinExpr" in node) return this.#join(node.JoinExpr, around, hidden)
    const source = this.#source(node, around)
    if (hidden === "nothing") return { source }
    return {
      source: { ...source, outputs: undefined, alias: hidden === "columns" ? source.alias : undefined }
    }
  }

  #join(
    { jointype, larg, rarg, quals, usingClause, isNatural, alias, join_using_alias }: JoinExpr,
    around: Surroundings,
    hidden: Hidden
  ): Tree {
    // Which columns USING and NATURAL mean is not looked for, nor what becomes of their names.
    const isByName = usingClause !== undefined || isNatural === true
    const below = hidden === "names" || alias !== undefined ? "names" : isByName ? "columns" : hidden
    // That of USING names what it compares, and hides nothing.
    const name = (alias ?? join_using_alias)?.aliasname
    return {
      type: joinTypes[jointype ?? ""] ?? "full",
      left: this.#tree(larg!, around, below),
      right: this.#tree(rarg!, around, below),
      on: below === "nothing" ? alternativesOf(quals) : undefined,
      quals,
      named: name === undefined ? undefined : opaqueSource(name)
    }
  }

  #source(node: Node, around: Surroundings): Source {
    if ("RangeVar" in node) return this.#named(node.RangeVar, around)
    if (!("RangeSubselect" in node)) return { ...opaqueSource(aliasIn(node)), other: node }
    const { subquery, lateral, alias } = node.RangeSubselect
    const source = opaqueSource(alias?.aliasname)
    const select = selectOf(subquery)
    if (select === undefined) return source
    const nested: Nested = { select, around, isLateral: lateral === true }
    return this.#withQuery(source, nested, namesOf(alias?.colnames))
  }

  /** What a name is: a common table expression, a view or a table. */
  #named(range: RangeVar, { commonTables }: Surroundings): Source {
    const { schemaname, relname = "", alias } = range
    const names = namesOf(alias?.colnames)
    const source = opaqueSource(alias?.aliasname ?? relname)
    const common = schemaname === undefined ? commonTables.get(relname) : undefined
    if (common !== undefined) {
      const { select, around } = common
      if (select === undefined || this.#open.has(select)) return source
      return this.#withQuery(source, { select, around, isLateral: false }, common.names, names)
    }
    const relation = this.#tables.relation(range)
    if (relation === undefined) return source
    const { view, columns } = relation
    if (view !== undefined) {
      // Who writes through a view changes its tables; who tells of the view by hand means all that it shows.
      this.#tables.addWhole(range, relation, undefined)
      this.#onView(view)
      const nested: Nested = { select: view, around: nothingAround, isLateral: false }
      return this.#withQuery(source, nested, [...columns.keys()], names)
    }
    const outputs = [...columns].map(([name, kind]) => ({
      name,
      kind,
      values: undefined,
      isFilterable: false
    }))
    return {
      ...source,
      schema: alias === undefined ? schemaname : undefined,
      table: { range, relation },
      outputs: names.length > 0 ? undefined : outputs
    }
  }

  // ----------------------------------------------------------------------------------------- columns of queries

  /** A query as a source. Of the lists of names that are given to its columns the last counts. */
  #withQuery(
    source: Source,
    nested: Nested,
    ...renamed: ReadonlyArray<ReadonlyArray<string | undefined>>
  ): Source {
    const outputs = renamed.reduce<Outputs>(
      (named, names) => named?.map((output, i) => ({ ...output, name: names[i] ?? output.name })),
      this.#outputsOf(nested)
    )
    return { ...source, nested, outputs }
  }

  /** The columns of a query's answer; `undefined` if they cannot be told. */
  #outputsOf({ select, around }: Nested): Outputs {
    if (!this.#outputs.has(select)) {
      // A recursive one is asked for its columns by itself.
      if (this.#open.has(select)) return undefined
      // What an outer query knows is left out: the columns are the same for all who name it.
      const known: Surroundings = { ...around, outer: undefined }
      this.#outputs.set(
        select,
        this.inside(select, () => this.#tellOutputs(select, known))
      )
    }
    return this.#outputs.get(select)
  }

  #tellOutputs(select: SelectStmt, given: Surroundings): Outputs {
    const around = withCommonTables(select, given)
    const { larg, rarg } = select
    if (larg !== undefined && rarg !== undefined) {
      const [ours, theirs] = [this.#tellOutputs(larg, around), this.#tellOutputs(rarg, around)]
      return ours?.map(({ name, kind }, i) => ({
        name,
        kind: theirs?.[i]?.kind === kind ? kind : undefined,
        values: undefined,
        isFilterable: false
      }))
    }
    const level = this.levelOf(select, around)
    const solutions = solutionsOf(level)
    const valuesOf = ({ source, column }: Place): Values | undefined => {
      const all = solutions.map(({ pins, nullable }) =>
        nullable.has(source) ? undefined : pins.get(source)?.get(column)
      )
      return all.length === 0 || all.includes(undefined) ? undefined : (all.flat() as Values)
    }
    return selectedBy(level)?.map(({ name, place }) => ({
      name,
      kind: place && kindOf(place),
      values: place && valuesOf(place),
      isFilterable: place !== undefined && isFilterable(level, place)
    }))
  }
}

const joinTypes: Readonly<Record<string, JoinType>> = {
  JOIN_INNER: "inner",
  JOIN_LEFT: "left",
  JOIN_RIGHT: "right",
  JOIN_FULL: "full"
}

/** A source of which nothing but its name is known. */
const opaqueSource = (alias: string | undefined): Source => ({
  alias,
  schema: undefined,
  table: undefined,
  nested: undefined,
  other: undefined,
  outputs: undefined
})

/** The name of a source that is no table and no query. */
const aliasIn = (node: Node): string | undefined => {
  const [part] = Object.values(node) as ReadonlyArray<{
    readonly alias?: { readonly aliasname?: string }
    readonly relation?: { readonly RangeVar?: RangeVar }
  }>
  const { RangeVar } = part?.relation ?? {}
  let name = part?.alias?.aliasname ?? RangeVar?.alias?.aliasname ?? RangeVar?.relname
  // A function is named as it is called.
  walk(node, (kind, call) => {
    if (kind === "FuncCall") name ??= functionName(call).name
    return name === undefined
  })
  return name
}
