/**
 * What an answer rests on, beside what its node declares: made of what was noted while its lookup ran (`Recorder.ts`).
 *
 * **Each its own.** A batch is one lookup for many keys, and what it has read belongs to all of them, with one exception:
 * the rows that it has asked for by the keys. That is told by the values: when the first thing it does is to ask for
 * exactly the values that one of the keys' fields has, each key rests on the rows of its own value. Only the first: what
 * is asked for later may have come out of what was read, where author 2 is not the author of book 2.
 *
 * **Not too many.** Above 64 tags of tables, those of the rows of a table are replaced by the tag of all its rows, which
 * every write that tells rows invalidates too: that is less precise and never wrong.
 */
import type { Fallback } from "./Entry.ts"
import * as Node from "./Node.ts"
import type { Read, Recording } from "./Recorder.ts"
import * as TagIds from "./tagIds.ts"

/** A statement, and what an answer rests on because of it. */
interface Statement {
  readonly text: string
  readonly ids: ReadonlyArray<string>
}

/** What one answer rests on, as far as its lookup has noted it. */
export interface Noted {
  /** The ids of all tags. */
  readonly ids: ReadonlyArray<string>
  /** The statements that some of them come from, each once. */
  readonly statements: ReadonlyArray<Statement>
  readonly fallbacks: ReadonlyArray<Fallback>
  readonly untold: ReadonlyArray<string>
  /** The tables whose rows were too many. */
  readonly collapsed: ReadonlyArray<string>
}

/** Of a lookup that nothing was noted of. */
export const nothing: Noted = { ids: [], statements: [], fallbacks: [], untold: [], collapsed: [] }

/** More tags of tables than these are put together. */
const limit = 64

/** Tells what each of the nodes that a lookup was for rests on; `undefined` when that could not be told. */
export const share = (
  recording: Recording,
  nodes: ReadonlyArray<Node.Any>
): ((node: Node.Any) => Noted | undefined) => {
  if (!recording.isComplete) return () => undefined
  if (recording.ids.size === 0 && recording.reads.length === 0) return () => nothing
  const { opening } = recording
  const rows = opening?.idsByValue ?? none
  const fields = nodes.length > 1 && isOneList(rows) ? fieldsAskedFor(rows, nodes) : []
  let common: Noted | undefined
  if (fields.length === 0) return () => (common ??= noted(recording))
  return (node) => {
    common ??= noted(recording, opening)
    const own = new Set<string>()
    for (const field of fields) for (const id of rows.get(textOf(node, field)!) ?? []) own.add(id)
    return withOwn(common, opening!.source, own)
  }
}

const none: Read["idsByValue"] = new Map()

/** True when each value stands for rows by the same columns. Otherwise some were asked for in one place, some in another. */
const isOneList = (rows: Read["idsByValue"]): boolean =>
  new Set(Array.from(rows.values(), (ids) => Array.from(ids, TagIds.columnsOf).toSorted().join("\n")))
    .size === 1

/** The fields of the keys, if they are of one node, whose values together are exactly those that were asked for. */
const fieldsAskedFor = (rows: Read["idsByValue"], nodes: ReadonlyArray<Node.Any>): ReadonlyArray<string> => {
  const definition = Node.definitionOf(nodes[0]!)
  if (nodes.some((node) => Node.definitionOf(node) !== definition)) return []
  return definition.spelling.fields.filter((field) => {
    const texts = new Set<string>()
    for (const node of nodes) {
      const text = textOf(node, field)
      if (text === undefined || !rows.has(text)) return false
      texts.add(text)
    }
    return texts.size === rows.size
  })
}

/** The text of a field's value, if it is one that a column can have. */
const textOf = (node: Node.Any, field: string): string | undefined => {
  const value: unknown = (node as any)[field]
  switch (typeof value) {
    case "number":
    case "bigint":
    case "string":
    case "boolean":
      return String(value)
    default:
      return undefined
  }
}

