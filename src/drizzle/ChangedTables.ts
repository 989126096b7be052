/**
 * Tables of which it is known that rows change, and not which: each with the groups of columns that do.
 *
 * A trigger that counts (`update stores set visits = visits + 1`) changes a column that its model has declared to be
 * volatile. Then only those are told who rest on that group.
 */
import type { Dialect } from "./builders.ts"
import { find } from "./modelDefinition.ts"
import { unknownChangeIds } from "./modelTags.ts"
import { type Groups, groupsByColumn, toTell } from "./rowImages.ts"

/** Tables that change. */
export class ChangedTables {
  readonly #groups = new Map<string, Set<string | undefined>>()
  readonly #dialect: Dialect

  /** Its dialect tells how a column is called on the server. */
  constructor(dialect: Dialect) {
    this.#dialect = dialect
  }

  /** Adds a table of which these columns change; any may, and rows come and go, if they are `undefined`. */
  add(name: string, columns?: ReadonlySet<string>): void {
    const known = this.#groups.get(name) ?? new Set<string | undefined>()
    for (const group of this.#groupsOf(name, columns)) known.add(group)
    this.#groups.set(name, known)
  }

  addAll(others: ChangedTables): void {
    for (const [name, groups] of others.#groups) {
      const known = this.#groups.get(name)
      this.#groups.set(name, new Set([...(known ?? []), ...groups]))
    }
  }

  has(name: string): boolean {
    return this.#groups.has(name)
  }

  /** The ids of what rests on any of them. */
  get ids(): ReadonlyArray<string> {
    return [...this.#groups].flatMap(([name, groups]) =>
      toTell([...groups]).flatMap((group) => unknownChangeIds(name, group))
    )
  }

  #groupsOf(name: string, columns: ReadonlySet<string> | undefined): Groups {
    const model = find(name)
    if (columns === undefined || model === undefined || model.volatile.size === 0) return [undefined]
    const groupOf = groupsByColumn(this.#dialect, model)
    return [...columns].map((column) => groupOf.get(column))
  }
}
