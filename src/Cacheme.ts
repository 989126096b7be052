/**
 * Cacheme answers nodes: from the cache when the rule says that the answer is fresh, by the user's lookup otherwise.
 *
 * The read path is `answer`, below: a look into the store, the rules of a transaction, a stale answer or a flight. How a
 * lookup is run is told in `Lookups.ts`, what its outcome is worth in `Appraisal.ts`, what many at once do in `Batch.ts`.
 * Everything else here is an accessor: a function of the public surface that
 * finds the service in the context.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Request from "effect/Request"
import * as RequestResolver from "effect/RequestResolver"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { ownIds } from "./Appraisal.ts"
import { bounded, CurrentAttribution } from "./Attribution.ts"
import { answerAll, type BatchLookup, type BatchPolicy } from "./Batch.ts"
import { CachemeError, InvalidValue } from "./CachemeError.ts"
import * as Codec from "./Codec.ts"
import type { Definition } from "./Definition.ts"
import { nothing } from "./Dependencies.ts"
import {
  absence,
  type Dependencies,
  type Explanation,
  type Reason,
  type Stale,
  type Windows
} from "./Entry.ts"
import { CurrentCrew } from "./Flight.ts"
import * as Freshness from "./Freshness.ts"
import { guard } from "./Guard.ts"
import * as Hit from "./Hit.ts"
import * as Invalidation from "./Invalidation.ts"
import * as Invalidator from "./Invalidator.ts"
import type * as Key from "./Key.ts"
import { Ledger } from "./Ledger.ts"
import {
  type Any,
  flightKey,
  handUp,
  isDueEarly,
  isUsable,
  Lookups,
  noteAsked,
  orAfter,
  told
} from "./Lookups.ts"
import type { NodeStats, TableStats } from "./Metrics.ts"
import * as Node from "./Node.ts"
import { Profiles } from "./Profile.ts"
import { CurrentRecorder } from "./Recorder.ts"
import * as Settings from "./Settings.ts"
import { type Found, type Held, type Position, type Status, Store } from "./Store.ts"
import * as Tag from "./Tag.ts"
import { CurrentTransaction, hiddenBy } from "./Transaction.ts"

/** What the service does; the functions of `Cacheme` find it in the context. */
export interface Service {
  /** Answers a hit at once, if it can be seen to be right. A service without it takes the longer way. */
  readonly "~hit"?: Hit.Hit | undefined
  readonly answer: <A, E, R>(
    node: Node.Any,
    lookup: Effect.Effect<A, E, R>,
    policy?: Node.Policy
  ) => Effect.Effect<A, E, R>
  /** Answers several nodes in their order, with one lookup for those that it has no answers for. */
  readonly answerAll: <E, R>(
    nodes: ReadonlyArray<Node.Any>,
    lookup: BatchLookup<E, R>,
    policy?: BatchPolicy
  ) => Effect.Effect<ReadonlyArray<Option.Option<any>>, E, R>
  /** Invalidates the key and looks it up now. */
  readonly refresh: <A, E, R>(
    node: Node.Any,
    lookup: Effect.Effect<A, E, R>,
    policy?: Node.Policy
  ) => Effect.Effect<A, E, R>
  /** Invalidates the key and stores a value in the same step; tells whether it did. */
  readonly set: (node: Node.Any, value: unknown, options?: SetOptions) => Effect.Effect<boolean, CachemeError>
  readonly position: Effect.Effect<Position>
  readonly peek: (node: Node.Any) => Effect.Effect<Option.Option<unknown>, unknown>
  /**
   * Publishes an invalidation in one step that nothing can come between, or keeps it for the commit when called inside
   * a transaction. The inner effect waits for the acknowledgement, and may be interrupted freely. A request that does
   * not say who acts and why is attributed to what the fiber does.
   */
  readonly publish: (
    request: Invalidation.Request,
    definitions?: ReadonlyArray<Definition>
  ) => Effect.Effect<Effect.Effect<Invalidation.Report, CachemeError>>
  readonly explain: (node: Node.Any) => Effect.Effect<Explanation>
  readonly stats: Effect.Effect<Stats>
  readonly nodes: Effect.Effect<ReadonlyArray<Node.NodeDefinition>>
  readonly events: Stream.Stream<Invalidation.Invalidation>
}

/** What `Cacheme.stats` tells. */
export interface Stats {
  /** The nodes met so far, in the order they were. */
  readonly nodes: ReadonlyArray<NodeStats>
  /** The tables whose invalidations have made keys be looked up again here, in the order they did. */
  readonly tables: ReadonlyArray<TableStats>
  readonly store: {
    readonly label: string
    /** Entries in the memory of this process, and the tags it keeps track of. */
    readonly entries: number
    readonly tags: number
    /** How the store is that other processes share; `undefined` where there is none. */
    readonly shared: Status | undefined
  }
}

/** Options of `Cacheme.set`. */
export interface SetOptions {
  /** When the value was known to be true; default now. */
  readonly since?: Position | undefined
  /** How long it stays good; default the node's. */
  readonly timeToLive?: Duration.Input | undefined
}

