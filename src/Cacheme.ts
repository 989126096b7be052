/**
 * Cacheme answers nodes: from the cache when the rule says that the answer is fresh, by the user's lookup otherwise.
 *
 * The read path is `answer`, below: a look into the store, the rules of a transaction, a flight. What a lookup's
 * outcome is worth is decided in `lookUp`. Everything else here is an accessor: a function of the public surface that
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
import * as LogLevel from "effect/LogLevel"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { CachemeError } from "./CachemeError.ts"
import * as Codec from "./Codec.ts"
import { type Definition, Definitions } from "./Definition.ts"
import type { Entry, Explanation, Reason } from "./Entry.ts"
import { type Flight, Flights, type Landing } from "./Flight.ts"
import * as Invalidation from "./Invalidation.ts"
import * as Invalidator from "./Invalidator.ts"
import type * as Key from "./Key.ts"
import { Counters, type NodeStats } from "./Metrics.ts"
import * as Node from "./Node.ts"
import { CurrentRecorder, Recorder } from "./Recorder.ts"
import * as Settings from "./Settings.ts"
import { type Fill, type Found, Store } from "./Store.ts"
import * as Tag from "./Tag.ts"
import { CurrentTransaction, type Transaction } from "./Transaction.ts"

/** What the service does; the functions of `Cacheme` find it in the context. */
export interface Service {
  readonly answer: <A, E, R>(
    node: Node.Any,
    lookup: Effect.Effect<A, E, R>,
    policy?: Node.Policy
  ) => Effect.Effect<A, E, R>
  readonly peek: (node: Node.Any) => Effect.Effect<Option.Option<unknown>, unknown>
  /**
   * Publishes an invalidation in one step that nothing can come between, or keeps it for the commit when called inside
   * a transaction. The inner effect waits for the acknowledgement, and may be interrupted freely.
   */
  readonly publish: (
    request: Invalidation.Request,
    definitions?: ReadonlyArray<Definition>
  ) => Effect.Effect<Effect.Effect<Invalidation.Report, CachemeError>>
  readonly explain: (node: Node.Any) => Effect.Effect<Explanation>
  readonly stats: Effect.Effect<ReadonlyArray<NodeStats>>
  readonly nodes: Effect.Effect<ReadonlyArray<Node.NodeDefinition>>
  readonly events: Stream.Stream<Invalidation.Invalidation>
}

