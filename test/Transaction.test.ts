import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Schema } from "effect"
import { Cacheme, MemoryStore, Node, Tag } from "../src/index.ts"
import type { Request } from "../src/Invalidation.ts"
import { Changes, CurrentTransaction } from "../src/Transaction.ts"

class Fact extends Tag.Class<Fact>()("fact", { of: Schema.Int }) {}

class Answer extends Node.Class<Answer>()("answer", {
  key: { id: Schema.Int },
  value: Schema.Int,
  tags: ({ id }) => new Fact({ of: id })
}) {}

const TestCache = Cacheme.layer().pipe(Layer.provide(MemoryStore.layer()))

/** Stands for a database transaction; the real ones are tested with real databases. */
const inTransaction = (deferred: Array<Request>, readCommitted = true) =>
  Effect.provideService(CurrentTransaction, {
    readCommitted,
    changed: new Changes(),
    defer: (request: Request) => void deferred.push(request)
  })

const makeCounter = () => {
  let n = 0
  return (id: number) => Effect.sync(() => ++n).pipe(Cacheme.memoize(new Answer({ id })))
}

describe("Transaction", () => {
  it.effect("a cached answer is served if the transaction has changed nothing it rests on", () =>
    Effect.gen(function* () {
      const ask = makeCounter()
      yield* ask(1)
      yield* ask(2)
      const [before, other, changed] = yield* Effect.all([
        ask(1),
        Effect.andThen(Cacheme.invalidate(new Fact({ of: 1 })), ask(2)),
        ask(1)
      ]).pipe(inTransaction([]))
      assert.deepStrictEqual([before, other, changed], [1, 2, 3])
      assert.strictEqual(yield* ask(1), 1)
    }).pipe(Effect.provide(TestCache))
  )

  it.effect("what it computes is not stored, and not shared", () =>
    Effect.gen(function* () {
      const ask = makeCounter()
      assert.deepStrictEqual(
        yield* Effect.all([ask(1), ask(1)], { concurrency: 2 }).pipe(inTransaction([])),
        [1, 2]
      )
      assert.strictEqual(yield* ask(1), 3)
    }).pipe(Effect.provide(TestCache))
  )

  it.effect("a snapshot is served nothing from the cache", () =>
    Effect.gen(function* () {
      const ask = makeCounter()
      yield* ask(1)
      assert.strictEqual(yield* ask(1).pipe(inTransaction([], false)), 2)
      const { reason } = yield* Cacheme.explain(new Answer({ id: 1 })).pipe(inTransaction([], false))
      assert.strictEqual(reason._tag, "InTransaction")
    }).pipe(Effect.provide(TestCache))
  )

  it.effect("invalidations wait for the commit, by whatever they are named", () =>
    Effect.gen(function* () {
      const ask = makeCounter()
      for (const target of [new Fact({ of: 1 }), new Answer({ id: 1 }), Answer, { pattern: "answer:*" }]) {
        const kept = yield* ask(1)
        const deferred: Array<Request> = []
        const seen = yield* Effect.gen(function* () {
          const report = yield* Cacheme.invalidate(target)
          assert.deepStrictEqual(report, { entries: 0, position: undefined, pending: 0, deferred: true })
          return yield* ask(1)
        }).pipe(inTransaction(deferred))
        assert.notStrictEqual(seen, kept)
        assert.strictEqual(yield* ask(1), kept)
        assert.strictEqual(deferred.length, 1)
      }
      const deferred: Array<Request> = []
      yield* Effect.void.pipe(Cacheme.mutation(new Fact({ of: 1 })), inTransaction(deferred))
      assert.strictEqual(deferred[0]!.cause, "mutation")
    }).pipe(Effect.provide(TestCache))
  )

  it.effect("a lookup that reads in a transaction of its own still records what it used", () =>
    Effect.gen(function* () {
      class Sum extends Node.Class<Sum>()("sum", { key: {}, value: Schema.Int }) {}
      const ask = makeCounter()
      const sum = Effect.all([ask(1), ask(2)]).pipe(
        inTransaction([]),
        Effect.map(([a, b]) => a + b),
        Cacheme.memoize(new Sum())
      )
      assert.strictEqual(yield* sum, 3)
      assert.strictEqual(yield* sum, 3)
      yield* Cacheme.invalidate(new Fact({ of: 2 }))
      assert.strictEqual(yield* sum, 7)
    }).pipe(Effect.provide(TestCache))
  )
})
