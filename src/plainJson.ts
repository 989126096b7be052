/**
 * Tells at a look, and never wrongly, that parsed JSON is already the value that a schema would decode it to: every part
 * is of its kind, and there is no property too many. Then nothing needs to be decoded, which takes as long as parsing.
 *
 * Only for schemas made of plain parts. Where a part is transformed, made an instance, or checked by anything but `Int`
 * and `Finite`, nothing can be told: the schema decodes then.
 */
import type * as SchemaAST from "effect/SchemaAST"

/** True for JSON that decodes to itself. */
export type IsPlain = (json: unknown) => boolean

/** The test for a codec's JSON; `undefined` where it cannot be told at a look. */
export const isPlainFor = (ast: SchemaAST.AST): IsPlain | undefined => {
  if (ast.encoding !== undefined) return undefined
  if (ast.checks !== undefined && ast._tag !== "Number") return undefined
  switch (ast._tag) {
    case "String":
      return (json) => typeof json === "string"
    case "Boolean":
      return (json) => typeof json === "boolean"
    case "Null":
      return (json) => json === null
    case "Literal":
      return (json) => json === ast.literal
    case "Number":
      return isPlainNumber(ast)
    case "Arrays":
      return isPlainArray(ast)
    case "Objects":
      return isPlainObject(ast)
    case "Union":
      return isPlainUnion(ast)
    default:
      return undefined
  }
}

const isPlainNumber = ({ checks }: SchemaAST.AST): IsPlain | undefined => {
  const ids = (checks ?? []).map(
    ({ annotations }) =>
      (annotations as { readonly representation?: { readonly id?: string } } | undefined)?.representation?.id
  )
  if (ids.every((id) => id === "effect/schema/isFinite")) return Number.isFinite
  return ids.length === 1 && ids[0] === "effect/schema/isInt" ? Number.isSafeInteger : undefined
}

const isPlainArray = ({ elements, rest }: SchemaAST.Arrays): IsPlain | undefined => {
  const [item] = rest
  if (elements.length > 0 || rest.length !== 1 || item === undefined) return undefined
  const isPlain = isPlainFor(item)
  return isPlain && ((json) => Array.isArray(json) && json.every(isPlain))
}

const isPlainObject = ({ propertySignatures, indexSignatures }: SchemaAST.Objects): IsPlain | undefined => {
  // A struct of nothing takes any value.
  if (indexSignatures.length > 0 || propertySignatures.length === 0) return undefined
  const properties: Array<{
    readonly name: string
    readonly isPlain: IsPlain
    readonly isOptional: boolean
  }> = []
  for (const { name, type } of propertySignatures) {
    const isPlain = isPlainFor(type)
    if (isPlain === undefined || typeof name !== "string" || name === "__proto__") return undefined
    properties.push({ name, isPlain, isOptional: type.context?.isOptional === true })
  }
  return (json) => {
    if (typeof json !== "object" || json === null || Array.isArray(json)) return false
    const values = json as Readonly<Record<string, unknown>>
    let found = 0
    for (const { name, isPlain, isOptional } of properties) {
      // What lies in the prototype of all objects is a function, which is never plain.
      const value = values[name]
      if (value === undefined ? !isOptional : !isPlain(value)) return false
      if (value !== undefined) found++
    }
    for (const _ in values) found--
    return found === 0
  }
}

const isPlainUnion = ({ types, options }: SchemaAST.Union): IsPlain | undefined => {
  // The first of two structs that fits takes the properties that it has, and leaves the others.
  if (options?.mode === "oneOf" || types.filter(({ _tag }) => _tag === "Objects").length > 1) return undefined
  if (types.some(({ _tag }) => _tag === "Union")) return undefined
  const all = types.map(isPlainFor)
  return all.every((isPlain) => isPlain !== undefined)
    ? (json) => all.some((isPlain) => isPlain(json))
    : undefined
}
