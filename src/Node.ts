/**
 * A node is a question: a typed key, a typed answer, how long the answer stays good, and the tags it rests on.
 *
 * `Node.Class` declares one; an instance of the class is a key. Instances compare by value and are plain data: they
 * do nothing by themselves, `Cacheme` answers them.
 */
import * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import type * as Exit from "effect/Exit"
import * as Hash from "effect/Hash"
import * as Option from "effect/Option"
import * as PrimaryKey from "effect/PrimaryKey"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Persistable from "effect/persistence/Persistable"
import { CachemeError, describe, InvalidDefinition, InvalidKey, type LookupTimeout } from "./CachemeError.ts"
import * as Definition from "./Definition.ts"
import * as Key from "./Key.ts"
import type { Tags } from "./Tag.ts"

/** Marks node instances and node classes; holds the node's definition. */
export const TypeId = "~cacheme/Node"

/** Schemas of answers: any codec that needs no services. */
export type AnySchema = Schema.ConstraintCodec<any, any>

/** How long an answer stays good, decided once it is known. */
export type TimeToLive<K, A, E> = Duration.Input | ((exit: Exit.Exit<A, E>, key: K) => Duration.Input)

/** What is told of an answer: called after it is known, never able to change it. */
export interface Callbacks<K, A> {
  /** Runs when the cache answered. */
  readonly hit?: ((key: K, value: A) => Effect.Effect<unknown>) | undefined
  /** Runs when the cache could not answer, before the lookup. */
  readonly miss?: ((key: K) => Effect.Effect<unknown>) | undefined
}

/**
 * For how long an answer that is not fresh any more may be given all the same. All zero unless set; for each the
 * nearest setting wins: the call's, the node's, the cache's. An answer is kept for as long as the windows said when it
 * was stored.
 */
export interface StaleOptions {
  /** After its time to live, at once, while a new one is looked up in the background. */
  readonly whileRevalidate?: Duration.Input | undefined
  /** After something it rests on was invalidated, at once, while a new one is looked up in the background. */
  readonly afterInvalidation?: Duration.Input | undefined
  /**
   * After its time to live, when the lookup has failed or takes longer than `lookup.softTimeout`. An invalidated
   * answer only within `afterInvalidation`, too.
   */
  readonly ifError?: Duration.Input | undefined
}

/** The names of the windows. */
export const windowNames = ["whileRevalidate", "afterInvalidation", "ifError"] as const

/** When a fresh answer is looked up again before its time. */
export interface RefreshOptions {
  /**
   * Looks a fresh answer up in the background before it ages out, with a probability that grows towards the end: the
   * earlier, the longer its lookup took. 1 is the paper's recommendation; greater is earlier. Default 0: never.
   *
   * @see Vattani et al., "Optimal Probabilistic Cache Stampede Prevention" (XFetch), VLDB 2015
   */
  readonly ahead?: number | undefined
  /** Shortens each time to live by a random part of itself, at most this one (0 to 1). Default 0. */
  readonly jitter?: number | undefined
}

/** How a lookup is run. */
export interface LookupOptions<T extends Duration.Input = Duration.Input> {
  /** When it takes longer, an answer within `stale.ifError` is given; the lookup goes on in the background. */
  readonly softTimeout?: Duration.Input | undefined
  /** When it takes longer, with its retries and the wait for its turn, it is stopped and fails with `LookupTimeout`. */
  readonly timeout?: T | undefined
  /** How often, and when, it is tried again after a failure. Defects and interruption are not retried. */
  readonly retry?: Schedule.Schedule<unknown, any> | undefined
}

/** How the lookups of a node are run. */
export interface NodeLookupOptions<T extends Duration.Input = Duration.Input> extends LookupOptions<T> {
  /**
   * How many lookups of this node run at once, with the cache and without it; the others wait their turn. Default
   * unlimited. Lookups inside a transaction, and those made for a lookup that has its turn, do not wait.
   */
  readonly concurrency?: number | undefined
  /**
   * When to look again while another process looks the key up; its fill wakes those who wait early. When the schedule is
   * over, they look up themselves. Default every 20 ms, until that process has an answer, or its lease has run out.
   */
  readonly herd?: Schedule.Schedule<unknown> | undefined
}

