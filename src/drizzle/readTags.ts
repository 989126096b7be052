/**
 * The tags of what a query has read: its regions (`regions.ts`), with the values that it was sent and those that it has
 * answered.
 */
import type { Fallback, Read } from "../Recorder.ts"
import * as Key from "../Key.ts"
import { itemsOf } from "./columnText.ts"
import type { Term } from "./conditions.ts"
import { hasModel } from "./modelDefinition.ts"
import { restOf, rowsPrefix, someGroupId, tableIds } from "./modelTags.ts"
import type { QueryReads, Region, Shown, Step, Values } from "./regions.ts"

/** A statement that has run. */
export interface Sent {
  readonly text: string
  /** What was sent with it, as the driver was given it. */
  readonly parameters: ReadonlyArray<unknown>
  /** What it has answered, as the driver gave it; `undefined` if it has failed. */
  readonly rows: ReadonlyArray<unknown> | undefined
}

/**
 * Tells what was read each time that a statement of one text has run. Whatever no value changes is put together once, here;
 * `others` are ids of what is read beside it.
 */
export const reader = (reads: QueryReads, others: ReadonlyArray<string>): ((sent: Sent) => Read) => {
  const list = listAskedFor(reads)
  const always = new Set(others)
  const whole: Array<Fallback> = []
  const byRows: Array<TableByRows> = []
  for (const { relation, regions, because, missingKey, groups: volatile } of reads.tables) {
    const { name } = relation
    const groups = [undefined, ...volatile]
    const prefixes = groups.map((group) => rowsPrefix(name, group))
    const allIds = groups.map((group) => tableIds(name, group).all)
    for (const group of groups) always.add(tableIds(name, group).unknown)
    if (!hasModel(name)) always.add(someGroupId(name))
    const fallback = (because: string): Fallback => ({ table: name, because, key: missingKey })
    if (regions !== undefined) {
      const longest = prefixes.reduce((a, b) => (b.length > a.length ? b : a))
      const ready = regions.map((region) => regionWith(region, list))
      byRows.push({ regions: ready, prefixes, longest, allIds, fallback })
      continue
    }
    for (const id of allIds) always.add(id)
    if (because !== undefined) whole.push(fallback(because))
  }
  const known = [...always]
  return (sent) => {
    const ids = [...known]
    const idsByValue = list === undefined ? noValues : new Map<string, Array<string>>()
    const fallbacks = [...whole]
    for (const table of byRows) {
      const found = rowsOf(table, sent)
      if (typeof found === "string") {
        ids.push(...table.allIds)
        fallbacks.push(table.fallback(found))
        continue
      }
      for (const { rest, value } of found) {
        const own = value === undefined ? ids : ofValue(idsByValue, value)
        for (const prefix of table.prefixes) own.push(prefix + rest)
      }
    }
    return { source: sent.text, ids, idsByValue, fallbacks, untold: reads.untold }
  }
}

/** Of a statement that asks for no list, nothing belongs to one of its values. */
const noValues = new Map<string, never>()

const ofValue = (idsByValue: Map<string, Array<string>>, value: string): Array<string> => {
  let ids = idsByValue.get(value)
  if (ids === undefined) idsByValue.set(value, (ids = []))
  return ids
}

/** A table of which rows with certain values are read. */
interface TableByRows {
  readonly regions: ReadonlyArray<ReadyRegion>
  /** What the ids of its rows begin with. */
  readonly prefixes: ReadonlyArray<string>
  readonly longest: string
  readonly allIds: ReadonlyArray<string>
  readonly fallback: (because: string) => Fallback
}

/** A region with what can be said of it before its values are known. */
interface ReadyRegion extends Region {
  /** The values in it that only the answer shows. */
  readonly shown: ReadonlyArray<Shown>
  /** The column whose values are the list that was asked for, if these rows belong to one value of it each. */
  readonly place: number | undefined
}

