/**
 * What a statement mentions, wherever it stands in it: functions, names of columns, what depends on the time.
 *
 * These matter by being there at all, so nobody asks what they mean in their place: a group of volatile columns is read if
 * one of their names occurs, or anything that may stand for all columns; a function that may read tables makes it unknown
 * what is read.
 */
import type { ColumnRef, FuncCall, Node, SelectStmt } from "libpg-query"
import { momentaryColumns } from "./level.ts"
import { functionName, namesOf, selectOf, walk } from "./parser.ts"
import type { Facts, Relation } from "./queryFacts.ts"
import { isOrderedByPlace } from "./selectShape.ts"

/** What the parts of a statement mention, taken together. */
export class Mentions {
  readonly #facts: Facts
  readonly #untold = new Set<string>()
  #unknown: string | undefined
  readonly #missingFunctions = new Set<string>()
  /** Names of columns, of tables before them, and of schemas. */
  readonly #columnNames = new Set<string>()
  /** True when all columns may be meant somewhere. */
  #hasStar = false
  /** Names of one part, which may be those of sources: then they stand for whole rows. */
  readonly #single = new Set<string>()
  readonly #aliases = new Set<string>()

  constructor(facts: Facts) {
    this.#facts = facts
  }

  /** What the answer depends on that no write tells of. */
  get untold(): ReadonlyArray<string> {
    return [...this.#untold]
  }

  /** Why it cannot be told which tables are read, if so. */
  get unknown(): string | undefined {
    return this.#unknown
  }

  /** Functions that must be asked for first. */
  get missingFunctions(): ReadonlyArray<string> {
    return [...this.#missingFunctions]
  }

  /** The groups of volatile columns of a table that may be read. */
  groupsOf({ model }: Relation): ReadonlyArray<string> {
    const isWhole = this.#hasStar || [...this.#single].some((name) => this.#aliases.has(name))
    return [...(model?.volatile ?? [])].flatMap(([group, columns]) =>
      isWhole || [...columns].some((column) => this.#columnNames.has(column)) ? [group] : []
    )
  }

  /** Looks through a query, or an expression. */
  add(tree: unknown): void {
    const harmlessStars = new Set<unknown>()
    // Where what comes out of a query is named outside of it, or not at all, its star adds nothing.
    const allowStars = (select: SelectStmt | undefined) => {
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
          this.#addNewNames(part.alias?.colnames)
          break
        case "RangeSubselect":
          allowStars(selectOf(part.subquery))
          this.#addNewNames(part.alias?.colnames)
          break
        case "CommonTableExpr":
          allowStars(selectOf(part.ctequery))
          this.#addNewNames(part.aliascolnames)
          break
        case "SubLink":
          if (part.subLinkType === "EXISTS_SUBLINK") allowStars(selectOf(part.subselect))
          break
        case "ColumnRef":
          this.#addColumn(part, harmlessStars.has(part))
          break
        case "FuncCall":
          this.#addCall(part)
          break
        case "SQLValueFunction":
          this.#untold.add(String(part.op).replace("SVFOP_", "").toLowerCase())
          break
        case "RangeTableSample":
          this.#untold.add("tablesample")
          break
        case "JoinExpr":
          if (part.isNatural === true) this.#hasStar = true
          this.#addNewNames(part.alias?.colnames)
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
  #addNewNames(names: ReadonlyArray<Node> | undefined): void {
    if (names !== undefined && names.length > 0) this.#hasStar = true
  }

  #addColumn(column: ColumnRef, isHarmless: boolean): void {
    const names = namesOf(column.fields)
    if (names.includes(undefined)) this.#hasStar ||= !isHarmless
    if (names.length === 1 && names[0] !== undefined) this.#single.add(names[0])
    for (const name of names) {
      if (name === undefined) continue
      this.#columnNames.add(name)
      if (momentaryColumns.has(name)) this.#untold.add(name)
    }
  }

  #addCall(call: FuncCall): void {
    const { schema, name } = functionName(call)
    const nature = this.#facts.function(schema, name)
    if (nature === undefined) this.#missingFunctions.add(name)
    if (nature === "volatile") this.#untold.add(`${name}()`)
    if (nature === "unknown") this.#unknown ??= `it calls ${name}(), which may read tables`
  }
}
