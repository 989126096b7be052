/**
 * What does a query read of each table?
 *
 * **The region lemma.** Let an answer be a function of those rows of a table that satisfy a condition on single rows: its
 * region. A write whose old and new rows all lie outside does not change the answer. So a query carries tags that cover its
 * regions, a write invalidates every tag whose region holds one of its rows, old or new, and what matters is met. Regions
 * come from the conditions, never from the rows that were found: a row that is not there is covered as well.
 *
 * A query is looked into level by level, from the outside: each SELECT, and then those that stand in it. Of a level
 *
 * - `fromClause.ts` makes the sources and joins that its FROM has (`level.ts`);
 * - `solutions.ts` tells what holds of their columns, in each alternative of its condition (`conditions.ts`);
 * - `shownValues.ts` adds the values that are known when the answer is there;
 * - `foundTables.ts` keeps, for each table, the region that this makes (`regions.ts`).
 *
 * `selectShape.ts` answers what the tree of a SELECT tells by itself, and `mentions.ts` what matters wherever it stands.
 *
 * What is not understood is read whole. After all, every table that the tree names anywhere, and that was not looked at in
 * its place, is read whole, too.
 */
import type { Node, SelectStmt } from "libpg-query"
import { FoundTables } from "./foundTables.ts"
import { FromClauses, nothingAround, withCommonTables } from "./fromClause.ts"
import { joinsOf, type Level, nameableIn, selectedBy, type Source, type Surroundings } from "./level.ts"
import { Mentions } from "./mentions.ts"
import { functionName, tablesIn } from "./parser.ts"
import type { Facts, Relation } from "./queryFacts.ts"
import type { Missing, Pins, QueryReads, Values } from "./regions.ts"
import {
  isPerRow,
  limitsOfOne,
  type NatureOf,
  queriesIn,
  repeatedParameters,
  showsEachRow
} from "./selectShape.ts"
import {
  atRoot,
  notPinned,
  type Pinned,
  pinnedIn,
  type ShownAt,
  type ShownColumns,
  shownColumns,
  shownIn
} from "./shownValues.ts"
import { type Given, nothingHolds, type Solution, solutionsOf } from "./solutions.ts"

/** What a query reads, or what must be known first. */
export const readsOf = (select: SelectStmt, facts: Facts): QueryReads | Missing =>
  new Analysis(facts).run(select)

/** So many queries are looked into; of a statement that has more, everything is read whole. */
const mostQueries = 300

/** Of some columns of a query's answer, by their place: only rows with one of these values matter. */
type Wanted = ReadonlyMap<number, Values>

const nothingWanted: Wanted = new Map()

/** The view on a level in one alternative of its condition. */
interface View {
  readonly level: Level
  readonly solution: Solution
  /** What is known of each source in it. */
  readonly pinned: ReadonlyMap<Source, Pinned>
  /** The columns that the answer of the statement shows. */
  readonly columns: ShownColumns
}

class Analysis {
  readonly #tables: FoundTables
  readonly #mentions: Mentions
  readonly #fromClauses: FromClauses
  readonly #natureOf: NatureOf
  /** Statements whose every table must be accounted for: the query, and what the server adds: views and policies. */
  readonly #statements = new Set<SelectStmt>()
  /** How many queries have been looked into, each as often as it was. */
  #queries = 0