const make = Effect.fnUntraced(function* (
  options?: Settings.Options
): Effect.fn.Return<Service, CachemeError, Store | Scope.Scope> {
  const settings = yield* Settings.make(options)
  const store = guard(yield* Store)
  const { shared } = store
  const scope = yield* Effect.scope
  const context = yield* Effect.context()
  const profiles = new Profiles(settings, store, context)
  const ledger = new Ledger(settings.isDevelopment, context)
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      profiles.close()
      ledger.close()
    })
  )
  const invalidator = yield* Invalidator.make(store)
  const lookups = new Lookups(settings, store, profiles, ledger, scope)
  const { appraiser, flights, refreshes } = lookups

  // ------------------------------------------------------------------------------------------------ the read path

  const answer = (node: Node.Any, lookup: Any, policy?: Node.Policy) =>
    Effect.withFiber((fiber) => {
      const definition = node[Node.TypeId]
      const { counters } = profiles.ofUnsafe(definition)
      const transaction = fiber.getRef(CurrentTransaction)
      if (!settings.enabled || Node.isSkipped(node, policy)) {
        counters.bypassed++
        return lookups.compute(node, lookup, policy, fiber)
      }
      const clock = fiber.getRef(Clock.Clock)
      const isUsed = (found: Found | undefined): found is Found =>
        found !== undefined && found.exit !== absence && hiddenBy(transaction, found) === undefined
      const found = lookups.atOnce(node, clock, fiber)
      if (isUsed(found)) return answerFresh(node, lookup, policy, fiber, found)
      const otherwise = (held: Held) => {
        if (transaction !== undefined) {
          counters.bypassed++
          return lookups.compute(node, lookup, policy, fiber)
        }
        counters.misses[held.miss]++
        if (held.by !== undefined) ledger.ended(flightKey(node), held.by)
        const { atOnce } = profiles.freshnessOf(node, policy)
        return isUsable(held.stale, atOnce)
          ? answerStale(node, lookup, policy, fiber, held.stale)
          : answerMissing(node, lookup, policy, fiber, held)
      }
      if (shared === undefined) return otherwise(store.held(node, clock))
      return Effect.flatMap(shared.look([node], clock), ([looked]) => {
        const { found, held } = looked!
        if (isUsed(found)) return answerFresh(node, lookup, policy, fiber, found)
        return otherwise(held ?? { miss: "absent", stale: undefined })
      })
    })

  const answerFresh = (
    node: Node.Any,
    lookup: Any,
    policy: Node.Policy | undefined,
    fiber: Fiber.Fiber<any, any>,
    found: Found
  ) => {
    const definition = node[Node.TypeId]
    profiles.ofUnsafe(definition).counters.hits++
    fiber.getRef(CurrentRecorder)?.addAnswer(found.ids(), found.expiresAt)
    const exit = isDueEarly(node, policy, found, fiber)
      ? Effect.andThen(lookups.refreshSoon(node, lookup, policy, found.expiresAt), found.exit)
      : found.exit
    const tell = (policy?.on ?? definition.on)?.hit
    return tell === undefined || Exit.isFailure(found.exit)
      ? exit
      : Effect.andThen(told(node, tell(node, found.exit.value)), exit)
  }

  const answerStale = (
    node: Node.Any,
    lookup: Any,
    policy: Node.Policy | undefined,
    fiber: Fiber.Fiber<any, any>,
    stale: Stale
  ) => {
    const tell = (policy?.on ?? node[Node.TypeId].on)?.hit
    const answered = Effect.andThen(
      lookups.refreshSoon(node, lookup, policy),
      lookups.answerStale(node, stale, fiber)
    )
    return tell === undefined || Exit.isFailure(stale.exit)
      ? answered
      : Effect.andThen(told(node, tell(node, stale.exit.value)), answered)
  }

  /** Waits for a flight; if that fails, or takes too long, a stale answer may do. */
  const answerMissing = (
    node: Node.Any,
    lookup: Any,
    policy: Node.Policy | undefined,
    fiber: Fiber.Fiber<any, any>,
    held: Held
  ) => {
    const answered = Effect.flatMap(
      lookups.fly(node, lookup, policy, fiber.getRef(CurrentCrew)),
      (landing) => {
        const otherwise = () => {
          handUp(fiber, landing)
          return landing.exit
        }
        const instead = lookups.instead(landing, node, policy, fiber)
        if (instead === undefined) return otherwise()
        return Effect.flatMap(instead, (stale) =>
          stale === undefined ? otherwise() : lookups.answerStale(node, stale, fiber)
        )
      }
    )
    const { softTimeout } = Node.lookupOptions(node, policy)
    const patient =
      softTimeout === undefined || held.stale === undefined
        ? answered
        : orAfter(
            answered,
            softTimeout,
            Effect.map(
              lookups.whileMissing(node, policy, fiber),
              (stale) =>
                stale &&
                Effect.andThen(
                  lookups.refreshSoon(node, lookup, policy),
                  lookups.answerStale(node, stale, fiber)
                )
            )
          )
    const tell = (policy?.on ?? node[Node.TypeId].on)?.miss
    return tell === undefined ? patient : Effect.andThen(told(node, tell(node)), patient)
  }

  // ---------------------------------------------------------------------------------------------------- the rest

  const publish: Service["publish"] = (given, named = []) =>
    Effect.withFiber((fiber) => {
      const request = { ...bounded(fiber.getRef(CurrentAttribution)), ...given }
      for (const definition of named) profiles.definitions.meetUnsafe(definition)
      const transaction = fiber.getRef(CurrentTransaction)
      if (transaction === undefined) {
        noteReasons(request)
        return Effect.succeed(
          Effect.flatMap(invalidator.publishUnsafe(request), ({ report, swept }) =>
            swept === undefined
              ? Effect.succeed(report)
              : Effect.map(swept, (entries) => ({ ...report, entries }))
          )
        )
      }
      transaction.changed.add(request)
      transaction.defer(request)
      return Effect.succeed(Effect.succeed({ entries: 0, position: undefined, pending: 0, deferred: true }))
    })

  /** Why ids were invalidated that stand for more than is known to have changed: the last reason of each. */
  const reasons = new Map<string, string>()

  const noteReasons = ({ because }: Invalidation.Request): void => {
    for (const [id, reason] of because ?? []) {
      reasons.delete(id)
      reasons.set(id, reason)
      if (reasons.size > reasonsKept) reasons.delete(reasons.keys().next().value!)
    }
  }

  const ownKey = (node: Node.Any): Invalidation.Request => ({
    keys: [node[Node.TypeId].id(node)],
    tags: [],
    patterns: [],
    cause: "replacement"
  })

  const refresh = (node: Node.Any, lookup: Any, policy?: Node.Policy) =>
    Effect.withFiber((fiber) => {
      const { counters } = profiles.ofUnsafe(node[Node.TypeId])
      const isAlone =
        !settings.enabled || Node.isSkipped(node, policy) || fiber.getRef(CurrentTransaction) !== undefined
      if (isAlone) counters.bypassed++
      else counters.misses.invalidated++
      noteAsked(fiber, [node])
      return Effect.andThen(
        Effect.flatMap(publish(ownKey(node), [node[Node.TypeId]]), acknowledged),
        isAlone
          ? lookups.compute(node, lookup, policy, fiber)
          : Effect.flatMap(
              lookups.fly(node, lookup, policy, fiber.getRef(CurrentCrew), Infinity),
              (landing) => {
                handUp(fiber, landing)
                return landing.exit
              }
            )
      )
    })

  const set = Effect.fnUntraced(function* (
    node: Node.Any,
    value: unknown,
    { since, timeToLive }: SetOptions = {}
  ): Effect.fn.Return<boolean, CachemeError> {
    const definition = node[Node.TypeId]
    profiles.ofUnsafe(definition)
    const outcome = Exit.succeed(value)
    const accepted = yield* Codec.accept(definition, outcome)
    if (accepted._tag === "Rejected") {
      const key = definition.id(node)
      return yield* new CachemeError({ reason: new InvalidValue({ node: key, expected: accepted.expected }) })
    }
    const policy = timeToLive === undefined ? undefined : { timeToLive }
    const isAlone =
      !settings.enabled || Node.isSkipped(node, policy) || (yield* CurrentTransaction) !== undefined
    if (isAlone) {
      yield* Effect.flatten(publish(ownKey(node), [definition]))
      return false
    }
    const declared = yield* appraiser.declaredIds(node, policy)
    const known = declared ?? ownIds(node)
    return yield* Effect.acquireUseRelease(
      store.begin(node, known, since),
      Effect.fnUntraced(function* (fill) {
        const manual: Node.Policy = { ...policy, dependencies: "manual" }
        const observed = { noted: nothing, took: 0 }
        const { entry } = yield* appraiser.appraise(node, manual, outcome, declared, observed)
        const request = { ...ownKey(node), ...bounded(yield* CurrentAttribution) }
        const { stored } = yield* invalidator.publishUnsafe(request, entry && fill.replace(request, entry))
        if (stored !== undefined) lookups.countRefusal(node, stored)
        ledger.forget(flightKey(node))
        return stored === "stored"
      }),
      (fill) => fill.end
    )
  })

  const explain = Effect.fnUntraced(function* (node: Node.Any): Effect.fn.Return<Explanation> {
    const definition = node[Node.TypeId]
    const transaction = yield* CurrentTransaction
    const clock = yield* Clock.Clock
    const looked = shared === undefined ? undefined : (yield* shared.look([node], clock))[0]!
    const fresh = looked === undefined ? store.peek(node, clock) : looked.found
    const hidden = fresh && hiddenBy(transaction, fresh)
    const isAsked = settings.enabled && !Node.isSkipped(node, undefined) && transaction === undefined
    const held = isAsked && fresh === undefined ? (looked?.held ?? store.held(node, clock)).stale : undefined
    const freshness = profiles.freshnessOf(node, undefined)
    const left = (windows: Windows) => (held === undefined ? 0 : Freshness.leftOf(held, windows))
    const stale = { atOnce: left(freshness.atOnce), ifError: left(freshness.onError) }
    const reason: Reason = !settings.enabled
      ? { _tag: "Disabled" }
      : Node.isSkipped(node, undefined)
        ? { _tag: "Skipped" }
        : hidden !== undefined
          ? { _tag: "InTransaction", because: hidden }
          : fresh?.exit === absence
            ? { _tag: "NoAnswer" }
            : looked?.held?.miss === "unreadable"
              ? { _tag: "Unreadable" }
              : withBecause(yield* store.explain(node), reasons)
    const key = definition.id(node)
    const answered = reason._tag === "Fresh" || stale.atOnce > 0
    const failedRefreshes = refreshes.failures(flightKey(node))
    const ids = fresh?.ids() ?? held?.ids()
    const isManual = Node.dependencies(node, undefined) === "manual"
    const dependencies = ledger.dependencies(flightKey(node), ids?.slice(ownIds(node).length), isManual)
    return {
      node: definition.name,
      key,
      storedAs: shared === undefined ? settings.prefix + key : shared.nameOf(node),
      answered,
      reason,
      stale,
      lookupRunning: flights.has(flightKey(node)),
      failedRefreshes,
      dependencies,
      message: [
        `${key} is ${answered ? "" : "not "}answered from the cache: ${sentence(reason)}`,
        ...(stale.atOnce > 0
          ? [`its stale answer is given for ${text(stale.atOnce)} more`]
          : stale.ifError > 0
            ? [`its stale answer is given for ${text(stale.ifError)} more if the lookup fails`]
            : []),
        ...(failedRefreshes > 0 ? [`its refresh has failed ${failedRefreshes} times`] : []),
        ...(dependencies === undefined ? [] : remarks(dependencies))
      ].join("; ")
    }
  })

  return {
    "~hit": lookups.hit,
    answer,
    answerAll: (nodes, lookup, policy) => answerAll(lookups, nodes, lookup, policy),
    refresh,
    set,
    publish,
    explain,
    position: store.position,
    peek: (node) =>
      Effect.withFiber((fiber) => {
        profiles.ofUnsafe(node[Node.TypeId])
        const clock = fiber.getRef(Clock.Clock)
        const take = (found: Found | undefined) => {
          const transaction = fiber.getRef(CurrentTransaction)
          if (found === undefined || found.exit === absence || hiddenBy(transaction, found) !== undefined)
            return Effect.succeedNone
          fiber.getRef(CurrentRecorder)?.addAnswer(found.ids(), found.expiresAt)
          return Effect.asSome(found.exit)
        }
        // That there is none is an answer, too.
        noteAsked(fiber, [node])
        if (!settings.enabled) return Effect.succeedNone
        return shared === undefined
          ? take(store.peek(node, clock))
          : Effect.flatMap(shared.look([node], clock), ([looked]) => take(looked!.found))
      }),
    stats: Effect.map(shared?.status ?? Effect.undefined, (status) => ({
      nodes: profiles
        .all()
        .map(({ definition, counters }) => counters.stats(definition.name, profiles.holding(definition))),
      tables: ledger.stats(),
      store: { label: store.label, entries: store.size(), tags: store.tags(), shared: status }
    })),
    nodes: Effect.sync(() => profiles.definitions.all<Node.NodeDefinition>("node")),
    events: invalidator.events
  }
})

