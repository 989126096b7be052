/**
 * What holds at a level of a query: which values columns have in the rows that matter.
 *
 * The condition has alternatives, and each has a solution of its own: a row that matters is one of theirs. What an
 * alternative says of a column is known of it, and values travel along `a = b`: where rows of one table are known to have
 * a value, only rows of the other that have it too can matter. What orders, limits, groups or counts rows never makes a
 * region wider, and is not looked at.
 *
 * **Outer joins.** What compares by equality rejects nulls, so a condition on the nullable side of an outer join makes it
 * an inner one. The ON of an inner join is a condition like any other. That of a left join leaves rows out of its right side
 * only: `authors left join books on … and authors.country = 'x'` shows every author. So what an ON says is known of the side
 * that it leaves rows out of, and carried into that side, never out of it.
 */
import type { ColumnRef } from "libpg-query"
import type { Kind } from "./columnText.ts"
import { alternativesOf, type Conjunction } from "./conditions.ts"
import {
  type Join,
  type JoinType,
  joinsOf,
  kindOf,
  type Level,
  meantBy,
  nameableIn,
  type Place,
  placeIn,
  type Scope,
  type Source,
  sourcesOf,
  type Tree
} from "./level.ts"
import type { Pins, Values } from "./regions.ts"

/** What holds at a level, in one alternative of its condition. */
export interface Solution {
  /** Values of columns: only rows of the source that have one of them can matter. */
  readonly pins: ReadonlyMap<Source, Pins>
  readonly edges: ReadonlyArray<Edge>
  /** What joins are, after all. */
  readonly types: ReadonlyMap<Join, JoinType>
  /** Sources that may have no row where others have one. */
  readonly nullable: ReadonlySet<Source>
}

/** Columns that are equal: of the one that it leads to, only rows matter that have a value of the other. */
interface Edge {
  readonly from: Place
  readonly to: Place
}

/** Values of a column that are known from outside. */
export interface Given {
  readonly place: Place
  readonly values: Values
}

/** What is known of an alternative that never holds. */
export const nothingHolds: Solution = { pins: new Map(), edges: [], types: new Map(), nullable: new Set() }

/** What holds in each alternative of a level's condition; none if it never holds. */
export const solutionsOf = (level: Level, given: ReadonlyArray<Given> = []): ReadonlyArray<Solution> =>
  alternativesOf(level.select.whereClause).map((condition) => solve(level, condition, given))

const solve = (level: Level, condition: Conjunction, given: ReadonlyArray<Given>): Solution => {
  const { sources, trees } = level
  const strict = new Set([...given.map(({ place }) => place.source), ...strictIn(condition, sources)])
  const types = new Map<Join, JoinType>()
  for (const tree of trees) simplify(tree, strict, types)
  const nullable = nullableBy(types)
  const found = new Findings(level.around.outer)
  for (const source of sources) {
    for (const { name, values } of source.outputs ?? [])
      if (values !== undefined) found.put({ source, column: name }, values)
  }
  for (const { place, values } of given) found.put(place, values)
  found.take(condition, sources, sources)
  for (const atom of condition) {
    // Of the nullable side of an outer join, it may be the null of a row that is not there.
    const place = atom._tag === "IsNull" ? placeIn(sources, atom.column) : undefined
    if (place !== undefined && !nullable.has(place.source)) found.put(place, [{ _tag: "Null" }])
  }
  for (const [join, type] of types) {
    if (join.on?.length !== 1 || type === "full") continue
    const side = type === "left" ? join.right : type === "right" ? join.left : join
    found.take(join.on[0]!, nameableIn(join), sourcesOf(side))
  }
  found.carry()
  return { pins: found.pins, edges: found.edges, types, nullable }
}

/** The values that are found, one by one. */
class Findings {
  readonly pins = new Map<Source, Map<string, Values>>()
  readonly edges: Array<Edge> = []
  readonly #outer: Scope | undefined

  constructor(outer: Scope | undefined) {
    this.#outer = outer
  }

  /** Notes values of a column, unless as few are known; true if they are noted. */
  put(place: Place, values: Values): boolean {
    const kind = kindOf(place)
    if (kind === undefined || !values.every((value) => isOfKind(value, kind))) return false
    const ofSource = this.pins.get(place.source) ?? new Map<string, Values>()
    const before = ofSource.get(place.column)
    if (before !== undefined && before.length <= values.length) return false
    this.pins.set(place.source, ofSource.set(place.column, values))
    return true
  }

  /** Takes what a condition says that sees these sources, of those that it leaves rows out of. */
  take(condition: Conjunction, visible: ReadonlyArray<Source>, reduced: ReadonlyArray<Source>): void {
    for (const atom of condition) {
      if (atom._tag === "Equals") {
        const place = placeIn(visible, atom.column)
        if (place !== undefined && reduced.includes(place.source)) this.put(place, atom.terms)
      }
      if (atom._tag === "Same") this.#takeSame(atom.left, atom.right, visible, reduced)
    }
  }

