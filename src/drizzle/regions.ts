/**
 * What is told of a query: which rows of a table its answer rests on, as regions, of which `readTags.ts` makes tags.
 *
 * A region is: these columns, which are the primary key, a unique or a declared key of the table's model, have these values.
 * If an answer is a function of the rows with one property, and of those with another, it is one of the rows with both: so
 * of all that is known of a row, one key is enough, and the one that tells fewest rows is taken.
 */
import type { RangeVar } from "libpg-query"
import type { Term } from "./conditions.ts"
import type { Relation, RelationKey } from "./queryFacts.ts"

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

/** Tables and functions that must be asked for before it can be told what a query reads. */
export interface Missing {
  readonly tables: ReadonlyArray<RangeVar>
  readonly functions: ReadonlyArray<string>
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

/** Rows with values in a key. */
export interface Region {
  readonly key: RelationKey
  /** For each column of the key its values: those of every combination. */
  readonly terms: ReadonlyArray<Values>
  /** True when it is right only if the answer has a row. */
  readonly needsRow: boolean
}

/**
 * Values of a column, one of which it has in every row that matters. Columns that are known to be equal have them in one
 * object, by which `readTags.ts` knows a list again.
 */
export type Values = ReadonlyArray<Term | Shown>

/** The value of a column, which the answer shows. */
export interface Shown {
  readonly _tag: "Shown"
  /** Where in the answer. */
  readonly path: ReadonlyArray<Step>
  /** Parameters of LIMIT, by their numbers, that must be 1 at most, or the value may not be used. */
  readonly limitsOfOne: ReadonlyArray<number>
}

/** A step on the way to a value in an answer: a place in a list, or each of its items. */
export type Step = number | "each"

/** What is known of the columns of one source, by their names. */
export type Pins = ReadonlyMap<string, Values>

/** The rows of a table that have these values, by the key that tells fewest; `undefined` if they make up no key. */
export const regionIn = (
  { model }: Pick<Relation, "model">,
  pins: Pins,
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

/** Why a table is read whole, where some of these alternatives have no region, and the key that would help. */
export const whyWhole = (
  { model }: Relation,
  alternatives: ReadonlyArray<Pins>,
  isJoined: boolean
): { readonly because: string; readonly missingKey?: ReadonlyArray<string> } => {
  if (model === undefined) return { because: "it has no model" }
  if (alternatives.some((pins) => pins.size === 0)) {
    if (isJoined)
      return { because: "its rows are found by columns that the answer does not show, or not of all rows" }
    const condition = alternatives.length > 1 ? "an alternative of the condition" : "the condition"
    return { because: `${condition} compares none of its columns with a value` }
  }
  const lacking = alternatives.find((pins) => regionIn({ model }, pins) === undefined)
  const names = [...(lacking?.keys() ?? [])]
  const because = `${names.map((name) => `"${name}"`).join(" and ")} ${names.length > 1 ? "are" : "is"} no declared key`
  const properties = names.flatMap((name) => model.properties.get(name)?.property ?? [])
  const isVolatile = names.some((name) => [...model.volatile.values()].some((columns) => columns.has(name)))
  return isVolatile || properties.length < names.length ? { because } : { because, missingKey: properties }
}