const text = (milliseconds: number): string => Duration.format(Duration.millis(milliseconds))

/** There are a few for each table that is written to. */
const reasonsKept = 1000

const withBecause = (reason: Reason, reasons: ReadonlyMap<string, string>): Reason =>
  reason._tag === "Invalidated" && reasons.has(reason.by)
    ? { ...reason, because: reasons.get(reason.by) }
    : reason

const sentence = (reason: Reason): string => {
  switch (reason._tag) {
    case "Fresh":
      return `it is fresh${reason.expiresIn === Infinity ? "" : ` for ${text(reason.expiresIn)} more`}`
    case "Absent":
      return "it was never stored, or has been evicted"
    case "NoAnswer":
      return "a batch had no answer for it"
    case "Expired":
      return "its time to live has passed"
    case "Invalidated":
      return `${reason.by} was invalidated after its lookup began${reason.because === undefined ? "" : ` (${reason.because})`}`
    case "Unreadable":
      return "what is stored under its name cannot be read"
    case "Away":
      return "the store cannot be asked"
    case "Disabled":
      return "the cache is switched off"
    case "Skipped":
      return "the node skips the cache for this key"
    case "InTransaction":
      return `the transaction may not use it: ${reason.because}`
  }
}

/** What is worth a word of what an entry rests on. */
const remarks = ({ isBare, untold, fallbacks, collapsed }: Dependencies): ReadonlyArray<string> => [
  ...(isBare ? ["it carries no tag: only its time to live ends it"] : []),
  ...(untold.length > 0
    ? [`it depends on ${untold.join(", ")}, which no write tells of: only its time to live bounds it`]
    : []),
  ...fallbacks.map(({ table, because }) => `it rests on more of "${table}" than it needs: ${because}`),
  ...(collapsed.length > 0
    ? [
        `it rests on so many rows that it is ended by any of ${collapsed.map((table) => `"${table}"`).join(", ")}`
      ]
    : [])
]

