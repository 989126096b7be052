/**
 * The one text of a column's value in a tag, whichever side it comes from.
 *
 * **The law.** If two values are equal to Postgres, their texts here are equal, whether the value came from a program
 * or, as text, from the server. The converse is not needed. Where equality and text cannot be made to agree (a
 * timestamp's text depends on the session, a `citext` ignores case, a `numeric` has many spellings) there is no text,
 * and such a column cannot tell rows apart in tags.
 */
import type { Column } from "drizzle-orm"

/** How the value of a column of one type is checked and written. */
interface Kind {
  readonly expected: string
  /** The canonical text of a driver's value or of the server's text; `undefined` if it is no value of this type. */
  readonly text: (value: unknown) => string | undefined
}

const integer: Kind = {
  expected: "an integer",
  text: (value) => {
    if (typeof value === "number" && !Number.isSafeInteger(value)) return undefined
    // Never through a number: 2^53 + 1 would become its neighbour.
    return /^\s*[+-]?\d+\s*$/.test(String(value))
      ? String(BigInt(String(value).trim().replace(/^\+/, "")))
      : undefined
  }
}

const boolean: Kind = {
  expected: "true or false",
  text: (value) => {
    const text = String(value)
    return text === "true" || text === "false" ? text : undefined
  }
}

const uuid: Kind = {
  expected: "a UUID",
  text: (value) => {
    const text = String(value).toLowerCase().replaceAll(/[{}-]/g, "")
    return /^[0-9a-f]{32}$/.test(text)
      ? text.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5")
      : undefined
  }
}

const text: Kind = { expected: "a string", text: (value) => (typeof value === "string" ? value : undefined) }

/** The kind of a column, by its SQL type; `undefined` when its values have no canonical text. */
export const kindOf = (column: Column): Kind | undefined => {
  if (column.columnType === "PgEnumColumn" || column.columnType === "PgEnumObjectColumn") return text
  const type = column.getSQLType().toLowerCase()
  if (/^(small|big)?(int|integer|serial)$|^int[248]$/.test(type)) return integer
  if (type === "boolean") return boolean
  if (type === "uuid") return uuid
  if (/^(text|varchar|character varying)(\s*\(\d+\))?$/.test(type)) return text
  return undefined
}

/** The types that the server must really have for a column to be told by its text. Enums are told by their kind. */
export const serverTypes: ReadonlySet<string> = new Set([
  "smallint",
  "integer",
  "bigint",
  "boolean",
  "uuid",
  "text",
  "character varying"
])
