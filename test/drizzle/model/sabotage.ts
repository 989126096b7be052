/**
 * Writes, told wrong on purpose: what the model check must catch. Most take away some of the tags that a write has told,
 * as a mistake in telling them would.
 */
import { find, tableIds } from "../../../src/drizzle/Model.ts"
import { changedIds, tableName } from "../../../src/drizzle/modelTags.ts"
import { getTableConfig } from "drizzle-orm/pg-core"
import { columnsOf, type Data, keyOf, type Row, tableNames, tables } from "./copy.ts"
import type { Kind } from "./WriteWorld.ts"
import { named } from "../../support/sabotages.ts"

/** What a write was, and what it has changed. */
interface Told {
  /** The tables that its statements name as written, as tags call them. */
  readonly targets: ReadonlyArray<string>
  readonly before: Data
  readonly after: Data
}

/** One way to tell too little. */
export interface Sabotage {
  /** What is wrong. */
  readonly is: string
  /** True for a tag that is told all the same. */
  readonly keeps: (tag: string, told: Told) => boolean
  /** Spoils what a write answers. */
  readonly answer?: ((answer: unknown) => unknown) | undefined
  /** How it is caught; default by a stale answer. */
  readonly caughtAs?: Kind | undefined
}

/** The table of a tag, without its group of volatile columns. */
const tableOf = (tag: string): string => /^@([^:~]+)/.exec(tag)?.[1] ?? ""

const isOfLink = (tag: string): boolean =>
  ["film_actor", "film_category", "film_sequel"].includes(tableOf(tag)) && /:\w+=[^,]*$/.test(tag)

/** The tags of the rows that differ, as they were or as they are. */
const tagsOf = (of: Data, other: Data): ReadonlySet<string> => {
  const tags = new Set<string>()
  for (const name of tableNames) {
    const table = tables[name]
    const { schema, name: called } = getTableConfig(table)
    const definition = find(tableName(schema, called))
    if (definition === undefined) continue
    const key = keyOf(table)
    const textOf = (row: Row) => JSON.stringify(row)
    const others = new Set(other[name].map(textOf))
    for (const row of of[name]) {
      if (key.length === 0 || others.has(textOf(row))) continue
      const texts = Object.fromEntries(
        columnsOf(table).map(([property, column]) => {
          const value: unknown = row[property]
          return [property, value === null ? null : String(column.mapToDriverValue(value))]
        })
      )
      for (const group of [undefined, ...definition.volatile.keys()])
        for (const id of changedIds(definition, texts, group)) if (!id.endsWith(":*")) tags.add(id)
    }
  }
  return tags
}

/** All of them, by name. */
export const sabotages = {
  "no old rows": {
    is: "what a changed row was before is not told",
    keeps: (tag, { before, after }) => !tagsOf(before, after).has(tag) || tagsOf(after, before).has(tag)
  },
  "no new rows": {
    is: "what a changed row has become is not told",
    keeps: (tag, { before, after }) => !tagsOf(after, before).has(tag) || tagsOf(before, after).has(tag)
  },
  "no unknown": {
    is: "it is not told that rows changed which nobody can name",
    keeps: (tag) => !tag.endsWith(":?")
  },
  "no table": {
    is: "it is not told that some row of a table changed",
    keeps: (tag) => !tag.endsWith(":*")
  },
  "no cascades": {
    is: "what a statement changes in tables that it does not name is not told",
    keeps: (tag, { targets }) => targets.includes(tableOf(tag))
  },
  "no links": {
    is: "the sides of links are not told",
    keeps: (tag) => !isOfLink(tag)
  },
  "no counts": {
    is: "changes of volatile columns are not told",
    keeps: (tag) => !tag.startsWith(`${tableIds("films").all.split(":")[0]}~`)
  },
  nothing: {
    is: "nothing is told",
    keeps: () => false
  },
  "another answer": {
    is: "a write answers a field that was not asked for",
    keeps: () => true,
    answer: (answer) =>
      Array.isArray(answer) ? answer.map((row: object) => ({ ...row, added: true })) : answer,
    caughtAs: "unlike plain Drizzle"
  }
} satisfies Record<string, Sabotage>

/** The sabotage of a name. Throws for a name that there is not. */
export const sabotageOf = (name: string): Sabotage => named<Sabotage>(sabotages, name)
