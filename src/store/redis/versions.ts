/**
 * How processes that declare different keys and groups of one table (`Declared.ts`) are told of each other's writes.
 *
 * **Known in the cell.** The state of a cell holds, in the field `@books`, the keys of the table that some process has
 * declared, and in the field `groups` for each process the groups of all its tables, each with the sequence at which it was
 * declared last. A process declares before it stores: an entry that rests on a table is stored only if what its process
 * declares was known at the position at which its lookup began.
 *
 * **Told by the writer's script.** For each table that it tells of, the script is given what its process declares. A key
 * that the process does not know, and another does, has a tag of its own, `@books!<key>`, which entries carry that rest on
 * the key; that is invalidated in the same step. Where another process has a primary key of its own, everything that rests
 * on the table is. Where only a group has changed and another process does not have that group as it is here, the plain
 * tags are invalidated, too, as that process would have it.
 *
 * **Why that is enough.** Let an invalidation take effect at `s`, and an entry's lookup begin at a position below `s`. What
 * the entry's process declares was known at that position, so the script has found it: the entry carries a tag that was
 * invalidated at `s`.
 *
 * **For how long.** An entry may outlive the process that has stored it. So what was declared is kept for a day longer
 * than any entry of the cell, and declared anew before it is half a day old, both by the log's own sequences. A key that
 * nobody declares any more costs nothing: its tag is carried only by entries that rest on it.
 */
import { createHash } from "node:crypto"
import type { Declared, DeclaredTable } from "../../Declared.ts"
import * as TagIds from "../../tagIds.ts"

/** For how long a process believes that what it has declared is known: half of what is kept, in the log's microseconds. */
export const declaredFor = 43_200_000_000

/** From then on it is declared once more, behind what it is needed for: an hour, in the log's microseconds. */
export const renewedAfter = 3_600_000_000

/** What is declared: a field of the state, and what stands in it. */
export const declarationsOf = ({ tables }: Declared): ReadonlyArray<string> => {
  const groups = [...tables].flatMap(([name, { groups }]) =>
    groups === "" ? [] : [`${name}:${hash(groups)}~`]
  )
  return [
    "groups",
    `~${groups.toSorted().join("")}`,
    ...[...tables].flatMap(([name, { row, keys }]) => [
      ...(row === undefined ? [] : [`@${name}`, `r${hash(row)}`]),
      ...[...keys.values()].flatMap((key) => [`@${name}`, `k${hash(key)}`])
    ])
  ]
}

/** The tags that an entry carries beside others, because of the keys that it rests on. */
export const versionsOf = (ids: ReadonlyArray<string>, { tables }: Declared): ReadonlyArray<string> => {
  const versions = new Set<string>()
  for (const id of ids) {
    const parts = TagIds.partsOf(id)
    const key = parts && tables.get(parts.table)?.keys.get(TagIds.columnsOf(parts.rest))
    if (key !== undefined) versions.add(`@${parts!.table}!${hash(key)}`)
  }
  for (const id of ids) versions.delete(id)
  return [...versions]
}

/**
 * What an invalidating script needs to find what other processes have declared: how many tables, and for each its name,
 * the keys known here, the groups as they are here, how many members stand for the groups, and these.
 */
export const checksOf = (
  members: ReadonlyArray<string>,
  { tables }: Declared
): ReadonlyArray<string | number> => {
  let plain: Map<string, Set<string>> | undefined
  for (const member of members) {
    const parts = TagIds.partsOf(member.slice(1))
    if (parts === undefined || !member.startsWith(":")) continue
    plain ??= new Map()
    const known = plain.get(parts.table) ?? new Set<string>()
    plain.set(parts.table, known)
    if (parts.isOfGroup) known.add(`:@${parts.table}:${parts.rest}`)
  }
  if (plain === undefined) return noChecks
  const told = new Set(members)
  // What rests on any part of the table is reached, whoever has declared what.
  const checked = [...plain].filter(([table]) => !told.has(`:@${table}:?`))
  return [
    checked.length,
    ...checked.flatMap(([table, members]) => {
      const missing = [...members].filter((member) => !told.has(member))
      const own = tables.get(table)
      const groups = own === undefined || own.groups === "" ? "" : hash(own.groups)
      return [table, keysOf(own), groups, missing.length, ...missing]
    })
  ]
}

const noChecks = [0]

const keysOf = (own: DeclaredTable | undefined): string =>
  `,${[...(own?.row === undefined ? [] : [own.row]), ...(own?.keys.values() ?? [])].map((key) => `${hash(key)},`).join("")}`

const hashes = new Map<string, string>()

/** 48 bits of a hash. */
const hash = (text: string): string => {
  let known = hashes.get(text)
  if (known === undefined) {
    known = createHash("sha256").update(text).digest("base64url").slice(0, 8)
    hashes.set(text, known)
  }
  return known
}
