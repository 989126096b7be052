/**
 * A cache for tests that remembers what was looked up and what was invalidated, under a clock that stands still until
 * it is moved (Effect's `TestClock`).
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { TestClock } from "effect/testing"
import { Cacheme } from "../Cacheme.ts"
import type { CachemeError } from "../CachemeError.ts"
import type { Invalidation } from "../Invalidation.ts"
import * as Node from "../Node.ts"
import type { Options as Settings } from "../Settings.ts"
import * as MemoryStore from "../store/MemoryStore.ts"
import { FaultyStore } from "./FaultyStore.ts"

/** Options of the cache and of its store in memory. */
export interface Options extends Settings, MemoryStore.Options {}

/** What can be asked of: a key, all keys of a node class, or a key as text. */
type Target = Node.Any | Node.ClassAny | string

/**
 * What a test asks about its cache.
 *
 * **Details**
 *
 * The assertions are defects that say what was expected and what was found, so that they need no handling.
 *
 * **Example** (A read is cached for ten minutes)
 *
 * ```ts
 * import { Cacheme, Node } from "cacheme"
 * import { CachemeTest } from "cacheme/testing"
 * import { Effect, Schema } from "effect"
 * import { TestClock } from "effect/testing"
 *
 * class Total extends Node.Class<Total>()("total", { key: {}, value: Schema.Int, timeToLive: "10 minutes" }) {}
 *
 * const total = Effect.succeed(42).pipe(Cacheme.memoize(new Total()))
 *
 * const test = Effect.gen(function* () {
 *   yield* total
 *   yield* total
 *   yield* CachemeTest.assertLookups(Total, 1)
 *   yield* CachemeTest.assertFresh(new Total())
 *   yield* TestClock.adjust("10 minutes")
 *   yield* CachemeTest.assertNotFresh(new Total())
 * }).pipe(Effect.provide(CachemeTest.layer()))
 * ```
 */
export class CachemeTest extends Context.Service<
  CachemeTest,
  {
    /** The keys looked up so far, in order: every try counts. */
    readonly lookups: Effect.Effect<ReadonlyArray<string>>
    /** The invalidations applied so far, in order. */
    readonly invalidations: Effect.Effect<ReadonlyArray<Invalidation>>
    /** Forgets the lookups and invalidations so far; the entries stay. */
    readonly forget: Effect.Effect<void>
    readonly lookupsOf: (target: Target) => number
  }
>()("cacheme/CachemeTest") {
  /** A cache in memory, the questions of this service, a {@link FaultyStore} and a `TestClock`. */
  static readonly layer = (
    options: Options = {}
  ): Layer.Layer<Cacheme | CachemeTest | FaultyStore | TestClock.TestClock, CachemeError> =>
    Layer.effectContext(Effect.flatMap(Effect.all([Cacheme, FaultyStore]), record)).pipe(
      Layer.provideMerge(Cacheme.layer(options)),
      Layer.provideMerge(FaultyStore.layer),
      Layer.provide(MemoryStore.layer(options)),
      Layer.provideMerge(TestClock.layer())
    )

  /** The keys looked up so far, in order: every try counts. */
  static readonly lookups = Effect.suspend(() => CachemeTest.use(({ lookups }) => lookups))

  /** The invalidations applied so far, in order. */
  static readonly invalidations = Effect.suspend(() => CachemeTest.use(({ invalidations }) => invalidations))

  /** Forgets the lookups and invalidations so far; the entries stay. */
  static readonly forget = Effect.suspend(() => CachemeTest.use(({ forget }) => forget))

  /** Dies unless a key, or the keys of a node class together, were looked up so many times. */
  static readonly assertLookups = (
    target: Target,
    expected: number
  ): Effect.Effect<void, never, CachemeTest> =>
    CachemeTest.use(({ lookupsOf }) => {
      const actual = lookupsOf(target)
      return actual === expected
        ? Effect.void
        : Effect.die(new AssertionError(`${nameOf(target)} was looked up`, times(expected), times(actual)))
    })

  /** Dies unless the next reader of a key would be given a fresh answer from the cache. */
  static readonly assertFresh = (node: Node.Any): Effect.Effect<void, never, Cacheme> =>
    Effect.flatMap(Cacheme.explain(node), ({ reason, message }) =>
      reason._tag === "Fresh"
        ? Effect.void
        : Effect.die(new AssertionError(`${nameOf(node)} is`, "fresh", message))
    )

  /** Dies if the next reader of a key would be given a fresh answer from the cache. */
  static readonly assertNotFresh = (node: Node.Any): Effect.Effect<void, never, Cacheme> =>
    Effect.flatMap(Cacheme.explain(node), ({ reason, message }) =>
      reason._tag === "Fresh"
        ? Effect.die(new AssertionError(`${nameOf(node)} is`, "not fresh", message))
        : Effect.void
    )
}

/** What an assertion dies with: test runners show both sides of it. */
class AssertionError extends Error {
  override readonly name = "AssertionError"
  readonly expected: string
  readonly actual: string
  constructor(what: string, expected: string, actual: string) {
    super(`${what} expected: ${expected}, found: ${actual}`)
    this.expected = expected
    this.actual = actual
  }
}

const times = (n: number): string => (n === 1 ? "once" : `${n} times`)

const nameOf = (target: Target): string =>
  typeof target === "string"
    ? target
    : Node.isNode(target)
      ? target[Node.TypeId].id(target)
      : target[Node.TypeId].name

/** Wraps the service, so that each lookup is noted when it runs. */
const record = ([inner, faulty]: readonly [Cacheme["Service"], FaultyStore["Service"]]) =>
  Effect.sync(() => {
    let lookups: Array<{ readonly id: string; readonly name: string }> = []
    let forgotten = 0
    const note = (node: Node.Any): void => {
      const { name, id } = node[Node.TypeId]
      lookups.push({ name, id: id(node) })
    }
    const noted = <A, E, R>(node: Node.Any, lookup: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
      Effect.suspend(() => {
        note(node)
        return lookup
      })
    const cacheme = Cacheme.of({
      ...inner,
      answer: (node, lookup, policy) => inner.answer(node, noted(node, lookup), policy),
      refresh: (node, lookup, policy) => inner.refresh(node, noted(node, lookup), policy),
      answerAll: (nodes, lookup, policy) =>
        inner.answerAll(
          nodes,
          (missing) =>
            Effect.suspend(() => {
              missing.forEach(note)
              return lookup(missing)
            }),
          policy
        )
    })
    const test = CachemeTest.of({
      lookups: Effect.sync(() => lookups.map(({ id }) => id)),
      invalidations: Effect.sync(() => faulty.invalidations().slice(forgotten)),
      forget: Effect.sync(() => {
        lookups = []
        forgotten = faulty.invalidations().length
      }),
      lookupsOf: (target) =>
        lookups.filter(({ id, name }) =>
          Node.isClass(target) ? name === target[Node.TypeId].name : id === nameOf(target)
        ).length
    })
    return Context.add(Context.make(Cacheme, cacheme), CachemeTest, test)
  })
