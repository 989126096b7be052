/**
 * How the parts of a key are written, so that a person can read it and no two keys can meet.
 *
 * A key reads `book:100`, a key path `book:100>owner`, a node's own tag `book:*`. Inside a part the characters that
 * separate parts are percent-encoded, so `book:a>b` (one string field) and `book:a` with a child `b` stay apart.
 * A part's text tells two values of one field apart: the number 1 and the string "1" of a union differ.
 */
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Cause from "effect/Cause"
import * as Schema from "effect/Schema"
import type * as SchemaAST from "effect/SchemaAST"
import { CachemeError, describe, InvalidDefinition, InvalidKey } from "./CachemeError.ts"

/** The longest key or tag, in bytes of UTF-8. */
export const maxBytes = 1024

const separators = /[%:>*#@]|\p{Surrogate}/gu

/** Percent-encodes the characters that separate the parts of a key, and halves of characters, which have no UTF-8. */
export const escape = (text: string): string =>
  text.replace(separators, (c) => {
    const code = c.charCodeAt(0).toString(16).toUpperCase()
    return code.length === 2 ? `%${code}` : `%u${code}`
  })

const unescape = (text: string): string =>
  text.replace(/%(?:([0-9A-F]{2})|u([0-9A-F]{4}))/g, (_, short: string, long: string) =>
    String.fromCharCode(Number.parseInt(short ?? long, 16))
  )

const encoder = new TextEncoder()

/** True when a text takes more than {@link maxBytes} bytes. */
export const isTooLong = (text: string): boolean =>
  text.length > maxBytes || (text.length * 3 > maxBytes && encoder.encode(text).length > maxBytes)

/** The fields of a key: each one a schema without services, none optional. */
export type Fields = { readonly [name: string]: Schema.ConstraintCodec<any, any> }

/** The values of the fields. */
export type Type<F extends Fields> = { readonly [K in keyof F]: F[K]["Type"] }

/** What a constructor of a key takes: nothing when there are no fields. */
export type Input<F extends Fields> = keyof F extends never ? void | {} : Type<F>

/** A raw key: what a store may use in place of the text when a key has one primitive field. */
export type Raw = string | number | bigint

/** The spelling of one kind of key. */
export interface Spelling {
  readonly owner: string
  readonly fields: ReadonlyArray<string>
  /**
   * Copies an input onto a key, if a look at it tells that it makes one, and one of at most {@link maxBytes}. False, with
   * nothing promised of the key, where a look does not tell: then `checkUnsafe` does.
   */
  readonly look: (key: any, input: any) => boolean
  /** Fails with `InvalidKey`, naming the first field that is wrong, unless the input makes a key. */
  readonly checkUnsafe: (input: unknown) => void
  /** The parts joined by ":", without the name. */
  readonly text: (key: any, fields?: ReadonlyArray<string>) => string
  /** The only field's own value when it is a string, number or bigint (a Map knows -0 as 0); otherwise the text. */
  readonly raw: (key: any) => Raw
  /** The raw key of a text, or `undefined` when no key of this kind is spelled so; and back. */
  readonly parse: (text: string) => Raw | undefined
  readonly write: (raw: Raw) => string
}

type Kind = "string" | "number" | "bigint" | "boolean" | "json"

/**
 * Works out how the keys with these fields are spelled. `owner` names the definition in errors; `around` is how many
 * bytes a key takes beside its fields.
 */
export const spelling = (owner: string, fields: Fields, around = owner.length): Spelling => {
  const names = Object.keys(fields)
  const parts = names.map((name) => partOf(owner, name, fields[name]!))
  const room = (maxBytes - around) / names.length
  const looks = names.map((name) => lookOf(Schema.toType(fields[name]!).ast, room))
  const decode = Schema.decodeUnknownExit(Schema.toType(Schema.Struct(fields as Schema.Struct.Fields)), {
    onExcessProperty: "error"
  })
  const writers = new Map(names.map((name, i) => [name, parts[i]!.write]))
  const single = names.length === 1 ? parts[0]! : undefined
  const primitive = single !== undefined && single.kind !== "json" && single.kind !== "boolean"
  const only = names[0] as string
  const text = (key: any, which: ReadonlyArray<string> = names): string => {
    let joined = ""
    for (let i = 0; i < which.length; i++) {
      const part = writers.get(which[i]!)!(key[which[i]!])
      joined = i === 0 ? part : `${joined}:${part}`
    }
    return joined
  }
  return {
    owner,
    fields: names,
    text,
    look(key, input) {
      if (typeof input !== "object" || input === null) return input === undefined && names.length === 0
      let count = 0
      for (const name in input) {
        const field = name === names[count] ? count : names.indexOf(name)
        const value = input[name]
        if (field < 0 || !looks[field]!(value)) return false
        key[name] = value
        count++
      }
      return count === names.length
    },
    checkUnsafe(input) {
      const exit = decode(input ?? {})
      if (Exit.isSuccess(exit)) return
      throw new CachemeError({ reason: invalidKey(owner, fields, input, exit.cause) })
    },
    raw: primitive ? (key) => key[only] : (key) => text(key),
    write: primitive ? single.write : String,
    parse(text) {
      if (!primitive) return text
      switch (single.kind) {
        case "number":
          return String(Number(text)) === text ? Number(text) : undefined
        case "bigint":
          return /^-?\d+$/.test(text) ? BigInt(text) : undefined
        default:
          return unescape(text)
      }
    }
  }
}

const invalidKey = (
  owner: string,
  fields: Fields,
  input: unknown,
  cause: Cause.Cause<Schema.SchemaError>
): InvalidKey => {
  const given = (typeof input === "object" && input !== null ? input : {}) as Record<string, unknown>
  const error = Option.getOrUndefined(Cause.findErrorOption(cause))
  const missing = Object.keys(fields).find((name) => !(name in given))
  const unknown = Object.keys(given).find((name) => !(name in fields))
  const wrong = Object.keys(fields).find((name) => !Schema.is(Schema.toType(fields[name]!))(given[name]))
  if (missing !== undefined)
    return new InvalidKey({
      definition: owner,
      field: missing,
      expected: expectation(error),
      actual: "missing"
    })
  if (wrong !== undefined)
    return new InvalidKey({
      definition: owner,
      field: wrong,
      expected: expectation(error),
      actual: describe(given[wrong])
    })
  return new InvalidKey({
    definition: owner,
    field: unknown ?? "",
    expected: `only the fields ${Object.keys(fields).join(", ")}`,
    actual: "an unknown field"
  })
}

/** "Expected a string\n at [...]" → "a string". */
const expectation = (error: Schema.SchemaError | undefined): string => {
  const line = error?.message.split("\n")[0] ?? "another value"
  return line.startsWith("Expected ")
    ? line.slice("Expected ".length)
    : line === "Missing key"
      ? "a value"
      : line
}

const partOf = (
  owner: string,
  name: string,
  schema: Schema.ConstraintCodec<any, any>
): {
  readonly kind: Kind
  readonly write: (value: any) => string
} => {
  const type = Schema.toType(schema)
  if (type.ast.context?.isOptional === true) {
    throw new CachemeError({
      reason: new InvalidDefinition({
        definition: owner,
        field: `key field "${name}"`,
        expected: "a required field",
        actual: "optional"
      })
    })
  }
  const kind = kindOf(type.ast)
  if (kind === "json") {
    const encode = Schema.encodeSync(Schema.toCodecJson(schema))
    return { kind, write: (value) => escape(JSON.stringify(encode(value))) }
  }
  return { kind, write: kind === "string" ? escape : (value) => (value === 0 ? "0" : String(value)) }
}

const kindOf = (ast: SchemaAST.AST): Kind => {
  switch (ast._tag) {
    case "String":
    case "TemplateLiteral":
      return "string"
    case "Number":
      return "number"
    case "BigInt":
      return "bigint"
    case "Boolean":
      return "boolean"
    case "Literal": {
      const kind = typeof ast.literal
      return kind === "string" || kind === "number" || kind === "bigint" || kind === "boolean" ? kind : "json"
    }
    case "Union": {
      const [first, ...rest] = ast.types.map(kindOf)
      return first !== undefined && rest.every((kind) => kind === first) ? first : "json"
    }
    default:
      return "json"
  }
}

/**
 * A test that accepts only what the schema accepts and takes no more than its `room` in bytes, separator included. It
 * accepts nothing where a look does not tell.
 */
const lookOf = (ast: SchemaAST.AST, room: number): ((value: unknown) => boolean) => {
  const [check, ...more] = (ast.checks ?? []).map(
    ({ annotations }) =>
      (annotations as { readonly representation?: { readonly id?: string } })?.representation?.id
  )
  if (more.length > 0 || ast.encoding !== undefined || room < longestNumber) return isUntold
  switch (ast._tag) {
    case "Number":
      if (ast.checks === undefined) return isNumber
      if (check === "effect/schema/isInt") return Number.isSafeInteger
      return check === "effect/schema/isFinite" ? Number.isFinite : isUntold
    case "String": {
      if (ast.checks !== undefined) return isUntold
      // A character takes at most three bytes, also where it is escaped.
      const longest = Math.floor(room / 3) - 1
      return (value) => typeof value === "string" && value.length <= longest
    }
    case "Boolean":
      return ast.checks === undefined ? isBoolean : isUntold
    default:
      return isUntold
  }
}

/** How many bytes a number takes at most, with a separator. */
const longestNumber = 25
const isUntold = () => false
const isNumber = (value: unknown) => typeof value === "number"
const isBoolean = (value: unknown) => typeof value === "boolean"