// ------------------------------------------------------------------------------------------------ the public surface

type ScopeError =
  "The lookup needs a Scope. It outlives the caller that started it, so it must close what it opens: use Effect.scoped"

type WithoutScope<R> = 0 extends 1 & R ? unknown : Scope.Scope extends R ? ScopeError : unknown

/** A memoized lookup: the lookup's own errors and requirements, the node's declared errors, and `Cacheme`. */
export type Memoized<A, E, R> = Effect.Effect<A, E, R | Cacheme>

type Unscoped<A, E, R> = Effect.Effect<A, E, R> & WithoutScope<R>

type NodeOverrides<N extends Node.Any, T extends Duration.Input> = Node.Overrides<
  N,
  Node.Value<N>,
  Node.Error<N>,
  T
>

/** Pipes onto a lookup of a node, or takes it first. */
interface OfNode {
  <N extends Node.Any, T extends Duration.Input = never>(
    node: N,
    overrides?: NodeOverrides<N, T>
  ): <A extends Node.AnswerOf<N>, E, R>(
    lookup: Unscoped<A, E, R>
  ) => Memoized<Node.Value<N>, E | Node.Error<N> | Node.TimeoutOf<T>, R>
  <N extends Node.Any, A extends Node.AnswerOf<N>, E, R, T extends Duration.Input = never>(
    lookup: Unscoped<A, E, R>,
    node: N,
    overrides?: NodeOverrides<N, T>
  ): Memoized<Node.Value<N>, E | Node.Error<N> | Node.TimeoutOf<T>, R>
}

/** The same for a question that is asked in one place. */
interface OfOneOff {
  <
    V extends Node.AnySchema,
    Er extends Node.AnySchema = typeof import("effect/Schema").Never,
    T extends Duration.Input = never
  >(
    oneOff: Node.OneOff<V, Er, T>
  ): <A extends Node.Answer<V>, E, R>(
    lookup: Unscoped<A, E, R>
  ) => Memoized<V["Type"], E | Er["Type"] | Node.TimeoutOf<T>, R>
  <
    V extends Node.AnySchema,
    A extends Node.Answer<V>,
    E,
    R,
    Er extends Node.AnySchema = typeof import("effect/Schema").Never,
    T extends Duration.Input = never
  >(
    lookup: Unscoped<A, E, R>,
    oneOff: Node.OneOff<V, Er, T>
  ): Memoized<V["Type"], E | Er["Type"] | Node.TimeoutOf<T>, R>
}

const memoize: OfNode & OfOneOff = (first: any, second?: any, third?: any): any =>
  // By hand, and what is piped first, because `dual` costs a hit more than all the rest of it.
  Node.isNode(first) && second === undefined
    ? piped(first)
    : Effect.isEffect(first)
      ? memoizeWith(first, second, third)
      : (lookup: Any) => memoizeWith(lookup, first, second)

const piped =
  (node: Node.Any) =>
  (lookup: Any): Any =>
    memoized(node, lookup)

const memoizeWith = (
  lookup: Any,
  question: Node.Any | Node.OneOff<any, any>,
  overrides?: Node.Overrides
): Any => {
  if (!Node.isNode(question)) {
    const { node, policy } = Node.fromOneOff(question)
    return Cacheme.use((cacheme) => cacheme.answer(node, lookup, policy))
  }
  if (overrides === undefined) return memoized(question, lookup)
  checkOverridesUnsafe(question, overrides)
  return Cacheme.use((cacheme) => cacheme.answer(question, lookup, overrides))
}

