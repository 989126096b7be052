/**
 * What does a query read of each table?
 *
 * **The region lemma.** Let an answer be a function of those rows of a table that satisfy a condition on single rows: its
 * region. A write whose old and new rows all lie outside does not change the answer. So a query carries tags that cover its
 * regions, a write invalidates every tag whose region holds one of its rows, old or new, and what matters is met. Regions
 * come from the conditions, never from the rows that were found: a row that is not there is covered as well.
 *
 * A region here is: these columns, which are the primary key, a unique or a declared key of the table's model, have these
 * values. If an answer is a function of the rows with one property, and of those with another, it is one of the rows with
 * both, so one such key is enough, and values travel along `a = b`: where rows of one table are known to have a value, only
 * rows of the other that have it too can matter. What orders, limits, groups or counts rows never makes a region wider.
 *
 * **Outer joins.** What compares by equality rejects nulls, so a condition on the nullable side of an outer join makes it an
 * inner one. The ON of an inner join is a condition like any other. That of a left join leaves rows out of its right side
 * only: `authors left join books on … and authors.country = 'x'` shows every author.
 *
 * **Values that only the answer shows.** Of `books left join authors on authors.id = books.author_id where books.id = 7` the
 * author is known when the answer is there, if it shows `author_id`. Its column may be used if the answer shows every row
 * that could matter: see `#pinsByShown`.
 *
 * What is not understood is read whole. After all, every table that the tree names anywhere, and that was not looked at in
 * its place, is read whole, too.
 */
import type { ColumnRef, FuncCall, JoinExpr, Node, RangeVar, SelectStmt } from "libpg-query"
import type { Kind } from "./columnText.ts"
import { alternativesOf, type Conjunction, type Term } from "./conditions.ts"
import type { KeyColumn, ToldColumn } from "./modelDefinition.ts"
import { columnPath, commonTables, functionName, namesOf, selectOf, tablesIn, walk } from "./parser.ts"

// --------------------------------------------------------------------------------------------------- what is known

/** What must be known of a table to tell which part of it is read. */
export interface Relation {
  /** As it is called in tags. */
  readonly name: string
  /** Its columns by their names on the server, in order, with the kind of those whose values have a canonical text. */
  readonly columns: ReadonlyMap<string, Kind | undefined>
  /** What its model declares; `undefined` if there is none. */
  readonly model: RelationModel | undefined
  /** Sets of columns of which no two rows have equal values; nulls aside. */
  readonly uniques: ReadonlyArray<ReadonlyArray<string>>
  /** Foreign keys that hold. */
  readonly foreignKeys: ReadonlyArray<ForeignKey>
  /** What it shows, of a view. */
  readonly view: SelectStmt | undefined
  /** True when row-level security may hide rows of it. */
  readonly hidesRows: boolean
  /** Conditions of its policies, where it has row-level security. */
  readonly policies: ReadonlyArray<Node>
  /** Why no write tells of its changes, if so. */
  readonly untold: string | undefined
}

export interface RelationModel {
  readonly keys: ReadonlyArray<RelationKey>
  /** Properties of the columns, by their names on the server. */
  readonly properties: ReadonlyMap<string, KeyColumn>
  readonly volatile: ReadonlyMap<string, ReadonlySet<string>>
}

/** A key by which rows are told, with the names of its columns on the server. */
export interface RelationKey {
  readonly columns: ReadonlyArray<ToldColumn & { readonly name: string }>
  /** True when no two rows have equal values in it; nulls aside. */
  readonly isUnique: boolean
}

interface ForeignKey {
  readonly columns: ReadonlyArray<string>
  /** What the table that is referred to may be called in tags. */
  readonly refersTo: ReadonlyArray<string>
  readonly referenced: ReadonlyArray<string>
}

/** What a function of this name may be. */
export type FunctionNature =
  /** It does nothing but compute one value. */
  | "scalar"
  /** It does nothing but compute; it may answer any number of rows. */
  | "pure"
  /** Its answer depends on the time, on chance, or on the session. */
  | "volatile"
  /** It may read tables. */
  | "unknown"

/** What is known of tables and functions; `undefined` for what has not been asked yet. */
export interface Facts {
  readonly relation: (table: RangeVar) => Relation | "none" | undefined
  readonly function: (schema: string | undefined, name: string) => FunctionNature | undefined
}

// --------------------------------------------------------------------------------------------------- what is told

/** A step on the way to a value in an answer: a place in a list, or each of its items. */
export type Step = number | "each"

/** The value of a column, which the answer shows. */
export interface Shown {
  readonly _tag: "Shown"
  readonly path: ReadonlyArray<Step>
  /** Parameters of LIMIT that must be 1 at most. */
  readonly ones: ReadonlyArray<number>
}

/** Rows with values in a key. */
export interface Region {
  readonly key: RelationKey
  /** For each column of the key its values: those of every combination. */
  readonly terms: ReadonlyArray<ReadonlyArray<Term | Shown>>
  /** True when it is right only if the answer has a row. */
  readonly needsRow: boolean
}

/** What is read of one table, in one place of a query. */
export interface TableRead {
  readonly relation: Relation
  /** `undefined` if any row may matter. */
  readonly regions: ReadonlyArray<Region> | undefined
  /** Why any row may matter. */
  readonly because: string | undefined
  /** The columns that, declared as a key, would make it precise. */
  readonly missingKey: ReadonlyArray<string> | undefined
  /** The groups of volatile columns that the answer rests on. */
  readonly groups: ReadonlyArray<string>
}

/** What a query reads. */
export interface QueryReads {
  readonly tables: ReadonlyArray<TableRead>
  /** What the answer depends on that no write tells of. */
  readonly untold: ReadonlyArray<string>
  /** Why not even its tables are known, if so. */
  readonly unknown: string | undefined
  /**
   * True when each row of the answer rests on rows with its own value of a list that is asked for, and on none with
   * another: the list stands at the root, where nothing limits, skips, merges, numbers or counts rows of several values.
   */
  readonly isPerRow: boolean
}

/** Tables and functions that must be asked for first. */
export interface Missing {
  readonly tables: ReadonlyArray<RangeVar>
  readonly functions: ReadonlyArray<string>
}

/** What a query reads, or what must be known first. */
export const readsOf = (select: SelectStmt, facts: Facts): QueryReads | Missing =>
  new Analysis(facts).run(select)

// --------------------------------------------------------------------------------------------------- one level

type Values = ReadonlyArray<Term | Shown>

/** A common table expression, and what its query may name. */
interface CommonTable {
  readonly select: SelectStmt | undefined
  readonly names: ReadonlyArray<string>
  readonly known: CommonTables
  readonly outer: Level | undefined
}

type CommonTables = ReadonlyMap<string, CommonTable>

/** A query in the place of a table. */
interface Nested {
  readonly select: SelectStmt
  readonly known: CommonTables
  readonly isLateral: boolean
  /** The level whose columns its query can name, if it is not lateral. */
  readonly outer: Level | undefined
}