  constructor(facts: Facts) {
    this.#tables = new FoundTables(facts)
    this.#mentions = new Mentions(facts)
    this.#fromClauses = new FromClauses(this.#tables, (view) => this.#statement(view))
    this.#natureOf = (call) => {
      const { schema, name } = functionName(call)
      return facts.function(schema, name)
    }
  }

  run(select: SelectStmt): QueryReads | Missing {
    this.#statement(select)
    this.#query(select, nothingAround, nothingWanted, atRoot)
    this.#tables.distrust(repeatedParameters(select))
    for (const statement of this.#statements) this.#lastNet(statement)
    // What was looked at, may have been so in some of its alternatives only.
    if (this.#queries > mostQueries) this.#tables.makeAllWhole("the query is too complicated")
    const [tables, mentions] = [this.#tables, this.#mentions]
    if (tables.missing.length + mentions.missingFunctions.length > 0)
      return { tables: tables.missing, functions: mentions.missingFunctions }
    return {
      tables: tables.reads.map((read) => ({ ...read, groups: mentions.groupsOf(read.relation) })),
      untold: [...new Set([...mentions.untold, ...tables.untold])],
      unknown: mentions.unknown,
      isPerRow: isPerRow(select, this.#natureOf)
    }
  }

  // ------------------------------------------------------------------------------------------------------ queries

  /** Notes what a query reads. `shownAt` is where its rows stand in the answer of the statement, if they are shown there. */
  #query(select: SelectStmt, given: Surroundings, wanted = nothingWanted, shownAt?: ShownAt): void {
    // The last net finds what is in it.
    if (++this.#queries > mostQueries) return
    const around = withCommonTables(select, given)
    const { larg, rarg } = select
    if (larg !== undefined && rarg !== undefined) {
      for (const side of [larg, rarg]) this.#query(side, around)
      this.#queriesIn({ ...select, larg: undefined, rarg: undefined, withClause: undefined }, around)
      return
    }
    this.#level(this.#fromClauses.levelOf(select, around), wanted, shownAt)
  }

  #queriesIn(tree: unknown, around: Surroundings): void {
    for (const query of queriesIn(tree)) this.#query(query, around)
  }

  #level(level: Level, wanted: Wanted, shownAt: ShownAt | undefined): void {
    const columns = shownColumns(level, shownAt, this.#natureOf)
    const solutions = solutionsOf(level, givenBy(level, wanted))
    const mayNeedRow = shownAt?.isRoot === true && solutions.length === 1
    const views = solutions.map((solution): View => {
      return {
        level,
        solution,
        pinned: pinnedIn(level, solution, columns, mayNeedRow, this.#natureOf),
        columns
      }
    })
    for (const source of level.sources) this.#table(source, views)
    // What never holds still has an answer, if it counts.
    const empty: View = { level, solution: nothingHolds, pinned: new Map(), columns }
    for (const view of views.length > 0 ? views : [empty]) this.#within(view)
  }

  /** Notes which rows of a table are read, by what holds in each alternative. */
  #table(source: Source, views: ReadonlyArray<View>): void {
    if (source.table === undefined) return
    const { range, relation } = source.table
    const isNew = !this.#tables.has(range)
    const alternatives = views.map(({ pinned }) => pinned.get(source) ?? notPinned)
    const isJoined = views.some(({ solution }) => solution.edges.some(({ to }) => to.source === source))
    this.#tables.addRows(range, relation, alternatives, isJoined)
    if (isNew) for (const policy of relation.policies) this.#policy(policy)
  }

  /** Notes what the queries in a level read. */
  #within(view: View): void {
    const { level, columns } = view
    const { select, sources, trees } = level
    for (const [at, source] of sources.entries()) {
      // Names in it are those of what stands before it.
      const before = sources.slice(0, at)
      this.#nested(source, view, before)
      this.#queriesIn(source.other, aroundIn(view, before))
    }
    for (const join of trees.flatMap(joinsOf)) this.#queriesIn(join.quals, aroundIn(view, nameableIn(join)))
    const elsewhere = { ...select, targetList: undefined, withClause: undefined, fromClause: undefined }
    this.#queriesIn(elsewhere, aroundIn(view, sources))
    this.#queriesIn(select.targetList, aroundIn(view, sources, showsEachRow(select) ? columns : []))
  }

  /** Notes what a query in the place of a table reads. */
  #nested(source: Source, view: View, before: ReadonlyArray<Source>): void {
    const { nested } = source
    if (nested === undefined) return
    const { select, isLateral } = nested
    const { pins, isByShown } = view.pinned.get(source) ?? notPinned
    const wanted = wantedOf(source, pins)
    if (!isLateral) return this.#fromClauses.inside(select, () => this.#query(select, nested.around, wanted))
    if (!isByShown) return this.#query(select, aroundIn(view, before), wanted)
    const limits = limitsOfOne(view.level.select, select, this.#natureOf) ?? []
    const shown = view.columns.map((column) => ({
      ...column,
      shown: { ...column.shown, limitsOfOne: limits }
    }))
    const path = view.columns.find((column) => column.source === source)?.shown.path
    this.#query(select, aroundIn(view, before, shown), wanted, path && { path, isRoot: false })
  }

  // -------------------------------------------------------------------------------------------- the whole statement

  /** A statement whose every part is looked at: what it mentions, and its tables. */
  #statement(statement: SelectStmt): void {
    if (this.#statements.has(statement)) return
    this.#statements.add(statement)
    this.#mentions.add({ SelectStmt: statement })
  }

  /** The queries in a condition that the server adds. */
  #policy(policy: Node): void {
    this.#mentions.add({ policy })
    for (const select of queriesIn({ policy })) {
      this.#statements.add(select)
      this.#query(select, nothingAround)
    }
  }

  /** Reads whole what was not looked at in its place. */
  #lastNet(statement: SelectStmt): void {
    for (const range of tablesIn(statement)) {
      if (this.#tables.has(range)) continue
      const relation = this.#tables.relation(range)
      if (relation === undefined) continue
      this.#tables.addWhole(range, relation, "it stands where it is not looked into")
      this.#beyond(relation)
    }
  }

  /** What is read with a relation that is not looked into. */
  #beyond({ view, policies }: Relation): void {
    for (const policy of policies) this.#policy(policy)
    if (view === undefined || this.#statements.has(view)) return
    this.#statement(view)
    this.#lastNet(view)
  }
}

/** What a query may name that stands where these sources are seen, and which shown values it may rest on. */
const aroundIn = (
  { level: { around }, solution }: View,
  sources: ReadonlyArray<Source>,
  shown: ShownColumns = []
): Surroundings => ({
  commonTables: around.commonTables,
  outer: {
    sources,
    valuesOf: (place) => {
      const value = shownIn(shown, place)
      return solution.pins.get(place.source)?.get(place.column) ?? (value && [value])
    },
    outer: around.outer
  }
})

/** What is asked of the columns of a query's answer, by what is known of them outside. */
const wantedOf = ({ outputs = [] }: Source, pins: Pins): Wanted =>
  new Map(
    outputs.flatMap(({ name, isFilterable, values }, i) => {
      const pinned = isFilterable ? pins.get(name) : undefined
      // A column that is null outside may be the null of a row that an outer join has not found.
      const isNull = pinned?.some(({ _tag }) => _tag === "Null") === true
      return pinned === undefined || pinned === values || isNull ? [] : [[i, pinned] as const]
    })
  )

/** What that says of columns of its sources. */
const givenBy = (level: Level, wanted: Wanted): ReadonlyArray<Given> => {
  const selected = wanted.size === 0 ? [] : (selectedBy(level) ?? [])
  return [...wanted].flatMap(([i, values]) => {
    const place = selected[i]?.place
    return place === undefined ? [] : [{ place, values }]
  })
}
