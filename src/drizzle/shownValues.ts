/**
 * Values that only the answer shows.
 *
 * Of `books left join authors on authors.id = books.author_id where books.id = 7` the author is known when the answer is
 * there, if it shows `author_id`: what is read of authors is the row with the id that is shown.
 *
 * **The rule.** Let sources S be covered by regions that are known without the answer, and T be joined to them by
 * `T.key = S.column`. Then only rows of T matter whose key is a value of the column that the answer shows, if
 *
 * 1. the join leaves no row of S out: it is a left join, or an inner one along a foreign key that holds;
 * 2. nothing that tells which rows are shown asks for T: no condition, no other inner join, and, where there is a limit, no
 *    order; nor a left join to what one of these asks for, nor any left join where rows are skipped;
 * 3. where rows are skipped, T has one row at most for each of S, so that it does not move them;
 * 4. the answer shows the column of each of its rows.
 *
 * For let a write change rows of T that have none of these values in their key, neither before nor after it. By 4, they are
 * joined to no row of S that is shown. By 1 and 2, S alone tells which of its rows are found, and in which order. One that
 * comes after those that are shown, behind a limit, moves none of them, whatever is joined to it. One that is skipped comes
 * before them, and would move them if it became more rows or fewer, which is what 3 excludes. So the answer is what it was.
 * And what changes which rows of S are shown is met: it is in a region of S, or joined to a row that was shown.
 *
 * What is joined to T in turn is covered in the same way: T is part of S for it. But where the join is an inner one along a
 * foreign key, the source with that key has to be covered without shown values: a row whose key is null is left out, is
 * not shown, and would appear by a change of it that nothing covers.
 *
 * **One row.** If a source has one row at most that matters, its values are known as soon as the answer has a row at all:
 * every row of the answer has that one in it. So of the above only 4 is asked for, and that the answer has a row; that it is
 * the statement's own answer; and that the condition has no other alternative that the row could be of.
 *
 * What an inner join compares is equal in each row, so it may be shown of either side.
 */
import {
  isOnTrue,
  type Join,
  joinsOf,
  type Level,
  mayName,
  nameableIn,
  type Place,
  placeIn,
  type Source,
  sourcesOf
} from "./level.ts"
import { type Pins, regionIn, type Shown, type Step } from "./regions.ts"
import {
  hasOneRowForEach,
  isGrouped,
  isLimited,
  type NatureOf,
  limitsOfOne,
  selectedIn,
  selectedInJson,
  showsEachRow
} from "./selectShape.ts"
import { innerIn, isOneRow, isOneRowForEach, type Solution } from "./solutions.ts"

/** Where the rows of a query stand in the answer of the statement. */
export interface ShownAt {
  readonly path: ReadonlyArray<Step>
  /** True for the statement itself, whose rows are lists; those of what is within it are one value each. */
  readonly isRoot: boolean
}

/** Where the statement itself stands in its answer. */
export const atRoot: ShownAt = { path: ["each"], isRoot: true }

/** A column whose value the answer shows. */
interface ShownColumn extends Place {
  readonly shown: Shown
}

/** The columns of a level whose values the answer of the statement shows, of each row. */
export type ShownColumns = ReadonlyArray<ShownColumn>

/** The columns that the answer shows of each row of a level. */
export const shownColumns = (
  { select, sources }: Level,
  shownAt: ShownAt | undefined,
  natureOf: NatureOf
): ShownColumns => {
  if (shownAt === undefined || isGrouped(select) || !hasOneRowForEach(select, natureOf)) return []
  const { path, isRoot } = shownAt
  return (isRoot ? selectedIn(select, path) : selectedInJson(select, path)).flatMap(({ path, value }) => {
    const place = "ColumnRef" in value ? placeIn(sources, value.ColumnRef) : undefined
    return place === undefined ? [] : [{ ...place, shown: { _tag: "Shown", path, limitsOfOne: [] } }]
  })
}

/** Where the answer shows a column. */
export const shownIn = (columns: ShownColumns, { source, column }: Place): Shown | undefined =>
  columns.find((one) => one.source === source && one.column === column)?.shown

/** What is known of the rows of a source that matter. */
export interface Pinned {
  readonly pins: Pins
  /** True when that is so only if the answer has a row. */
  readonly needsRow: boolean
  /** True when only what is joined to the rows that are shown can matter. */
  readonly isByShown: boolean
}

/** Nothing. */
export const notPinned: Pinned = { pins: new Map(), needsRow: false, isByShown: false }

/**
 * What holds of each source of a level, with the values that the answer shows of what it is joined to. `mayNeedRow` says
 * that a row of the statement's answer is one of this alternative.
 */