/** A source of rows at one level of a query. */
interface Source {
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

/** A column that a source has. */
interface Output {
  readonly name: string
  readonly kind: Kind | undefined
  /** Values, one of which it has in every row. */
  readonly values: Values | undefined
  /** True when rows with another value in it may be left out before everything else is done. */
  readonly isFilterable: boolean
}

/** What of a source cannot be named where it stands: its columns, or itself, either. */
type Hidden = "nothing" | "columns" | "names"

type JoinType = "inner" | "left" | "right" | "full"

type Tree =
  | { readonly source: Source }
  | {
      readonly type: JoinType
      readonly left: Tree
      readonly right: Tree
      /** `undefined` for what is not a condition: USING, NATURAL. */
      readonly on: ReadonlyArray<Conjunction> | undefined
      readonly quals: Node | undefined
    }

type Join = Exclude<Tree, { readonly source: Source }>

/** A column of a source. */
interface Place {
  readonly source: Source
  readonly column: string
}

/** What holds at a level, in one alternative of its condition. */
interface Solution {
  readonly pins: Map<Source, Map<string, Values>>
  /** Along these a value is carried from one column to another. */
  readonly edges: ReadonlyArray<{ readonly from: Place; readonly to: Place }>
  readonly types: ReadonlyMap<Tree, JoinType>
  readonly nullable: ReadonlySet<Source>
}

/** SELECT … FROM … WHERE …, without what is nested in it. */
interface Level {
  readonly select: SelectStmt
  readonly sources: ReadonlyArray<Source>
  readonly trees: ReadonlyArray<Tree>
  readonly outer: Level | undefined
  readonly known: CommonTables
  /** What holds in the alternative that is looked at. */
  current: Solution | undefined
  /** Where the answer shows a column, for what is nested and lateral. */
  readonly shown: (place: Place) => Shown | undefined
}

/** So many levels are looked at; what is more complicated is read whole. */
const mostLevels = 300

// -------------------------------------------------------------------------------------------------- the analysis

class TooComplicated extends Error {}

/** What was found of one mention of a table. */
interface Found {
  readonly relation: Relation
  regions: Array<Region> | undefined
  because: string | undefined
  missingKey: ReadonlyArray<string> | undefined
}

class Analysis {
  readonly #facts: Facts
  readonly #found = new Map<RangeVar, Found>()
  readonly #missingTables = new Set<RangeVar>()
  readonly #missingFunctions = new Set<string>()
  readonly #untold = new Set<string>()
  #unknown: string | undefined
  /** Statements whose every table must be accounted for: the query, and views. */
  readonly #statements = new Set<SelectStmt>()
  /** The columns of queries, and the queries that are being looked into. */
  readonly #known = new Map<SelectStmt, ReadonlyArray<Output> | undefined>()
  readonly #open = new Set<SelectStmt>()
  /** Names of columns that occur anywhere, and whether all columns may be meant somewhere. */
  readonly #columnNames = new Set<string>()
  #hasStar = false
  /** Names of one part, and those of sources. */
  readonly #single = new Set<string>()
  readonly #aliases = new Set<string>()
  #levels = 0

  constructor(facts: Facts) {
    this.#facts = facts
  }

  run(select: SelectStmt): QueryReads | Missing {
    this.#statement(select)
    try {
      this.#query(select, undefined, noCommonTables, nothingWanted, { path: ["each"], isRoot: true })
    } catch (error) {
      if (!(error instanceof TooComplicated)) throw error
      for (const found of this.#found.values()) readWhole(found, "the query is too complicated")
    }
    for (const statement of this.#statements) this.#lastNet(statement)
    if (this.#missingTables.size + this.#missingFunctions.size > 0)
      return { tables: [...this.#missingTables], functions: [...this.#missingFunctions] }
    return {
      tables: [...this.#found.values()].map((found) => ({
        ...found,
        groups: this.#groupsOf(found.relation)
      })),
      untold: [...this.#untold],
      unknown: this.#unknown,
      isPerRow: this.#isPerRow(select)
    }
  }

  /**
   * True when each row of the answer rests on rows with its own value of a list. So it is where lists stand in the
   * conditions of the root, and the root merges no rows: no set operation, limit, offset, distinct or window, and no
   * aggregate but in groups by columns, which are what the lists are asked of among others.
   */
  #isPerRow(select: SelectStmt): boolean {
    const { larg, distinctClause, groupClause, havingClause } = select
    if (larg !== undefined || distinctClause !== undefined || isLimited(select) || hasWindow(select))
      return false
    const lists = listsIn({ ...select, withClause: undefined }, (kind) => kind === "SelectStmt")
    if (lists.length === 0 || listsIn(select).length > lists.length) return false
    if (groupClause !== undefined)
      return (
        groupClause.every((node) => "ColumnRef" in node) &&
        lists.every((list) => groupClause.some((node) => isSameColumn(node, list)))
      )
    if (havingClause !== undefined) return false
    let isPlain = true
    walk([select.targetList, select.sortClause], (kind, part) => {
      if (kind !== "FuncCall") return kind !== "SelectStmt"
      const { schema, name } = functionName(part)
      isPlain &&= this.#facts.function(schema, name) === "scalar" && !aggregates.has(name)
      return isPlain
    })
    return isPlain
  }

  // -------------------------------------------------------------------------------------------- the whole statement

  /** What is looked at wherever it stands: functions, and names of columns. */
  #statement(statement: SelectStmt): void {
    if (this.#statements.has(statement)) return
    this.#statements.add(statement)
    this.#expression({ SelectStmt: statement })
  }

  #expression(tree: unknown): void {
    // Where what comes out of a query in FROM is named outside of it, its star adds nothing.
    const harmlessStars = new Set<unknown>()
    const allow = (select: SelectStmt | undefined) => {
      if (select === undefined || select.distinctClause !== undefined || isOrderedByPlace(select)) return
      for (const target of select.targetList ?? []) {
        const value = "ResTarget" in target ? target.ResTarget.val : undefined
        if (value !== undefined && "ColumnRef" in value) harmlessStars.add(value.ColumnRef)
      }
    }
    walk(tree, (kind, part) => {
      switch (kind) {
        case "Alias":
        case "alias":
          this.#aliases.add(part.aliasname)
          break
        case "RangeVar":
          if (part.alias === undefined) this.#aliases.add(part.relname)
          this.#renamed(part.alias?.colnames)
          break
        case "RangeSubselect":
          allow(selectOf(part.subquery))
          this.#renamed(part.alias?.colnames)
          break
        case "CommonTableExpr":
          allow(selectOf(part.ctequery))
          this.#renamed(part.aliascolnames)
          break
        case "SubLink":
          if (part.subLinkType === "EXISTS_SUBLINK") allow(selectOf(part.subselect))
          break
        case "ColumnRef":
          this.#column(part, harmlessStars.has(part))
          break
        case "FuncCall":
          this.#call(part)
          break
        case "SQLValueFunction":
          this.#untold.add(String(part.op).replace("SVFOP_", "").toLowerCase())
          break
        case "RangeTableSample":
          this.#untold.add("tablesample")
          break
        case "JoinExpr":
          if (part.isNatural === true) this.#hasStar = true
          this.#renamed(part.alias?.colnames)
          for (const name of namesOf(part.usingClause)) if (name !== undefined) this.#columnNames.add(name)
          break
        case "A_Const":
          // As a date or time, these are the present one.
          if (/^(now|today|tomorrow|yesterday)$/i.test(part.sval?.sval ?? ""))
            this.#untold.add(`'${part.sval.sval}'`)
      }
      return true
    })
  }

  /** Where columns are given other names, any may be meant by one of these. */
  #renamed(names: ReadonlyArray<Node> | undefined): void {
    if (names !== undefined && names.length > 0) this.#hasStar = true
  }

  #column(column: ColumnRef, isHarmless: boolean): void {
    const names = namesOf(column.fields)
    if (names.includes(undefined)) this.#hasStar ||= !isHarmless
    if (names.length === 1 && names[0] !== undefined) this.#single.add(names[0])
    for (const name of names) {
      if (name === undefined) continue
      this.#columnNames.add(name)
      if (systemColumns.has(name)) this.#untold.add(name)
    }
  }

