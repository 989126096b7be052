/**
 * What a condition says of single columns: alternatives, each of things that hold together.
 *
 * Only what compares a column with values, or with another column, by equality says anything here; everything else is
 * opaque: it may leave rows out, and is not relied on. A negation is opaque, too.
 */
import type { ColumnRef, Node } from "libpg-query"
import { itemsOf, type Kind, kindOfCast } from "./columnText.ts"
import { columnPath, constantText, namesOf } from "./parser.ts"

/** A value that is known when the statement runs. */
export type Term =
  | {
      readonly _tag: "Parameter"
      /** From 1. */
      readonly number: number
      /** True for a list, each of whose items is a value. */
      readonly isList: boolean
      /** What it is cast to. */
      readonly cast: Kind | undefined
    }
  | { readonly _tag: "Constant"; readonly text: string; readonly cast: Kind | undefined }
  /** A null that is asked for as such. */
  | { readonly _tag: "Null" }

/** What holds. */
type Atom =
  /** The column is one of these, and not null. */
  | { readonly _tag: "Equals"; readonly column: ColumnRef; readonly terms: ReadonlyArray<Term> }
  /** The columns are equal, and not null. */
  | { readonly _tag: "Same"; readonly left: ColumnRef; readonly right: ColumnRef }
  | { readonly _tag: "IsNull"; readonly column: ColumnRef }
  | { readonly _tag: "Opaque" }

/** What holds together. */
export type Conjunction = ReadonlyArray<Atom>

/** Of more alternatives than these nothing is known. */
const mostAlternatives = 16

const opaque: ReadonlyArray<Conjunction> = [[{ _tag: "Opaque" }]]

/** The alternatives of a condition, none for one that never holds. */
export const alternativesOf = (condition: Node | undefined): ReadonlyArray<Conjunction> => {
  if (condition === undefined) return [[]]
  if ("BoolExpr" in condition) {
    const { boolop, args = [] } = condition.BoolExpr
    if (boolop === "AND_EXPR") return args.map(alternativesOf).reduce(both, [[]])
    if (boolop === "OR_EXPR") return limited(args.flatMap(alternativesOf))
    return negated(args[0])
  }
  if ("A_Const" in condition) {
    const text = constantText(condition.A_Const)
    return text === "true" ? [[]] : text === "false" || text === null ? [] : opaque
  }
  if ("ColumnRef" in condition) return [[isTrue(condition.ColumnRef, true)]]
  if ("BooleanTest" in condition) {
    const { arg, booltesttype } = condition.BooleanTest
    const isPlain = booltesttype === "IS_TRUE" || booltesttype === "IS_FALSE"
    return isPlain && arg !== undefined && "ColumnRef" in arg
      ? [[isTrue(arg.ColumnRef, booltesttype === "IS_TRUE")]]
      : opaque
  }
  if ("NullTest" in condition) {
    const { arg, nulltesttype } = condition.NullTest
    return nulltesttype === "IS_NULL" && arg !== undefined && "ColumnRef" in arg
      ? [[{ _tag: "IsNull", column: arg.ColumnRef }]]
      : opaque
  }
  if (!("A_Expr" in condition)) return opaque
  const { kind, name, lexpr, rexpr } = condition.A_Expr
  const names = namesOf(name)
  if (lexpr === undefined || rexpr === undefined || names.length !== 1 || names[0] !== "=") return opaque
  switch (kind) {
    case "AEXPR_OP":
      return equal(lexpr, rexpr)
    case "AEXPR_IN":
      return "List" in rexpr ? isIn(lexpr, rexpr.List.items ?? []) : opaque
    case "AEXPR_OP_ANY":
      return isAny(lexpr, rexpr)
    default:
      return opaque
  }
}

const limited = (alternatives: ReadonlyArray<Conjunction>): ReadonlyArray<Conjunction> =>
  alternatives.length > mostAlternatives ? opaque : alternatives

/** What holds where both hold. What would be too many alternatives is left out on one side, which is the wider region. */
const both = (
  left: ReadonlyArray<Conjunction>,
  right: ReadonlyArray<Conjunction>
): ReadonlyArray<Conjunction> => {
  if (left.length * right.length > mostAlternatives) {
    return both(left.length <= right.length ? left : right, opaque)
  }
  return left.flatMap((one) => right.map((other) => [...one, ...other]))
}

/** `not` of a boolean column says what it is. */
const negated = (argument: Node | undefined): ReadonlyArray<Conjunction> =>
  argument !== undefined && "ColumnRef" in argument ? [[isTrue(argument.ColumnRef, false)]] : opaque

const isTrue = (column: ColumnRef, value: boolean): Atom => ({
  _tag: "Equals",
  column,
  terms: [{ _tag: "Constant", text: String(value), cast: undefined }]
})