/** What a single call may decide differently from its node. */
export interface Overrides<K = any, A = any, E = any, T extends Duration.Input = Duration.Input> {
  readonly timeToLive?: TimeToLive<K, A, E> | undefined
  readonly stale?: StaleOptions | undefined
  readonly refresh?: RefreshOptions | undefined
  readonly lookup?: LookupOptions<T> | undefined
  readonly skip?: boolean | ((key: K) => boolean) | undefined
  readonly on?: Callbacks<K, A> | undefined
  /**
   * What is noted of a lookup beside its tags by hand. Default `"recorded"`. `"manual"`: not what is read of the
   * database; the tags of memoized answers it uses and of `Cacheme.dependOn` still are. `"required"`: like `"recorded"`,
   * and an answer that rests on nothing at all is a defect, except where `NODE_ENV` is `production`.
   */
  readonly dependencies?: Dependencies | undefined
}

/** What is noted of a lookup. */
export type Dependencies = "recorded" | "manual" | "required"

/** The error that a `lookup.timeout` of type `T` adds: none if there is none. */
export type TimeoutOf<T> = [T] extends [never] ? never : LookupTimeout

/** The options of a node: see {@link Class}. */
export interface Options<F extends Key.Fields, V extends AnySchema, E extends AnySchema> extends Overrides<
  Key.Type<F>,
  V["Type"],
  E["Type"]
> {
  readonly lookup?: NodeLookupOptions | undefined
  /** The fields of the key, each a schema. */
  readonly key: F
  /** The schema of answers: what is stored and handed out is the schema's, excess properties go. */
  readonly value: V
  /** The schema of failures that may be cached; without it no failure is. Defects and interrupts never are. */
  readonly error?: E | undefined
  /** The facts that answer and cached failure rest on, as far as the key tells. */
  readonly tags?: ((key: Key.Type<F>) => Tags) | undefined
  /** The facts that an answer rests on, as far as the answer tells. */
  readonly valueTags?: ((value: V["Type"], key: Key.Type<F>) => Tags) | undefined
  /** The node whose key leads this one's: invalidating `book:100` drops `book:100>owner` too. */
  readonly within?: ClassAny | undefined
  /** Changing it leaves all earlier entries behind. Default 1. */
  readonly version?: number | string | undefined
  /**
   * How memory answers for this node in front of a shared store; the layer's if it does not say. `validated`: asks the
   * shared store whether anything was invalidated, one tiny question for all readers of the moment. `bounded`: at the
   * speed of memory, where another process's write may go unseen for at most the layer's bound.
   */
  readonly near?: Near | undefined
}

/** How memory answers in front of a shared store. */
export type Near = "validated" | "bounded"

/** What is said to who gives something else. */
export const nearExpected = "validated or bounded"

/** True for the ways in which memory answers in front of a shared store. */
export const isNear = (input: unknown): input is Near => input === "validated" || input === "bounded"

/** The declaration of a node. */
export interface NodeDefinition
  extends Definition.Definition, Omit<Options<any, AnySchema, AnySchema>, "key"> {
  readonly kind: "node"
  /** A small number of its name's own: what is kept of it lies in arrays. */
  readonly number: number
  /** True where keys are spelled as they are given, so that they tell nothing of the node. */
  readonly isOneOff?: true
  readonly error: AnySchema
  readonly version: number | string
  readonly spelling: Key.Spelling
  /** The tag of every entry of this node, and of the nodes whose keys lead this one's. */
  readonly classIds: ReadonlyArray<string>
  /** The canonical key. */
  readonly id: (key: any) => string
  /** The keys of the nodes that this one's key lies within, outermost first. */
  readonly ancestorIds: (key: any) => ReadonlyArray<string>
  /** The raw key, which a memory store files an entry under: the field itself where one primitive field is the key. */
  readonly raw: (key: any) => Key.Raw
  /** The raw key of a canonical one, or `undefined` if it is not a key of this node; and back. */
  readonly parse: (id: string) => Key.Raw | undefined
  readonly write: (raw: Key.Raw) => string
}