const regionWith = (region: Region, list: Values | undefined): ReadyRegion => ({
  ...region,
  shown: region.terms.flat().filter((term) => term._tag === "Shown"),
  place: list && placeOf(list, region)
})

/** Rows with values in a key. */
interface Rows {
  /** The end of the tag's id. */
  readonly rest: string
  /** The value of a list that was asked for, if these rows belong to one. */
  readonly value: string | undefined
}

/** More combinations than these are not told one by one. */
const mostRows = 5000

/** The rows that are read of a table; a text says why any row may matter. */
const rowsOf = ({ regions, longest }: TableByRows, sent: Sent): ReadonlyArray<Rows> | string => {
  const rows: Array<Rows> = []
  for (const region of regions) {
    const texts = textsOf(region, sent)
    if (typeof texts === "string") return texts
    if (rows.length + texts.length > mostRows) return tooMany
    const { key, place } = region
    for (const combination of texts) {
      const rest = restOf(key.columns, (_, i) => combination[i])
      // A row whose tag is too long is not told by it.
      if (rest === undefined || Key.isTooLong(longest + rest)) return "a value of its key is too long"
      rows.push({ rest, value: place === undefined ? undefined : (combination[place] ?? undefined) })
    }
  }
  return rows
}

const tooMany = "too many of its rows are named"

/**
 * The list of values that a query asks for, if that is one list in one place: rows that belong to one of its values are
 * told apart by it, if the answer has rows for each value that rest on no others. With a second list nobody could say
 * which of the two a value is of, though the two be equal: `a.id in (1, 2) and b.id in (1, 2)` joins 1 with 2. Where
 * columns are known to be equal, the list of one is the list of the other, in one object.
 */
const listAskedFor = ({ tables, isPerRow }: QueryReads): Values | undefined => {
  if (!isPerRow) return undefined
  const lists = new Set<Values>()
  for (const { regions } of tables)
    for (const { terms } of regions ?? []) for (const values of terms) if (isList(values)) lists.add(values)
  const [list] = lists
  return lists.size === 1 ? list : undefined
}

/** The column of a key whose values are this list, if the others have one value each. */
const placeOf = (list: Values, { terms }: Region): number | undefined => {
  if (terms.some((values) => values.some(({ _tag }) => _tag === "Shown"))) return undefined
  const places = terms.flatMap((values, i) => (values === list ? [i] : []))
  return places.length === 1 ? places[0] : undefined
}

const isList = (values: Values): boolean =>
  values.length > 1 || values.some((value) => value._tag === "Parameter" && value.isList)

type Texts = ReadonlyArray<string | null>

/** The values of a region's columns, in every combination; a text says why they are not known. */
const textsOf = (region: ReadyRegion, sent: Sent): ReadonlyArray<Texts> | string => {
  const { key, terms, needsRow, shown } = region
  if (shown.length === 0) {
    const lists = terms.map((values, i) =>
      staticTexts(values as ReadonlyArray<Term>, key.columns[i]!.kind, sent)
    )
    return lists.includes(undefined) ? noText : (combined(lists as ReadonlyArray<Texts>) ?? tooMany)
  }
  const { rows, parameters } = sent
  if (rows === undefined) return "its rows are told by an answer that did not come"
  if (needsRow && rows.length === 0) return "its rows are told by an answer that is empty"
  if (shown.flatMap(({ limitsOfOne }) => limitsOfOne).some((number) => !isOneAtMost(parameters[number - 1])))
    return "rows are skipped that may depend on it"
  const longest = shown.reduce((a, b) => (eachCount(b) > eachCount(a) ? b : a))
  const isShown = (values: Values) => values[0]?._tag === "Shown"
  const known = terms.map((values, i) =>
    isShown(values) ? [] : staticTexts(values as ReadonlyArray<Term>, key.columns[i]!.kind, sent)
  )
  if (known.includes(undefined)) return noText
  const found = new Map<string, Texts>()
  for (const at of placesOf(rows, longest.path)) {
    if (at === undefined) return "the answer does not tell its rows as expected"
    const lists = terms.map((values, i): Texts | undefined => {
      const { kind } = key.columns[i]!
      const [first] = values
      if (first?._tag !== "Shown") return known[i]
      const value = valueAt(rows, first.path, at)
      if (value === undefined) return undefined
      if (value === null) return []
      // A number may have lost digits that a decimal had.
      const isExact = typeof value !== "number" || kind.serverTypes.includes("integer")
      const text = isExact ? kind.text(value) : undefined
      return text === undefined ? undefined : [text]
    })
    if (lists.includes(undefined)) return noText
    const combinations = combined(lists as ReadonlyArray<Texts>)
    for (const texts of combinations ?? []) found.set(JSON.stringify(texts), texts)
    if (combinations === undefined || found.size > mostRows) return tooMany
  }
  return [...found.values()]
}

