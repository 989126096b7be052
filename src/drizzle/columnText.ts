/**
 * The one text of a column's value in a tag, whichever side it comes from.
 *
 * **The law.** If two values are equal to Postgres, their texts here are equal, whether the value came from a program
 * or, as text, from the server. The converse is not needed. A value may have no text. Then no tag can be made of it, and
 * a write need not tell one; so a value that has none may be equal only to such as have none either.
 *
 * Where equality and text cannot be made to agree there is no text at all, and such a column cannot tell rows apart in
 * tags: a timestamp's text depends on the session's time zone, `citext` ignores case, `json` and `interval` have many
 * spellings of one value. A `date` is written in the session's DateStyle. Its text in another style than ISO's can be
 * told from that, but not be read (is 03/04 in March?), so a write would leave out a tag that a reader may well hold.
 */
import type { Column } from "drizzle-orm"

/** How the values of the columns of one type are checked and written. */
export interface Kind {
  readonly expected: string
  /**
   * The types that a column of this kind may really have, as the server calls them without length or precision; "enum"
   * stands for all enums. Of another type than it is declared to Drizzle, equal values could have unlike texts here.
   */
  readonly serverTypes: ReadonlyArray<string>
  /** True when no text has a character that separates the parts of a tag. */
  readonly isPlain: boolean
  /** The canonical text of a driver's value or of the server's text; `undefined` if it has none. */
  readonly text: (value: unknown) => string | undefined
}

const integer: Kind = {
  expected: "an integer",
  serverTypes: ["smallint", "integer", "bigint"],
  isPlain: true,
  text: (value) => {
    if (typeof value === "number") return Number.isSafeInteger(value) ? String(value) : undefined
    const text = String(value)
    if (/^(?:0|-?[1-9]\d*)$/.test(text)) return text
    // Never through a number: 2^53 + 1 would become its neighbour.
    return /^\s*[+-]?\d+\s*$/.test(text) ? String(BigInt(text.trim().replace(/^\+/, ""))) : undefined
  }
}

const numeric: Kind = {
  expected: "a decimal number without exponent",
  serverTypes: ["numeric"],
  // The point separates a schema from its table, but there is none after the table.
  isPlain: true,
  text: (value) => {
    const parts = /^\s*([+-]?)(\d*)(?:\.(\d*))?\s*$/.exec(String(value))
    if (parts === null || !/\d/.test(parts[0])) return undefined
    const [, sign, digits = "", decimals = ""] = parts
    const whole = digits.replace(/^0+/, "")
    const fraction = withoutLast(decimals, "0")
    if (whole === "" && fraction === "") return "0"
    return `${sign === "-" ? "-" : ""}${whole || "0"}${fraction && `.${fraction}`}`
  }
}

const boolean: Kind = {
  expected: "true or false",
  serverTypes: ["boolean"],
  isPlain: true,
  text: (value) => {
    const text = String(value)
    return text === "true" || text === "false" ? text : undefined
  }
}

const uuid: Kind = {
  expected: "a UUID",
  serverTypes: ["uuid"],
  isPlain: true,
  text: (value) => {
    const given = String(value)
    if (/^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(given)) return given
    const text = given.toLowerCase().replaceAll(/[{}-]/g, "")
    return /^[0-9a-f]{32}$/.test(text)
      ? text.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5")
      : undefined
  }
}

const text: Kind = {
  expected: "a string",
  serverTypes: ["text", "character varying", "enum"],
  isPlain: false,
  text: (value) => (isText(value) ? value : undefined)
}

/** Values of `char(n)` are filled up with spaces, which do not count when they are compared. */
const char: Kind = {
  expected: "a string",
  serverTypes: ["character"],
  isPlain: false,
  text: (value) => (isText(value) ? withoutLast(value, " ") : undefined)
}

/** True for what the server gets as it is: half of a surrogate pair becomes another character on its way. */
const isText = (value: unknown): value is string => typeof value === "string" && value.isWellFormed()

/** A text without the characters at its end that are this one: in one pass, which a regular expression is not. */
const withoutLast = (text: string, character: string): string => {
  let end = text.length
  while (end > 0 && text[end - 1] === character) end--
  return text.slice(0, end)
}

/** The kind of a column, by its SQL type; `undefined` when its values have no canonical text. */
export const kindOf = (column: Column): Kind | undefined => {
  // Of a list, 1.0 tells the type of its items.
  if (((column as { readonly dimensions?: number }).dimensions ?? 0) > 0) return undefined
  if (column.columnType === "PgEnumColumn" || column.columnType === "PgEnumObjectColumn") return text
  const type = column.getSQLType().toLowerCase()
  if (/^(small|big)?(int|integer|serial)$|^int[248]$/.test(type)) return integer
  if (/^(numeric|decimal)(\s*\([\d\s,-]+\))?$/.test(type)) return numeric
  if (type === "boolean") return boolean
  if (type === "uuid") return uuid
  if (/^(text|varchar|character varying)(\s*\(\d+\))?$/.test(type)) return text
  if (/^(char|character|bpchar)(\s*\(\d+\))?$/.test(type)) return char
  return undefined
}

/** The kind of a column as the server has it: its type, without length or precision, or "enum". */
export const kindOfServerType = (type: string): Kind | undefined =>
  [integer, numeric, boolean, uuid, text, char].find(({ serverTypes }) => serverTypes.includes(type))

const castTypes: Readonly<Record<string, Kind>> = {
  int2: integer,
  int4: integer,
  int8: integer,
  numeric,
  bool: boolean,
  uuid,
  text,
  varchar: text
}

/**
 * The kind of what is cast to a type, by the type's name as it is parsed. None of one with a length or precision, which
 * may cut the value.
 */
export const kindOfCast = (names: ReadonlyArray<string | undefined>, isCut: boolean): Kind | undefined =>
  isCut || (names.length > 1 && names[0] !== "pg_catalog") ? undefined : castTypes[names.at(-1) ?? ""]

/**
 * The items of a list that is written as a text, `{7,8}`, where it can be read in one way only: integers and UUIDs, without
 * quotes, nulls and lists in it.
 */
export const itemsOf = (text: string, kind: Kind): ReadonlyArray<string> | undefined => {
  const item = kind === integer ? /^-?\d+$/ : kind === uuid ? /^[\da-f-]+$/i : undefined
  if (item === undefined || !text.startsWith("{") || !text.endsWith("}")) return undefined
  const items = text === "{}" ? [] : text.slice(1, -1).split(",")
  return items.every((one) => item.test(one)) ? items : undefined
}

/** What the types are called in messages. */
export const typesWithText = "integers, numeric, boolean, uuid, text, varchar, char, enums"
