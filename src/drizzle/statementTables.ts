/**
 * Which tables does a statement write, going by its text?
 *
 * For statements that are not a plain insert, update or delete of Drizzle's: raw SQL, common table expressions that
 * write, MERGE, TRUNCATE, COPY, DDL. The text is cut into words the way Postgres does (strings, comments and quoted
 * names are never looked into), and each table that follows a word for writing is told. What functions and procedures
 * write cannot be told this way: a statement in which no writing is found is not run without being told its tables.
 */

/** A table as it is written in a statement. */
export interface TableRef {
  readonly schema: string | undefined
  readonly name: string
}

/** What happens to rows. */
export type Event = "insert" | "update" | "delete" | "truncate"

/** A table that is written, and how. */
export interface TableWrite extends TableRef {
  readonly events: ReadonlySet<Event>
  /** The columns that an update assigns; `undefined` if it could be any. */
  readonly assigned: ReadonlySet<string> | undefined
}

/** What a statement writes. */
export interface Writes {
  readonly tables: ReadonlyArray<TableWrite>
  /** True when it changes tables themselves, and not only their rows. */
  readonly isDefinition: boolean
  /** True when tables that refer to these are emptied with them: TRUNCATE … CASCADE. */
  readonly truncatesReferences: boolean
}

/** Tells what a statement writes by its text. */
export const writesOf = (text: string): Writes => {
  const words = cut(text)
  const tables: Array<TableWrite> = []
  let isDefinition = false
  let at = 0
  const is = (word: string, i = at) => words[i]?.text === word && !words[i].isQuoted
  const has = (word: string) => words.some(({ text, isQuoted }) => text === word && !isQuoted)
  const skip = (...optional: ReadonlyArray<string>) => {
    while (optional.some((word) => is(word))) at++
  }
  const name = (events: ReadonlyArray<Event>) => {
    const written = { events: new Set(events), assigned: undefined }
    const first = words[at]
    if (first === undefined || !first.isName || (!first.isQuoted && reserved.has(first.text))) return false
    if (is(".", at + 1) && words[at + 2]?.isName) {
      // The last two parts: a database may come first.
      let end = at + 2
      while (is(".", end + 1) && words[end + 2]?.isName) end += 2
      tables.push({ ...written, schema: words[end - 2]!.text, name: words[end]!.text })
      at = end + 1
    } else {
      tables.push({ ...written, schema: undefined, name: first.text })
      at++
    }
    return true
  }
  const names = (events: ReadonlyArray<Event>) => {
    do skip("only", "if", "exists", "concurrently")
    while (name(events) && (skip("*"), is(",")) && ++at)
  }
  while (at < words.length) {
    const before = words[at - 1]
    const follows = (...words: ReadonlyArray<string>) => before !== undefined && words.includes(before.text)
    if (is("into") && follows("insert", "merge")) {
      // Whether an insert updates shows further on, where it is not looked at.
      const isOnlyInsert = is("insert", at - 1) && !has("conflict")
      at++
      skip("only")
      name(isOnlyInsert ? ["insert"] : ["insert", "update", "delete"])
    } else if (is("from") && follows("delete")) {
      at++
      skip("only")
      name(["delete"])
    } else if (is("update") && !follows("for", "key", "on", "or", "before", "after", "of")) {
      at++
      skip("only")
      if (name(["update"])) tables.push({ ...tables.pop()!, assigned: assignedIn(words, at) })
    } else if (is("truncate") && !follows("or", "before", "after")) {
      at++
      skip("table")
      names(["truncate"])
    } else if (is("copy") && at === 0) {
      at++
      name(["insert"])
    } else if (is("table") && follows("alter", "drop")) {
      isDefinition = true
      at++
      names(all)
    } else if (is("view") && follows("materialized") && words[at - 2]?.text === "refresh") {
      at++
      names(all)
    } else at++
  }
  return {
    tables,
    isDefinition: isDefinition || /^\s*(create|alter|drop)\b/i.test(text),
    truncatesReferences: has("truncate") && has("cascade")
  }
}

const all: ReadonlyArray<Event> = ["insert", "update", "delete", "truncate"]

