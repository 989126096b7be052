/**
 * What the tree of one SELECT tells by itself: whether its answer shows each row that is found, in which order, how many of
 * them, and what stands at a place of it.
 *
 * These are questions to trees, and nothing here knows tables. Much rests on their answers, so each is told for the forms
 * that are understood; of any other the answer is the one that less follows from.
 */
import type { FuncCall, Node, SelectStmt } from "libpg-query"
import { columnPath, functionName, namesOf, selectOf, walk } from "./parser.ts"
import type { FunctionNature } from "./queryFacts.ts"
import type { Step } from "./regions.ts"

/** What a function is that is called. */
export type NatureOf = (call: FuncCall) => FunctionNature | undefined

// ------------------------------------------------------------------------------------------- rows that are shown

/** True where rows are not shown as they are: one of the answer stands for several, or comes from one of two queries. */
export const isGrouped = ({ groupClause, havingClause, distinctClause, larg }: SelectStmt): boolean =>
  groupClause !== undefined ||
  havingClause !== undefined ||
  distinctClause !== undefined ||
  larg !== undefined

/** True where rows are left out by how many there are. */
export const isLimited = ({ limitCount, limitOffset }: SelectStmt): boolean =>
  limitCount !== undefined || limitOffset !== undefined

/** True where a function looks at other rows than its own: a row that is left out changes what it tells of the others. */
export const hasWindow = ({ targetList, sortClause }: SelectStmt): boolean => {
  let isFound = false
  walk([targetList, sortClause], (_, part) => {
    // Also what collects values in JSON by a syntax of its own.
    isFound ||= part.over !== undefined
    return true
  })
  return isFound
}

/** True where `order by 1` asks for what is selected by its place, without a name. */
export const isOrderedByPlace = ({ sortClause = [] }: SelectStmt): boolean =>
  sortClause.some(
    (node) => "SortBy" in node && node.SortBy.node !== undefined && "A_Const" in node.SortBy.node
  )

/**
 * True where the order asks for columns of sources, each by the source's name. A name of one part, or a place, may be that
 * of something that is selected, and computed of anything.
 */
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

/**
 * True when a row that is not shown is of no consequence for what is selected of those that are, or joined to them. With a
 * limit it is so only if the order, which tells who is shown, is told by columns, and no row is told of by others.
 */
export const showsEachRow = (select: SelectStmt): boolean =>
  !isGrouped(select) && (!isLimited(select) || (isOrderedByColumns(select) && !hasWindow(select)))

/**
 * True when the answer has one row for each that is found: a function that answers a set makes several of it, or, where that
 * is empty, none, and then what is not shown was there all the same.
 */
export const hasOneRowForEach = ({ targetList }: SelectStmt, natureOf: NatureOf): boolean => {
  let isEachOne = true
  walk(targetList, (kind, part) => {
    if (kind !== "FuncCall") return kind !== "SubLink"
    const nature = natureOf(part)
    isEachOne &&= nature === "scalar" || nature === "aggregate"
    return isEachOne
  })
  return isEachOne
}

// --------------------------------------------------------------------------------------------- lists of values

/**
 * True when each row of the answer rests on rows with its own value of a list. So it is where lists stand in the
 * conditions of the root, and the root merges no rows: no set operation, limit, offset, distinct or window, and no
 * aggregate but in groups by columns, which are what the lists are asked of among others.
 */
export const isPerRow = (select: SelectStmt, natureOf: NatureOf): boolean => {
  const { larg, distinctClause, groupClause, havingClause } = select
  if (larg !== undefined || distinctClause !== undefined || isLimited(select) || hasWindow(select))
    return false
  const lists = comparedWithLists({ ...select, withClause: undefined }, (kind) => kind === "SelectStmt")
  if (lists.length === 0 || comparedWithLists(select).length > lists.length) return false
  if (groupClause !== undefined)
    return (
      groupClause.every((node) => "ColumnRef" in node) &&
      lists.every((list) => groupClause.some((node) => isSameColumn(node, list)))
    )
  if (havingClause !== undefined) return false
  return !mayMergeRows([select.targetList, select.sortClause], natureOf)
}

/** True where an expression may be computed of many rows of its query, or make several of one. */
const mayMergeRows = (tree: unknown, natureOf: NatureOf, isWithin = false): boolean => {
  let isFound = false
  walk(tree, (kind, part) => {
    if (kind === "JsonArrayAgg" || kind === "JsonObjectAgg") isFound = true
    // An aggregate in a subquery that asks for columns may be one of the query outside.
    if (kind === "FuncCall")
      isFound ||= isWithin
        ? natureOf(part) === "aggregate" && part.agg_star !== true
        : natureOf(part) !== "scalar"
    if (kind === "SelectStmt") isFound ||= mayMergeRows(part, natureOf, true)
    return !isFound && kind !== "SelectStmt"
  })
  return isFound
}

/** What is compared with lists, but for what is below nodes of some kind. */
const comparedWithLists = (
  select: object,
  isClosed: (kind: string) => boolean = () => false
): ReadonlyArray<Node> => {
  const found: Array<Node> = []
  walk(Object.values(select), (kind, part) => {
    if (kind === "A_Expr" && (part.kind === "AEXPR_IN" || part.kind === "AEXPR_OP_ANY")) {
      if (part.kind === "AEXPR_OP_ANY" || "List" in part.rexpr) found.push(part.lexpr)
    }
    return !isClosed(kind)
  })
  return found
}