  #takeSame(
    one: ColumnRef,
    other: ColumnRef,
    visible: ReadonlyArray<Source>,
    reduced: ReadonlyArray<Source>
  ): void {
    const [left, right] = [one, other].map((column) => meantBy(column, visible, this.#outer))
    if (left === undefined || right === undefined || kindOf(left.place) !== kindOf(right.place)) return
    for (const [from, to] of [
      [left, right],
      [right, left]
    ] as const) {
      if (to.scope !== undefined || !reduced.includes(to.place.source)) continue
      if (from.scope === undefined) {
        this.edges.push({ from: from.place, to: to.place })
        continue
      }
      const values = from.scope.valuesOf(from.place)
      if (values !== undefined) this.put(to.place, values)
    }
  }

  /** Carries values along edges, until nothing moves any more. */
  carry(): void {
    for (let isMoving = true; isMoving;) {
      isMoving = false
      for (const { from, to } of this.edges) {
        const values = this.pins.get(from.source)?.get(from.column)
        if (values !== undefined && this.put(to, values)) isMoving = true
      }
    }
  }
}

/** A value that is cast is compared as what it is cast to. */
const isOfKind = (value: Values[number], kind: Kind): boolean =>
  !("cast" in value) || value.cast === undefined || value.cast === kind

// -------------------------------------------------------------------------------------------------- outer joins

/** Sources whose row is rejected where it is all nulls. */
const strictIn = (condition: Conjunction, visible: ReadonlyArray<Source>): ReadonlyArray<Source> =>
  condition.flatMap((atom) => {
    const columns =
      atom._tag === "Equals" ? [atom.column] : atom._tag === "Same" ? [atom.left, atom.right] : []
    return columns.flatMap((column) => placeIn(visible, column)?.source ?? [])
  })

/** Notes what joins are, where rows that are all nulls on these sources' side are rejected. */
const simplify = (tree: Tree, strict: ReadonlySet<Source>, types: Map<Join, JoinType>): void => {
  if ("source" in tree) return
  const isStrict = (side: Tree) => sourcesOf(side).some((source) => strict.has(source))
  const type = simpler(tree.type, isStrict(tree.left), isStrict(tree.right))
  types.set(tree, type)
  const inOn = tree.on?.length === 1 ? strictIn(tree.on[0]!, nameableIn(tree)) : []
  const withOn = new Set([...strict, ...inOn])
  // A condition on what comes out holds before an outer join on the side that it keeps, the ON on the other one.
  simplify(tree.left, type === "full" ? new Set() : type === "left" ? strict : withOn, types)
  simplify(tree.right, type === "full" ? new Set() : type === "right" ? strict : withOn, types)
}

/** What an outer join is without the rows that it adds to a strict side. */
const simpler = (type: JoinType, isLeftStrict: boolean, isRightStrict: boolean): JoinType => {
  if (type === "left") return isRightStrict ? "inner" : "left"
  if (type === "right") return isLeftStrict ? "inner" : "right"
  if (type === "inner") return "inner"
  return isLeftStrict ? (isRightStrict ? "inner" : "left") : isRightStrict ? "right" : "full"
}

const nullableBy = (types: Solution["types"]): ReadonlySet<Source> => {
  const nullable = new Set<Source>()
  for (const [{ left, right }, type] of types) {
    if (type === "left" || type === "full") for (const source of sourcesOf(right)) nullable.add(source)
    if (type === "right" || type === "full") for (const source of sourcesOf(left)) nullable.add(source)
  }
  return nullable
}

// ----------------------------------------------------------------------------------------------- how many rows

/** The sources that an inner join adds. */
export const innerIn = ({ trees }: Level, { types, nullable }: Solution): ReadonlySet<Source> =>
  new Set(
    trees
      .flatMap(joinsOf)
      .flatMap((join) =>
        types.get(join) === "inner" && "source" in join.right && !nullable.has(join.right.source)
          ? [join.right.source]
          : []
      )
  )

/** True when a source has one row at most that matters. A unique column may hold many nulls. */
export const isOneRow = (source: Source, { pins, nullable }: Solution): boolean =>
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

/** True when a source has one row at most for each of those before it. */
export const isOneRowForEach = (source: Source, before: ReadonlySet<Source>, { edges }: Solution): boolean =>
  (source.table?.relation.uniques ?? []).some((columns) =>
    columns.every((column) =>
      edges.some(({ from, to }) => to.source === source && to.column === column && before.has(from.source))
    )
  )