  #call(call: FuncCall): void {
    const { schema, name } = functionName(call)
    const nature = this.#facts.function(schema, name)
    if (nature === undefined) this.#missingFunctions.add(name)
    if (nature === "volatile") this.#untold.add(`${name}()`)
    if (nature === "unknown") this.#unknown ??= `it calls ${name}(), which may read tables`
  }

  /** Reads whole what was not looked at in its place. */
  #lastNet(statement: SelectStmt): void {
    for (const range of tablesIn(statement)) {
      if (this.#found.has(range)) continue
      const relation = this.#relation(range)
      if (relation === undefined) continue
      readWhole(this.#foundOf(range, relation), "it stands where it is not looked into")
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

  /** The queries in a condition that the server adds. */
  #policy(policy: Node): void {
    this.#expression({ policy })
    for (const select of queriesIn({ policy })) {
      this.#statements.add(select)
      this.#query(select, undefined, noCommonTables, nothingWanted, undefined)
    }
  }

  /** The groups of volatile columns that are named. */
  #groupsOf({ model }: Relation): ReadonlyArray<string> {
    // A name that is a table's may stand for a whole row of it.
    const isWhole = this.#hasStar || [...this.#single].some((name) => this.#aliases.has(name))
    return [...(model?.volatile ?? [])].flatMap(([group, columns]) =>
      isWhole || [...columns].some((column) => this.#columnNames.has(column)) ? [group] : []
    )
  }

  #relation(range: RangeVar): Relation | undefined {
    const relation = this.#facts.relation(range)
    if (relation === undefined) this.#missingTables.add(range)
    return relation === "none" ? undefined : relation
  }

  #foundOf(range: RangeVar, relation: Relation): Found {
    const known = this.#found.get(range)
    if (known !== undefined) return known
    const found: Found = { relation, regions: [], because: undefined, missingKey: undefined }
    this.#found.set(range, found)
    if (relation.untold !== undefined) this.#untold.add(relation.untold)
    return found
  }

  // ------------------------------------------------------------------------------------------------------- levels