/** A key: an instance of a node class. */
export interface Node<V extends AnySchema, E extends AnySchema>
  extends Persistable.Persistable<V, E>, PrimaryKey.PrimaryKey {
  readonly [TypeId]: NodeDefinition
}

/** A key of any node. */
export type Any = Node<AnySchema, AnySchema>

/** The answers of a node. */
export type Value<N extends Any> = Persistable.Success<N>

/** What a lookup may answer: the schema's value, or what the schema makes it of, such as a row for a class. */
export type Answer<V extends Schema.Constraint> =
  | V["Type"]
  | Exclude<V["~type.make.in"], void>
  | (V extends Schema.$Array<infer S>
      ? ReadonlyArray<Answer<S>>
      : V extends Schema.Union<infer M>
        ? Answer<M[number]>
        : never)

/** What a lookup of a node may answer. */
export type AnswerOf<N extends Any> = Answer<Persistable.SuccessSchema<N>>

/** The failures that a node declares: those that may be cached, and `LookupTimeout` if it has a `lookup.timeout`. */
export type Error<N extends Any> = Persistable.Error<N> | TimeoutOfNode<N>

/** `LookupTimeout` for a node that has a `lookup.timeout`. */
export type TimeoutOfNode<N> = N extends { readonly "~timeout"?: infer T } ? NonNullable<T> : never

/** Notes in the type of a key that its lookups may time out. */
type Timeouts<T> = [T] extends [never] ? unknown : { readonly "~timeout"?: LookupTimeout }

/** A node class. */
export interface NodeClass<
  Self,
  F extends Key.Fields,
  V extends AnySchema,
  E extends AnySchema,
  T extends Duration.Input = never
> {
  new (key: Key.Input<F>): Node<V, E> & Key.Type<F> & Timeouts<T>
  readonly [TypeId]: NodeDefinition
  readonly "~self"?: Self
  readonly "~fields"?: F
}

/** Any node class. */
export interface ClassAny {
  readonly [TypeId]: NodeDefinition
  readonly "~fields"?: any
}

/** The fields of the node that a node lies within must be fields of its own key. */
type Within<F, W> = W extends { readonly "~fields"?: infer P }
  ? [keyof NonNullable<P>] extends [keyof F]
    ? unknown
    : { readonly within: `The key must have the fields of the node it lies within` }
  : unknown

type MissingSelf = `Missing type argument: write "class MyNode extends Node.Class<MyNode>()(…)"`

/**
 * Declares a question: what identifies it, what answers it, how long the answer stays good.
 *
 * **Details**
 *
 * `timeToLive` defaults to the layer's (1 hour); it may depend on the answer and on the key, and zero stores nothing. An
 * answer is kept no longer than what is left of each memoized answer that its lookup has used.
 * Declaring throws `CachemeError` (`InvalidDefinition`) for a bad name or Duration; constructing a key throws one
 * (`InvalidKey`) that names node and field when a field is missing, unknown or ill-typed, and when the key is over
 * 1 KiB.
 *
 * **Gotchas**
 *
 * Two lookups with equal nodes are the same question: whatever else the answer depends on (the user's rights, a
 * tenant, a locale) belongs into the key.
 *
 * **Example** (A book by its id)
 *
 * ```ts
 * import { Node } from "cacheme"
 * import { Schema } from "effect"
 *
 * class Book extends Schema.Class<Book>("Book")({ id: Schema.Int, title: Schema.String }) {}
 *
 * class BookNode extends Node.Class<BookNode>()("book", {
 *   key: { id: Schema.Int },
 *   value: Book,
 *   timeToLive: "10 minutes"
 * }) {}
 *
 * const key = new BookNode({ id: 100 })
 * console.log(String(key)) // book:100
 * ```
 */
export const Class = <Self = never>() =>
  function declared<
    const F extends Key.Fields,
    V extends AnySchema,
    E extends AnySchema = Schema.Never,
    W extends ClassAny | undefined = undefined,
    T extends Duration.Input = never
  >(
    name: string,
    options: Options<F, V, E> & { readonly within?: W; readonly lookup?: NodeLookupOptions<T> } & Within<F, W>
  ): [Self] extends [never] ? MissingSelf : NodeClass<Self, F, V, E, T> {
    return makeClass(define(name, options as any, Definition.locate(declared))) as any
  }