/** Effects of a node without options of their call: those that can be hits at once. */
const memoized = Hit.make(
  (context) => Context.getOrUndefined(context as Context.Context<Cacheme>, Cacheme)?.["~hit"],
  ({ node, lookup }, fiber) => {
    const effect: Any = Effect.isEffect(lookup) ? lookup : Effect.suspend(() => (lookup as any)(node))
    const cacheme = Context.getOrUndefined(fiber.context as Context.Context<Cacheme>, Cacheme)
    return cacheme === undefined
      ? Cacheme.use((cacheme) => cacheme.answer(node, effect))
      : cacheme.answer(node, effect)
  }
)

const checkOverridesUnsafe = (
  node: Node.Any | Node.ClassAny,
  overrides: Node.Overrides | undefined
): void => {
  if (overrides !== undefined)
    Node.assertOptionsUnsafe(`node "${node[Node.TypeId].name}", overrides`, overrides)
}

const fn = <
  F extends Key.Fields,
  V extends Node.AnySchema,
  Er extends Node.AnySchema,
  A extends Node.Answer<V>,
  E,
  R,
  T extends Duration.Input = never,
  T2 extends Duration.Input = never
>(
  node: Node.NodeClass<any, F, V, Er, T>,
  lookup: (key: Key.Type<F>) => Unscoped<A, E, R>,
  overrides?: Node.Overrides<Key.Type<F>, V["Type"], Er["Type"], T2>
): ((key: Key.Input<F>) => Memoized<V["Type"], E | Er["Type"] | Node.TimeoutOf<T | T2>, R>) => {
  checkOverridesUnsafe(node, overrides)
  if (overrides === undefined) return (input) => memoized(new node(input), lookup)
  return (input) => {
    const key = new node(input)
    return Cacheme.use((cacheme) =>
      cacheme.answer(
        key,
        Effect.suspend(() => lookup(key) as Any),
        overrides
      )
    )
  }
}

interface BatchOptions<N extends Node.Any, T extends Duration.Input>
  extends NodeOverrides<N, T>, Pick<BatchPolicy, "absent"> {}

const getAll = <N extends Node.Any, A extends Node.AnswerOf<N>, E, R, T extends Duration.Input = never>(
  nodes: Iterable<N>,
  lookup: (missing: ReadonlyArray<N>) => Unscoped<Iterable<readonly [N, A]>, E, R>,
  options?: BatchOptions<N, T>
): Memoized<
  ReadonlyArray<Option.Option<Node.Value<N>>>,
  E | Node.TimeoutOfNode<N> | Node.TimeoutOf<T>,
  R
> => {
  const asked = [...nodes]
  if (options !== undefined) Node.assertOptionsUnsafe("Cacheme.getAll", options)
  return Cacheme.use((cacheme) => cacheme.answerAll(asked, lookup as BatchLookup<E, R>, options)) as any
}

/** What a resolver of `Cacheme.resolver` is asked: the answer of a node, if it has one. */
export interface Question<N extends Node.Any, E, R> extends Request.Request<
  Option.Option<Node.Value<N>>,
  E,
  R | Cacheme
> {
  readonly node: N
}

const ask = <N extends Node.Any, E, R>(
  node: N,
  resolver: RequestResolver.RequestResolver<Question<N, E, R>>
): Effect.Effect<Option.Option<Node.Value<N>>, E, R | Cacheme> => {
  const question: Question<N, E, R> = Object.assign(Object.create(Request.RequestPrototype), { node })
  return Effect.request(question, resolver)
}

const resolver = <N extends Node.Any, A extends Node.AnswerOf<N>, E, R, T extends Duration.Input = never>(
  lookup: (missing: ReadonlyArray<N>) => Unscoped<Iterable<readonly [N, A]>, E, R>,
  options?: BatchOptions<N, T>
): RequestResolver.RequestResolver<Question<N, E | Node.TimeoutOfNode<N> | Node.TimeoutOf<T>, R>> =>
  RequestResolver.make((entries) =>
    Effect.forEach(
      alike(entries),
      (group) =>
        getAll(
          group.map(({ request }) => request.node),
          lookup,
          options
        ).pipe(
          Effect.exit,
          Effect.map((exit) =>
            group.forEach((entry, i) => entry.completeUnsafe(Exit.map(exit, (answers) => answers[i]!)))
          ),
          Effect.provideContext(group[0]!.context as Context.Context<any>)
        ),
      { concurrency: "unbounded", discard: true }
    )
  )

/** Those who may be given other answers (another cache, a transaction), or hand up what they use, are asked for apart. */
const alike = <E extends Request.Entry<unknown>>(
  entries: ReadonlyArray<E>
): ReadonlyArray<ReadonlyArray<E>> => {
  const groups: Array<{ readonly by: ReadonlyArray<unknown>; readonly entries: Array<E> }> = []
  for (const entry of entries) {
    const context = entry.context as Context.Context<any>
    const by = [
      Context.get(context, Cacheme),
      Context.get(context, CurrentTransaction),
      Context.get(context, CurrentRecorder)
    ]
    const group = groups.find((known) => known.by.every((service, i) => service === by[i]))
    if (group === undefined) groups.push({ by, entries: [entry] })
    else group.entries.push(entry)
  }
  return groups.map((group) => group.entries)
}

const peek = <N extends Node.Any>(
  node: N
): Effect.Effect<Option.Option<Node.Value<N>>, Node.Error<N>, Cacheme> =>
  Cacheme.use((cacheme) => cacheme.peek(node))

const refresh: OfNode = dual(
  (args) => Effect.isEffect(args[0]),
  (lookup: Any, node: Node.Any, overrides?: Node.Overrides) => {
    checkOverridesUnsafe(node, overrides)
    return Cacheme.use((cacheme) => cacheme.refresh(node, lookup, overrides))
  }
)