  /**
   * Notes what a query reads. Of its answer only rows matter that have, in the columns of `wanted`, by their place, one of
   * these values; `shownAt` is where it stands in the answer of the statement.
   */
  #query(
    select: SelectStmt,
    outer: Level | undefined,
    known: CommonTables,
    wanted: ReadonlyMap<number, Values>,
    shownAt: ShownAt | undefined
  ): void {
    if (++this.#levels > mostLevels) throw new TooComplicated()
    const names = this.#commonTables(select, outer, known)
    const { larg, rarg } = select
    if (larg !== undefined && rarg !== undefined) {
      for (const side of [larg, rarg]) this.#query(side, outer, names, nothingWanted, undefined)
      const besides = queriesIn({ ...select, larg: undefined, rarg: undefined, withClause: undefined })
      for (const query of besides) this.#query(query, outer, names, nothingWanted, undefined)
      return
    }
    const level = this.#level(select, outer, names)
    const solutions = this.#solutions(level, wanted)
    const columns = this.#shownColumns(level, shownAt)
    const pins = solutions.map((solution) =>
      this.#pinsByShown(level, solution, columns, shownAt, solutions.length === 1)
    )
    for (const source of level.sources) {
      if (source.table === undefined) continue
      this.#table(
        source.table,
        pins.map((bySource) => bySource.get(source) ?? noPinsAtAll),
        solutions.some(({ edges }) => edges.some(({ to }) => to.source === source))
      )
    }
    const inTargets = queriesIn(select.targetList)
    const elsewhere = queriesIn({
      ...select,
      targetList: undefined,
      withClause: undefined,
      fromClause: undefined
    })
    const all: Level = { ...level, shown: (place) => shownIn(columns, place) }
    // What never holds still has an answer, if it counts.
    for (const [i, solution] of (solutions.length > 0 ? solutions : [nothingHolds]).entries()) {
      level.current = all.current = solution
      for (const [at, source] of level.sources.entries()) {
        // Names in it are those of what stands before it.
        const before = level.sources.slice(0, at)
        const own = pins[i]?.get(source) ?? noPinsAtAll
        this.#nested({ ...level, sources: before }, { ...all, sources: before }, source, own, columns)
        for (const query of queriesIn(source.other))
          this.#query(query, { ...level, sources: before }, names, nothingWanted, undefined)
      }
      for (const join of level.trees.flatMap(joinsOf)) {
        const scope = { ...level, sources: sourcesOf(join) }
        for (const query of queriesIn(join.quals)) this.#query(query, scope, names, nothingWanted, undefined)
      }
      for (const query of elsewhere) this.#query(query, level, names, nothingWanted, undefined)
      const below = showsEachRow(select) ? all : level
      for (const query of inTargets) this.#query(query, below, names, nothingWanted, undefined)
    }
  }

  /** Notes what a query in the place of a table reads. */
  #nested(
    level: Level,
    all: Level,
    source: Source,
    { pins, isByShown }: Pinned,
    columns: ReadonlyArray<ShownColumn>
  ): void {
    const { nested, outputs = [] } = source
    if (nested === undefined) return
    const wanted = new Map(
      outputs.flatMap(({ name, isFilterable, values }, i) => {
        const pinned = isFilterable ? pins.get(name) : undefined
        // A column that is null outside may be the null of a row that an outer join has not found.
        const isNull = pinned?.some(({ _tag }) => _tag === "Null") === true
        return pinned === undefined || pinned === values || isNull ? [] : [[i, pinned] as const]
      })
    )
    if (!nested.isLateral) {
      const isOpen = this.#open.has(nested.select)
      this.#open.add(nested.select)
      this.#query(nested.select, nested.outer, nested.known, wanted, undefined)
      if (!isOpen) this.#open.delete(nested.select)
      return
    }
    if (!isByShown) return this.#query(nested.select, level, nested.known, wanted, undefined)
    const path = columns.find((column) => column.source === source)?.shown.path
    const ones = onesOf(level.select, nested.select) ?? []
    const shown = (place: Place) => {
      const found = all.shown(place)
      return found && { ...found, ones: [...found.ones, ...ones] }
    }
    const at = path && { path, isRoot: false }
    this.#query(nested.select, { ...all, shown }, nested.known, wanted, at)
  }

  #commonTables(select: SelectStmt, outer: Level | undefined, known: CommonTables): CommonTables {
    const ctes = commonTables(select)
    if (ctes.length === 0) return known
    const names = new Map(known)
    const isRecursive = select.withClause?.recursive === true
    for (const { ctename = "", ctequery, aliascolnames } of ctes) {
      names.set(ctename, {
        select: selectOf(ctequery),
        names: namesOf(aliascolnames) as ReadonlyArray<string>,
        // One that is not recursive sees those before it.
        known: isRecursive ? names : new Map(names),
        outer
      })
    }
    return names
  }

  #level(select: SelectStmt, outer: Level | undefined, known: CommonTables): Level {
    const sources: Array<Source> = []
    const trees: Array<Tree> = []
    const level: Level = { select, sources, trees, outer, known, current: undefined, shown: () => undefined }
    for (const node of select.fromClause ?? []) trees.push(this.#tree(node, level, sources, "nothing"))
    return level
  }

  #tree(node: Node, level: Level, sources: Array<Source>, hidden: Hidden): Tree {
    if ("JoinExpr" in node) return this.#join(node.JoinExpr, level, sources, hidden)
    const found = this.#source(node, level)
    const source: Source =
      hidden === "nothing"
        ? found
        : { ...found, outputs: undefined, alias: hidden === "columns" ? found.alias : undefined }
    sources.push(source)
    return { source }
  }

  #join(
    { jointype, larg, rarg, quals, usingClause, isNatural, alias }: JoinExpr,
    level: Level,
    sources: Array<Source>,
    hidden: Hidden
  ): Tree {
    // Which columns USING and NATURAL mean is not looked for, nor what becomes of their names.
    const isByName = usingClause !== undefined || isNatural === true
    const below = hidden === "names" || alias !== undefined ? "names" : isByName ? "columns" : hidden
    const left = this.#tree(larg!, level, sources, below)
    const right = this.#tree(rarg!, level, sources, below)
    if (alias !== undefined) sources.push(opaqueSource(alias.aliasname))
    return {
      type: joinTypes[jointype ?? ""] ?? "full",
      left,
      right,
      on: below === "nothing" ? alternativesOf(quals) : undefined,
      quals
    }
  }

  #source(node: Node, { outer, known }: Level): Source {
    if ("RangeSubselect" in node) {
      const { subquery, lateral, alias } = node.RangeSubselect
      const select = selectOf(subquery)
      if (select === undefined) return opaqueSource(alias?.aliasname)
      const names = namesOf(alias?.colnames) as ReadonlyArray<string>
      const nested: Nested = { select, known, outer, isLateral: lateral === true }
      return { ...opaqueSource(alias?.aliasname), nested, outputs: this.#outputs(nested, names) }
    }
    if (!("RangeVar" in node)) return { ...opaqueSource(aliasIn(node)), other: node }
    const range = node.RangeVar
    const { schemaname, relname = "", alias } = range
    const names = namesOf(alias?.colnames) as ReadonlyArray<string>
    const source = opaqueSource(alias?.aliasname ?? relname)
    const common = schemaname === undefined ? known.get(relname) : undefined
    if (common !== undefined) {
      // In its own query, it is what has been found so far.
      if (common.select === undefined || this.#open.has(common.select)) return source
      const nested: Nested = { ...common, select: common.select, isLateral: false }
      return { ...source, nested, outputs: this.#outputs(nested, common.names, names) }
    }
    const relation = this.#relation(range)
    if (relation === undefined) return source
    const { view, columns } = relation
    if (view !== undefined) {
      // Who writes through a view changes its tables; who tells of the view by hand means all that it shows.
      readWhole(this.#foundOf(range, relation), undefined)
      this.#statement(view)
      const nested: Nested = { select: view, known: noCommonTables, outer: undefined, isLateral: false }
      return { ...source, nested, outputs: this.#outputs(nested, [...columns.keys()], names) }
    }
    const isNamed = alias !== undefined
    const outputs = [...columns].map(([name, kind]) => ({
      name,
      kind,
      values: undefined,
      isFilterable: false
    }))
    return {
      ...source,
      schema: isNamed ? undefined : schemaname,
      table: { range, relation },
      outputs: names.length > 0 ? undefined : outputs
    }
  }

  // ----------------------------------------------------------------------------------------------- what comes out

  /** The columns of a query's answer; `undefined` if they cannot be told. Names given to them are in lists, the last counts. */
  #outputs(
    nested: Nested,
    ...renamed: ReadonlyArray<ReadonlyArray<string>>
  ): ReadonlyArray<Output> | undefined {
    const { select } = nested
    if (!this.#known.has(select)) {
      // A recursive one is asked for its columns by itself.
      if (this.#open.has(select)) return undefined
      this.#open.add(select)
      this.#known.set(select, this.#tellOutputs(select, nested.known))
      this.#open.delete(select)
    }
    const outputs = this.#known.get(select)
    return renamed.reduce<typeof outputs>(
      (named, names) =>
        named?.map((output, i) => (names[i] === undefined ? output : { ...output, name: names[i] })),
      outputs
    )
  }

  #tellOutputs(select: SelectStmt, known: CommonTables): ReadonlyArray<Output> | undefined {
    const names = this.#commonTables(select, undefined, known)
    const { larg, rarg } = select
    if (larg !== undefined && rarg !== undefined) {
      const [ours, theirs] = [larg, rarg].map((side) => this.#tellOutputs(side, names)) as [
        ReadonlyArray<Output> | undefined,
        ReadonlyArray<Output> | undefined
      ]
      return ours?.map((output, i) => ({
        name: output.name,
        kind: theirs?.[i]?.kind === output.kind ? output.kind : undefined,
        values: undefined,
        isFilterable: false
      }))
    }
    // What an outer query knows is left out here: the same for all who name it.
    const level = this.#level(select, undefined, names)
    const solutions = this.#solutions(level, nothingWanted)
    const valuesOf = ({ source, column }: Place): Values | undefined => {
      const all = solutions.map(({ pins, nullable }) =>
        nullable.has(source) ? undefined : pins.get(source)?.get(column)
      )
      return all.length === 0 || all.includes(undefined) ? undefined : (all.flat() as Values)
    }
    return this.#targets(level)?.map(({ name, place }) => ({
      name,
      kind: place && kindOf(place),
      values: place && valuesOf(place),
      isFilterable:
        place !== undefined && isFilterable(level, place, (column) => this.#ownPlace(level, column))
    }))
  }

  /** What a query selects, with the columns that this is; `undefined` if it cannot be told. */
  #targets(
    level: Level
  ): ReadonlyArray<{ readonly name: string; readonly place: Place | undefined }> | undefined {
    const targets: Array<{ readonly name: string; readonly place: Place | undefined }> = []
    const { targetList = [] } = level.select
    for (const node of targetList) {
      if (!("ResTarget" in node) || node.ResTarget.val === undefined) return undefined
      const { name, val } = node.ResTarget
      const path = "ColumnRef" in val ? namesOf(val.ColumnRef.fields) : []
      if (!("ColumnRef" in val) || path.at(-1) !== undefined) {
        const called =
          name ??
          ("ColumnRef" in val ? path.at(-1) : "FuncCall" in val ? functionName(val.FuncCall).name : undefined)
        // The server has names for others as well.
        if (called === undefined) return undefined
        targets.push({
          name: called,
          place: "ColumnRef" in val ? this.#ownPlace(level, val.ColumnRef) : undefined
        })
        continue
      }
      const meant = path.length === 1 ? level.sources : level.sources.filter(({ alias }) => alias === path[0])
      if (meant.length === 0 || path.length > 2) return undefined
      for (const source of meant) {
        if (source.outputs === undefined) return undefined
        for (const output of source.outputs)
          targets.push({ name: output.name, place: { source, column: output.name } })
      }
    }
    return targets.length === 0 ? undefined : targets
  }

  // ------------------------------------------------------------------------------------------------- what holds

  /**
   * The column that a reference means, and the level it belongs to; `undefined` where that cannot be told. Of its own level,
   * it sees these sources.
   */
  #place(
    level: Level,
    column: ColumnRef,
    visible: ReadonlyArray<Source> = level.sources
  ): { readonly level: Level; readonly place: Place } | undefined {
    const path = columnPath(column)
    if (path === undefined) return undefined
    const name = path.at(-1)!
    for (let at: Level | undefined = level; at !== undefined; at = at.outer) {
      const sources = at === level ? visible : at.sources
      if (path.length === 1 && sources.some(({ outputs }) => outputs === undefined)) return undefined
      const meant = sources.filter((source) =>
        path.length === 1 ? hasColumn(source, name) : source.alias === path.at(-2)
      )
      if (meant.length === 0) continue
      const [source, ...others] = meant
      // A table that was named without its schema may be the one that is named with it here.
      const isMeant = path.length < 3 || source!.schema === path.at(-3)
      return others.length === 0 && isMeant && hasColumn(source!, name)
        ? { level: at, place: { source: source!, column: name } }
        : undefined
    }
    return undefined
  }

  /** The column of this level that a reference means. */
  #ownPlace(level: Level, column: ColumnRef, visible?: ReadonlyArray<Source>): Place | undefined {
    const found = this.#place(level, column, visible)
    return found?.level === level ? found.place : undefined
  }

  /** What holds in each alternative of a level's condition. */
  #solutions(level: Level, wanted: ReadonlyMap<number, Values>): ReadonlyArray<Solution> {
    const targets = wanted.size === 0 ? [] : (this.#targets(level) ?? [])
    const given = [...wanted].flatMap(([i, values]) => {
      const place = targets[i]?.place
      return place === undefined ? [] : [{ place, values }]
    })
    return alternativesOf(level.select.whereClause).map((condition) => this.#solve(level, condition, given))
  }

  #solve(
    level: Level,
    condition: Conjunction,
    given: ReadonlyArray<{ readonly place: Place; readonly values: Values }>
  ): Solution {
    const types = new Map<Tree, JoinType>()
    const strict = new Set(given.map(({ place }) => place.source))
    for (const source of this.#strictIn(level, condition)) strict.add(source)
    for (const tree of level.trees) this.#simplify(level, tree, strict, types)
    const nullable = new Set<Source>()
    for (const [tree, type] of types) {
      if ("source" in tree) continue
      if (type === "left" || type === "full") for (const source of sourcesOf(tree.right)) nullable.add(source)
      if (type === "right" || type === "full") for (const source of sourcesOf(tree.left)) nullable.add(source)
    }
    const pins = new Map<Source, Map<string, Values>>()
    const edges: Array<{ readonly from: Place; readonly to: Place }> = []
    const put = ({ source, column }: Place, values: Values): boolean => {
      const kind = kindOf({ source, column })
      if (kind === undefined || !values.every((value) => isOfKind(value, kind))) return false
      const own = pins.get(source) ?? new Map<string, Values>()
      const before = own.get(column)
      if (before !== undefined && before.length <= values.length) return false
      pins.set(source, own.set(column, values))
      return true
    }
    /** Takes what holds; only for the sources that it leaves rows out of. */
    const take = (
      atoms: Conjunction,
      isFor: (source: Source) => boolean,
      visible: ReadonlyArray<Source> = level.sources
    ) => {
      for (const atom of atoms) {
        if (atom._tag === "Equals") {
          const place = this.#ownPlace(level, atom.column, visible)
          if (place !== undefined && isFor(place.source)) put(place, atom.terms)
        }
        if (atom._tag !== "Same") continue
        const [left, right] = [atom.left, atom.right].map((column) => this.#place(level, column, visible))
        if (left === undefined || right === undefined || kindOf(left.place) !== kindOf(right.place)) continue
        for (const [from, to] of [
          [left, right],
          [right, left]
        ] as const) {
          if (to.level !== level || !isFor(to.place.source)) continue
          if (from.level === level) edges.push({ from: from.place, to: to.place })
          else {
            const values = valuesAbove(from.level, from.place)
            if (values !== undefined) put(to.place, values)
          }
        }
      }
    }
    for (const source of level.sources) {
      for (const { name, values } of source.outputs ?? [])
        if (values !== undefined) put({ source, column: name }, values)
    }
    for (const { place, values } of given) put(place, values)
    take(condition, () => true)
    for (const atom of condition) {
      const place = atom._tag === "IsNull" ? this.#ownPlace(level, atom.column) : undefined
      if (place !== undefined && !nullable.has(place.source)) put(place, [{ _tag: "Null" }])
    }
    for (const [tree, type] of types) {
      if ("source" in tree || tree.on?.length !== 1 || type === "full") continue
      const side = type === "left" ? tree.right : type === "right" ? tree.left : tree
      const affected = new Set(sourcesOf(side))
      take(tree.on[0]!, (source) => affected.has(source), sourcesOf(tree))
    }
    for (let isMoving = true; isMoving;) {
      isMoving = false
      for (const { from, to } of edges) {
        const values = pins.get(from.source)?.get(from.column)
        if (values !== undefined && put(to, values)) isMoving = true
      }
    }
    return { pins, edges, types, nullable }
  }

  /** Sources whose row is rejected where it is all nulls. */
  #strictIn(level: Level, atoms: Conjunction, visible?: ReadonlyArray<Source>): ReadonlyArray<Source> {
    return atoms.flatMap((atom) => {
      const columns =
        atom._tag === "Equals" ? [atom.column] : atom._tag === "Same" ? [atom.left, atom.right] : []
      return columns.flatMap((column) => this.#ownPlace(level, column, visible)?.source ?? [])
    })
  }

  /** Makes outer joins inner whose additional rows are rejected. */
  #simplify(level: Level, tree: Tree, strict: ReadonlySet<Source>, types: Map<Tree, JoinType>): void {
    if ("source" in tree) return
    const [isLeft, isRight] = [tree.left, tree.right].map((side) =>
      sourcesOf(side).some((source) => strict.has(source))
    ) as [boolean, boolean]
    const type = simpler(tree.type, isLeft, isRight)
    types.set(tree, type)
    const inOn = tree.on?.length === 1 ? this.#strictIn(level, tree.on[0]!, sourcesOf(tree)) : []
    const withOn = new Set([...strict, ...inOn])
    // A condition on what comes out holds before an outer join on the side that it keeps, the ON on the other one.
    this.#simplify(level, tree.left, type === "full" ? new Set() : type === "left" ? strict : withOn, types)
    this.#simplify(level, tree.right, type === "full" ? new Set() : type === "right" ? strict : withOn, types)
  }

  // --------------------------------------------------------------------------------------------------- one table

  /** Notes which rows of a table are read, by what holds in each alternative. */
  #table(
    { range, relation }: NonNullable<Source["table"]>,
    alternatives: ReadonlyArray<Pinned>,
    isJoined: boolean
  ): void {
    const isNew = !this.#found.has(range)
    const found = this.#foundOf(range, relation)
    if (isNew) for (const policy of relation.policies) this.#policy(policy)
    if (found.regions === undefined) return
    const regions = alternatives.map(({ pins, needsRow }) => regionIn(relation, pins, needsRow))
    if (!regions.includes(undefined)) found.regions.push(...(regions as ReadonlyArray<Region>))
    else readWhole(found, ...whyWhole(relation, alternatives, isJoined))
  }

  // -------------------------------------------------------------------------------------- what the answer shows

  /** The columns that the answer of the statement shows of each row of a level. */
  #shownColumns(level: Level, shownAt: ShownAt | undefined): ReadonlyArray<ShownColumn> {
    const { select } = level
    if (shownAt === undefined || isGrouped(select) || !this.#hasOneOfEachRow(select)) return []
    const { path, values } = shownAt.isRoot ? targetsOf(select, shownAt.path) : listedIn(select, shownAt.path)
    return values.flatMap((value, i) => {
      const place = "ColumnRef" in value ? this.#ownPlace(level, value.ColumnRef) : undefined
      return place === undefined ? [] : [{ ...place, shown: { _tag: "Shown", path: [...path, i], ones: [] } }]
    })
  }

  /**
   * What holds of each source, with the values that the answer shows of what it is joined to.
   *
   * A row that is not shown can appear by nothing but a change of what is covered without shown values: then whatever is
   * joined to it is of no consequence. So may be covered by shown values what leaves no row out, and is not asked by what
   * does: the condition, other inner joins, and, where there is a limit, the order (see {@link #joinedToShown}). Or, of a
   * source that has one row at most, its value is known as soon as the answer has a row. What an inner join compares is
   * equal in each row, so it may be shown of either side.
   */
  #pinsByShown(
    level: Level,
    solution: Solution,
    columns: ReadonlyArray<ShownColumn>,
    shownAt: ShownAt | undefined,
    isOnlyAlternative: boolean
  ): ReadonlyMap<Source, Pinned> {
    const { pins, edges } = solution
    const joined = this.#joinedToShown(level, solution, columns)
    const inner = innerIn(level, solution)
    const mayNeedRow = shownAt?.isRoot === true && isOnlyAlternative
    return new Map(
      level.sources.map((source) => {
        const own = new Map(pins.get(source))
        const before = joined.get(source)
        let needsRow = false
        for (const { from, to } of edges) {
          if (to.source !== source || own.has(to.column)) continue
          const shown = shownOf(columns, from, to, inner)
          if (shown === undefined) continue
          if (before?.has(from.source) === true) own.set(to.column, [shown])
          else if (mayNeedRow && source.table !== undefined && isOneRow(from.source, solution)) {
            needsRow = true
            own.set(to.column, [shown])
          }
        }
        return [source, { pins: own, needsRow, isByShown: before !== undefined }]
      })
    )
  }

  /** The sources of which only what is joined to the rows that are shown can matter, with those that they are joined to. */
  #joinedToShown(
    level: Level,
    solution: Solution,
    columns: ReadonlyArray<ShownColumn>
  ): ReadonlyMap<Source, ReadonlySet<Source>> {
    const { types, pins, edges } = solution
    const { select, trees } = level
    const { whereClause, sortClause, limitOffset } = select
    const joins = trees.flatMap(joinsOf)
    const found = new Map<Source, ReadonlySet<Source>>()
    if (columns.length === 0 || trees.length !== 1 || !showsEachRow(select)) return found
    const typeOf = (join: Join) => types.get(join)
    if (joins.some((join) => !("source" in join.right) || !/^(left|inner)$/.test(typeOf(join) ?? "")))
      return found
    const inner = innerIn(level, solution)
    const byForeignKey = new Map<Source, Source>()
    for (const join of joins) {
      const { source } = join.right as { readonly source: Source }
      const before = new Set(sourcesOf(join.left))
      const carried = new Map(pins.get(source))
      for (const { from, to } of edges)
        if (
          to.source === source &&
          before.has(from.source) &&
          shownOf(columns, from, to, inner) !== undefined
        )
          carried.set(to.column, [])
      const isPinned = (by: ReadonlyMap<string, Values>) =>
        source.table !== undefined && regionIn(source.table.relation, by) !== undefined
      const referring = inner.has(source) ? this.#referring(join) : undefined
      if (referring !== undefined) byForeignKey.set(source, referring)
      const isLateral = source.nested?.isLateral === true
      // What is pinned anyway needs no shown value; what is lateral takes them from the level it is in.
      const isWorth = isLateral
        ? isTrue(join)
        : source.nested !== undefined || (!isPinned(pins.get(source) ?? noPins) && isPinned(carried))
      const keepsRows = typeOf(join) === "left" || referring !== undefined
      // What is skipped must not depend on how many rows there are for one.
      const isCounted =
        limitOffset === undefined ||
        (isLateral ? onesOf(select, source.nested.select) !== undefined : isUnique(source, before, edges))
      if (isWorth && keepsRows && isCounted) found.set(source, before)
    }
    for (let isStable = false; !isStable;) {
      isStable = true
      const hiding = [
        whereClause,
        isLimited(select) ? sortClause : undefined,
        ...joins.flatMap((join) => {
          const { source } = join.right as { readonly source: Source }
          if (typeOf(join) === "left" || (byForeignKey.has(source) && found.has(source))) return []
          // What USING names is not looked for.
          return [join.on === undefined ? everyColumn : join.quals, source.nested?.select, source.other]
        })
      ]
      for (const source of found.keys()) {
        // A key that may change without being shown may hide rows until it does.
        const referring = byForeignKey.get(source)
        const wrong = mentions(hiding, source) ? source : referring
        if (wrong !== undefined && found.delete(wrong)) isStable = false
      }
    }
    return found
  }

  /**
   * The source that an inner join follows a foreign key from, to what it refers to: it leaves out no row of it but those
   * whose key is null.
   */
  #referring(join: Join): Source | undefined {
    const joined = "source" in join.right ? join.right.source : undefined
    const [condition, ...others] = join.on ?? []
    if (joined?.table === undefined || condition === undefined || others.length > 0) return undefined
    if (joined.table.relation.hidesRows) return undefined
    const scope: Level = { ...nowhere, sources: sourcesOf(join) }
    const pairs = condition.map((atom) => {
      if (atom._tag !== "Same") return undefined
      const [left, right] = [this.#ownPlace(scope, atom.left), this.#ownPlace(scope, atom.right)]
      return right?.source === joined ? [left, right] : [right, left]
    })
    const referring = pairs[0]?.[0]?.source
    const { name } = joined.table.relation
    const isAlong =
      referring !== joined &&
      pairs.every((pair) => pair?.[0]?.source === referring && pair?.[1]?.source === joined) &&
      (referring?.table?.relation.foreignKeys ?? []).some(
        ({ columns, referenced, refersTo }) =>
          refersTo.includes(name) &&
          columns.length === pairs.length &&
          columns.every((column, i) =>
            pairs.some((pair) => pair![0]!.column === column && pair![1]!.column === referenced[i])
          )
      )
    return isAlong ? referring : undefined
  }

  /** True when what is selected is one value of each row: a function that answers a set makes none of a row if it is empty. */
  #hasOneOfEachRow({ targetList }: SelectStmt): boolean {
    let isScalar = true
    walk(targetList, (kind, part) => {
      if (kind !== "FuncCall") return kind !== "SubLink"
      const { schema, name } = functionName(part)
      isScalar &&= this.#facts.function(schema, name) === "scalar"
      return isScalar
    })
    return isScalar
  }
}