/** True for a LIMIT that lets one row through. That of null lets all. */
const isOneAtMost = (limit: unknown): boolean => limit !== null && limit !== undefined && Number(limit) <= 1

const noText = "a value of its key has no canonical text"

type Kind = Region["key"]["columns"][number]["kind"]

/** The texts of values that are known without the answer. Nothing is equal to null. */
const staticTexts = (terms: ReadonlyArray<Term>, kind: Kind, { parameters }: Sent): Texts | undefined => {
  const texts: Array<string | null> = []
  for (const term of terms) {
    if (term._tag === "Null") {
      texts.push(null)
      continue
    }
    const given = term._tag === "Constant" ? term.text : parameters[term.number - 1]
    const values = term._tag === "Parameter" && term.isList ? itemsGiven(given, kind) : [given]
    if (values === undefined) return undefined
    for (const value of values) {
      if (value === null || value === undefined) continue
      const text = kind.text(value)
      if (text === undefined) return undefined
      texts.push(text)
    }
  }
  return texts.length < 2 ? texts : [...new Set(texts)]
}

/** The items of a list as the driver was given it. */
const itemsGiven = (given: unknown, kind: Kind): ReadonlyArray<unknown> | undefined =>
  typeof given === "string" ? itemsOf(given, kind) : Array.isArray(given) ? given : undefined

/** The combinations of texts of each list; `undefined` if they are too many, which is seen before they are made. */
const combined = (lists: ReadonlyArray<Texts>): ReadonlyArray<Texts> | undefined => {
  const count = lists.reduce((product, texts) => product * texts.length, 1)
  if (count > mostRows) return undefined
  if (count === 0) return []
  const [only] = lists
  if (lists.length === 1) return only!.map((text) => [text])
  return lists.reduce<ReadonlyArray<Texts>>(
    (combinations, texts) => combinations.flatMap((before) => texts.map((text) => [...before, text])),
    [[]]
  )
}

const eachCount = ({ path }: Shown): number => path.filter((step) => step === "each").length

/** Places in lists on the way to a value, for each of the lists' items; `undefined` where there is no list. */
const placesOf = function* (
  value: unknown,
  path: ReadonlyArray<Step>
): Generator<ReadonlyArray<number> | undefined> {
  const [step, ...rest] = path
  // Where an outer join has found nothing, there is nothing.
  if (step === undefined || value === null) return void (step === undefined ? yield [] : undefined)
  if (!Array.isArray(value)) return yield undefined
  if (step !== "each") return yield* placesOf(value[step], rest)
  if (!rest.includes("each")) return yield* value.map((_, i) => [i])
  for (const [i, item] of value.entries())
    for (const at of placesOf(item, rest)) yield at === undefined ? undefined : [i, ...at]
}

/** The value on a way, in these places of the lists. */
const valueAt = (value: unknown, path: ReadonlyArray<Step>, places: ReadonlyArray<number>): unknown => {
  const left = [...places]
  return path.reduce<unknown>((at, step) => {
    if (at === null || at === undefined) return at
    if (!Array.isArray(at)) return undefined
    return at[step === "each" ? left.shift()! : step]
  }, value)
}