const makeClass = (definition: NodeDefinition) => {
  const { spelling } = definition
  const persistable = { success: definition.value, error: definition.error }
  class NodeImpl {
    static readonly [TypeId] = definition
    declare readonly [TypeId]: NodeDefinition
    constructor(input: unknown) {
      if (spelling.look(this, input)) return
      spelling.checkUnsafe(input)
      const given = (input ?? {}) as Record<string, unknown>
      for (const field of spelling.fields) (this as Record<string, unknown>)[field] = given[field]
      assertLengthUnsafe(definition, this)
    }
    get [Persistable.symbol]() {
      return persistable
    }
    [PrimaryKey.symbol](): string {
      return definition.id(this)
    }
    [Equal.symbol](that: unknown): boolean {
      return (
        isNode(that) &&
        that[TypeId].name === definition.name &&
        PrimaryKey.value(that) === definition.id(this)
      )
    }
    [Hash.symbol](): number {
      return Hash.string(definition.id(this))
    }
    toString(): string {
      return definition.id(this)
    }
  }
  // No getter: every hit reads it.
  Object.defineProperty(NodeImpl.prototype, TypeId, { value: definition })
  return NodeImpl
}

const assertLengthUnsafe = (definition: NodeDefinition, key: object): void => {
  const id = definition.id(key)
  if (Key.isTooLong(id)) {
    throw new CachemeError({
      reason: new InvalidKey({
        definition: `node "${definition.name}"`,
        field: definition.spelling.fields.join(", "),
        expected: `a key of at most ${Key.maxBytes} bytes`,
        actual: describe(id)
      })
    })
  }
}

const define = (
  name: string,
  options: Options<any, AnySchema, AnySchema>,
  definedAt: string
): NodeDefinition => {
  Definition.assertNameUnsafe("node", name)
  assertOptionsUnsafe(`node "${name}"`, options)
  const parent = options.within?.[TypeId]
  const classIds = [classId(name), ...(parent?.classIds ?? [])]
  // The fields of the keys it lies within are its own, but their names come on top.
  const spelling = Key.spelling(`node "${name}"`, options.key, classIds.join("").length)
  const foreign = parent?.spelling.fields.find((field) => !spelling.fields.includes(field))
  if (foreign !== undefined) {
    throw new CachemeError({
      reason: new InvalidDefinition({
        definition: `node "${name}"`,
        field: "within",
        expected: `a node whose key fields are all in the key`,
        actual: `node "${parent!.name}", whose field "${foreign}" is not`
      })
    })
  }
  const own = spelling.fields.filter(
    (field) => parent === undefined || !parent.spelling.fields.includes(field)
  )
  const ownId = own.length === 0 ? () => name : (key: any) => `${name}:${spelling.text(key, own)}`
  const id = parent === undefined ? ownId : (key: any) => `${parent.id(key)}>${ownId(key)}`
  return {
    ...options,
    kind: "node",
    number: numberOf(name),
    name,
    definedAt,
    error: options.error ?? Schema.Never,
    version: options.version ?? 1,
    spelling,
    classIds,
    id,
    ancestorIds: parent === undefined ? () => [] : (key) => [...parent.ancestorIds(key), parent.id(key)],
    ...(parent === undefined && spelling.fields.length === 1
      ? {
          raw: spelling.raw,
          parse: (text) =>
            text.startsWith(`${name}:`) ? spelling.parse(text.slice(name.length + 1)) : undefined,
          write: (raw) => `${name}:${spelling.write(raw)}`
        }
      : { raw: id, parse: (text) => text, write: String }),
    parts: () => ({
      ...Object.fromEntries(
        Object.entries(options.key).map(([field, schema]) => [
          `key.${field}`,
          Definition.schemaText(schema as AnySchema)
        ])
      ),
      value: Definition.schemaText(options.value),
      error: Definition.schemaText(options.error ?? Schema.Never),
      version: Definition.optionText(options.version ?? 1),
      timeToLive: Definition.optionText(options.timeToLive),
      tags: Definition.optionText(options.tags),
      valueTags: Definition.optionText(options.valueTags),
      dependencies: Definition.optionText(options.dependencies),
      skip: Definition.optionText(options.skip),
      stale: Definition.optionText(options.stale),
      refresh: Definition.optionText(options.refresh),
      lookup: Definition.optionText({
        ...options.lookup,
        retry: options.lookup?.retry !== undefined,
        herd: options.lookup?.herd !== undefined
      }),
      near: Definition.optionText(options.near),
      within: parent?.name ?? ""
    })
  }
}