// ------------------------------------------------------------------------------------------------------- helpers

/** Where the rows of a query stand in the answer of the statement. */
interface ShownAt {
  readonly path: ReadonlyArray<Step>
  readonly isRoot: boolean
}

interface ShownColumn extends Place {
  readonly shown: Shown
}

/** What holds of a source. */
interface Pinned {
  readonly pins: ReadonlyMap<string, Values>
  /** True when that is so only if the answer has a row. */
  readonly needsRow: boolean
  /** True when only what is joined to the rows that are shown can matter. */
  readonly isByShown: boolean
}

const noCommonTables: CommonTables = new Map()
const nothingWanted: ReadonlyMap<number, Values> = new Map()
const noPins: ReadonlyMap<string, Values> = new Map()
const noPinsAtAll: Pinned = { pins: noPins, needsRow: false, isByShown: false }
const nowhere: Level = {
  select: {},
  sources: [],
  trees: [],
  outer: undefined,
  known: noCommonTables,
  current: undefined,
  shown: () => undefined
}
/** Stands for a condition on any column. */
const everyColumn = { ColumnRef: { fields: [{ A_Star: {} }] } }
const nothingHolds: Solution = { pins: new Map(), edges: [], types: new Map(), nullable: new Set() }

/** Columns of the system, which change also where nothing else does. */
const systemColumns: ReadonlySet<string> = new Set(["ctid", "xmin", "xmax", "cmin", "cmax"])