const set = <N extends Node.Any>(
  node: N,
  value: Node.AnswerOf<N>,
  options?: SetOptions
): Effect.Effect<boolean, CachemeError, Cacheme> => {
  if (options !== undefined) Node.assertOptionsUnsafe("Cacheme.set", { timeToLive: options.timeToLive })
  return Cacheme.use((cacheme) => cacheme.set(node, value, options))
}

const invalidate = (target: Invalidation.Target): Effect.Effect<Invalidation.Report, CachemeError, Cacheme> =>
  Effect.flatMap(resolve(target), ({ definitions, ...targets }) =>
    Cacheme.use((cacheme) => Effect.flatten(cacheme.publish({ ...targets, cause: "call" }, definitions)))
  )

const mutation: {
  (
    ...targets: ReadonlyArray<Invalidation.Target>
  ): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R | Cacheme>
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    ...targets: ReadonlyArray<Invalidation.Target>
  ): Effect.Effect<A, E, R | Cacheme>
} = dual(
  (args) => Effect.isEffect(args[0]),
  <A, E, R>(self: Effect.Effect<A, E, R>, ...targets: ReadonlyArray<Invalidation.Target>) =>
    Effect.flatMap(Effect.orDie(resolve(targets)), ({ definitions, ...targets }) =>
      Cacheme.use((cacheme) =>
        Effect.uninterruptibleMask((restore) =>
          Effect.flatMap(Effect.exit(restore(self)), (exit) => {
            const isInterrupted = Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)
            if (Exit.isFailure(exit) && !isInterrupted) return exit
            // Interrupted, it may have written all the same: what could not be interrupted has been done.
            const request = { ...targets, cause: isInterrupted ? "unknown outcome" : "mutation" } as const
            return Effect.flatMap(cacheme.publish(request, definitions), (report) =>
              Effect.andThen(acknowledged(restore(report)), exit)
            )
          })
        )
      )
    )
)

/** Waits for an acknowledgement after something has succeeded: a cache that is closed is told in the log, not to the caller. */
export const acknowledged = <R>(
  report: Effect.Effect<Invalidation.Report, CachemeError, R>
): Effect.Effect<void, never, R> =>
  Effect.catch(Effect.asVoid(report), (error) =>
    Effect.logError("cacheme: an invalidation was not delivered", error)
  )

const resolve = (target: Invalidation.Target) =>
  Effect.suspend(() => {
    try {
      return Effect.succeed(Invalidation.resolveUnsafe(target))
    } catch (error) {
      return error instanceof CachemeError ? Effect.fail(error) : Effect.die(error)
    }
  })

const dependOn = (...tags: ReadonlyArray<Tag.Tags>): Effect.Effect<void> =>
  Effect.withFiber((fiber) => {
    fiber.getRef(CurrentRecorder)?.add(Tag.carriedIds(Tag.flattenUnsafe(tags)))
    return Effect.void
  })

const layer = (options?: Settings.Options): Layer.Layer<Cacheme, CachemeError, Store> =>
  Layer.effect(Cacheme, make(options))

/**
 * The cache: the service that a program needs, and the functions that use it.
 *
 * **Example** (A lookup that is answered from the cache)
 *
 * ```ts
 * import { Cacheme, CachemeLive, Node } from "cacheme"
 * import { Effect, Schema } from "effect"
 *
 * class Square extends Node.Class<Square>()("square", { key: { of: Schema.Int }, value: Schema.Int }) {}
 *
 * const square = (of: number) => Effect.sync(() => of * of).pipe(Cacheme.memoize(new Square({ of })))
 *
 * const program = Effect.all([square(3), square(3)]).pipe(Effect.provide(CachemeLive))
 * ```
 */
export class Cacheme extends Context.Service<Cacheme, Service>()("cacheme/Cacheme") {
  /**
   * Answers from the cache when it can, and remembers the answer when it cannot.
   *
   * **Details**
   *
   * Pipes onto a lookup. Takes a node, or `{ key, value, timeToLive }` for a question that is asked in one place only.
   * `overrides` are the call's own `timeToLive`, `skip` and `on`. Nothing is added to the errors but those that the
   * node's `error` schema declares. Callers who ask while the lookup runs share it; if something it rests on is
   * invalidated meanwhile its answer is not stored, and those who asked later get a newer one.
   *
   * **Gotchas**
   *
   * Two lookups with equal nodes are the same question: whichever runs first answers both. The lookup runs in a fiber
   * of its own, with the first caller's context but without its `Scope` (a lookup that needs one does not compile) and
   * outside its transaction.
   *
   * **Example** (One question, asked with a key)
   *
   * ```ts
   * import { Cacheme, Node } from "cacheme"
   * import { Effect, Schema } from "effect"
   *
   * class Greeting extends Node.Class<Greeting>()("greeting", {
   *   key: { name: Schema.String },
   *   value: Schema.String,
   *   timeToLive: "5 minutes"
   * }) {}
   *
   * const greet = (name: string) =>
   *   Effect.succeed(`hello ${name}`).pipe(Cacheme.memoize(new Greeting({ name })))
   *
   * const settings = Effect.succeed({ theme: "dark" }).pipe(
   *   Cacheme.memoize({ key: "settings", value: Schema.Struct({ theme: Schema.String }), timeToLive: "1 minute" })
   * )
   * ```
   */
  static readonly memoize = memoize

  /**
   * Makes a function of a node's key fields that is answered from the cache: one lookup for a node, the recommended form.
   *
   * **Example** (One lookup for one node)
   *
   * ```ts
   * import { Cacheme, Node } from "cacheme"
   * import { Effect, Schema } from "effect"
   *
   * class Cube extends Node.Class<Cube>()("cube", { key: { of: Schema.Int }, value: Schema.Int }) {}
   *
   * const cube = Cacheme.fn(Cube, ({ of }) => Effect.sync(() => of ** 3))
   *
   * const twentySeven = cube({ of: 3 })
   * ```
   */
  static readonly fn = fn