const make = Effect.fnUntraced(function* (
  options?: Settings.Options
): Effect.fn.Return<Service, CachemeError, Store | Scope.Scope> {
  const settings = yield* Settings.make(options)
  const store = yield* Store
  const invalidator = yield* Invalidator.make(store)
  const flights = new Flights(yield* Effect.scope)
  const definitions = new Definitions()
  const numbers = new Map<Node.NodeDefinition, Counters>()
  const warned = new Set<string>()

  // ------------------------------------------------------------------------------------------------ the read path

  const answer = (node: Node.Any, lookup: Effect.Effect<any, any, any>, policy?: Node.Policy) =>
    Effect.withFiber((fiber) => {
      const counters = countersOf(node[Node.TypeId])
      const transaction = fiber.getRef(CurrentTransaction)
      if (!settings.enabled || isSkipped(node, policy)) {
        counters.bypassed++
        return compute(node, lookup, policy, fiber)
      }
      const found = store.peek(node, fiber.getRef(Clock.Clock))
      if (found !== undefined && (transaction === undefined || hiddenBy(transaction, found) === undefined)) {
        counters.hits++
        fiber.getRef(CurrentRecorder)?.add(found.ids())
        const tell = (policy?.on ?? node[Node.TypeId].on)?.hit
        return tell === undefined || Exit.isFailure(found.exit)
          ? found.exit
          : Effect.andThen(told(node, tell(node, found.exit.value)), found.exit)
      }
      if (transaction !== undefined) {
        counters.bypassed++
        return compute(node, lookup, policy, fiber)
      }
      counters.misses++
      const landing = flights.board(flightKey(node), (flight, close) =>
        lookUp(node, lookup, policy, flight, close)
      )
      const answered = Effect.flatMap(landing, ({ exit, ids }) => {
        handUp(fiber, ids)
        return exit
      })
      const tell = (policy?.on ?? node[Node.TypeId].on)?.miss
      return tell === undefined ? answered : Effect.andThen(told(node, tell(node)), answered)
    })

  /** Runs the lookup of a flight, and stores its answer if the rule allows. */
  const lookUp = Effect.fnUntraced(function* (
    node: Node.Any,
    lookup: Effect.Effect<any, any, any>,
    policy: Node.Policy | undefined,
    flight: Flight,
    close: () => void
  ): Effect.fn.Return<Landing, never, any> {
    const declared = yield* attempt(node, "tags", () => declaredIds(node, policy))
    return yield* Effect.acquireUseRelease(
      // The position is read before the lookup starts, so that an invalidation during it wins.
      store.begin(node, declared ?? ownIds(node)),
      (fill) => {
        flight.isOvertaken = fill.isOvertaken
        return fillWith(node, lookup, policy, declared, fill, close)
      },
      (fill) => fill.end
    )
  })

  const fillWith = Effect.fnUntraced(function* (
    node: Node.Any,
    lookup: Effect.Effect<any, any, any>,
    policy: Node.Policy | undefined,
    declared: ReadonlyArray<string> | undefined,
    fill: Fill,
    close: () => void
  ): Effect.fn.Return<Landing, never, any> {
    const counters = countersOf(node[Node.TypeId])
    const clock = yield* Clock.Clock
    // Another flight may have landed between the caller's look and now.
    const found = store.peek(node, clock)
    if (found !== undefined) return { exit: found.exit, isSound: true, ids: found.ids() }

    counters.lookups++
    const startedAt = clock.currentTimeMillisUnsafe()
    const recorder = new Recorder()
    const outcome = yield* Effect.exit(Effect.updateContext(lookup, lookupContext(recorder)))
    if (Exit.isFailure(outcome)) counters.failures++
    const recorded = recorder.close()
    const { exit, isStorable } = yield* judge(node, outcome)
    const ids =
      declared && recorder.isComplete
        ? yield* answerIds(node, policy, exit, isStorable, declared, recorded)
        : undefined
    const timeToLive =
      ids && isStorable ? yield* attempt(node, "timeToLive", () => timeToLiveOf(node, policy, exit)) : 0
    const entry: Entry | undefined = ids && timeToLive ? { exit, tags: ids.slice(1), timeToLive } : undefined

    // Closed to joiners first: whoever comes now starts anew or finds what is stored.
    close()
    const isStored = entry !== undefined && (yield* fill.store(entry))
    if (entry !== undefined && !isStored) counters.overtaken++
    const stored = isStored
      ? "stored"
      : entry === undefined
        ? "not to be stored"
        : "not stored, invalidated meanwhile"
    yield* logLookup(node, startedAt, `${Exit.isSuccess(exit) ? "answered" : "failed"}, ${stored}`)
    return { exit, isSound: isStored || (entry === undefined && fill.isQuiet()), ids }
  })

  const logLookup = (node: Node.Any, startedAt: number, outcome: string): Effect.Effect<void> =>
    Effect.withFiber((fiber) => {
      if (LogLevel.isGreaterThan(fiber.cache.minimumLogLevel, "Debug")) return Effect.void
      const { name, id } = node[Node.TypeId]
      const milliseconds = fiber.getRef(Clock.Clock).currentTimeMillisUnsafe() - startedAt
      return Effect.logDebug(
        `cacheme: looked up ${settings.prefix}${id(node)} in ${milliseconds} ms: ${outcome}`
      ).pipe(Effect.annotateLogs({ node: name, startedAt: new Date(startedAt).toISOString() }))
    })

  /** Computes without the cache, in the caller's own context; the answer is the schema's all the same. */
  const compute = (
    node: Node.Any,
    lookup: Effect.Effect<any, any, any>,
    policy: Node.Policy | undefined,
    fiber: Fiber.Fiber<any, any>
  ) =>
    Effect.flatMap(Effect.exit(lookup), (outcome) =>
      Effect.flatMap(judge(node, outcome), ({ exit, isStorable }) => {
        if (fiber.getRef(CurrentRecorder) === undefined) return exit
        return Effect.gen(function* () {
          const declared = yield* attempt(node, "tags", () => declaredIds(node, policy))
          handUp(fiber, declared && (yield* answerIds(node, policy, exit, isStorable, declared, [])))
          return yield* exit
        })
      })
    )

  // ---------------------------------------------------------------------------------------- what an outcome is worth

  /** The outcome as the node's schemas see it, and whether it may be stored. */
  const judge = (node: Node.Any, outcome: Exit.Exit<any, any>) =>
    Effect.flatMap(Codec.accept(node[Node.TypeId], outcome), (accepted) => {
      switch (accepted._tag) {
        case "Storable":
          return Effect.succeed({ exit: accepted.exit, isStorable: true })
        case "Undeclared":
          return Effect.succeed({ exit: outcome, isStorable: false })
        case "Rejected": {
          countersOf(node[Node.TypeId]).rejected++
          return Effect.as(warnOnce(node, `an answer is not stored: ${accepted.expected}`), {
            exit: outcome,
            isStorable: false
          })
        }
      }
    })

  /** All ids that an answer rests on, its key first; `undefined` when the node's own functions fail to tell. */
  const answerIds = (
    node: Node.Any,
    policy: Node.Policy | undefined,
    exit: Exit.Exit<any, any>,
    isStorable: boolean,
    declared: ReadonlyArray<string>,
    recorded: Iterable<string>
  ) => {
    const valueTags = policy?.valueTags ?? node[Node.TypeId].valueTags
    if (valueTags === undefined || Exit.isFailure(exit))
      return Effect.succeed([...new Set([...declared, ...recorded])])
    if (!isStorable) return Effect.undefined
    return attempt(node, "valueTags", () => [
      ...new Set([...declared, ...recorded, ...idsOf(valueTags(exit.value, node))])
    ])
  }

  const ownIds = (node: Node.Any): ReadonlyArray<string> => {
    const definition = node[Node.TypeId]
    return [definition.id(node), ...definition.classIds, ...definition.ancestorIds(node)]
  }

  const declaredIds = (node: Node.Any, policy: Node.Policy | undefined): ReadonlyArray<string> => {
    const tags = policy?.tags ?? node[Node.TypeId].tags
    return tags === undefined ? ownIds(node) : [...new Set([...ownIds(node), ...idsOf(tags(node))])]
  }

  const idsOf = (tags: Tag.Tags): ReadonlyArray<string> => {
    const flat = Tag.flattenUnsafe(tags)
    for (const tag of flat) definitions.meetUnsafe(tag[Tag.TypeId])
    return Tag.carriedIds(flat)
  }

  const timeToLiveOf = (
    node: Node.Any,
    policy: Node.Policy | undefined,
    exit: Exit.Exit<any, any>
  ): number => {
    const option = policy?.timeToLive ?? node[Node.TypeId].timeToLive ?? settings.timeToLive
    const timeToLive = typeof option === "function" ? option(exit, node) : option
    if (!Node.isDuration(timeToLive))
      throw new TypeError(`${String(timeToLive)} is not a Duration of zero or more`)
    return Duration.toMillis(Duration.fromInputUnsafe(timeToLive))
  }

  /** Runs a function of the node's; if it throws, that is counted and told once, and the answer is not stored. */
  const attempt = <A>(node: Node.Any, what: string, f: () => A): Effect.Effect<A | undefined> =>
    Effect.suspend(() => {
      try {
        return Effect.succeed(f())
      } catch (error) {
        // Mixing up two definitions is a mistake in the program, not a fault of the cache.
        if (error instanceof CachemeError && error.reason._tag === "DefinitionConflict")
          return Effect.die(error)
        countersOf(node[Node.TypeId]).faults++
        return Effect.as(
          warnOnce(node, `an answer is not stored: ${what} failed: ${String(error)}`),
          undefined
        )
      }
    })

  const warnOnce = (node: Node.Any, message: string): Effect.Effect<void> =>
    Effect.suspend(() => {
      const warning = `cacheme: node "${node[Node.TypeId].name}": ${message}`
      if (warned.has(warning) || warned.size >= 1000) return Effect.void
      warned.add(warning)
      return Effect.logWarning(warning)
    })

  /** Runs a callback, whose failure is logged and changes nothing. */
  const told = (node: Node.Any, callback: Effect.Effect<unknown>): Effect.Effect<unknown> =>
    Effect.catchCause(callback, (cause) =>
      Cause.hasInterruptsOnly(cause)
        ? Effect.failCause(cause)
        : Effect.logWarning(`cacheme: node "${node[Node.TypeId].name}": a callback failed`, cause)
    )

  const countersOf = (definition: Node.NodeDefinition): Counters => {
    let counters = numbers.get(definition)
    if (counters === undefined) {
      definitions.meetUnsafe(definition)
      // A redefinition that is the same (hot reload) goes on with the numbers of the earlier one.
      const earlier = [...numbers.keys()].find((known) => known.name === definition.name)
      counters = (earlier && numbers.get(earlier)) ?? new Counters()
      if (earlier !== undefined) numbers.delete(earlier)
      numbers.set(definition, counters)
    }
    return counters
  }

  // ---------------------------------------------------------------------------------------------------- the rest

  const explain = Effect.fnUntraced(function* (node: Node.Any): Effect.fn.Return<Explanation> {
    const definition = node[Node.TypeId]
    const transaction = yield* CurrentTransaction
    const fresh = transaction && store.peek(node, yield* Clock.Clock)
    const hidden = fresh && hiddenBy(transaction, fresh)
    const reason: Reason = !settings.enabled
      ? { _tag: "Disabled" }
      : isSkipped(node, undefined)
        ? { _tag: "Skipped" }
        : hidden !== undefined
          ? { _tag: "InTransaction", because: hidden }
          : yield* store.explain(node)
    const key = definition.id(node)
    return {
      node: definition.name,
      key,
      storedAs: settings.prefix + key,
      answered: reason._tag === "Fresh",
      reason,
      message: `${key} is ${reason._tag === "Fresh" ? "" : "not "}answered from the cache: ${sentence(reason)}`,
      lookupRunning: flights.has(flightKey(node))
    }
  })

  return {
    answer,
    peek: (node) =>
      Effect.withFiber((fiber) => {
        countersOf(node[Node.TypeId])
        const transaction = fiber.getRef(CurrentTransaction)
        const found = settings.enabled ? store.peek(node, fiber.getRef(Clock.Clock)) : undefined
        if (
          found === undefined ||
          (transaction !== undefined && hiddenBy(transaction, found) !== undefined)
        ) {
          return Effect.succeedNone
        }
        fiber.getRef(CurrentRecorder)?.add(found.ids())
        return Effect.asSome(found.exit)
      }),
    publish: (request, named = []) =>
      Effect.withFiber((fiber) => {
        for (const definition of named) definitions.meetUnsafe(definition)
        const transaction = fiber.getRef(CurrentTransaction)
        if (transaction === undefined) return Effect.succeed(invalidator.publishUnsafe(request))
        transaction.changed.add(request)
        transaction.defer(request)
        return Effect.succeed(Effect.succeed({ entries: 0, position: undefined, pending: 0, deferred: true }))
      }),
    explain,
    stats: Effect.sync(() =>
      [...numbers].map(([definition, counters]) => counters.stats(definition, store.size(definition)))
    ),
    nodes: Effect.sync(() => definitions.all<Node.NodeDefinition>("node")),
    events: invalidator.events
  }
})