/** The columns that `[as alias] set a = …, b = …` assigns, from here on; `undefined` for what is not of that shape. */
const assignedIn = (words: ReadonlyArray<Word>, from: number): ReadonlySet<string> | undefined => {
  const set = words.findIndex(({ text, isQuoted }, i) => i >= from && text === "set" && !isQuoted)
  if (set < 0 || set > from + 3) return undefined
  const assigned = new Set<string>()
  let depth = 0
  for (let at = set; at < words.length; at++) {
    const { text, isQuoted } = words[at]!
    if (!isQuoted && (text === "(" || text === ")")) depth += text === "(" ? 1 : -1
    if (depth < 0) break
    if (depth > 0 || isQuoted) continue
    const isDistinctFrom = text === "from" && words[at - 1]!.text === "distinct"
    if (/^(from|where|returning|;)$/.test(text) && !isDistinctFrom) break
    if (at !== set && text !== ",") continue
    const [column, sign] = [words[at + 1], words[at + 2]]
    if (column?.isName !== true || sign?.text !== "=") return undefined
    assigned.add(column.text)
  }
  return assigned
}

/** The functions that an expression calls, but for those that are known to do nothing else. */
export const callsOf = (text: string): ReadonlyArray<string> => {
  const words = cut(text)
  return words
    .filter(
      (word, i) =>
        word.isName &&
        words[i + 1]?.text === "(" &&
        !words[i + 1]!.isQuoted &&
        (word.isQuoted || words[i - 1]?.text === "." || !harmless.has(word.text))
    )
    .map((word) => word.text)
}

/** Words before a parenthesis that are no function, and functions that have no effect and always answer the same. */
const harmless: ReadonlySet<string> = new Set(
  `all and any array as between bigint boolean by case cast char character date else exists filter from group having in
   integer interval is join lateral like ilike not numeric on or over partition row select similar smallint some text
   then timestamp timestamptz union unnest using uuid values varchar when where
   abs array_length avg btrim cardinality ceil char_length coalesce concat count date_part date_trunc extract floor
   greatest initcap least left length lower ltrim max md5 min mod nullif position power repeat replace reverse right round
   rtrim sign sqrt strpos substr substring sum translate trim trunc upper`.split(/\s+/)
)

/** Words that follow a column called "update", but are no table. */
const reserved: ReadonlySet<string> = new Set(["as", "from", "on", "select", "set", "using", "where"])

interface Word {
  readonly text: string
  readonly isName: boolean
  readonly isQuoted: boolean
}

/** Strings, comments, quoted names, names and numbers, anything else; the first two are left out. */
const token =
  /(?<string>(?:\b[eE]'(?:[^'\\]|\\[^]|'')*')|(?:'(?:[^']|'')*')|(?<dollar>\$(?:[A-Za-z_]\w*)?\$)[^]*?\k<dollar>)|(?<line>--[^\n]*)|(?<block>\/\*)|"(?<quoted>(?:[^"]|"")*)"|(?<word>[\p{L}_$][\p{L}\p{N}_$]*|\d[\w.]*)|(?<other>\S)/gu

const cut = (text: string): ReadonlyArray<Word> => {
  const words: Array<Word> = []
  token.lastIndex = 0
  for (let match = token.exec(text); match !== null; match = token.exec(text)) {
    const { block, quoted, word, other } = match.groups!
    if (block !== undefined) token.lastIndex = endOfComment(text, match.index)
    else if (quoted !== undefined)
      words.push({ text: quoted.replaceAll('""', '"'), isName: true, isQuoted: true })
    else if (word !== undefined)
      words.push({ text: word.toLowerCase(), isName: /^[\p{L}_]/u.test(word), isQuoted: false })
    else if (other !== undefined) words.push({ text: other, isName: false, isQuoted: false })
  }
  return words
}

/** Block comments nest. */
const endOfComment = (text: string, start: number): number => {
  let depth = 0
  for (let i = start; i < text.length; i += 1) {
    const isStart = text.startsWith("/*", i)
    if (!isStart && !text.startsWith("*/", i)) continue
    depth += isStart ? 1 : -1
    i += 1
    if (depth === 0) return i + 1
  }
  return text.length
}
