/**
 * A tag is a fact that answers rest on: when it is invalidated, every entry that carries it is stale at once.
 *
 * Most tags come from a `Model` of the database; `Tag.Class` makes an application's own, for facts that live
 * elsewhere (an exchange rate, a feature flag, another service).
 *
 * @see https://symfony.com/doc/current/components/cache/cache_invalidation.html tag-based invalidation
 */
import * as Equal from "effect/Equal"
import * as Hash from "effect/Hash"
import { CachemeError, describe, InvalidKey } from "./CachemeError.ts"
import * as Definition from "./Definition.ts"
import * as Key from "./Key.ts"

/** Marks tags. */
export const TypeId = "~cacheme/Tag"

/** A fact, told apart by its id. */
export interface Tag {
  readonly [TypeId]: Definition.Definition
  /** The canonical text of the fact: `#rate:EUR`, `@books:id=7`. */
  readonly id: string
  /** Ids that an entry with this tag carries beside it: a row of a table may also change in ways nobody can tell. */
  readonly carries?: ReadonlyArray<string> | undefined
  /** Ids that are invalidated with this tag: who changes a row of a table changes the table. */
  readonly reaches?: ReadonlyArray<string> | undefined
}

/** Tags as a user may give them: nested arrays are flattened, nothings ignored, duplicates merged. */
export type Tags = Tag | undefined | null | ReadonlyArray<Tags>

/** The declaration of an application's own tag. */
export interface TagDefinition extends Definition.Definition {
  readonly kind: "tag"
}

/** A class of application tags. */
export interface Class<Self, F extends Key.Fields> {
  new (fields: Key.Input<F>): Tag & Key.Type<F>
  readonly [TypeId]: TagDefinition
  readonly "~self"?: Self
}

type MissingSelf = `Missing type argument: write "class MyTag extends Tag.Class<MyTag>()(…)"`

/**
 * Declares a tag of the application's own, identified by typed fields.
 *
 * **Details**
 *
 * Throws `CachemeError` when the name or a field cannot make a tag; constructing a tag with a missing, unknown or
 * ill-typed field throws one that names tag and field. A tag is at most 1 KiB long.
 *
 * **Example** (A fact that lives outside the database)
 *
 * ```ts
 * import { Cacheme, Tag } from "cacheme"
 * import { Schema } from "effect"
 *
 * class Rate extends Tag.Class<Rate>()("rate", { currency: Schema.String }) {}
 *
 * const ratesChanged = Cacheme.invalidate([new Rate({ currency: "EUR" }), new Rate({ currency: "USD" })])
 * ```
 */
export const Class = <Self = never>() =>
  function declared<const F extends Key.Fields = {}>(
    name: string,
    fields?: F
  ): [Self] extends [never] ? MissingSelf : Class<Self, F> {
    Definition.assertNameUnsafe("tag", name)
    const spelling = Key.spelling(`tag "${name}"`, fields ?? {})
    const definition: TagDefinition = {
      kind: "tag",
      name,
      definedAt: Definition.locate(declared),
      parts: () =>
        Object.fromEntries(
          Object.entries(fields ?? {}).map(([field, schema]) => [field, Definition.schemaText(schema)])
        )
    }
    class TagImpl implements Tag {
      static readonly [TypeId] = definition
      declare readonly id: string
      constructor(input: unknown) {
        if (!spelling.look(this, input)) {
          spelling.checkUnsafe(input)
          Object.assign(this, input)
        }
        Object.defineProperty(this, "id", {
          value: checkLengthUnsafe(
            `tag "${name}"`,
            spelling.fields.length === 0 ? `#${name}` : `#${name}:${spelling.text(this)}`
          )
        })
      }
      get [TypeId](): TagDefinition {
        return definition
      }
      [Equal.symbol](that: unknown): boolean {
        return isTag(that) && that.id === this.id
      }
      [Hash.symbol](): number {
        return Hash.string(this.id)
      }
      toString(): string {
        return this.id
      }
    }
    return TagImpl as any
  }

/** True for tags of every origin. */
export const isTag = (u: unknown): u is Tag => typeof u === "object" && u !== null && TypeId in u

/** A tag of another definition than an application's own, such as a model's. Throws when it is over 1 KiB. */
export const makeUnsafe = (
  definition: Definition.Definition,
  id: string,
  beside: { readonly carries?: ReadonlyArray<string>; readonly reaches?: ReadonlyArray<string> } = {}
): Tag =>
  new DefinedTag(
    definition,
    checkLengthUnsafe(`${definition.kind} "${definition.name}"`, id),
    beside.carries,
    beside.reaches
  )

class DefinedTag implements Tag {
  readonly [TypeId]: Definition.Definition
  readonly id: string
  readonly carries: ReadonlyArray<string> | undefined
  readonly reaches: ReadonlyArray<string> | undefined
  constructor(
    definition: Definition.Definition,
    id: string,
    carries: ReadonlyArray<string> | undefined,
    reaches: ReadonlyArray<string> | undefined
  ) {
    this[TypeId] = definition
    this.id = id
    this.carries = carries
    this.reaches = reaches
  }
  [Equal.symbol](that: unknown): boolean {
    return isTag(that) && that.id === this.id
  }
  [Hash.symbol](): number {
    return Hash.string(this.id)
  }
  toString(): string {
    return this.id
  }
}

const checkLengthUnsafe = (owner: string, id: string): string => {
  if (!Key.isTooLong(id)) return id
  throw new CachemeError({
    reason: new InvalidKey({
      definition: owner,
      field: "id",
      expected: `at most ${Key.maxBytes} bytes`,
      actual: describe(id)
    })
  })
}

/** The ids that an entry with these tags carries. */
export const carriedIds = (tags: ReadonlyArray<Tag>): ReadonlyArray<string> =>
  tags.flatMap((tag) => (tag.carries === undefined ? [tag.id] : [tag.id, ...tag.carries]))

/** Flattens what a user gave into distinct tags. Throws `InvalidKey` on anything that is not a tag. */
export const flattenUnsafe = (tags: Tags): ReadonlyArray<Tag> => {
  if (isTag(tags)) return [tags]
  const found = new Map<string, Tag>()
  const visit = (item: Tags): void => {
    if (item === undefined || item === null) return
    if (isTag(item)) found.set(item.id, item)
    else if (Array.isArray(item)) item.forEach(visit)
    else {
      throw new CachemeError({
        reason: new InvalidKey({
          definition: "tags",
          field: "tag",
          expected: "a tag",
          actual: describe(item)
        })
      })
    }
  }
  visit(tags)
  return [...found.values()]
}
