/**
 * The names of everything that is kept in Redis, for operators to read and for no two things to share.
 *
 * | name                                             | type    | holds                                               |
 * | ------------------------------------------------ | ------- | --------------------------------------------------- |
 * | `CM:1:{0}:state`                                 | hash    | incarnation, sequence, floor of the cell; no expiry |
 * | `CM:1:{0}:log`                                   | zset    | tags and when each was last invalidated; no expiry  |
 * | `CM:1:{0}:position`                              | string  | incarnation and sequence, kept in step; no expiry   |
 * | `CM:1:{0}:entry:<version>.<fingerprint>:<key>`   | string  | an entry, see entryBytes.ts; expires                |
 * | `CM:1:{0}:lease:<version>.<fingerprint>:<key>`   | string  | who looks the key up; expires                       |
 * | `CM:1:{0}:events`                                | channel | invalidations of the cell, as hints                 |
 *
 * `CM:` is the prefix of the cache, `1` the version of all these formats, `0` the cell: in braces, so that a Cluster
 * keeps a cell in one slot. `<version>` is the node's, `<fingerprint>` tells its schemas: code with other schemas has
 * other names. `<key>` is the canonical key, as `Cacheme.invalidate` and `Cacheme.explain` spell it.
 *
 * Where a text might be taken for a separator it is percent-encoded: `%{}` of prefix and cell, `%{}:` of the version,
 * and what has no UTF-8 (half of a surrogate pair) everywhere, as `%uD83D`.
 */
import { createHash } from "node:crypto"
import * as Schema from "effect/Schema"
import * as Definition from "../../Definition.ts"
import type { AnySchema, NodeDefinition } from "../../Node.ts"

/** The version of the names, of the entries' bytes, and of the scripts. */
const format = "1"

/** The names of one cache. */
export interface Names {
  readonly cells: number
  /** The cell of a key, by its canonical text: the same in every process. */
  readonly cellOf: (id: string) => number
  readonly state: (cell: number) => string
  readonly log: (cell: number) => string
  readonly position: (cell: number) => string
  readonly events: (cell: number) => string
  readonly entry: (definition: NodeDefinition, id: string) => string
  readonly lease: (definition: NodeDefinition, id: string) => string
  /** A glob for `SCAN … MATCH` that matches every entry whose key matches this glob, and perhaps some others. */
  readonly entryPattern: (glob: string) => string
  /** The key of an entry by its name; `undefined` for whatever else is in Redis. */
  readonly idOf: (name: string) => string | undefined
}

/** Names everything under a prefix. The names of the cells are not empty and all different. */
export const make = (prefix: string, cells: ReadonlyArray<string> = ["0"]): Names => {
  const before = `${escape(prefix)}${format}:`
  const roots = cells.map((cell) => `${before}{${escape(cell)}}:`)
  const ofCells = (what: string) => {
    const names = roots.map((root) => root + what)
    return (cell: number): string => names[cell]!
  }
  const cellOf = (id: string): number => (roots.length === 1 ? 0 : hash(id) % roots.length)
  const ofKeys = (what: string) => {
    const beginnings = new WeakMap<NodeDefinition, ReadonlyArray<string>>()
    return (definition: NodeDefinition, id: string): string => {
      let known = beginnings.get(definition)
      if (known === undefined) {
        known = roots.map(
          (root) =>
            `${root}${what}:${escape(String(definition.version)).replaceAll(":", "%3A")}.${fingerprint(definition)}:`
        )
        beginnings.set(definition, known)
      }
      return known[cellOf(id)]! + wellFormed(id)
    }
  }
  const anyCell = roots.length === 1 ? escape(cells[0]!) : "*"
  const anyKey = `${literal(before)}{${anyCell}}:entry:*.${"?".repeat(fingerprintLength)}:`
  return {
    cells: roots.length,
    cellOf,
    state: ofCells("state"),
    log: ofCells("log"),
    position: ofCells("position"),
    events: ofCells("events"),
    entry: ofKeys("entry"),
    lease: ofKeys("lease"),
    entryPattern: (glob) => anyKey + widen(glob),
    idOf(name) {
      const root = roots.find((root) => name.startsWith(root))
      const found = root === undefined ? null : entryRest.exec(name.slice(root.length))
      if (found === null) return undefined
      const id = found[1]!.replace(/%u([0-9A-F]{4})/g, (_, hex: string) =>
        String.fromCharCode(Number.parseInt(hex, 16))
      )
      return wellFormed(id) === found[1] ? id : undefined
    }
  }
}

