/**
 * The invalidator: one fiber that applies invalidations to the store, in the order they were published.
 *
 * Publishing is one synchronous step, so nothing can come between a commit and it; its subscription exists before
 * anything can publish, and the PubSub is unbounded, so nothing is lost. Each request carries a Deferred that is
 * completed once the store has acknowledged. When the layer closes, what was published before is still applied; what
 * comes later fails as `Closed`.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Hash from "effect/Hash"
import * as Option from "effect/Option"
import * as PubSub from "effect/PubSub"
import { Reactivity } from "effect/reactivity/Reactivity"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { CachemeError, Closed } from "./CachemeError.ts"
import type { Invalidation, Request } from "./Invalidation.ts"
import type { Applied, Store } from "./Store.ts"

/** A request on its way, with the place where its acknowledgement is awaited. */
interface Published {
  readonly applied: Effect.Effect<Applied, CachemeError>
  readonly acknowledged: Deferred.Deferred<Applied, CachemeError>
}

/** Publishes invalidations and tells of those applied. */
export interface Invalidator {
  /**
   * Publishes at once, without waiting; the effect waits for the acknowledgement and may be interrupted freely. A
   * request is applied by the store's `invalidate`, unless `applied` does it: a replacement.
   */
  readonly publishUnsafe: (
    request: Request,
    applied?: Effect.Effect<Applied, CachemeError>
  ) => Effect.Effect<Applied, CachemeError>
  /** The invalidations applied from the moment of subscription on. A subscriber is expected to keep up. */
  readonly events: Stream.Stream<Invalidation>
}

/**
 * What Effect's `Reactivity` calls the ids that were invalidated: an id as a text, a node or tag with that id, and for a
 * node class its name. So `["book:100"]`, `[new BookNode({ id: 100 })]` and `{ book: [100] }` are all told.
 */
const reactivityKeys = ({ keys, tags }: Invalidation): ReadonlyArray<unknown> =>
  [...keys, ...tags].flatMap((id) => [
    id,
    { [Hash.symbol]: () => Hash.string(id) },
    ...(id.endsWith(":*") ? [id.slice(0, -":*".length)] : [])
  ])

/** Starts the invalidator of a store. It runs until the scope closes. */
export const make = Effect.fnUntraced(function* (
  store: Store["Service"]
): Effect.fn.Return<Invalidator, never, Scope.Scope> {
  const requests = yield* PubSub.unbounded<Published>()
  const events = yield* PubSub.unbounded<Invalidation>()
  const subscription = yield* PubSub.subscribe(requests)
  // What was published and not yet applied: what the fiber had in hand when it was stopped is not lost either.
  const outstanding = new Set<Published>()

  const reactivity = Option.getOrUndefined(yield* Effect.serviceOption(Reactivity))
  const runFork = Effect.runForkWith(yield* Effect.context())
  const tell = (invalidation: Invalidation): void => {
    PubSub.publishUnsafe(events, invalidation)
    if (reactivity === undefined) return
    try {
      reactivity.invalidateUnsafe(reactivityKeys(invalidation))
    } catch (error) {
      runFork(Effect.logWarning("cacheme: a handler of Reactivity failed", error))
    }
  }

  const apply = Effect.fnUntraced(function* (published: Published) {
    const exit = yield* Effect.exit(published.applied)
    outstanding.delete(published)
    if (Exit.isSuccess(exit)) tell(exit.value.invalidation)
    yield* Deferred.done(published.acknowledged, exit)
  }, Effect.uninterruptible)

  yield* Effect.addFinalizer(() =>
    PubSub.shutdown(requests).pipe(
      Effect.andThen(Effect.suspend(() => Effect.forEach([...outstanding], apply, { discard: true }))),
      Effect.andThen(PubSub.shutdown(events))
    )
  )
  const { shared } = store
  if (shared !== undefined) {
    const unlisten = shared.listen(tell)
    yield* Effect.addFinalizer(() => Effect.sync(unlisten))
  }
  yield* PubSub.takeAll(subscription).pipe(
    // What was published together is told to a shared store in one round trip, in this order.
    Effect.flatMap((batch) =>
      Effect.forEach(batch, apply, {
        discard: true,
        concurrency: shared === undefined ? 1 : "unbounded"
      })
    ),
    Effect.forever,
    Effect.onExit((exit) => Effect.logDebug("the invalidator has stopped", exit)),
    Effect.forkScoped
  )

  return {
    publishUnsafe: (request, applied = store.invalidate(request)) => {
      const published: Published = { applied, acknowledged: Deferred.makeUnsafe() }
      if (!PubSub.publishUnsafe(requests, published))
        return Effect.fail(new CachemeError({ reason: new Closed() }))
      outstanding.add(published)
      return Deferred.await(published.acknowledged)
    },
    events: Stream.fromPubSub(events)
  }
})
