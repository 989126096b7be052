/**
 * The codec decides what of an answer is stored, and how it is written down for others to read: as the node's schemas
 * say, and nothing else.
 *
 * The value that is stored, and handed to the caller, is the schema's: plain rows become instances where the schema
 * is a class, excess properties go. An answer that the schema does not accept still reaches its caller; it is only
 * never stored. What is written is JSON, by `Schema.toCodecJson`: what is read back equals what was written (a number's
 * -0 is read as 0), or it is not written. So a union whose members look alike in JSON (`Date | string`, `null |
 * undefined`) is read again before it is let go, and a `Redacted` is written only where its schema says how
 * (`Schema.RedactedFromValue`).
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as SchemaAST from "effect/SchemaAST"
import * as SchemaIssue from "effect/SchemaIssue"
import * as SchemaParser from "effect/SchemaParser"
import { absence } from "./Entry.ts"
import type { AnySchema, NodeDefinition } from "./Node.ts"
import { type IsPlain, isPlainFor } from "./plainJson.ts"

/** What the schemas say of a lookup's outcome. */
export type Accepted =
  /** May be stored; the exit holds the schema's value. */
  | { readonly _tag: "Storable"; readonly exit: Exit.Exit<unknown, unknown> }
  /** A failure, defect or interrupt that the node does not declare. */
  | { readonly _tag: "Undeclared" }
  /** A value that the schema does not accept: what was expected, and at which path. */
  | { readonly _tag: "Rejected"; readonly expected: string }

/** What an entry holds: an answer, a declared failure, or that a batch had no answer (which has no JSON). */
export type Kind = (typeof kinds)[number]

/** All kinds. */
export const kinds = ["value", "error", "absent"] as const

/** An outcome written down. */
export interface Encoded {
  readonly kind: Kind
  /** JSON; empty for `absent`. */
  readonly json: string
}

/** What could not be written, or read back, and why: such an entry is a miss. */
export interface Unreadable {
  readonly _tag: "Unreadable"
  readonly why: string
}

/** Fails with what is unreadable. */
export const unreadable = (why: string): Exit.Exit<never, Unreadable> =>
  Exit.fail({ _tag: "Unreadable", why })

/** Asks a node's schemas about the outcome of its lookup. */
export const accept = (
  definition: NodeDefinition,
  exit: Exit.Exit<unknown, unknown>
): Effect.Effect<Accepted> => {
  if (Exit.isSuccess(exit)) {
    return Effect.matchEager(makerOf(definition.value)(exit.value), {
      onSuccess: (value): Accepted => ({ _tag: "Storable", exit: Exit.succeed(value) }),
      onFailure: (issue): Accepted => ({ _tag: "Rejected", expected: messageOf(issue) })
    })
  }
  const failure = onlyFailure(exit.cause)
  if (failure === undefined) return Effect.succeed({ _tag: "Undeclared" })
  return Effect.matchEager(makerOf(definition.error)(failure.error), {
    onSuccess: (error): Accepted => ({ _tag: "Storable", exit: Exit.fail(error) }),
    onFailure: (): Accepted => ({ _tag: "Undeclared" })
  })
}

/** Makes a schema's value of what it accepts. */
type Maker = (input: unknown) => Effect.Effect<unknown, SchemaIssue.Issue>

const makers = new WeakMap<AnySchema, Maker>()

/** Compiled once a schema. */
const makerOf = (schema: AnySchema): Maker => {
  const known = makers.get(schema)
  if (known !== undefined) return known
  const maker = SchemaParser.makeEffect(schema as any) as Maker
  makers.set(schema, maker)
  return maker
}

/**
 * Writes an accepted outcome down: at once, as an `Exit`, unless a transformation of the schema waits. Fails for what
 * would not be read back as it is.
 */
export const encode = (
  definition: NodeDefinition,
  exit: Exit.Exit<unknown, unknown>
): Effect.Effect<Encoded, Unreadable> => {
  if (exit === absence) return Exit.succeed({ kind: "absent", json: "" })
  if (Exit.isSuccess(exit))
    return settled(() => writeUnsafe(jsonCodecUnsafe(definition.value), "value", exit.value))
  const failure = onlyFailure(exit.cause)
  return failure === undefined
    ? unreadable("it is neither an answer nor a single failure")
    : settled(() => writeUnsafe(jsonCodecUnsafe(definition.error), "error", failure.error))
}