  /**
   * Answers many nodes, in their order, with one lookup for all that the cache has no answers for. `Option.none` says
   * that there is no answer for a key.
   *
   * **Details**
   *
   * The lookup is given the missing nodes, each once, and returns pairs of node and value; one that it leaves out has no
   * answer, which is remembered for `absent` if that is set. A cached failure is no answer either. Keys that are being
   * looked up already are waited for, so overlapping calls look each key up once. If the lookup fails, this call fails,
   * and no other: whoever waited for one of its keys looks again.
   *
   * **Gotchas**
   *
   * `softTimeout` gives stale answers only if there is one for every missing key. How the lookup is run is decided by
   * the first missing node, should they be of several classes.
   *
   * **Example** (Books by their ids, with one query)
   *
   * ```ts
   * import { Cacheme, Node } from "cacheme"
   * import { Effect, Schema } from "effect"
   *
   * class Title extends Node.Class<Title>()("title", { key: { id: Schema.Int }, value: Schema.String }) {}
   *
   * declare const select: (ids: ReadonlyArray<number>) => Effect.Effect<ReadonlyArray<{ id: number; title: string }>>
   *
   * const titles = (ids: ReadonlyArray<number>) =>
   *   Cacheme.getAll(
   *     ids.map((id) => new Title({ id })),
   *     (missing) =>
   *       Effect.map(select(missing.map(({ id }) => id)), (rows) =>
   *         rows.map(({ id, title }) => [new Title({ id }), title] as const)
   *       ),
   *     { absent: "1 minute" }
   *   )
   * ```
   */
  static readonly getAll = getAll

  /**
   * A `RequestResolver` of Effect's that answers like {@link getAll}: asked from many places at once, with
   * {@link ask}, it makes one batched lookup.
   *
   * **Gotchas**
   *
   * A batch runs in the context of the first who asked. Callers in different transactions are asked for apart.
   *
   * **Example** (Effect's own batching, with a cache)
   *
   * ```ts
   * import { Cacheme, Node } from "cacheme"
   * import { Effect, Schema } from "effect"
   *
   * class Title extends Node.Class<Title>()("title", { key: { id: Schema.Int }, value: Schema.String }) {}
   *
   * declare const select: (ids: ReadonlyArray<number>) => Effect.Effect<ReadonlyArray<{ id: number; title: string }>>
   *
   * const titles = Cacheme.resolver((missing: ReadonlyArray<Title>) =>
   *   Effect.map(select(missing.map(({ id }) => id)), (rows) =>
   *     rows.map(({ id, title }) => [new Title({ id }), title] as const)
   *   )
   * )
   *
   * const title = (id: number) => Cacheme.ask(new Title({ id }), titles)
   *
   * const three = Effect.forEach([1, 2, 3], title, { concurrency: "unbounded" })
   * ```
   */
  static readonly resolver = resolver

  /** Asks a {@link resolver} for the answer of a node. */
  static readonly ask = ask

  /**
   * Looks a key up now, whatever the cache holds; its earlier answer is invalidated first. Fails as the lookup does.
   *
   * **Example** (A button that says reload)
   *
   * ```ts
   * import { Cacheme, Node } from "cacheme"
   * import { Effect, Schema } from "effect"
   *
   * class Total extends Node.Class<Total>()("total", { key: {}, value: Schema.Int }) {}
   *
   * declare const count: Effect.Effect<number>
   *
   * const reload = count.pipe(Cacheme.refresh(new Total()))
   * ```
   */
  static readonly refresh = refresh

  /**
   * Stores a value that is true now, and makes everything else known of the key stale. True when it was stored: not if
   * something it rests on was invalidated since, nor inside a transaction.
   *
   * **Details**
   *
   * A value that was found out earlier may only be stored if nothing it rests on has been invalidated since it was true:
   * give the {@link position} from before it was found as `since`. Only the tags that the node declares are known of it.
   * Fails with `CachemeError` (`InvalidValue`) for a value that the node's schema does not accept.
   *
   * **Example** (A value that came with an event)
   *
   * ```ts
   * import { Cacheme, Node } from "cacheme"
   * import { Effect, Schema } from "effect"
   *
   * class Rate extends Node.Class<Rate>()("rate", { key: { currency: Schema.String }, value: Schema.Number }) {}
   *
   * declare const download: Effect.Effect<number>
   *
   * const warm = Effect.gen(function* () {
   *   const since = yield* Cacheme.position
   *   const rate = yield* download
   *   return yield* Cacheme.set(new Rate({ currency: "EUR" }), rate, { since })
   * })
   * ```
   */
  static readonly set = set

  /**
   * The point in the order of invalidations that has been reached: what is true now may be {@link set} with it later.
   * It can be used until some thousands of invalidations have come after it; then `set` stores nothing.
   */
  static readonly position: Effect.Effect<Position, never, Cacheme> = Effect.flatMap(
    Effect.suspend(() => Cacheme),
    ({ position }) => position
  )

  /**
   * The answer that the cache could give now, without computing: `Option.none` if there is none. A cached failure fails.
   *
   * **Example** (Only if it costs nothing)
   *
   * ```ts
   * import { Cacheme, Node } from "cacheme"
   * import { Effect, Option, Schema } from "effect"
   *
   * class Total extends Node.Class<Total>()("total", { key: {}, value: Schema.Int }) {}
   *
   * const shown = Effect.map(Cacheme.peek(new Total()), Option.getOrElse(() => 0))
   * ```
   */
  static readonly peek = peek