const fingerprintLength = 11

const entryRest = new RegExp(`^entry:[^:]*\\.[\\w-]{${fingerprintLength}}:([^]*)$`)

const fingerprints = new WeakMap<NodeDefinition, string>()

/**
 * 66 bits of a hash over all that decides what an entry of a node means: its name, its version, the fields of its key,
 * and the schemas of its values and errors: their types, their encoded sides and their JSON.
 *
 * **Gotchas**
 *
 * Functions have no text that stays the same over builds: for a change inside a transformation or a filter, change the
 * node's `version`.
 */
export const fingerprint = (definition: NodeDefinition): string => {
  const known = fingerprints.get(definition)
  if (known !== undefined) return known
  const keys = Object.entries(definition.parts()).filter(
    ([part]) => part.startsWith("key.") || part === "within"
  )
  const text = JSON.stringify([
    definition.name,
    Definition.optionText(definition.version),
    keys,
    schemaTexts(definition.value),
    schemaTexts(definition.error)
  ])
  const made = createHash("sha256").update(text).digest("base64url").slice(0, fingerprintLength)
  fingerprints.set(definition, made)
  return made
}

/** `schemaText` is that of the encoded side. */
const schemaTexts = (schema: AnySchema): ReadonlyArray<string> => [
  Definition.schemaText(schema),
  Definition.schemaText(Schema.toType(schema)),
  jsonText(schema)
]

const jsonText = (schema: AnySchema): string => {
  try {
    return Definition.schemaText(Schema.toCodecJson(schema))
  } catch {
    // A schema without JSON, of which nothing is ever written.
    return ""
  }
}

const percent = (char: string): string => {
  const code = char.charCodeAt(0).toString(16).toUpperCase()
  return code.length === 2 ? `%${code}` : `%u${code}`
}

const loneSurrogate = /\p{Surrogate}/gu

const escape = (text: string): string => text.replace(/[%{}]|\p{Surrogate}/gu, percent)

/** A key as it is, unless it has no UTF-8, or looks as if that had been mended. */
const wellFormed = (id: string): string =>
  id.isWellFormed() && !id.includes("%u")
    ? id
    : id.replaceAll("%u", "%u0025u").replace(loneSurrogate, percent)

const literal = (text: string): string => text.replace(/[*?[\]\\]/g, String.raw`\$&`)

/**
 * Redis matches bytes where `Pattern` matches UTF-16 units, so what stands for any unit becomes at least one byte, and
 * what a name may spell otherwise (half of a surrogate pair, a `%`) may be followed by anything.
 */
const widen = (glob: string): string => {
  let widened = ""
  for (let i = 0; i < glob.length; i++) {
    const char = glob[i]!
    if (char === "*") widened += "*"
    else if (char === "?") widened += "?*"
    else if (char === "[") {
      widened += "?*"
      i = classEnd(glob, i)
    } else {
      const plain = char === "\\" && i + 1 < glob.length ? glob[++i]! : char
      widened += plain === "%" ? "%*" : literal(plain)
    }
  }
  return widened.replace(loneSurrogate, "*").replace(/\\[^]|[?*]+/g, oneStar)
}

/** Steps over a class; an unclosed one ends with the glob. */
const classEnd = (glob: string, start: number): number => {
  let i = start + (glob[start + 1] === "^" ? 2 : 1)
  for (; i < glob.length && glob[i] !== "]"; i++) if (glob[i] === "\\") i++
  return i
}

/** A run of wildcards with one star, which is all that it means; what is escaped stays. */
const oneStar = (run: string): string => (run.startsWith("\\") ? run : `${run.replaceAll("*", "")}*`)

/** FNV-1a with murmur3's last step, so that the rest of a division is as even as the hash. Never to change. */
const hash = (text: string): number => {
  let h = 0x811c9dc5
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193)
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return (h ^ (h >>> 16)) >>> 0
}
