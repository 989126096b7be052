import { assert, describe, inject, it } from "@effect/vitest"
import { Clock, Effect, Exit, Schema } from "effect"
import { TestClock } from "effect/testing"
import { CachemeError, MemoryStore } from "../../src/index.ts"
import { noValue, Store } from "../../src/Store.ts"
import { compareWithModel, invalidation, row, Step, suite } from "./StoreSuite.ts"

suite("memory", MemoryStore.layer())

/** The long run is a hundred thousand steps and more. */
const scale = inject("isFull") ? 20 : 1

const History = Schema.Array(Step).check(Schema.isMinLength(40), Schema.isMaxLength(120))

const fill = (store: Store["Service"], id: number, tags: ReadonlyArray<string> = []) =>
  Effect.gen(function* () {
    const begun = yield* store.begin(row(id), [`row:${id}`, "row:*"])
    yield* begun.store({ exit: Exit.succeed(id), tags: ["row:*", ...tags], timeToLive: Infinity })
    yield* begun.end
  })

describe("MemoryStore", () => {
  it.effect.prop(
    "answers exactly what a naive model of the rule answers",
    [History],
    ([steps]) =>
      compareWithModel(steps, { complete: true, eager: true }).pipe(Effect.provide(MemoryStore.layer())),
    { arbitrary: { runs: 400 * scale, size: 120 }, timeout: 600_000 }
  )

  it.effect.prop(
    "answers nothing that the model does not when it is too small for everything",
    [History],
    ([steps]) =>
      compareWithModel(steps, { complete: false, eager: true }).pipe(
        Effect.provide(MemoryStore.layer({ capacity: 3 }))
      ),
    { arbitrary: { runs: 400 * scale, size: 120 }, timeout: 600_000 }
  )

  it.effect.prop(
    "answers exactly what the model answers when it is too large to look at every entry",
    [History],
    ([steps]) =>
      Effect.gen(function* () {
        const store = yield* Store
        for (let id = 100; id < 1200; id++) yield* fill(store, id)
        yield* compareWithModel(steps, { complete: true, eager: false })
      }).pipe(Effect.provide(MemoryStore.layer())),
    { arbitrary: { runs: 150 * scale, size: 120 }, timeout: 600_000 }
  )

  it.effect("never holds more than its capacity, and gives the tags of what had to go back", () =>
    Effect.gen(function* () {
      const store = yield* Store
      for (let id = 0; id < 1000; id++) {
        yield* fill(store, id, [`#own:${id}`])
        assert.isAtMost(store.size(), 20)
      }
      assert.strictEqual(store.size(), 20)
      assert.strictEqual(store.tags(), 21)
    }).pipe(Effect.provide(MemoryStore.layer({ capacity: 20 })))
  )

  it.effect(
    "ages an entry out to the millisecond, however long that takes and whatever the clock shows",
    () =>
      Effect.gen(function* () {
        const store = yield* Store
        const clock = yield* Clock.Clock
        const day = 86_400_000
        // Beyond 24 days, 32 bits of milliseconds are used up, in either direction.
        const times = [0.5, 1, 1.5, 1000, 24 * day, 25 * day, 400 * day]
        for (const start of [Date.UTC(2026, 0), 0, 5, 30 * day]) {
          yield* TestClock.setTime(start)
          for (const [id, timeToLive] of times.entries()) {
            const begun = yield* store.begin(row(id), [`row:${id}`])
            yield* begun.store({ exit: Exit.succeed(id), tags: ["row:*"], timeToLive })
            yield* begun.end
          }
          for (const [id, timeToLive] of times.entries()) {
            const at = (now: number) => store.peek(row(id), { currentTimeMillisUnsafe: () => now })
            assert.strictEqual(at(start + timeToLive - 0.25)?.expiresAt, start + timeToLive)
            assert.isUndefined(at(start + timeToLive))
            assert.strictEqual(at(start + timeToLive - 0.25)?.value, id)
            assert.deepStrictEqual(
              store.held(row(id), { currentTimeMillisUnsafe: () => start + timeToLive }).miss,
              "expired"
            )
          }
          assert.strictEqual(clock.currentTimeMillisUnsafe(), start)
        }
      }).pipe(Effect.provide(MemoryStore.layer()))
  )

  it.effect("finds a failure as it was stored, and no value in it", () =>
    Effect.gen(function* () {
      const store = yield* Store
      const clock = yield* Clock.Clock
      const failure = Exit.fail("gone")
      for (const exit of [failure, Exit.succeed(undefined), failure]) {
        const begun = yield* store.begin(row(1), ["row:1"])
        yield* begun.store({ exit, tags: ["row:*"], timeToLive: Infinity })
        yield* begun.end
        const found = store.peek(row(1), clock)!
        if (exit === failure) assert.strictEqual(found.exit, failure)
        else assert.deepStrictEqual(found.exit, exit)
        assert.strictEqual(found.value, exit === failure ? noValue : undefined)
      }
    }).pipe(Effect.provide(MemoryStore.layer()))
  )

  it.effect("keeps no slot for an entry that was invalidated and stored again", () =>
    Effect.gen(function* () {
      const store = yield* Store
      for (let round = 0; round < 100; round++) {
        yield* fill(store, 1)
        yield* store.invalidate(invalidation({ keys: ["row:1"] }))
      }
      assert.strictEqual(store.size(), 1)
    }).pipe(Effect.provide(MemoryStore.layer({ capacity: 20 })))
  )

  it.effect(
    "a large store invalidates a tag without looking at its entries, and counts them all the same",
    () =>
      Effect.gen(function* () {
        const store = yield* Store
        for (let id = 0; id < 3000; id++) yield* fill(store, id, [id % 2 === 0 ? "#even" : "#odd"])
        for (let again = 0; again < 5; again++) yield* fill(store, 0, ["#even"])
        const { report } = yield* store.invalidate(invalidation({ tags: ["#even"] }))
        assert.strictEqual(report.entries, 1500)
        const again = yield* store.invalidate(invalidation({ tags: ["#even"] }))
        assert.strictEqual(again.report.entries, 0)
        const one = yield* store.invalidate(invalidation({ keys: ["row:1", "row:2"] }))
        assert.strictEqual(one.report.entries, 1)
        assert.strictEqual((yield* store.explain(row(2)))._tag, "Invalidated")
        assert.strictEqual((yield* store.explain(row(3)))._tag, "Fresh")
      }).pipe(Effect.provide(MemoryStore.layer({ capacity: 5000 })))
  )

  it.effect(
    "a large store knows when an entry was first invalidated, though it has not looked at it since",
    () =>
      Effect.gen(function* () {
        const store = yield* Store
        for (let id = 100; id < 1200; id++) yield* fill(store, id)
        const keep = { aged: 0, invalidated: 100 }
        for (const [first, second] of [
          ["#a", { tags: ["#b"] }],
          ["#b", { tags: ["#a"] }],
          ["#a", { keys: ["row:1"] }],
          ["#b", { patterns: ["row:1"] }]
        ] as const) {
          const begun = yield* store.begin(row(1), ["row:1"])
          const entry = { exit: Exit.succeed(1), tags: ["row:*", "#a", "#b"], timeToLive: Infinity, keep }
          yield* begun.store(entry)
          yield* begun.end
          yield* store.invalidate(invalidation({ tags: [first] }))
          yield* TestClock.adjust(10)
          yield* store.invalidate(invalidation(second))
          yield* TestClock.adjust(20)
          const { stale } = store.held(row(1), yield* Clock.Clock)
          assert.strictEqual(stale?.invalidatedFor, 30, JSON.stringify(second))
        }
      }).pipe(Effect.provide(MemoryStore.layer()))
  )

  it.effect("an invalidated entry that may still be given does not go before its turn", () =>
    Effect.gen(function* () {
      for (const [invalidated, isHeld] of [
        [100, true],
        [0, false]
      ] as const) {
        const store = yield* MemoryStore.make({ capacity: 2 })
        const keep = { aged: 0, invalidated }
        const begun = yield* store.begin(row(1), ["row:1"])
        yield* begun.store({ exit: Exit.succeed(1), tags: ["row:*", "#a"], timeToLive: Infinity, keep })
        yield* begun.end
        store.peek(row(1), yield* Clock.Clock)
        yield* store.invalidate(invalidation({ tags: ["#a"] }))
        yield* fill(store, 2)
        yield* fill(store, 3)
        assert.strictEqual(store.held(row(1), yield* Clock.Clock).stale !== undefined, isHeld)
      }
    })
  )

  it.effect("what it remembers for a lookup that never ends is bounded: such a lookup is refused", () =>
    Effect.gen(function* () {
      const store = yield* Store
      const endless = yield* store.begin(row(1), ["row:1", "row:*"])
      for (let i = 0; i < 25_000; i++) yield* store.invalidate(invalidation({ tags: [`#t:${i}`] }))
      assert.isAtMost(store.tags(), 10_001)
      assert.isTrue(endless.isOvertaken())
      const late = yield* endless.store({ exit: Exit.succeed(1), tags: ["row:*"], timeToLive: Infinity })
      assert.strictEqual(late, "overtaken")
      yield* endless.end
      assert.strictEqual(store.tags(), 0)
      yield* fill(store, 1)
      assert.strictEqual((yield* store.explain(row(1)))._tag, "Fresh")
    }).pipe(Effect.provide(MemoryStore.layer()))
  )

  it.effect("refuses a capacity that is not an integer of at least 1", () =>
    Effect.gen(function* () {
      for (const capacity of [0, -1, 1.5, Number.NaN, Infinity, 2 ** 24 + 1, "10" as never]) {
        const error = yield* Effect.flip(MemoryStore.make({ capacity }))
        assert.instanceOf(error, CachemeError)
        assert.match(error.message, /capacity is .*, expected an integer from 1 to 16777216/)
      }
    })
  )
})