const joinTypes: Readonly<Record<string, JoinType>> = {
  JOIN_INNER: "inner",
  JOIN_LEFT: "left",
  JOIN_RIGHT: "right",
  JOIN_FULL: "full"
}

const simpler = (type: JoinType, isLeftStrict: boolean, isRightStrict: boolean): JoinType => {
  if (type === "left") return isRightStrict ? "inner" : "left"
  if (type === "right") return isLeftStrict ? "inner" : "right"
  if (type === "inner") return "inner"
  return isLeftStrict ? (isRightStrict ? "inner" : "left") : isRightStrict ? "right" : "full"
}

const readWhole = (found: Found, because: string | undefined, missingKey?: ReadonlyArray<string>): void => {
  if (found.regions === undefined) return
  found.regions = undefined
  found.because = because
  found.missingKey = missingKey
}

/** Why a table is read whole, and the key that would help. */
const whyWhole = (
  { model }: Relation,
  alternatives: ReadonlyArray<Pinned>,
  isJoined: boolean
): [because: string, missingKey: ReadonlyArray<string> | undefined] => {
  if (model === undefined) return ["it has no model", undefined]
  if (alternatives.some(({ pins }) => pins.size === 0)) {
    if (isJoined)
      return ["its rows are found by columns that the answer does not show, or not of all rows", undefined]
    return [
      alternatives.length > 1
        ? "an alternative of the condition compares none of its columns with a value"
        : "the condition compares none of its columns with a value",
      undefined
    ]
  }
  const unknown = alternatives.find(({ pins }) => regionIn({ model }, pins) === undefined)
  const names = [...(unknown?.pins ?? noPins).keys()]
  const properties = names.flatMap((name) => model.properties.get(name)?.property ?? [])
  const isVolatile = names.some((name) => [...model.volatile.values()].some((columns) => columns.has(name)))
  return [
    `${names.map((name) => `"${name}"`).join(" and ")} ${names.length > 1 ? "are" : "is"} no declared key`,
    isVolatile || properties.length < names.length ? undefined : properties
  ]
}