/**
 * Parameters that stand in several places of a statement. The server gives each the type that its first place asks for, so
 * that it may not be in another one what was sent.
 */
export const repeatedParameters = (select: SelectStmt): ReadonlySet<number> => {
  const seen = new Set<number>()
  const repeated = new Set<number>()
  walk({ select }, (kind, part) => {
    if (kind !== "ParamRef") return true
    const { number = 0 } = part
    if (seen.has(number)) repeated.add(number)
    seen.add(number)
    return true
  })
  return repeated
}

const isSameColumn = (one: Node, other: Node): boolean =>
  "ColumnRef" in one &&
  "ColumnRef" in other &&
  namesOf(one.ColumnRef.fields).join(".") === namesOf(other.ColumnRef.fields).join(".")

// ------------------------------------------------------------------------------------- what is selected, and where

/** An expression of an answer, and where in it its value stands. */
interface Placed {
  readonly path: ReadonlyArray<Step>
  readonly value: Node
}

const placed = (values: ReadonlyArray<Node>, path: ReadonlyArray<Step>): ReadonlyArray<Placed> =>
  values.map((value, i) => ({ path: [...path, i], value }))

/** What is selected, of rows that are lists of values; nothing if a star leaves open which place is whose. */
export const selectedIn = (
  { targetList = [] }: SelectStmt,
  path: ReadonlyArray<Step>
): ReadonlyArray<Placed> => {
  const values = targetList.flatMap((node) => ("ResTarget" in node ? (node.ResTarget.val ?? []) : []))
  const hasStar = values.some((value) => "ColumnRef" in value && columnPath(value.ColumnRef) === undefined)
  return hasStar || values.length < targetList.length ? [] : placed(values, path)
}

/**
 * What is selected within one value, as Drizzle's relations do: the expressions of `json_build_array(…)`, or of each in
 * `coalesce(json_agg(json_build_array(…)), …)`.
 */
export const selectedInJson = (select: SelectStmt, path: ReadonlyArray<Step>): ReadonlyArray<Placed> => {
  const value = onlyValueIn(select)
  const each = collectedBy(value)
  const list = callOf(each ?? value, "json_build_array")
  return placed(list?.args ?? [], each === undefined ? path : [...path, "each"])
}

/** What is selected, if it is one value. */
const onlyValueIn = ({ targetList = [] }: SelectStmt): Node | undefined => {
  const [target, ...others] = targetList
  return others.length === 0 && target !== undefined && "ResTarget" in target
    ? target.ResTarget.val
    : undefined
}

/** What `json_agg` collects, of every row. */
const collectedBy = (node: Node | undefined): Node | undefined => {
  const inner = node !== undefined && "CoalesceExpr" in node ? node.CoalesceExpr.args?.[0] : node
  const call = callOf(inner, "json_agg")
  const isPlain = call?.agg_filter === undefined && call?.agg_distinct !== true && call?.over === undefined
  return isPlain ? call?.args?.[0] : undefined
}

const callOf = (node: Node | undefined, name: string): FuncCall | undefined =>
  node !== undefined && "FuncCall" in node && functionName(node.FuncCall).name === name
    ? node.FuncCall
    : undefined

// ------------------------------------------------------------------------------------------------ queries in it

/** The queries in expressions, without those that these have in turn. */
export const queriesIn = (tree: unknown): ReadonlyArray<SelectStmt> => {
  const found: Array<SelectStmt> = []
  walk(tree, (kind, part) => {
    if (kind === "SelectStmt") found.push(part)
    return kind !== "SelectStmt"
  })
  return found
}

/**
 * The parameters of LIMIT that must be 1 at most for a lateral query to have one row for each that it is joined to;
 * `undefined` if it may have more. That is of consequence only where rows are skipped: how many are, depends on it.
 */
export const limitsOfOne = (
  { limitOffset }: SelectStmt,
  lateral: SelectStmt,
  natureOf: NatureOf
): ReadonlyArray<number> | undefined => {
  if (limitOffset === undefined || collectsAll(lateral)) return []
  return hasOneRowForEach(lateral, natureOf) ? limitWithin(lateral) : undefined
}

/** True for a query that has one row, whatever it finds. */
const collectsAll = (select: SelectStmt): boolean =>
  select.groupClause === undefined && collectedBy(onlyValueIn(select)) !== undefined

/** The parameter of LIMIT, of the query that one selects from: so Drizzle asks for one row. */
const limitWithin = ({ fromClause = [], groupClause }: SelectStmt): ReadonlyArray<number> | undefined => {
  const [from, ...others] = fromClause
  if (from === undefined || others.length > 0 || groupClause !== undefined) return undefined
  const query = "RangeSubselect" in from ? selectOf(from.RangeSubselect.subquery) : undefined
  const limit = query?.limitOption === "LIMIT_OPTION_WITH_TIES" ? undefined : query?.limitCount
  return limit !== undefined && "ParamRef" in limit ? [limit.ParamRef.number ?? 0] : undefined
}