/** Reads back, from parsed JSON, what {@link encode} wrote: at once likewise. */
export const decode = (
  definition: NodeDefinition,
  kind: Kind,
  json: unknown
): Effect.Effect<Exit.Exit<unknown, unknown>, Unreadable> => {
  switch (kind) {
    case "absent":
      return Exit.succeed(absence)
    case "value":
      if (jsonCodecs.get(definition.value)?.isPlain?.(json) === true) return Exit.succeed(Exit.succeed(json))
      return settled(() =>
        Effect.flatMapEager(jsonCodecUnsafe(definition.value).decode(json), (value) =>
          Exit.succeed(Exit.succeed(value))
        )
      )
    case "error":
      return settled(() =>
        Effect.flatMapEager(jsonCodecUnsafe(definition.error).decode(json), (error) =>
          Exit.succeed(Exit.fail(error))
        )
      )
  }
}

/** A schema's JSON, compiled. */
interface JsonCodec {
  readonly encode: (value: unknown) => Effect.Effect<unknown, SchemaIssue.Issue>
  readonly decode: (json: unknown) => Effect.Effect<unknown, SchemaIssue.Issue>
  /** Where it can be told at a look: true for JSON that decodes to itself. */
  readonly isPlain: IsPlain | undefined
  /** Where two values may have one JSON: tells them apart. */
  readonly isSame: ((a: any, b: any) => boolean) | undefined
}

/** Made when they are first needed: the first answer is decoded by the schema, plain or not. */
const jsonCodecs = new WeakMap<AnySchema, JsonCodec>()

/** Throws where a schema has no JSON. */
const jsonCodecUnsafe = (schema: AnySchema): JsonCodec => {
  const known = jsonCodecs.get(schema)
  if (known !== undefined) return known
  if (reaches(schema.ast, isSecret))
    throw new Error("it may hold a Redacted, whose schema does not say how it is written")
  const json = Schema.toCodecJson(schema)
  const codec: JsonCodec = {
    encode: SchemaParser.encodeUnknownEffect(json),
    decode: SchemaParser.decodeUnknownEffect(json),
    isPlain: isPlainFor(json.ast),
    isSame: reaches(json.ast, isAmbiguous) ? Schema.toEquivalence(Schema.toType(schema) as any) : undefined
  }
  jsonCodecs.set(schema, codec)
  return codec
}

const writeUnsafe = (
  codec: JsonCodec,
  kind: Kind,
  value: unknown
): Effect.Effect<Encoded, SchemaIssue.Issue | Unreadable> =>
  Effect.flatMapEager(
    codec.isPlain?.(value) === true ? Exit.succeed(value) : codec.encode(value),
    (encoded): Effect.Effect<Encoded, SchemaIssue.Issue | Unreadable> => {
      const json: string | undefined = JSON.stringify(encoded)
      if (json === undefined) return unreadable("it has no JSON")
      const { isSame } = codec
      if (isSame === undefined) return Exit.succeed({ kind, json })
      return Effect.flatMapEager(codec.decode(JSON.parse(json)), (read) =>
        isSame(value, read) ? Exit.succeed({ kind, json }) : unreadable("its JSON is another value's as well")
      )
    }
  )

/** The outcome of what may throw, fail or die: all of it is an entry that is not there. */
const settled = <A>(
  run: () => Effect.Effect<A, SchemaIssue.Issue | Unreadable>
): Effect.Effect<A, Unreadable> => {
  let effect: Effect.Effect<A, SchemaIssue.Issue | Unreadable>
  try {
    effect = run()
  } catch (thrown) {
    return unreadable(lineOf(thrown))
  }
  return isDone(effect) ? settle(effect) : Effect.flatMap(Effect.exit(effect), settle)
}

const isDone = <A, E>(effect: Effect.Effect<A, E>): effect is Exit.Exit<A, E> => Exit.isExit(effect)

const settle = <A>(exit: Exit.Exit<A, SchemaIssue.Issue | Unreadable>): Exit.Exit<A, Unreadable> => {
  if (Exit.isSuccess(exit)) return Exit.succeed(exit.value)
  const found = Cause.squash(exit.cause)
  return unreadable(
    SchemaIssue.isIssue(found) ? messageOf(found) : isUnreadable(found) ? found.why : lineOf(found)
  )
}

