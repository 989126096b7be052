import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, Scope, Stream } from "effect"
import { Invalidation, type Request } from "../src/Invalidation.ts"
import * as Invalidator from "../src/Invalidator.ts"
import { MemoryStore } from "../src/index.ts"
import { Store } from "../src/Store.ts"
import { invalidation } from "./store/StoreSuite.ts"

/** A store that applies an invalidation only when it is let. */
const makeSlowStore = Effect.gen(function* () {
  const memory = yield* MemoryStore.make()
  const gate = yield* Deferred.make<void>()
  const applied: Array<Request> = []
  const store = Store.of({
    label: "slow",
    peek: () => undefined,
    held: () => ({ miss: "absent", stale: undefined }),
    begin: (node, known) => memory.begin(node, known),
    position: memory.position,
    invalidate: (request) =>
      Deferred.await(gate).pipe(
        Effect.andThen(memory.invalidate(request)),
        Effect.tap(() => Effect.sync(() => applied.push(request)))
      ),
    explain: (node) => memory.explain(node),
    size: () => 0,
    evictions: () => 0,
    shared: undefined,
    tags: () => 0
  })
  return { store, applied, open: Deferred.succeed(gate, undefined) }
})

const tag = (id: string) => invalidation({ tags: [id] })

describe("Invalidator", () => {
  it.effect("applies in the order of publication, and acknowledges each when the store has it", () =>
    Effect.gen(function* () {
      const { store, applied, open } = yield* makeSlowStore
      const invalidator = yield* Invalidator.make(store)
      const waiting = yield* Effect.forEach(["#a", "#b", "#c"], (id) =>
        Effect.forkChild(invalidator.publishUnsafe(tag(id)), { startImmediately: true })
      )
      assert.isUndefined(waiting[0]!.pollUnsafe())
      yield* open
      const reports = yield* Effect.forEach(waiting, Fiber.join)
      assert.deepStrictEqual(
        reports.map(({ report }) => report.position),
        [1, 2, 3]
      )
      assert.deepStrictEqual(
        applied.flatMap(({ tags }) => tags),
        ["#a", "#b", "#c"]
      )
    })
  )

  it.effect("applies what was published even if nobody waits for it any more", () =>
    Effect.gen(function* () {
      const { store, applied, open } = yield* makeSlowStore
      const invalidator = yield* Invalidator.make(store)
      const waiting = yield* Effect.forkChild(invalidator.publishUnsafe(tag("#a")), {
        startImmediately: true
      })
      yield* Fiber.interrupt(waiting)
      yield* open
      yield* invalidator.publishUnsafe(tag("#b"))
      assert.strictEqual(applied.length, 2)
    })
  )

  it.effect("what was published before the layer closes is applied; what comes later fails as closed", () =>
    Effect.gen(function* () {
      const { store, applied, open } = yield* makeSlowStore
      const scope = yield* Scope.make()
      const invalidator = yield* Scope.provide(Invalidator.make(store), scope)
      const waiting = yield* Effect.forEach(["#a", "#b"], (id) =>
        Effect.forkChild(invalidator.publishUnsafe(tag(id)), { startImmediately: true })
      )
      yield* Effect.yieldNow
      const third = invalidator.publishUnsafe(tag("#c"))
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
      yield* open
      yield* Fiber.join(closing)
      for (const fiber of waiting) yield* Fiber.join(fiber)
      assert.strictEqual((yield* third).report.position, 3)
      assert.strictEqual(applied.length, 3)
      const late = yield* Effect.flip(invalidator.publishUnsafe(tag("#d")))
      assert.strictEqual(late.reason._tag, "Closed")
    })
  )

  it.effect("tells each watcher every invalidation from its subscription on", () =>
    Effect.gen(function* () {
      const store = yield* Store
      const invalidator = yield* Invalidator.make(store)
      yield* invalidator.publishUnsafe(tag("#before"))
      const watch = Effect.forkChild(invalidator.events.pipe(Stream.take(2), Stream.runCollect), {
        startImmediately: true
      })
      const watchers = [yield* watch, yield* watch]
      yield* invalidator.publishUnsafe(tag("#a"))
      yield* invalidator.publishUnsafe(tag("#b"))
      for (const watcher of watchers) {
        const events = yield* Fiber.join(watcher)
        assert.instanceOf(events[0], Invalidation)
        assert.deepStrictEqual(
          events.flatMap(({ tags }) => tags),
          ["#a", "#b"]
        )
      }
    }).pipe(Effect.provide(Layer.fresh(MemoryStore.layer())))
  )
})
