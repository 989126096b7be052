/**
 * What every declared thing (node, tag, model, link) has in common: a kind, a name, and the place it was declared,
 * so that two different declarations of one name can be told apart and both be named.
 */
import type * as Schema from "effect/Schema"
import * as SchemaRepresentation from "effect/SchemaRepresentation"
import { CachemeError, DefinitionConflict, describe, InvalidDefinition } from "./CachemeError.ts"

/** A declaration, compared with others of its name by its parts. */
export interface Definition {
  readonly kind: "node" | "tag" | "model"
  readonly name: string
  /** File, line and column of the declaration, where the engine tells. */
  readonly definedAt: string
  /** What must be equal for two declarations to be the same one, each part as text under its option's name. */
  readonly parts: () => Readonly<Record<string, string>>
}

/** The declarations that one cache has met. An identical redeclaration (hot reload) replaces the earlier one. */
export class Definitions {
  readonly #met = new Map<string, Definition>()

  /** Throws `DefinitionConflict` when a different declaration of this kind and name has been met before. */
  meetUnsafe(definition: Definition): void {
    const key = `${definition.kind} "${definition.name}"`
    const known = this.#met.get(key)
    if (known === definition) return
    if (known !== undefined) assertSameUnsafe(known, definition)
    this.#met.set(key, definition)
  }

  /** All declarations of a kind that were met, in the order they were. */
  all<D extends Definition>(kind: D["kind"]): ReadonlyArray<D> {
    return [...this.#met.values()].filter((definition): definition is D => definition.kind === kind)
  }
}

/** Throws `DefinitionConflict`, naming both places and the differing options, unless the two are the same. */
export const assertSameUnsafe = (first: Definition, second: Definition): void => {
  const a = first.parts()
  const b = second.parts()
  const different = [...new Set([...Object.keys(a), ...Object.keys(b)])].filter((part) => a[part] !== b[part])
  if (different.length === 0) return
  throw new CachemeError({
    reason: new DefinitionConflict({
      name: `${first.kind} "${first.name}"`,
      first: first.definedAt,
      second: second.definedAt,
      difference: different.join(", ")
    })
  })
}

const allowed = /^[A-Za-z_][\w.\-/]{0,99}$/

/** Throws `InvalidDefinition` unless the name can begin a key. */
export const assertNameUnsafe = (kind: Definition["kind"], name: unknown): void => {
  if (typeof name === "string" && allowed.test(name)) return
  throw new CachemeError({
    reason: new InvalidDefinition({
      definition: kind,
      field: "name",
      expected: "a letter or _, then at most 99 letters, digits, or . _ - /",
      actual: describe(name)
    })
  })
}

/** The place that called `from`, as "file:line:column". */
export const locate = (from: Function): string => {
  const holder: { stack?: string } = {}
  const limit = Error.stackTraceLimit
  Error.stackTraceLimit = 1
  Error.captureStackTrace?.(holder, from)
  Error.stackTraceLimit = limit
  const line = holder.stack?.split("\n")[1] ?? ""
  return /\(?((?:file:\/\/)?[^\s()]+:\d+:\d+)\)?$/.exec(line)?.[1] ?? "an unknown place"
}

/** A schema as text that is equal for equal schemas. */
export const schemaText = (schema: Schema.Constraint): string =>
  JSON.stringify(SchemaRepresentation.toRepresentation(schema.ast))

/** An option as text: functions by their source, so that a hot reload of the same source is the same. */
export const optionText = (option: unknown): string =>
  typeof option === "function"
    ? option.toString()
    : typeof option === "bigint"
      ? `${option}n`
      : (JSON.stringify(option) ?? "")
