/**
 * What this process declares of the tables of its database, for a store that it shares with processes that may declare
 * something else: other versions of the program, while one is replaced by the other, or other programs.
 *
 * A write tells the keys and groups that its own process knows. A reader that rests on a key that the writer does not
 * know, or shows as an ordinary column what the writer takes for a volatile one, would not be told.
 */

/** What is declared of a table. Texts are equal for what is equal. */
export interface DeclaredTable {
  /** Its primary key; `undefined` if rows are not told by it. */
  readonly row: string | undefined
  /** Its other keys, each by what ids of its rows name: `author_id=`, or `a=,b=`. */
  readonly keys: ReadonlyMap<string, string>
  /** Its groups of volatile columns; empty if there are none. */
  readonly groups: string
}

/** What is declared, by the tables' names in ids. */
export interface Declared {
  /** How often something was declared. */
  readonly count: number
  readonly tables: ReadonlyMap<string, DeclaredTable>
}

const tables = new Map<string, DeclaredTable>()
let count = 0

/** What this process has declared so far. */
export const declared: Declared = {
  get count() {
    return count
  },
  tables
}

/** Declares a table, or declares it otherwise. */
export const declareTable = (name: string, table: DeclaredTable): void => {
  tables.set(name, table)
  count++
}