const numbers = new Map<string, number>()

const numberOf = (name: string): number => {
  const known = numbers.get(name)
  if (known !== undefined) return known
  numbers.set(name, numbers.size)
  return numbers.size - 1
}

/** The id of the tag that every entry of a node carries. */
export const classId = (name: string): string => `${name}:*`

/** True for the ids of keys, as opposed to those of tags (`#…`, `@…`) and of node classes (`book:*`). */
export const isKeyId = (id: string): boolean =>
  !id.startsWith("#") && !id.startsWith("@") && !id.endsWith(":*")

/** Throws `InvalidDefinition`, naming the option, unless all times, numbers and schedules are what they must be. */
export const assertOptionsUnsafe = (
  owner: string,
  options: Overrides & { readonly absent?: Duration.Input | undefined; readonly near?: Near | undefined }
): void => {
  const check = (
    field: string,
    actual: unknown,
    isRight: (value: any) => boolean,
    expected: string
  ): void => {
    if (actual === undefined || isRight(actual)) return
    throw new CachemeError({
      reason: new InvalidDefinition({ definition: owner, field, expected, actual: describe(actual) })
    })
  }
  const duration = (field: string, actual: unknown) => check(field, actual, isDuration, durationExpected)
  if (typeof options.timeToLive !== "function") duration("timeToLive", options.timeToLive)
  duration("absent", options.absent)
  for (const name of windowNames) duration(`stale.${name}`, options.stale?.[name])
  const { ahead, jitter } = options.refresh ?? {}
  check("refresh.ahead", ahead, (value) => Number.isFinite(value) && value >= 0, "a number of zero or more")
  check(
    "refresh.jitter",
    jitter,
    (value) => Number.isFinite(value) && value >= 0 && value <= 1,
    "a number from 0 to 1"
  )
  const { softTimeout, timeout, retry, concurrency, herd }: NodeLookupOptions = options.lookup ?? {}
  duration("lookup.softTimeout", softTimeout)
  duration("lookup.timeout", timeout)
  check("lookup.retry", retry, Schedule.isSchedule, "a Schedule")
  check("lookup.herd", herd, Schedule.isSchedule, "a Schedule")
  check("near", options.near, isNear, nearExpected)
  check(
    "dependencies",
    options.dependencies,
    (value) => value === "recorded" || value === "manual" || value === "required",
    "recorded, manual or required"
  )
  check(
    "lookup.concurrency",
    concurrency,
    (value) => Number.isInteger(value) && value >= 1,
    "an integer of at least 1"
  )
}

/** What is said to who gives something else. */
export const durationExpected = `a Duration of zero or more, such as "10 minutes"`

/** True for what Effect reads as a Duration that is not negative (NaN and "abc" are none). */
export const isDuration = (input: unknown): input is Duration.Input =>
  !Number.isNaN(input) &&
  Option.match(Duration.fromInput(input as Duration.Input), {
    onNone: () => false,
    onSome: (duration) => !Duration.isNegative(duration)
  })

/**
 * The definition of a key. Every hit asks for it, so the property is spelled out: V8 finds a name sooner than what a
 * constant holds, where it has seen many classes.
 */
export const definitionOf = (node: Any): NodeDefinition => node["~cacheme/Node"]

/** True for keys of every node. */
export const isNode = (u: unknown): u is Any =>
  typeof u === "object" && u !== null && definitionOf(u as Any) !== undefined

