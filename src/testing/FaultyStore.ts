/**
 * A store that fails, stalls or lies on request, around another one: to see what a program does when its cache is in
 * trouble, and that a check notices a wrong answer.
 *
 * | operation | `fail` | `stall` | `lie` |
 * |---|---|---|---|
 * | `peek` | throws | finds nothing | answers what was stored last, whatever happened since |
 * | `begin` | dies | waits until healed | begins at a position that nothing overtakes |
 * | `store` | dies | stores, and says so when healed | says that it has stored, and has not |
 * | `invalidate` | dies | waits until healed | acknowledges, and has done nothing |
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import type { CachemeError } from "../CachemeError.ts"
import type { Invalidation, Request } from "../Invalidation.ts"
import * as Node from "../Node.ts"
import { type Applied, type Fill, type Found, Store, valueOf } from "../Store.ts"

/** What can be made to go wrong. */
export type Operation = "peek" | "begin" | "store" | "invalidate"

/** How it goes wrong. */
export type Fault = "fail" | "stall" | "lie"

/**
 * Makes the store of a test misbehave.
 *
 * **Example** (A lookup while the store is broken)
 *
 * ```ts
 * import { Cacheme, MemoryStore } from "cacheme"
 * import { FaultyStore } from "cacheme/testing"
 * import { Effect, Layer, Schema } from "effect"
 *
 * const BrokenCache = Cacheme.layer().pipe(
 *   Layer.provideMerge(FaultyStore.layer),
 *   Layer.provide(MemoryStore.layer())
 * )
 *
 * const program = Effect.gen(function* () {
 *   yield* FaultyStore.inject("begin", "fail")
 *   return yield* Effect.succeed(42).pipe(Cacheme.memoize({ key: "answer", value: Schema.Int }))
 * }).pipe(Effect.provide(BrokenCache))
 * ```
 */
export class FaultyStore extends Context.Service<
  FaultyStore,
  {
    readonly inject: (operation: Operation, fault: Fault) => Effect.Effect<void>
    readonly heal: Effect.Effect<void>
    readonly invalidations: () => ReadonlyArray<Invalidation>
  }
>()("cacheme/FaultyStore") {
  /** From now on the operation fails, stalls or lies. */
  static readonly inject = (operation: Operation, fault: Fault): Effect.Effect<void, never, FaultyStore> =>
    FaultyStore.use((faulty) => faulty.inject(operation, fault))

  /** From now on everything works; what has stalled goes on. */
  static readonly heal: Effect.Effect<void, never, FaultyStore> = Effect.suspend(() =>
    FaultyStore.use((faulty) => faulty.heal)
  )

  /** The store that misbehaves, around the one that is provided. */
  static readonly layer: Layer.Layer<FaultyStore | Store, never, Store> = Layer.effectContext(
    Effect.suspend(() => Effect.map(Store, make))
  )
}

const make = (inner: Store["Service"]): Context.Context<FaultyStore | Store> => {
  const faults = new Map<Operation, Fault>()
  const healed = Latch.makeUnsafe(true)
  const invalidations: Array<Invalidation> = []
  const lastStored = new Map<string, Found>()
  const is = (operation: Operation, fault: Fault): boolean => faults.get(operation) === fault

  const disturbed = <A, E>(
    operation: Operation,
    self: Effect.Effect<A, E>,
    lie: () => Effect.Effect<A, E>
  ): Effect.Effect<A, E> =>
    Effect.suspend(() => {
      switch (faults.get(operation)) {
        case "fail":
          return Effect.die(new Error(`injected: ${operation}`))
        case "stall":
          return Effect.andThen(healed.await, self)
        case "lie":
          return lie()
        default:
          return self
      }
    })

  const disturbFill = (node: Node.Any, fill: Fill): Fill => ({
    ...fill,
    store: (entry) => {
      const stored = Effect.tap(fill.store(entry), (stored) =>
        Effect.sync(() => {
          if (stored !== "stored") return
          const id = node[Node.TypeId].id(node)
          const ids = () => [id, ...entry.tags]
          lastStored.set(id, {
            exit: entry.exit,
            value: valueOf(entry.exit),
            ids,
            expiresAt: Infinity,
            took: 0
          })
        })
      )
      if (is("store", "stall")) return Effect.tap(stored, healed.await)
      return disturbed("store", stored, () => Effect.succeed("stored"))
    },
    replace: (request, entry) => invalidating(request, fill.replace(request, entry))
  })

  const invalidating = (request: Request, applied: Effect.Effect<Applied, CachemeError>) => {
    const noted = Effect.tap(applied, ({ invalidation }) =>
      Effect.sync(() => invalidations.push(invalidation))
    )
    const nothing = { ...request, keys: [], tags: [], patterns: [] }
    return disturbed("invalidate", noted, () => inner.invalidate(nothing))
  }

  const store = Store.of({
    label: `faulty ${inner.label}`,
    peek: (node, now) => {
      if (is("peek", "fail")) throw new Error("injected: peek")
      if (is("peek", "stall")) return undefined
      if (is("peek", "lie")) return lastStored.get(node[Node.TypeId].id(node))
      return inner.peek(node, now)
    },
    held: (node, now) => inner.held(node, now),
    begin: (node, known, since) => {
      const begun = Effect.map(inner.begin(node, known, since), (fill) => disturbFill(node, fill))
      return disturbed("begin", begun, () =>
        Effect.map(begun, (fill) => ({
          ...fill,
          isOvertaken: () => false,
          isQuiet: () => Effect.succeed(true),
          // Begins only now, when the answer is known.
          store: (entry) =>
            Effect.flatMap(inner.begin(node, known), (late) => Effect.ensuring(late.store(entry), late.end))
        }))
      )
    },
    position: inner.position,
    invalidate: (request) => invalidating(request, inner.invalidate(request)),
    explain: (node) => inner.explain(node),
    size: (definition) => inner.size(definition),
    evictions: (definition) => inner.evictions(definition),
    tags: () => inner.tags(),
    shared: inner.shared
  })
  const faulty = FaultyStore.of({
    inject: (operation, fault) =>
      Effect.sync(() => {
        faults.set(operation, fault)
        if (fault === "stall") healed.closeUnsafe()
      }),
    heal: Effect.sync(() => {
      faults.clear()
      healed.openUnsafe()
    }),
    invalidations: () => invalidations
  })
  return Context.add(Context.make(Store, store), FaultyStore, faulty)
}