/** The rows of a table that have these values, by the key that tells fewest. */
const regionIn = (
  { model }: Pick<Relation, "model">,
  pins: ReadonlyMap<string, Values>,
  needsRow = false
): Region | undefined => {
  let best: Region | undefined
  for (const key of model?.keys ?? []) {
    const terms = key.columns.map(({ name }) => pins.get(name))
    if (terms.includes(undefined)) continue
    const region: Region = { key, terms: terms as ReadonlyArray<Values>, needsRow }
    if (best === undefined || isBetter(region, best)) best = region
  }
  return best
}

const isBetter = (region: Region, other: Region): boolean => {
  if (region.key.isUnique !== other.key.isUnique) return region.key.isUnique
  const [ours, theirs] = [region.key.columns.length, other.key.columns.length]
  return ours === theirs ? combinations(region) < combinations(other) : ours > theirs
}

const combinations = ({ terms }: Region): number => terms.reduce((count, values) => count * values.length, 1)

/** True when a source has one row at most that matters. A unique column may hold many nulls. */
const isOneRow = (source: Source, { pins, nullable }: Solution): boolean =>
  !nullable.has(source) &&
  (source.table?.relation.uniques ?? []).some((columns) =>
    columns.every((column) => {
      const values = pins.get(source)?.get(column) ?? []
      const [value] = values
      return (
        values.length === 1 && (value!._tag === "Constant" || (value!._tag === "Parameter" && !value!.isList))
      )
    })
  )

/** The values that a column of an outer query has, for what is looked at in it. */
const valuesAbove = (level: Level, place: Place): Values | undefined => {
  const pinned = level.current?.pins.get(place.source)?.get(place.column)
  if (pinned !== undefined) return pinned
  const shown = level.shown(place)
  return shown && [shown]
}

const isOfKind = (value: Term | Shown, kind: Kind): boolean =>
  !("cast" in value) || value.cast === undefined || value.cast === kind

const hasColumn = ({ outputs }: Source, name: string): boolean =>
  outputs?.some((output) => output.name === name) === true

const kindOf = ({ source, column }: Place): Kind | undefined => {
  const named = source.outputs?.filter(({ name }) => name === column) ?? []
  return named.length === 1 ? named[0]!.kind : undefined
}

const shownIn = (columns: ReadonlyArray<ShownColumn>, { source, column }: Place): Shown | undefined =>
  columns.find((one) => one.source === source && one.column === column)?.shown

/** The sources that an inner join adds. */
const innerIn = ({ trees }: Level, { types }: Solution): ReadonlySet<Source> =>
  new Set(
    trees
      .flatMap(joinsOf)
      .flatMap((join) => (types.get(join) === "inner" && "source" in join.right ? [join.right.source] : []))
  )

/** Where the answer shows the value that a join carries from one column to another: of an inner join, on either side. */
const shownOf = (
  columns: ReadonlyArray<ShownColumn>,
  from: Place,
  to: Place,
  inner: ReadonlySet<Source>
): Shown | undefined => shownIn(columns, from) ?? (inner.has(to.source) ? shownIn(columns, to) : undefined)

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

const opaqueSource = (alias: string | undefined): Source => ({
  alias,
  schema: undefined,
  table: undefined,
  nested: undefined,
  other: undefined,
  outputs: undefined
})

const sourcesOf = (tree: Tree): ReadonlyArray<Source> =>
  "source" in tree ? [tree.source] : [...sourcesOf(tree.left), ...sourcesOf(tree.right)]

const joinsOf = (tree: Tree): ReadonlyArray<Join> =>
  "source" in tree ? [] : [...joinsOf(tree.left), ...joinsOf(tree.right), tree]

/** True for `on true`. */
const isTrue = ({ on }: Join): boolean => on?.length === 1 && on[0]!.length === 0