  /**
   * Makes stale whatever rests on the target; completes when no reader that starts afterwards can get an older answer.
   *
   * **Details**
   *
   * The target is a node (and all keys within it), a node class (all its entries), a tag, an array of these, or
   * `{ keys, tags, pattern }`, where a pattern is a Redis-style glob over keys of at most 256 characters. Lookups that
   * are running meanwhile cannot store their answers. Fails with `CachemeError` (`InvalidTarget`) for what names
   * nothing. Inside a database transaction it waits for the commit (`deferred`).
   *
   * **Example** (By node, by class, by pattern)
   *
   * ```ts
   * import { Cacheme, Node } from "cacheme"
   * import { Effect, Schema } from "effect"
   *
   * class Page extends Node.Class<Page>()("page", { key: { path: Schema.String }, value: Schema.String }) {}
   *
   * const program = Effect.gen(function* () {
   *   yield* Cacheme.invalidate(new Page({ path: "/about" }))
   *   yield* Cacheme.invalidate({ pattern: "page:/blog/*" })
   *   const { entries } = yield* Cacheme.invalidate(Page)
   *   return entries
   * })
   * ```
   */
  static readonly invalidate = invalidate

  /**
   * Invalidates the targets when the effect succeeds, and nothing when it fails.
   *
   * **Details**
   *
   * An effect that was interrupted may have written all the same, so its targets are invalidated too.
   *
   * **Example** (A write that no table knows of)
   *
   * ```ts
   * import { Cacheme, Tag } from "cacheme"
   * import { Effect, Schema } from "effect"
   *
   * class Rate extends Tag.Class<Rate>()("rate", { currency: Schema.String }) {}
   *
   * declare const upload: (currency: string, rate: number) => Effect.Effect<void>
   *
   * const setRate = (currency: string, rate: number) =>
   *   upload(currency, rate).pipe(Cacheme.mutation(new Rate({ currency })))
   * ```
   */
  static readonly mutation = mutation

  /**
   * Inside a lookup: its answer rests on these tags too. Does nothing elsewhere.
   *
   * **Example** (A fact that is only known while looking up)
   *
   * ```ts
   * import { Cacheme, Tag } from "cacheme"
   * import { Effect, Schema } from "effect"
   *
   * class Rate extends Tag.Class<Rate>()("rate", { currency: Schema.String }) {}
   *
   * declare const rateOf: (currency: string) => Effect.Effect<number>
   *
   * const inEuros = (amount: number, currency: string) =>
   *   Effect.tap(rateOf(currency), () => Cacheme.dependOn(new Rate({ currency }))).pipe(
   *     Effect.map((rate) => amount * rate)
   *   )
   * ```
   */
  static readonly dependOn = dependOn

  /**
   * Why a key is, or is not, answered from the cache.
   *
   * **Example** (A sentence for the log)
   *
   * ```ts
   * import { Cacheme, Node } from "cacheme"
   * import { Effect, Schema } from "effect"
   *
   * class Total extends Node.Class<Total>()("total", { key: {}, value: Schema.Int }) {}
   *
   * const why = Effect.map(Cacheme.explain(new Total()), ({ message }) => message)
   * ```
   */
  static readonly explain = (node: Node.Any): Effect.Effect<Explanation, never, Cacheme> =>
    Cacheme.use((cacheme) => cacheme.explain(node))

  /**
   * The numbers of every node met so far, and of the store.
   *
   * **Example** (The hit ratio of the whole cache)
   *
   * ```ts
   * import { Cacheme } from "cacheme"
   * import { Effect } from "effect"
   *
   * const ratio = Effect.map(Cacheme.stats, ({ nodes }) => {
   *   const hits = nodes.reduce((sum, node) => sum + node.hits, 0)
   *   return hits / Math.max(1, nodes.reduce((sum, node) => sum + node.requests, 0))
   * })
   * ```
   */
  static readonly stats: Effect.Effect<Stats, never, Cacheme> = Effect.flatMap(
    Effect.suspend(() => Cacheme),
    ({ stats }) => stats
  )

  /**
   * Who acts, and why: told with every invalidation that is published where it is set, in {@link events} here and in
   * every process that shares the store.
   *
   * **Details**
   *
   * Empty by default; texts of the program's own, of which 256 characters are kept. A transaction is told as one
   * invalidation, with all that its writes were attributed to, in their order, separated by commas. It decides nothing,
   * and is not kept: who wants to keep it watches the events.
   *
   * **Example** (The user of a request, and what it is for)
   *
   * ```ts
   * import { Cacheme, Node } from "cacheme"
   * import { Effect, Schema } from "effect"
   *
   * class Page extends Node.Class<Page>()("page", { key: { path: Schema.String }, value: Schema.String }) {}
   *
   * const publish = (path: string) =>
   *   Cacheme.invalidate(new Page({ path })).pipe(
   *     Effect.updateService(Cacheme.Attribution, (outer) => ({ ...outer, reason: "published" }))
   *   )
   *
   * const request = publish("/about").pipe(Effect.provideService(Cacheme.Attribution, { actor: "user:7" }))
   * ```
   */
  static readonly Attribution: typeof CurrentAttribution = CurrentAttribution

  /** The nodes met so far. */
  static readonly nodes: Effect.Effect<ReadonlyArray<Node.NodeDefinition>, never, Cacheme> = Effect.flatMap(
    Effect.suspend(() => Cacheme),
    ({ nodes }) => nodes
  )

  /** The invalidations applied from the moment of subscription on. A subscriber is expected to keep up. */
  static readonly events: Stream.Stream<Invalidation.Invalidation, never, Cacheme> = Stream.unwrap(
    Effect.map(
      Effect.suspend(() => Cacheme),
      ({ events }) => events
    )
  )

  /**
   * A cache over a store, with options from code. Fails with `CachemeError` (`InvalidSetting`) for a bad one.
   *
   * **Example** (A small cache for a test)
   *
   * ```ts
   * import { Cacheme, MemoryStore } from "cacheme"
   * import { Layer } from "effect"
   *
   * const Small = Cacheme.layer({ timeToLive: "1 minute" }).pipe(Layer.provide(MemoryStore.layer({ capacity: 10 })))
   * ```
   */
  static readonly layer = layer
}