/** All that was noted, but for the rows of single values in one of the reads. */
const noted = ({ ids, reads }: Recording, shared?: Read): Noted => {
  const [first] = reads
  // Most lookups ask one question.
  if (reads.length === 1 && ids.size === 0 && first!.fallbacks.length < 2) {
    const own = [...new Set(idsOf(first!, shared))]
    const { source, fallbacks, untold } = first!
    return collapsed({
      ids: own,
      statements: [{ text: source, ids: own }],
      fallbacks,
      untold,
      collapsed: []
    })
  }
  const all = new Set(ids)
  const byStatement = new Map<string, Set<string>>()
  const fallbacks = new Map<string, Fallback>()
  const untold = new Set<string>()
  for (const read of reads) {
    let own = byStatement.get(read.source)
    if (own === undefined) byStatement.set(read.source, (own = new Set()))
    for (const id of idsOf(read, shared)) {
      all.add(id)
      own.add(id)
    }
    for (const fallback of read.fallbacks) fallbacks.set(JSON.stringify(fallback), fallback)
    for (const reason of read.untold) untold.add(reason)
  }
  return collapsed({
    ids: [...all],
    statements: Array.from(byStatement, ([text, ids]) => ({ text, ids: [...ids] })),
    fallbacks: [...fallbacks.values()],
    untold: [...untold],
    collapsed: []
  })
}

/** The ids of a read; those that belong to single values only if it is not the one whose values are shared out. */
const idsOf = (read: Read, shared: Read | undefined): ReadonlyArray<string> =>
  read === shared || read.idsByValue.size === 0
    ? read.ids
    : [...read.ids, ...Array.from(read.idsByValue.values()).flat()]

/** The same with the rows that are a key's own. */
const withOwn = (common: Noted, statement: string, own: ReadonlySet<string>): Noted => {
  const collapse = collapser(new Set(common.collapsed))
  const ids = new Set(common.ids)
  for (const id of own) ids.add(collapse(id))
  const statements = common.statements.map((known) =>
    known.text === statement
      ? { text: statement, ids: [...new Set([...known.ids, ...Array.from(own, collapse)])] }
      : known
  )
  return collapsed({ ...common, ids: [...ids], statements })
}

/** Puts rows together, table by table, those with most rows first, until there are no more tags than allowed. */
const collapsed = (noted: Noted): Noted => {
  if (noted.ids.length <= limit) return noted
  let count = 0
  for (const id of noted.ids) if (TagIds.isOfTable(id)) count++
  if (count <= limit) return noted
  const rows = new Map<string, { count: number; readonly all: Set<string> }>()
  for (const id of noted.ids) {
    if (!TagIds.isOfRows(id)) continue
    const table = TagIds.tableOf(id)!
    let known = rows.get(table)
    if (known === undefined) rows.set(table, (known = { count: 0, all: new Set() }))
    known.count++
    known.all.add(TagIds.allRowsOf(id))
  }
  const there = new Set(noted.ids)
  const tables = new Set(noted.collapsed)
  for (const [table, { count: of, all }] of [...rows].toSorted(([, a], [, b]) => b.count - a.count)) {
    if (count <= limit) break
    const fewer = of - [...all].filter((id) => !there.has(id)).length
    // One row is no more than all rows.
    if (fewer <= 0) continue
    tables.add(table)
    count -= fewer
  }
  const collapse = collapser(tables)
  const put = (ids: ReadonlyArray<string>) => [...new Set(ids.map(collapse))]
  return {
    ...noted,
    ids: put(noted.ids),
    statements: noted.statements.map(({ text, ids }) => ({ text, ids: put(ids) })),
    collapsed: [...tables]
  }
}

/** Replaces the tags of rows of these tables. */
const collapser = (tables: ReadonlySet<string>) => (id: string) =>
  tables.size > 0 && TagIds.isOfRows(id) && tables.has(TagIds.tableOf(id)!) ? TagIds.allRowsOf(id) : id