const equal = (left: Node, right: Node): ReadonlyArray<Conjunction> => {
  if ("RowExpr" in left && "RowExpr" in right) {
    const [ours, theirs] = [left.RowExpr.args ?? [], right.RowExpr.args ?? []]
    return ours.length === theirs.length && ![...ours, ...theirs].some(isStar)
      ? ours.map((one, i) => equal(one, theirs[i]!)).reduce(both, [[]])
      : opaque
  }
  if ("ColumnRef" in left && "ColumnRef" in right) {
    const areColumns = [left, right].every(({ ColumnRef }) => columnPath(ColumnRef) !== undefined)
    return areColumns ? [[{ _tag: "Same", left: left.ColumnRef, right: right.ColumnRef }]] : opaque
  }
  // What an empty list becomes: `1 = 0`.
  if ("A_Const" in left && "A_Const" in right) {
    const [ours, theirs] = [left.A_Const.ival, right.A_Const.ival]
    return ours === undefined || theirs === undefined || ours.ival === theirs.ival ? opaque : []
  }
  const [column, value] =
    "ColumnRef" in left ? [left.ColumnRef, right] : ["ColumnRef" in right ? right.ColumnRef : undefined, left]
  const term = termOf(value)
  // Nothing is equal to NULL, but for a server with `transform_null_equals`, which reads IS NULL there.
  return column === undefined || term === undefined || term._tag === "Null"
    ? opaque
    : [[{ _tag: "Equals", column, terms: [term] }]]
}

/** True for what may stand for several values: `books.*`, or the parts of a value that has some. */
const isStar = (node: Node): boolean =>
  "A_Indirection" in node || ("ColumnRef" in node && columnPath(node.ColumnRef) === undefined)

const isIn = (left: Node, items: ReadonlyArray<Node>): ReadonlyArray<Conjunction> => {
  if ("RowExpr" in left) return limited(items.flatMap((item) => equal(left, item)))
  const terms = items.map(termOf)
  if (!("ColumnRef" in left) || terms.includes(undefined)) return opaque
  const found = terms.filter((term) => term !== undefined && term._tag !== "Null")
  return found.length === 0 ? [] : [[{ _tag: "Equals", column: left.ColumnRef, terms: found }]]
}

/** `= any($1)`, or of `array[…]`, or of a constant, with a cast or without. */
const isAny = (left: Node, list: Node): ReadonlyArray<Conjunction> => {
  if ("A_ArrayExpr" in list) return isIn(left, list.A_ArrayExpr.elements ?? [])
  const terms = "ColumnRef" in left ? itemTerms(list) : undefined
  if (terms === undefined || !("ColumnRef" in left)) return opaque
  return terms.length === 0 ? [] : [[{ _tag: "Equals", column: left.ColumnRef, terms }]]
}

/** The items of a list that is a parameter, or is cast to a list of values of a kind. */
const itemTerms = (list: Node): ReadonlyArray<Term> | undefined => {
  const parameter = (number: number | undefined, cast: Kind | undefined): ReadonlyArray<Term> => [
    { _tag: "Parameter", number: number ?? 0, isList: true, cast }
  ]
  if ("ParamRef" in list) return parameter(list.ParamRef.number, undefined)
  if (!("TypeCast" in list) || (list.TypeCast.typeName?.arrayBounds ?? []).length === 0) return undefined
  const { arg, typeName } = list.TypeCast
  const cast = kindOfCast(namesOf(typeName?.names), typeName?.typmods !== undefined)
  if (arg === undefined || cast === undefined) return undefined
  if ("ParamRef" in arg) return parameter(arg.ParamRef.number, cast)
  if ("A_ArrayExpr" in arg) {
    // The cast is that of each item.
    const items = (arg.A_ArrayExpr.elements ?? []).map((item) =>
      termOf({ TypeCast: { arg: item, typeName: { ...typeName, arrayBounds: [] } } })
    )
    return items.includes(undefined)
      ? undefined
      : items.filter((item) => item !== undefined && item._tag !== "Null")
  }
  if (!("A_Const" in arg) || arg.A_Const.sval === undefined) return undefined
  return itemsOf(arg.A_Const.sval.sval ?? "", cast)?.map((text) => ({ _tag: "Constant", text, cast }))
}

/** The value that an expression is, if it is one. A cast to a type whose texts are not canonical is none. */
const termOf = (node: Node): Term | undefined => {
  if ("ParamRef" in node)
    return { _tag: "Parameter", number: node.ParamRef.number ?? 0, isList: false, cast: undefined }
  if ("A_Const" in node) {
    const text = constantText(node.A_Const)
    return text === undefined
      ? undefined
      : text === null
        ? { _tag: "Null" }
        : { _tag: "Constant", text, cast: undefined }
  }
  if (!("TypeCast" in node)) return undefined
  const { arg, typeName } = node.TypeCast
  const isArray = (typeName?.arrayBounds ?? []).length > 0
  // A number with a point or an exponent may be written otherwise as a text.
  const isDecimal = arg !== undefined && "A_Const" in arg && arg.A_Const.fval !== undefined
  const cast =
    isArray || isDecimal ? undefined : kindOfCast(namesOf(typeName?.names), typeName?.typmods !== undefined)
  const term = arg === undefined || "TypeCast" in arg ? undefined : termOf(arg)
  if (cast === undefined || term === undefined || term._tag === "Null")
    return term?._tag === "Null" ? term : undefined
  return { ...term, cast }
}