/** True when a source has one row at most for each of those before it. */
const isUnique = (source: Source, before: ReadonlySet<Source>, edges: Solution["edges"]): boolean =>
  (source.table?.relation.uniques ?? []).some((columns) =>
    columns.every((column) =>
      edges.some(({ from, to }) => to.source === source && to.column === column && before.has(from.source))
    )
  )

const isOrderedByPlace = ({ sortClause = [] }: SelectStmt): boolean =>
  sortClause.some(
    (node) => "SortBy" in node && node.SortBy.node !== undefined && "A_Const" in node.SortBy.node
  )

/** True where the order asks for columns of sources, and not for what is selected, by its name or place. */
const isOrderedByColumns = ({ sortClause = [] }: SelectStmt): boolean =>
  sortClause.every((node) => {
    const by = "SortBy" in node ? node.SortBy.node : undefined
    if (by === undefined || "A_Const" in by) return false
    let isQualified = true
    walk({ by }, (kind, part) => {
      if (kind === "ColumnRef") isQualified &&= (columnPath(part)?.length ?? 0) > 1
      return true
    })
    return isQualified
  })

/** The queries in expressions, without those that these have in turn. */
const queriesIn = (tree: unknown): ReadonlyArray<SelectStmt> => {
  const found: Array<SelectStmt> = []
  walk(tree, (kind, part) => {
    if (kind === "SubLink") found.push(...[selectOf(part.subselect)].filter((select) => select !== undefined))
    return kind !== "SelectStmt"
  })
  return found
}

/** True when a tree may name a column of a source. */
const mentions = (tree: unknown, source: Source): boolean => {
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

/** True where rows are not shown as they are. */
const isGrouped = ({ groupClause, havingClause, distinctClause, larg }: SelectStmt): boolean =>
  groupClause !== undefined ||
  havingClause !== undefined ||
  distinctClause !== undefined ||
  larg !== undefined

const hasWindow = ({ targetList, sortClause }: SelectStmt): boolean => {
  let isFound = false
  walk([targetList, sortClause], (kind, part) => {
    isFound ||= kind === "FuncCall" && part.over !== undefined
    return true
  })
  return isFound
}

/** What is compared with lists, without what is below nodes of some kind. */
const listsIn = (select: object, isClosed: (kind: string) => boolean = () => false): ReadonlyArray<Node> => {
  const found: Array<Node> = []
  walk(Object.values(select), (kind, part) => {
    if (kind === "A_Expr" && (part.kind === "AEXPR_IN" || part.kind === "AEXPR_OP_ANY")) {
      if (part.kind === "AEXPR_OP_ANY" || "List" in part.rexpr) found.push(part.lexpr)
    }
    return !isClosed(kind)
  })
  return found
}

const isSameColumn = (one: Node, other: Node): boolean =>
  "ColumnRef" in one &&
  "ColumnRef" in other &&
  namesOf(one.ColumnRef.fields).join(".") === namesOf(other.ColumnRef.fields).join(".")

/** Of the functions that compute one value, those that compute it of many rows. */
const aggregates: ReadonlySet<string> = new Set(
  `array_agg avg bool_and bool_or count every json_agg jsonb_agg max min string_agg sum`.split(" ")
)

const isLimited = ({ limitCount, limitOffset }: SelectStmt): boolean =>
  limitCount !== undefined || limitOffset !== undefined

/**
 * True when a row that is not shown is of no consequence for what is selected of those that are, or joined to them. What a
 * window function tells of a row depends on others.
 */
const showsEachRow = (select: SelectStmt): boolean =>
  !isGrouped(select) && (!isLimited(select) || (isOrderedByColumns(select) && !hasWindow(select)))

/** True when rows with other values in a column may be left out before a query does anything else. */
const isFilterable = (
  { select }: Level,
  place: Place,
  placeOf: (column: ColumnRef) => Place | undefined
): boolean => {
  const { distinctClause, groupClause } = select
  const isDistinctOn = (distinctClause ?? []).some((node) => Object.keys(node).length > 0)
  if (isLimited(select) || isDistinctOn || hasWindow(select)) return false
  if (groupClause === undefined) return true
  const grouped = groupClause.map((node) => ("ColumnRef" in node ? placeOf(node.ColumnRef) : undefined))
  return (
    !grouped.includes(undefined) &&
    grouped.some((column) => column!.source === place.source && column!.column === place.column)
  )
}

/** The expressions of an answer, in order; none if their places cannot be told. */
const targetsOf = (
  { targetList = [] }: SelectStmt,
  path: ReadonlyArray<Step>
): { readonly path: ReadonlyArray<Step>; readonly values: ReadonlyArray<Node> } => {
  const values = targetList.flatMap((node) => ("ResTarget" in node ? (node.ResTarget.val ?? []) : []))
  const hasStar = values.some((value) => "ColumnRef" in value && columnPath(value.ColumnRef) === undefined)
  return { path, values: hasStar || values.length < targetList.length ? [] : values }
}

/** The expressions of `json_build_array(…)`, or of each in `coalesce(json_agg(json_build_array(…)), …)`: Drizzle's relations. */
const listedIn = (
  { targetList = [] }: SelectStmt,
  path: ReadonlyArray<Step>
): { readonly path: ReadonlyArray<Step>; readonly values: ReadonlyArray<Node> } => {
  const [target, ...others] = targetList
  const nothing = { path, values: [] }
  if (others.length > 0 || target === undefined || !("ResTarget" in target)) return nothing
  const all = aggregateOf(target.ResTarget.val)
  const list = callOf(all ?? target.ResTarget.val, "json_build_array")
  if (list === undefined) return nothing
  return { path: all === undefined ? path : [...path, "each"], values: list.args ?? [] }
}

/** What `json_agg` collects, of every row. */
const aggregateOf = (node: Node | undefined): Node | undefined => {
  const inner = node !== undefined && "CoalesceExpr" in node ? node.CoalesceExpr.args?.[0] : node
  const call = callOf(inner, "json_agg")
  const isPlain = call?.agg_filter === undefined && call?.agg_distinct !== true && call?.over === undefined
  return isPlain ? call?.args?.[0] : undefined
}

/** True for a query that has one row, whatever it finds. */
const isAggregated = ({ targetList = [], groupClause }: SelectStmt): boolean => {
  const [target] = targetList
  return (
    groupClause === undefined &&
    target !== undefined &&
    "ResTarget" in target &&
    aggregateOf(target.ResTarget.val) !== undefined
  )
}

/**
 * The parameters that must be 1 at most for a lateral query to have one row, where that is of consequence; `undefined` if
 * it may have more.
 */
const onesOf = ({ limitOffset }: SelectStmt, lateral: SelectStmt): ReadonlyArray<number> | undefined =>
  limitOffset === undefined || isAggregated(lateral) ? [] : limitOf(lateral)

/** The LIMIT of what a query selects from. */
const limitOf = ({ fromClause = [] }: SelectStmt): ReadonlyArray<number> | undefined => {
  const [from, ...others] = fromClause
  if (from === undefined || others.length > 0) return undefined
  const nested = "RangeSubselect" in from ? selectOf(from.RangeSubselect.subquery)?.limitCount : undefined
  return nested !== undefined && "ParamRef" in nested ? [nested.ParamRef.number ?? 0] : undefined
}

const callOf = (node: Node | undefined, name: string): FuncCall | undefined =>
  node !== undefined && "FuncCall" in node && functionName(node.FuncCall).name === name
    ? node.FuncCall
    : undefined