/** Two nodes of one name and key but unlike definitions never share a flight. */
const flightKey = (node: Node.Any): string => `${node[Node.TypeId].name}\n${node[Node.TypeId].id(node)}`

const isSkipped = (node: Node.Any, policy: Node.Policy | undefined): boolean => {
  const skip = policy?.skip ?? node[Node.TypeId].skip
  return typeof skip === "function" ? skip(node) : skip === true
}

/** Why a transaction may not be given this answer, if so. */
const hiddenBy = (transaction: Transaction, found: Found): string | undefined => {
  if (!transaction.readCommitted) return "it reads a snapshot that may be older than the answer"
  const changed = transaction.changed.reaches(found.ids())
  return changed === undefined ? undefined : `it has itself changed ${changed}`
}

/** Tells the lookup that the fiber works for what was used. */
const handUp = (fiber: Fiber.Fiber<any, any>, ids: Iterable<string> | undefined): void => {
  const recorder = fiber.getRef(CurrentRecorder)
  if (ids === undefined) recorder?.addUnknown()
  else recorder?.add(ids)
}

/** A lookup works for all its callers: it records for itself, and has no scope that one of them could close. */
const lookupContext =
  (recorder: Recorder) =>
  (context: Context.Context<any>): Context.Context<any> =>
    Context.add(Context.omit(Scope.Scope)(context), CurrentRecorder, recorder)

