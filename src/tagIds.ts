/**
 * How the ids of a table's tags are read: `@books:id=7`, `@books:*`, `@books:?`, and `@books~stats:id=7` for a group of
 * volatile columns. What is written in them, and by whom, is `drizzle/modelTags.ts`; whoever only counts or collapses them
 * needs no more of a table than stands in its ids.
 */

/**
 * How the ids of a table's tags are spelled: `@books:id=7`, of their twins in a group of volatile columns
 * `@books~stats:id=7`. What is put in is escaped: there is no `:`, `~`, `*` or `?` in it.
 */
export const tablePrefix = (table: string, groups: ReadonlyArray<string> = []): string =>
  `@${[table, ...groups].join("~")}:`

/** What follows the prefix in the ids of the two tags that are the table's: some row, and rows that nobody can name. */
export const [allRows, unknownRows] = ["*", "?"] as const

/** What stands in the place of a group in the id of the tag that is of them all, `@books~*:*`. */
export const someGroup = "*"

/** True for the id of a table's tag: not for that of a declared key, which has no colon. */
export const isOfTable = (id: string): boolean => id.startsWith("@") && prefixEnd(id) > 0

/** The id of a table's tag: its table, whether it is of a group of volatile columns, and what follows the prefix. */
export interface TableId {
  readonly table: string
  readonly isOfGroup: boolean
  readonly rest: string
}

/** Reads the id of a table's tag; `undefined` for other ids. */
export const partsOf = (id: string): TableId | undefined => {
  if (!isOfTable(id)) return undefined
  const end = prefixEnd(id)
  const [table, ...groups] = id.slice(1, end).split("~") as [string, ...ReadonlyArray<string>]
  return { table, isOfGroup: groups.length > 0, rest: id.slice(end + 1) }
}

/** The table that the id of a tag belongs to; `undefined` for other ids. */
export const tableOf = (id: string): string | undefined => partsOf(id)?.table

/** True for the id of some rows of a table: not for those of its two tags. */
export const isOfRows = (id: string): boolean => {
  const rest = partsOf(id)?.rest
  return rest !== undefined && rest !== allRows && rest !== unknownRows
}

/** The id of the tag of all rows of a tag's table, of the same group. Whatever invalidates the tag invalidates it. */
export const allRowsOf = (id: string): string => id.slice(0, prefixEnd(id) + 1) + allRows

/** What two ids have in common that are of rows of one table by the same columns: all but the values. */
export const columnsOf = (id: string): string => id.replaceAll(/=[^,]*/g, "=")

const prefixEnd = (id: string): number => id.indexOf(":")
