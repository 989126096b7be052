/**
 * What can go wrong with a cache, as one error with one tagged `reason`.
 *
 * Bad input (a definition, a key, a tag, a setting, a target) names what was wrong, what was found and what was
 * expected. A cache that is merely away or full never appears here: reads compute and writes commit without it. Only a
 * start may be told to fail without its store.
 */
import * as Schema from "effect/Schema"

/** A node, tag or model was declared in a way that cannot work. Thrown where it is declared. */
export class InvalidDefinition extends Schema.TaggedError<InvalidDefinition>("cacheme/InvalidDefinition")(
  "InvalidDefinition",
  { definition: Schema.String, field: Schema.String, expected: Schema.String, actual: Schema.String }
) {
  override get message(): string {
    return `${this.definition}: ${this.field} is ${this.actual}, expected ${this.expected}`
  }
}

/** Two different definitions share one name, so that their entries or tags would be mixed up. */
export class DefinitionConflict extends Schema.TaggedError<DefinitionConflict>("cacheme/DefinitionConflict")(
  "DefinitionConflict",
  { name: Schema.String, first: Schema.String, second: Schema.String, difference: Schema.String }
) {
  override get message(): string {
    return `${this.name} has two different definitions: ${this.first} and ${this.second} (they differ in ${this.difference})`
  }
}

/** The fields given to a node, a tag or a model's row do not make a key. Thrown where the key is made. */
export class InvalidKey extends Schema.TaggedError<InvalidKey>("cacheme/InvalidKey")("InvalidKey", {
  definition: Schema.String,
  field: Schema.String,
  expected: Schema.String,
  actual: Schema.String
}) {
  override get message(): string {
    return `${this.definition}: field "${this.field}" is ${this.actual}, expected ${this.expected}`
  }
}

/** `Cacheme.invalidate` was asked for something that names nothing that can be invalidated. */
export class InvalidTarget extends Schema.TaggedError<InvalidTarget>("cacheme/InvalidTarget")(
  "InvalidTarget",
  {
    target: Schema.String,
    expected: Schema.String
  }
) {
  override get message(): string {
    return `cannot invalidate ${this.target}: expected ${this.expected}`
  }
}

/** A setting of the layer, from Config or from code, is not allowed. The layer does not start. */
export class InvalidSetting extends Schema.TaggedError<InvalidSetting>("cacheme/InvalidSetting")(
  "InvalidSetting",
  {
    setting: Schema.String,
    value: Schema.String,
    expected: Schema.String
  }
) {
  override get message(): string {
    return `${this.setting} is ${this.value}, expected ${this.expected}`
  }
}

/** The store threw or died while it was to invalidate: what was invalidated may still be answered from it. */
export class StoreFailed extends Schema.TaggedError<StoreFailed>("cacheme/StoreFailed")("StoreFailed", {
  operation: Schema.String,
  found: Schema.String
}) {
  override get message(): string {
    return `the store failed in ${this.operation}: ${this.found}`
  }
}

/**
 * The store cannot be used: its server is of the wrong kind, refuses this process, or cannot be reached though it is
 * required. The layer does not start.
 */
export class StoreUnavailable extends Schema.TaggedError<StoreUnavailable>("cacheme/StoreUnavailable")(
  "StoreUnavailable",
  {
    store: Schema.String,
    found: Schema.String,
    expected: Schema.String
  }
) {
  override get message(): string {
    return `${this.store} cannot be used: ${this.found}; expected ${this.expected}`
  }
}

/** The cache's layer has been closed: nothing applies invalidations any more. */
export class Closed extends Schema.TaggedError<Closed>("cacheme/Closed")("Closed", {}) {
  override get message(): string {
    return "the cache is closed: its layer has been released"
  }
}

/** A value given to `Cacheme.set` is not one of the node's: its schema does not accept it. */
export class InvalidValue extends Schema.TaggedError<InvalidValue>("cacheme/InvalidValue")("InvalidValue", {
  node: Schema.String,
  expected: Schema.String
}) {
  override get message(): string {
    return `the value for ${this.node} is not accepted by its schema: ${this.expected}`
  }
}

/**
 * An answer rests on nothing that anybody could invalidate, though its node requires it to. A defect, except where
 * `NODE_ENV` is `production`.
 */
export class NoDependencies extends Schema.TaggedError<NoDependencies>("cacheme/NoDependencies")(
  "NoDependencies",
  { node: Schema.String, key: Schema.String }
) {
  override get message(): string {
    return `the answer of ${this.key} carries no tag, and node "${this.node}" requires some: only its time to live would end it. Tags are lost where the lookup runs something by runPromise without its own context, asks what Effect.cached has kept, or returns a lazy stream`
  }
}

/** A lookup took longer than the `lookup.timeout` of its node or call, which adds this error to the effect's. */
export class LookupTimeout extends Schema.TaggedError<LookupTimeout>("cacheme/LookupTimeout")(
  "LookupTimeout",
  { key: Schema.String, milliseconds: Schema.Finite }
) {
  override get message(): string {
    return `the lookup of ${this.key} took longer than ${this.milliseconds} ms`
  }
}

/**
 * The one error of this package, told apart by its `reason`.
 *
 * **Example** (Acting on one reason)
 *
 * ```ts
 * import { Cacheme } from "cacheme"
 * import { Effect } from "effect"
 *
 * const dropped = Cacheme.invalidate({ pattern: "book:*" }).pipe(
 *   Effect.map((report) => report.entries),
 *   Effect.catchReason("CachemeError", "InvalidTarget", () => Effect.succeed(0))
 * )
 * ```
 */
export class CachemeError extends Schema.TaggedError<CachemeError>("cacheme/CachemeError")("CachemeError", {
  reason: Schema.Union([
    InvalidDefinition,
    DefinitionConflict,
    InvalidKey,
    InvalidTarget,
    InvalidSetting,
    InvalidValue,
    NoDependencies,
    StoreFailed,
    StoreUnavailable,
    Closed
  ])
}) {
  override get message(): string {
    return this.reason.message
  }
}

/** Writes a value into a message: JSON where that says enough, cut at 80 characters. */
export const describe = (value: unknown): string => {
  const text =
    typeof value === "function"
      ? `a function`
      : typeof value === "bigint"
        ? `${value}n`
        : typeof value === "number"
          ? String(value)
          : (safeJson(value) ?? String(value))
  return text.length > 80 ? `${text.slice(0, 77)}…` : text
}

const safeJson = (value: unknown): string | undefined => {
  try {
    return JSON.stringify(value)
  } catch {
    return undefined
  }
}