const sentence = (reason: Reason): string => {
  switch (reason._tag) {
    case "Fresh":
      return `it is fresh${reason.expiresIn === Infinity ? "" : ` for ${Duration.format(Duration.millis(reason.expiresIn))} more`}`
    case "Absent":
      return "it was never stored, or has been evicted"
    case "Expired":
      return "its time to live has passed"
    case "Invalidated":
      return `${reason.by} was invalidated after its lookup began`
    case "Disabled":
      return "the cache is switched off"
    case "Skipped":
      return "the node skips the cache for this key"
    case "InTransaction":
      return `the transaction may not use it: ${reason.because}`
  }
}

// ------------------------------------------------------------------------------------------------ the public surface

type ScopeError =
  "The lookup needs a Scope. It outlives the caller that started it, so it must close what it opens: use Effect.scoped"

type WithoutScope<R> = 0 extends 1 & R ? unknown : Scope.Scope extends R ? ScopeError : unknown

/** A memoized lookup: the lookup's own errors and requirements, the node's declared errors, and `Cacheme`. */
export type Memoized<A, E, R> = Effect.Effect<A, E, R | Cacheme>

type Lookup<A, E, R> = Effect.Effect<A, E, R> & WithoutScope<R>

const memoize: {
  <N extends Node.Any>(
    node: N,
    overrides?: Node.Overrides<N, Node.Value<N>, Node.Error<N>>
  ): <A extends Node.AnswerOf<N>, E, R>(
    lookup: Lookup<A, E, R>
  ) => Memoized<Node.Value<N>, E | Node.Error<N>, R>
  <V extends Node.AnySchema, Er extends Node.AnySchema = typeof import("effect/Schema").Never>(
    oneOff: Node.OneOff<V, Er>
  ): <A extends Node.Answer<V>, E, R>(lookup: Lookup<A, E, R>) => Memoized<V["Type"], E | Er["Type"], R>
  <N extends Node.Any, A extends Node.AnswerOf<N>, E, R>(
    lookup: Lookup<A, E, R>,
    node: N,
    overrides?: Node.Overrides<N, Node.Value<N>, Node.Error<N>>
  ): Memoized<Node.Value<N>, E | Node.Error<N>, R>
  <
    V extends Node.AnySchema,
    A extends Node.Answer<V>,
    E,
    R,
    Er extends Node.AnySchema = typeof import("effect/Schema").Never
  >(
    lookup: Lookup<A, E, R>,
    oneOff: Node.OneOff<V, Er>
  ): Memoized<V["Type"], E | Er["Type"], R>
} = dual(
  (args) => Effect.isEffect(args[0]),
  (
    lookup: Effect.Effect<any, any, any>,
    question: Node.Any | Node.OneOff<any, any>,
    overrides?: Node.Overrides
  ) => {
    if (Node.isNode(question)) return Cacheme.use((cacheme) => cacheme.answer(question, lookup, overrides))
    const { node, policy } = Node.fromOneOff(question)
    return Cacheme.use((cacheme) => cacheme.answer(node, lookup, policy))
  }
)

const fn = <
  F extends Key.Fields,
  V extends Node.AnySchema,
  Er extends Node.AnySchema,
  A extends Node.Answer<V>,
  E,
  R
>(
  node: Node.NodeClass<any, F, V, Er>,
  lookup: (key: Key.Type<F>) => Lookup<A, E, R>,
  overrides?: Node.Overrides<Key.Type<F>, V["Type"], Er["Type"]>
): ((key: Key.Input<F>) => Memoized<V["Type"], E | Er["Type"], R>) => {
  return (input) => {
    const key = new node(input)
    return Cacheme.use((cacheme) =>
      cacheme.answer(
        key,
        Effect.suspend(() => lookup(key)),
        overrides
      )
    )
  }
}

const peek = <N extends Node.Any>(
  node: N
): Effect.Effect<Option.Option<Node.Value<N>>, Node.Error<N>, Cacheme> =>
  Cacheme.use((cacheme) => cacheme.peek(node))

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

  /** The numbers of every node met so far. */
  static readonly stats: Effect.Effect<ReadonlyArray<NodeStats>, never, Cacheme> = Effect.flatMap(
    Effect.suspend(() => Cacheme),
    ({ stats }) => stats
  )

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
