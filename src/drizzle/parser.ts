/**
 * The parser of Postgres itself, so that a query is understood as the server understands it: what binds tighter, which
 * name is a table and which one a common table expression, where a string ends.
 *
 * A tree is plain data. What is asked for here are only its shapes; what they mean is told in `queryReads.ts`.
 *
 * @see https://github.com/pganalyze/libpg_query
 */
import * as Effect from "effect/Effect"
import type { A_Const, ColumnRef, CommonTableExpr, FuncCall, Node, RangeVar, SelectStmt } from "libpg-query"
import type { CachemeError } from "../CachemeError.ts"
import { missingPackage } from "../missingPackage.ts"

/** Parses statements; a text is parsed where it comes from, in the same step. */
export type Parse = (text: string) => ReadonlyArray<Node> | undefined

/** Loads the parser, which is a WebAssembly module of 2 MB. It answers `undefined` for what is not understood. */
export const load: Effect.Effect<Parse, CachemeError> = Effect.map(
  Effect.tryPromise({
    try: async () => {
      const library = await import("libpg-query")
      await library.loadModule()
      return library
    },
    catch: () => missingPackage("libpg-query", "not installed, or WebAssembly cannot be loaded")
  }),
  ({ parseSync }) =>
    (text) => {
      try {
        return (parseSync(text).stmts ?? []).map(({ stmt }) => stmt!)
      } catch {
        return undefined
      }
    }
)

/** The query that a node is, if it is one. */
export const selectOf = (node: Node | undefined): SelectStmt | undefined =>
  node !== undefined && "SelectStmt" in node ? node.SelectStmt : undefined

/** The query that an expression is parsed into, to look into it: `select (…)`. */
export const expressionOf = (parse: Parse, text: string): Node | undefined => {
  const target = selectOf(parse(`select (${text})`)?.[0])?.targetList?.[0]
  return target !== undefined && "ResTarget" in target ? target.ResTarget.val : undefined
}

/** The texts of a list of names; a star is `undefined`. */
export const namesOf = (nodes: ReadonlyArray<Node> = []): ReadonlyArray<string | undefined> =>
  nodes.map((node) => ("String" in node ? (node.String.sval ?? "") : undefined))

/** The parts of a column's name, if it is one and no star. */
export const columnPath = ({ fields }: ColumnRef): ReadonlyArray<string> | undefined => {
  const names = namesOf(fields)
  return names.includes(undefined) ? undefined : (names as ReadonlyArray<string>)
}

/** The name of a function, without its schema, and that. */
export const functionName = ({
  funcname
}: FuncCall): { readonly schema: string | undefined; readonly name: string } => {
  const names = namesOf(funcname)
  return { schema: names.length > 1 ? names.at(-2) : undefined, name: names.at(-1) ?? "" }
}

/** The text of a constant, as the server would read it; `null` for NULL. */
export const constantText = ({ isnull, ival, fval, boolval, sval }: A_Const): string | null | undefined => {
  if (isnull === true) return null
  if (ival !== undefined) return String(ival.ival ?? 0)
  if (fval !== undefined) return fval.fval
  if (boolval !== undefined) return String(boolval.boolval ?? false)
  return sval === undefined ? undefined : (sval.sval ?? "")
}

/** The common table expressions of a query. */
export const commonTables = ({ withClause }: SelectStmt): ReadonlyArray<CommonTableExpr> =>
  (withClause?.ctes ?? []).flatMap((node) => ("CommonTableExpr" in node ? [node.CommonTableExpr] : []))

/** Visits the parts of a tree, each before what is in it; what is in a part is left out where `enter` answers false. */
export const walk = (tree: unknown, enter: (kind: string, part: any) => boolean): void => {
  if (Array.isArray(tree)) {
    for (const item of tree) walk(item, enter)
    return
  }
  if (typeof tree !== "object" || tree === null) return
  for (const [key, part] of Object.entries(tree)) {
    if (typeof part !== "object" || part === null) continue
    if (Array.isArray(part) || enter(key, part)) walk(part, enter)
  }
}

/** Names of the tables of a statement, as they are written, without common table expressions. */
export const tablesIn = (select: SelectStmt): ReadonlyArray<RangeVar> => {
  const found: Array<RangeVar> = []
  const inQuery = (query: SelectStmt, known: ReadonlySet<string>): void => {
    const names = new Set(known)
    const ctes = commonTables(query)
    if (query.withClause?.recursive === true) for (const { ctename } of ctes) names.add(ctename!)
    for (const { ctename, ctequery } of ctes) {
      inPart(ctequery, names)
      names.add(ctename!)
    }
    const { withClause: _, ...rest } = query
    inPart(rest, names)
  }
  const inPart = (tree: unknown, names: ReadonlySet<string>): void =>
    walk(tree, (kind, part) => {
      if (kind === "RangeVar") {
        const { schemaname, relname } = part as RangeVar
        if (schemaname !== undefined || !names.has(relname!)) found.push(part)
      }
      if (kind !== "SelectStmt" && kind !== "larg" && kind !== "rarg") return true
      // The sides of a set operation are queries, those of a join are not.
      if (kind !== "SelectStmt" && !("limitOption" in part)) return true
      inQuery(part, names)
      return false
    })
  inQuery(select, new Set())
  return found
}