export const pinnedIn = (
  level: Level,
  solution: Solution,
  columns: ShownColumns,
  mayNeedRow: boolean,
  natureOf: NatureOf
): ReadonlyMap<Source, Pinned> => {
  const { pins, edges } = solution
  const inner = innerIn(level, solution)
  const joined = joinedToShown({ level, solution, columns, inner, natureOf })
  return new Map(
    level.sources.map((source) => {
      const own = new Map(pins.get(source))
      const before = joined.get(source)?.before
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

/** Where the answer shows the value that a join carries from one column to another: of an inner join, on either side. */
const shownOf = (
  columns: ShownColumns,
  from: Place,
  to: Place,
  inner: ReadonlySet<Source>
): Shown | undefined => shownIn(columns, from) ?? (inner.has(to.source) ? shownIn(columns, to) : undefined)

/** What is known of an alternative, before the values that the answer shows are. */
interface Known {
  readonly level: Level
  readonly solution: Solution
  readonly columns: ShownColumns
  /** The sources that an inner join adds. */
  readonly inner: ReadonlySet<Source>
  readonly natureOf: NatureOf
}

/** What a join adds to the sources before it. */
interface Addition {
  readonly join: Join
  readonly source: Source
  readonly before: ReadonlySet<Source>
  readonly isInner: boolean
  /** The source before it whose foreign key an inner join follows. */
  readonly referring: Source | undefined
}

/** The sources that the rule holds for: of which only what is joined to the rows that are shown can matter. */
const joinedToShown = (known: Known): ReadonlyMap<Source, Addition> => {
  const { level, solution, columns } = known
  const { select, trees } = level
  const joins = trees.flatMap(joinsOf)
  const found = new Map<Source, Addition>()
  if (columns.length === 0 || trees.length !== 1 || !showsEachRow(select)) return found
  const additions = joins.flatMap((join) => additionOf(join, solution))
  if (additions.length < joins.length) return found
  for (const addition of additions)
    if (isWorthwhile(addition, known) && keepsShownRows(addition, known)) found.set(addition.source, addition)
  // What is not covered by shown values may leave rows out by what is: then that is not covered by them, either.
  for (let isStable = false; !isStable;) {
    isStable = true
    const hiding = hidingIn(level, additions, found)
    for (const [source, { referring }] of found) {
      // A key that may change without being shown may hide rows until it does.
      const wrong = mayName(hiding, source) ? source : referring
      if (wrong !== undefined && found.delete(wrong)) isStable = false
    }
  }
  return found
}

const additionOf = (join: Join, { types }: Solution): ReadonlyArray<Addition> => {
  const type = types.get(join)
  if (!("source" in join.right) || (type !== "left" && type !== "inner")) return []
  const { source } = join.right
  const isInner = type === "inner"
  const before = new Set(sourcesOf(join.left))
  return [{ join, source, before, isInner, referring: isInner ? referringIn(join, source) : undefined }]
}

/** True where shown values make a region of a source that has none without them, or can be handed to its query. */
const isWorthwhile = ({ join, source, before }: Addition, { solution, columns, inner }: Known): boolean => {
  const { table, nested } = source
  // What is lateral takes them from the level it is in, and not from its ON.
  if (nested !== undefined) return !nested.isLateral || isOnTrue(join)
  if (table === undefined) return false
  const pins: Pins = solution.pins.get(source) ?? new Map()
  const carried = solution.edges.filter(
    ({ from, to }) =>
      to.source === source && before.has(from.source) && shownOf(columns, from, to, inner) !== undefined
  )
  const withShown = new Map([...pins, ...carried.map(({ to }) => [to.column, []] as const)])
  const isPinned = (by: Pins) => regionIn(table.relation, by) !== undefined
  return !isPinned(pins) && isPinned(withShown)
}

/** True where a join leaves no row out, and moves none that is skipped. */
const keepsShownRows = (
  { source, before, isInner, referring }: Addition,
  { level: { select }, solution, natureOf }: Known
): boolean => {
  const keepsRows = !isInner || referring !== undefined
  // What is skipped must not depend on how many rows there are for one.
  const isCounted =
    select.limitOffset === undefined ||
    (source.nested?.isLateral === true
      ? limitsOfOne(select, source.nested.select, natureOf) !== undefined
      : isOneRowForEach(source, before, solution))
  return keepsRows && isCounted
}

/** Stands for a condition on any column. */
const everyColumn = { ColumnRef: { fields: [{ A_Star: {} }] } }

/** What tells which rows are shown, where these sources are covered by shown values. */
const hidingIn = (
  { select }: Level,
  additions: ReadonlyArray<Addition>,
  byShown: ReadonlyMap<Source, Addition>
): ReadonlyArray<unknown> => {
  const hiding: Array<unknown> = [select.whereClause, isLimited(select) ? select.sortClause : undefined]
  // Each join names what stands before it.
  for (const { join, source, isInner } of additions.toReversed()) {
    if (byShown.has(source)) continue
    // A left join leaves no row out by itself, but what it adds may be asked for, or counted.
    if (!isInner && select.limitOffset === undefined && !mayName(hiding, source)) continue
    hiding.push(join.on === undefined ? everyColumn : join.quals, source.nested?.select, source.other)
  }
  return hiding
}

/**
 * The source that an inner join follows a foreign key from, to what it refers to: it leaves out no row of it but those
 * whose key is null.
 */
const referringIn = (join: Join, joined: Source): Source | undefined => {
  const [condition, ...others] = join.on ?? []
  if (joined.table === undefined || condition === undefined || others.length > 0) return undefined
  const { identity, hidesRows } = joined.table.relation
  if (hidesRows) return undefined
  const sources = nameableIn(join)
  const pairs = condition.map((atom) => {
    if (atom._tag !== "Same") return undefined
    const [left, right] = [placeIn(sources, atom.left), placeIn(sources, atom.right)]
    return right?.source === joined ? [left, right] : [right, left]
  })
  const referring = pairs[0]?.[0]?.source
  const isAlong =
    referring !== joined &&
    pairs.every((pair) => pair?.[0]?.source === referring && pair?.[1]?.source === joined) &&
    (referring?.table?.relation.foreignKeys ?? []).some(
      ({ columns, referenced, refersTo }) =>
        refersTo === identity &&
        columns.length === pairs.length &&
        columns.every((column, i) =>
          pairs.some((pair) => pair![0]!.column === column && pair![1]!.column === referenced[i])
        )
    )
  return isAlong ? referring : undefined
}