const isUnreadable = (u: unknown): u is Unreadable =>
  typeof u === "object" && u !== null && "_tag" in u && u._tag === "Unreadable"

const lineOf = (thrown: unknown): string =>
  (thrown instanceof Error ? thrown.message : String(thrown)).replaceAll(/\s+/g, " ")

const messageOf = (issue: SchemaIssue.Issue): string =>
  new Schema.SchemaError(issue).message.replaceAll(/\s+/g, " ")

const onlyFailure = (cause: Cause.Cause<unknown>): Cause.Fail<unknown> | undefined => {
  const [reason, ...others] = cause.reasons
  return reason !== undefined && others.length === 0 && Cause.isFailReason(reason) ? reason : undefined
}

/** True when a part of a schema, at any depth, is such a one. */
const reaches = (
  ast: SchemaAST.AST,
  isSuch: (ast: SchemaAST.AST) => boolean,
  seen = new Set<SchemaAST.AST>()
): boolean => {
  if (seen.has(ast)) return false
  seen.add(ast)
  return isSuch(ast) || partsOf(ast).some((part) => reaches(part, isSuch, seen))
}

const partsOf = (ast: SchemaAST.AST): ReadonlyArray<SchemaAST.AST> => {
  const links = (ast.encoding ?? []).map(({ to }) => to)
  switch (ast._tag) {
    case "Declaration":
      // What is behind a declaration is its encoding's, where it has one.
      return ast.encoding === undefined ? ast.typeParameters : links
    case "Arrays":
      return [...links, ...ast.elements, ...ast.rest]
    case "Objects":
      return [
        ...links,
        ...ast.propertySignatures.map(({ type }) => type),
        ...ast.indexSignatures.map(({ type }) => type)
      ]
    case "Union":
      return [...links, ...ast.types]
    case "Suspend":
      return [...links, ast.thunk()]
    default:
      return links
  }
}

const isSecret = (ast: SchemaAST.AST): boolean =>
  ast._tag === "Declaration" &&
  ast.encoding === undefined &&
  (ast.annotations?.["representation"] as { readonly id?: string } | undefined)?.id ===
    "effect/schema/Redacted"

/** True where one JSON may stand for two values: `Any` is written as it is, and a union is read as its first that fits. */
const isAmbiguous = (ast: SchemaAST.AST): boolean => {
  if (ast._tag === "Any") return true
  if (ast._tag !== "Union") return false
  const forms = ast.types.map((type) => SchemaAST.toEncoded(type))
  return forms.some((form, i) => forms.slice(i + 1).some((other) => mayMeet(form, other)))
}

/** True unless it is plain that no JSON fits both. */
const mayMeet = (a: SchemaAST.AST, b: SchemaAST.AST): boolean => {
  if (a._tag === "Union") return a.types.some((type) => mayMeet(type, b))
  if (b._tag === "Union") return b.types.some((type) => mayMeet(a, type))
  const [kind, other] = [jsonKind(a), jsonKind(b)]
  if (kind === undefined || other === undefined) return true
  if (kind !== other) return false
  if (a._tag === "Literal" && b._tag === "Literal") return a.literal === b.literal
  if (a._tag !== "Objects" || b._tag !== "Objects") return true
  return a.propertySignatures.every(({ name, type }) => {
    const same = b.propertySignatures.find((property) => property.name === name)
    return (
      same === undefined ||
      SchemaAST.isOptional(type) ||
      SchemaAST.isOptional(same.type) ||
      mayMeet(type, same.type)
    )
  })
}

/** What JSON calls the values of an encoded form; `undefined` where it may be several, or is not known. */
const jsonKind = (ast: SchemaAST.AST): string | undefined => {
  switch (ast._tag) {
    case "Null":
      return "null"
    case "String":
    case "TemplateLiteral":
      return "string"
    case "Number":
      return "number"
    case "Boolean":
      return "boolean"
    case "Literal":
      return typeof ast.literal
    case "Arrays":
      return "array"
    case "Objects":
      return ast.propertySignatures.length + ast.indexSignatures.length > 0 ? "object" : undefined
    default:
      return undefined
  }
}