/** True for node classes. */
export const isClass = (u: unknown): u is ClassAny => typeof u === "function" && TypeId in u

/** A question asked in one place only, identified by a string. */
export interface OneOff<
  V extends AnySchema,
  E extends AnySchema = Schema.Never,
  T extends Duration.Input = Duration.Input
> extends Overrides<string, V["Type"], E["Type"], T> {
  readonly key: string
  readonly value: V
  readonly error?: E | undefined
  readonly tags?: Tags
  readonly valueTags?: ((value: V["Type"]) => Tags) | undefined
}

/** The node of a one-off, and the options of its call. */
export const fromOneOff = (
  options: OneOff<AnySchema, AnySchema>
): { readonly node: Any; readonly policy: Policy } => {
  const { hit, miss } = options.on ?? {}
  const { skip } = options
  if (typeof options.key === "string" && !(isKeyId(options.key) && options.key.isWellFormed())) {
    throw new CachemeError({
      reason: new InvalidKey({
        definition: "Cacheme.memoize",
        field: "key",
        expected: `a text of whole characters that does not begin with # or @ and does not end with :*`,
        actual: describe(options.key)
      })
    })
  }
  assertOptionsUnsafe(`one-off "${options.key}"`, options)
  return {
    node: new (oneOffClass(options.value, options.error ?? Schema.Never))({
      key: options.key
    }),
    policy: {
      timeToLive: options.timeToLive,
      stale: options.stale,
      refresh: options.refresh,
      lookup: options.lookup,
      skip: typeof skip === "function" ? () => skip(options.key) : skip,
      on: { hit: hit && ((_, value) => hit(options.key, value)), miss: miss && (() => miss(options.key)) },
      tags: () => options.tags,
      valueTags: options.valueTags,
      dependencies: options.dependencies
    }
  }
}

/** The options that decide one call: its overrides, and a one-off's tags. */
export interface Policy extends Overrides {
  readonly tags?: ((key: any) => Tags) | undefined
  readonly valueTags?: ((value: any, key: any) => Tags) | undefined
}

/** How a lookup is run: as its call says, or else its node. */
export const lookupOptions = (node: Any, policy: Policy | undefined): LookupOptions => {
  const [call, own] = [policy?.lookup, node[TypeId].lookup]
  return {
    softTimeout: call?.softTimeout ?? own?.softTimeout,
    timeout: call?.timeout ?? own?.timeout,
    retry: call?.retry ?? own?.retry
  }
}

/** What is noted of a lookup: as its call says, or else its node. */
export const dependencies = (node: Any, policy: Policy | undefined): Dependencies =>
  policy?.dependencies ?? node[TypeId].dependencies ?? "recorded"

const every20ms: Schedule.Schedule<unknown> = Schedule.spaced("20 millis")

/** When those who wait for another process's lookup look again. */
export const herd = (node: Any): Schedule.Schedule<unknown> => node[TypeId].lookup?.herd ?? every20ms

/** True when a call does not ask the cache. */
export const isSkipped = (node: Any, policy: Policy | undefined): boolean => {
  const skip = policy?.skip ?? node[TypeId].skip
  return typeof skip === "function" ? skip(node) : skip === true
}

const oneOffClasses = new WeakMap<AnySchema, WeakMap<AnySchema, ReturnType<typeof makeClass>>>()

/** One-offs with equal schemas are one node, whose keys are spelled as they are given. */
const oneOffClass = (value: AnySchema, error: AnySchema): ReturnType<typeof makeClass> => {
  let byError = oneOffClasses.get(value)
  if (byError === undefined) oneOffClasses.set(value, (byError = new WeakMap()))
  let found = byError.get(error)
  if (found === undefined) {
    const schemas = Hash.string(Definition.schemaText(value) + Definition.schemaText(error))
    const definition = define(
      `one-off-${(schemas >>> 0).toString(36)}`,
      { key: { key: Schema.NonEmptyString }, value, error },
      "Cacheme.memoize"
    )
    found = makeClass({
      ...definition,
      isOneOff: true,
      id: (node) => node.key,
      parse: (text) => text,
      write: String
    })
    byError.set(error, found)
  }
  return found
}
