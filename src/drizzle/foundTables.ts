/**
 * What has been found of each mention of a table, while a query is looked into. A mention may be looked at several times: in
 * each alternative of a condition around it, and wherever a common table expression is named. What is read of it is all of
 * that together, and all of the table as soon as it is so once.
 */
import type { RangeVar } from "libpg-query"
import type { Facts, Relation } from "./queryFacts.ts"
import { type Region, regionIn, type TableRead, type Values, whyWhole } from "./regions.ts"
import type { Pinned } from "./shownValues.ts"

/** What was found of one mention of a table. */
interface Found extends Omit<TableRead, "groups"> {
  regions: Array<Region> | undefined
  because: string | undefined
  missingKey: ReadonlyArray<string> | undefined
}

/** The tables that are found. */
export class FoundTables {
  readonly #facts: Facts
  readonly #found = new Map<RangeVar, Found>()
  readonly #missing = new Set<RangeVar>()

  constructor(facts: Facts) {
    this.#facts = facts
  }

  /** What has been found, without the groups of volatile columns. */
  get reads(): ReadonlyArray<Omit<TableRead, "groups">> {
    return [...this.#found.values()]
  }

  /** Tables that must be asked for first. */
  get missing(): ReadonlyArray<RangeVar> {
    return [...this.#missing]
  }

  /** Why no write tells of changes of tables that were found. */
  get untold(): ReadonlyArray<string> {
    return this.reads.flatMap(({ relation }) => relation.untold ?? [])
  }

  /** What is known of a table; `undefined` if it is none, or must be asked for. */
  relation(range: RangeVar): Relation | undefined {
    const relation = this.#facts.relation(range)
    if (relation === undefined) this.#missing.add(range)
    return relation === "none" ? undefined : relation
  }

  /** True when something has been noted of a mention. */
  has(range: RangeVar): boolean {
    return this.#found.has(range)
  }

  /** Notes which rows of a table matter, by what holds in each alternative; `isJoined` if other sources tell them. */
  addRows(range: RangeVar, relation: Relation, alternatives: ReadonlyArray<Pinned>, isJoined: boolean): void {
    const found = this.#of(range, relation)
    if (found.regions === undefined) return
    const regions = alternatives.map(({ pins, needsRow }) => regionIn(relation, pins, needsRow))
    if (!regions.includes(undefined)) {
      found.regions.push(...(regions as ReadonlyArray<Region>))
      return
    }
    const pins = alternatives.map(({ pins }) => pins)
    const { because, missingKey } = whyWhole(relation, pins, isJoined)
    makeWhole(found, because, missingKey)
  }

  /** Notes that any row of a table may matter, and why; without a reason nobody is told that it is so. */
  addWhole(range: RangeVar, relation: Relation, because: string | undefined): void {
    makeWhole(this.#of(range, relation), because)
  }

  /** Notes that any row of what has been found may matter. */
  makeAllWhole(because: string): void {
    for (const found of this.#found.values()) makeWhole(found, because)
  }

  /** Makes whole what is told by parameters that are not to be relied on. */
  distrust(parameters: ReadonlySet<number>): void {
    if (parameters.size === 0) return
    const isDistrusted = (value: Values[number]) => value._tag === "Parameter" && parameters.has(value.number)
    for (const found of this.#found.values())
      if (found.regions?.some(({ terms }) => terms.flat().some(isDistrusted)))
        makeWhole(found, "a parameter of its key stands in several places")
  }

  #of(range: RangeVar, relation: Relation): Found {
    const known = this.#found.get(range)
    if (known !== undefined) return known
    const found: Found = { relation, regions: [], because: undefined, missingKey: undefined }
    this.#found.set(range, found)
    return found
  }
}

/** The first reason counts. */
const makeWhole = (found: Found, because: string | undefined, missingKey?: ReadonlyArray<string>): void => {
  if (found.regions === undefined) return
  found.regions = undefined
  found.because = because
  found.missingKey = missingKey
}
