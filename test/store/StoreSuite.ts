/**
 * What every store promises, as one suite that each adapter runs; and a naive model of the rule, against which random
 * histories are compared.
 */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Exit, Layer, Schema } from "effect"
import { TestClock } from "effect/testing"
import type { CachemeError } from "../../src/CachemeError.ts"
import type { Request } from "../../src/Invalidation.ts"
import * as Node from "../../src/Node.ts"
import * as Pattern from "../../src/Pattern.ts"
import { type Fill, type Position, Store } from "../../src/Store.ts"

/** The node that the suite asks: a key of one integer. */
class Row extends Node.Class<Row>()("row", { key: { id: Schema.Int }, value: Schema.Int }) {}

export const row = (id: number): Node.Any => new Row({ id })

const own = (id: number) => [`row:${id}`, "row:*"]

export const invalidation = (targets: Partial<Request>): Request => ({
  keys: [],
  tags: [],
  patterns: [],
  cause: "call",
  ...targets
})

/** Stores a value as a lookup that took no time would. */
const put = (id: number, value: number, tags: ReadonlyArray<string> = [], timeToLive = Infinity) =>
  Effect.gen(function* () {
    const store = yield* Store
    const fill = yield* store.begin(row(id), own(id))
    const stored = yield* fill.store({ exit: Exit.succeed(value), tags: ["row:*", ...tags], timeToLive })
    yield* fill.end
    return stored === "stored"
  })

/** What a reader finds, who asks further where the store is shared. */
const look = (id: number) =>
  Effect.gen(function* () {
    const store = yield* Store
    const clock = yield* Clock.Clock
    const found = store.peek(row(id), clock)
    if (found !== undefined) return { found }
    if (store.shared === undefined) return { held: store.held(row(id), clock) }
    const [looked] = yield* store.shared.look([row(id)], clock)
    return looked!
  })

const peek = (id: number) =>
  Effect.gen(function* () {
    const { found } = yield* look(id)
    return found === undefined ? undefined : yield* Effect.orDie(found.exit as Exit.Exit<number, unknown>)
  })

const held = (id: number) => Effect.map(look(id), ({ held }) => held!)

const invalidate = (targets: Partial<Request>) =>
  Effect.flatMap(Store, (store) =>
    Effect.map(store.invalidate(invalidation(targets)), ({ report }) => report)
  )

/**
 * Runs the suite. The layer is built anew for each test, holds at least 100 entries, and nothing that another one held.
 * A store that is `shared` by processes counts nothing, and its clock is Redis's own.
 */
export const suite = (
  name: string,
  layer: Layer.Layer<Store, CachemeError>,
  { isShared = false }: { readonly isShared?: boolean } = {}
) => {
  describe(`Store: ${name}`, () => {
    const test = (what: string, body: Effect.Effect<void, CachemeError, Store>) =>
      it.effect(what, () => Effect.provide(body, Layer.fresh(layer)))
    const localTest = isShared ? () => {} : test

    test(
      "gives back what was stored, until its time has passed",
      Effect.gen(function* () {
        assert.isUndefined(yield* peek(1))
        assert.isTrue(yield* put(1, 10, [], 60_000))
        assert.isTrue(yield* put(2, 20))
        assert.strictEqual(yield* peek(1), 10)
        yield* TestClock.adjust(59_999)
        assert.strictEqual(yield* peek(1), 10)
        yield* TestClock.adjust(1)
        assert.isUndefined(yield* peek(1))
        yield* TestClock.adjust("1000 days")
        assert.strictEqual(yield* peek(2), 20)
      })
    )

    test(
      "an invalidation of a tag, a key, a pattern or the node ends what it reaches, and counts it",
      Effect.gen(function* () {
        const fillAll = Effect.all([put(1, 10, ["#a"]), put(2, 20, ["#a", "#b"]), put(3, 30, ["#b"])])
        for (const [targets, ended] of [
          [{ tags: ["#a"] }, [1, 2]],
          [{ tags: ["#a", "#b"] }, [1, 2, 3]],
          [{ keys: ["row:2"] }, [2]],
          [{ patterns: ["row:[13]"] }, [1, 3]],
          [{ patterns: ["*"] }, [1, 2, 3]],
          [{ tags: ["row:*"] }, [1, 2, 3]],
          [{ keys: ["row:2"], tags: ["#a"], patterns: ["row:2"] }, [1, 2]],
          [{ tags: ["#c"], keys: ["row:9", "column:1"], patterns: ["x*"] }, []]
        ] as const) {
          yield* fillAll
          const report = yield* invalidate(targets)
          assert.strictEqual(report.entries, isShared ? undefined : ended.length, JSON.stringify(targets))
          assert.strictEqual((yield* invalidate(targets)).entries, isShared ? undefined : 0)
          for (const id of [1, 2, 3]) {
            assert.strictEqual(
              yield* peek(id),
              (ended as ReadonlyArray<number>).includes(id) ? undefined : id * 10
            )
          }
        }
      })
    )

    test(
      "positions grow with every invalidation",
      Effect.gen(function* () {
        const first = yield* invalidate({ tags: ["#a"] })
        const second = yield* invalidate({ keys: ["row:1"] })
        assert.isAbove(second.position!, first.position!)
      })
    )

    for (const [what, targets, reached] of [
      ["one of its tags", { tags: ["#late"] }, true],
      ["its key", { keys: ["row:1"] }, true],
      ["its node", { tags: ["row:*"] }, true],
      ["a pattern that matches its key", { patterns: ["r?w:1"] }, true],
      ["another tag", { tags: ["#other"] }, false],
      ["a pattern that does not match", { patterns: ["row:2"] }, false]
    ] as const) {
      test(
        `a fill begun before an invalidation of ${what} is ${reached ? "refused" : "accepted"}`,
        Effect.gen(function* () {
          const store = yield* Store
          const fill = yield* store.begin(row(1), own(1))
          assert.isTrue(yield* fill.isQuiet([]))
          yield* invalidate(targets)
          assert.isFalse(yield* fill.isQuiet([]))
          assert.strictEqual(fill.isOvertaken(), reached && what !== "one of its tags")
          const stored = yield* fill.store({
            exit: Exit.succeed(1),
            tags: ["row:*", "#late"],
            timeToLive: Infinity
          })
          yield* fill.end
          assert.strictEqual(stored, reached ? "overtaken" : "stored")
          assert.strictEqual(yield* peek(1), reached ? undefined : 1)
          assert.isTrue(yield* put(1, 2, ["#late"]))
          assert.strictEqual(yield* peek(1), 2)
        })
      )
    }

    test(
      "an older fill does not replace a newer answer once overtaken",
      Effect.gen(function* () {
        const store = yield* Store
        const old = yield* store.begin(row(1), own(1))
        yield* invalidate({ keys: ["row:1"] })
        yield* put(1, 2)
        const late = yield* old.store({ exit: Exit.succeed(1), tags: ["row:*"], timeToLive: Infinity })
        assert.strictEqual(late, "overtaken")
        yield* old.end
        assert.strictEqual(yield* peek(1), 2)
      })
    )

    localTest(
      "keeps what has aged out or was invalidated for as long as its windows say, and tells since when",
      Effect.gen(function* () {
        const store = yield* Store
        const keep = { aged: 100, invalidated: 50 }
        const store1 = Effect.gen(function* () {
          const fill = yield* store.begin(row(1), own(1))
          yield* fill.store({ exit: Exit.succeed(1), tags: ["row:*", "#a", "#b"], timeToLive: 1000, keep })
          yield* fill.end
        })
        assert.deepStrictEqual(yield* held(1), { miss: "absent", stale: undefined })
        yield* store1
        yield* TestClock.adjust(1099)
        assert.isUndefined(yield* peek(1))
        const aged = yield* held(1)
        assert.strictEqual(aged.miss, "expired")
        assert.deepInclude(aged.stale, { agedFor: 99, invalidatedFor: -Infinity })
        assert.deepStrictEqual(aged.stale?.exit, Exit.succeed(1))
        assert.deepStrictEqual(aged.stale?.ids(), ["row:1", "row:*", "#a", "#b"])
        yield* TestClock.adjust(1)
        assert.deepStrictEqual(yield* held(1), { miss: "expired", stale: undefined, by: undefined })
        for (const targets of [{ tags: ["#b"] }, { keys: ["row:1"] }, { patterns: ["*:1"] }]) {
          yield* store1
          yield* invalidate(targets)
          yield* TestClock.adjust(20)
          yield* invalidate({ tags: ["#a", "row:*"] })
          yield* TestClock.adjust(29)
          const invalidated = yield* held(1)
          assert.strictEqual(invalidated.miss, "invalidated")
          assert.deepInclude(invalidated.stale, { agedFor: -951, invalidatedFor: 49 }, "since the first one")
          yield* TestClock.adjust(1)
          // The first of those that have reached it.
          const by = targets.tags?.[0] ?? "row:1"
          assert.deepStrictEqual(yield* held(1), { miss: "invalidated", stale: undefined, by })
        }
      })
    )

    test(
      "a discarded answer is gone",
      Effect.gen(function* () {
        const store = yield* Store
        yield* put(1, 1, ["#a"])
        const fill = yield* store.begin(row(1), own(1))
        yield* fill.discard
        yield* fill.end
        assert.isUndefined(yield* peek(1))
        assert.isUndefined((yield* held(1)).stale)
      })
    )

    test(
      "a replacement is stored in the step that invalidates its key, unless it was overtaken before",
      Effect.gen(function* () {
        const store = yield* Store
        yield* put(1, 1)
        const entry = { exit: Exit.succeed(2), tags: ["row:*", "#a"], timeToLive: Infinity }
        const replace = (since?: Position, before: Partial<Request> = {}) =>
          Effect.gen(function* () {
            const fill = yield* store.begin(row(1), own(1), since)
            if (Object.keys(before).length > 0) yield* invalidate(before)
            const { stored } = yield* fill.replace(invalidation({ keys: ["row:1"] }), entry)
            yield* fill.end
            return stored
          })
        const running = yield* store.begin(row(1), own(1))
        assert.strictEqual(yield* replace(), "stored")
        assert.strictEqual(yield* peek(1), 2)
        assert.strictEqual(yield* running.store(entry), "overtaken")
        yield* running.end
        for (const before of [{ tags: ["#a"] }, { keys: ["row:1"] }, { patterns: ["row*"] }]) {
          assert.strictEqual(yield* replace(undefined, before), "overtaken")
          assert.isUndefined(yield* peek(1))
          yield* put(1, 1)
        }
        const position = yield* store.position
        assert.strictEqual(yield* replace(position, { tags: ["#b"] }), "stored")
        assert.strictEqual(yield* replace(position), "overtaken")
        for (const unknown of [-1, 1e9, Number.NaN, "", "1:2", "no position"])
          assert.strictEqual(yield* replace(unknown as Position), "overtaken")
      })
    )

    test(
      "a position that was never told is none that anything can be stored with",
      Effect.gen(function* () {
        const store = yield* Store
        yield* invalidate({ tags: ["#a"] })
        const fill = yield* store.begin(row(1), own(1), 0 as Position)
        const stored = yield* fill.store({ exit: Exit.succeed(1), tags: ["#a"], timeToLive: Infinity })
        yield* fill.end
        assert.include(["overtaken", "failed"], stored)
        assert.isUndefined(yield* peek(1))
      })
    )

    test(
      "explains why a key is or is not answered",
      Effect.gen(function* () {
        const store = yield* Store
        const reason = store.explain(row(1))
        assert.deepStrictEqual(yield* reason, { _tag: "Absent" })
        yield* put(1, 1, ["#a"], 60_000)
        assert.deepStrictEqual(yield* reason, { _tag: "Fresh", expiresIn: 60_000, tags: ["row:*", "#a"] })
        yield* invalidate({ tags: ["#a"] })
        assert.deepStrictEqual(yield* reason, { _tag: "Invalidated", by: "#a" })
        yield* put(1, 1, [], 60_000)
        yield* invalidate({ keys: ["row:1"] })
        assert.deepStrictEqual(yield* reason, { _tag: "Invalidated", by: "row:1" })
        yield* put(1, 1, [], 60_000)
        yield* TestClock.adjust(60_000)
        assert.deepStrictEqual(yield* reason, { _tag: "Expired" })
      })
    )

    localTest(
      "gives tags back that nothing carries any more",
      Effect.gen(function* () {
        const store = yield* Store
        for (let i = 0; i < 1000; i++) {
          yield* put(i % 10, i, [`#round:${i}`])
          yield* invalidate({ tags: [`#round:${i}`] })
          yield* invalidate({ tags: [`#nobody:${i}`] })
        }
        assert.isAtMost(store.tags(), 11)
        yield* invalidate({ tags: ["row:*"] })
        assert.strictEqual(store.tags(), 0)
      })
    )

    localTest(
      "gives tags back that were invalidated while a lookup ran, once it has ended",
      Effect.gen(function* () {
        const store = yield* Store
        const fill = yield* store.begin(row(1), own(1))
        for (let i = 0; i < 100; i++) yield* invalidate({ tags: [`#t:${i}`], patterns: [`p:${i}`] })
        assert.isAtLeast(store.tags(), 100)
        yield* fill.end
        assert.strictEqual(store.tags(), 0)
      })
    )
  })
}

// ------------------------------------------------------------------------------------------------------- the model

/** One step of a random history. */
export const Step = Schema.Union([
  Schema.TaggedStruct("Begin", { id: Schema.Literals([0, 1, 2, 3, 4, 5, 6, 7]) }),
  Schema.TaggedStruct("Land", {
    fill: Schema.Literals([0, 1, 2]),
    tags: Schema.Array(Schema.Literals(["#a", "#b", "#c", "#d", "row:3"])).check(
      Schema.isMinLength(1),
      Schema.isMaxLength(3)
    ),
    timeToLive: Schema.Literals([10, 50, 1_000_000]),
    keep: Schema.Literals([0, 30])
  }),
  Schema.TaggedStruct("Abandon", { fill: Schema.Literals([0, 1, 2]) }),
  Schema.TaggedStruct("Tag", { tag: Schema.Literals(["#a", "#b", "#c", "#d", "row:*"]) }),
  Schema.TaggedStruct("Key", { id: Schema.Literals([0, 1, 2, 3, 4, 5, 6, 7]) }),
  Schema.TaggedStruct("Glob", { glob: Schema.Literals(["row:[0-3]", "row:3", "*5", "row:9"]) }),
  Schema.TaggedStruct("Wait", { millis: Schema.Literals([1, 10, 40]) })
])

interface Known {
  readonly value: number
  readonly ids: ReadonlyArray<string>
  readonly startedAt: number
  readonly expiresAt: number
  readonly keep: number
}

/**
 * Runs a history on the store and on a model that keeps every invalidation for ever and evaluates the rule as it is
 * written. After each step some keys are compared (a look may change what the store has noticed), in the end all: what the store answers must be what the model has; what the model
 * has must be answered, unless the store is too small to hold everything (`complete: false`). `eager` says that the
 * store is small enough to notice at once what an invalidation has ended, so that counts and tags are exact.
 */
export const compareWithModel = (
  steps: ReadonlyArray<typeof Step.Type>,
  options: { readonly complete: boolean; readonly eager: boolean }
) =>
  Effect.gen(function* () {
    const store = yield* Store
    const log: Array<{ readonly reaches: (id: string) => boolean; readonly instant: number }> = []
    const entries = new Map<number, Known>()
    const open: Array<{ readonly id: number; readonly fill: Fill; readonly startedAt: number }> = []
    let value = 0
    const isFresh = (known: Known, now: number) =>
      now < known.expiresAt && !log.slice(known.startedAt).some(({ reaches }) => known.ids.some(reaches))
    /** Since when an answer is not fresh, if it is kept all the same. */
    const keptBy = (known: Known, now: number) => {
      const by = log.slice(known.startedAt).find(({ reaches }) => known.ids.some(reaches))
      const agedFor = now - known.expiresAt
      const invalidatedFor = by === undefined ? -Infinity : now - by.instant
      const isKept = Math.max(agedFor, invalidatedFor) >= 0 && agedFor < (agedFor < 0 ? 0 : known.keep)
      return isKept && invalidatedFor < (invalidatedFor < 0 ? 0 : known.keep)
        ? { agedFor, invalidatedFor }
        : undefined
    }
    const invalidateBoth = (targets: Partial<Request>, reaches: (id: string) => boolean) =>
      Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        const before = [...entries.values()].filter((known) => isFresh(known, now)).length
        log.push({ reaches, instant: now })
        const after = [...entries.values()].filter((known) => isFresh(known, now)).length
        const { report } = yield* store.invalidate(invalidation(targets))
        if (options.complete && options.eager) assert.strictEqual(report.entries, before - after)
      })

    for (const [index, step] of steps.entries()) {
      switch (step._tag) {
        case "Begin":
          if (open.length < 3) {
            open.push({
              id: step.id,
              fill: yield* store.begin(row(step.id), own(step.id)),
              startedAt: log.length
            })
          }
          break
        case "Land": {
          const [flight] = open.splice(step.fill, 1)
          if (flight === undefined) break
          const ids = [...new Set([...own(flight.id), ...step.tags])]
          const now = yield* Clock.currentTimeMillis
          const known: Known = {
            value: ++value,
            ids,
            startedAt: flight.startedAt,
            expiresAt: now + step.timeToLive,
            keep: step.keep
          }
          const stored = yield* flight.fill.store({
            exit: Exit.succeed(known.value),
            tags: ids.slice(1),
            timeToLive: step.timeToLive,
            keep: { aged: step.keep, invalidated: step.keep }
          })
          yield* flight.fill.end
          const isStored = stored === "stored"
          assert.strictEqual(
            isStored,
            isFresh(known, now),
            "a fill is accepted exactly if its answer is fresh"
          )
          if (isStored) entries.set(flight.id, known)
          break
        }
        case "Abandon": {
          const [flight] = open.splice(step.fill, 1)
          if (flight !== undefined) yield* flight.fill.end
          break
        }
        case "Tag":
          yield* invalidateBoth({ tags: [step.tag] }, (id) => id === step.tag)
          break
        case "Key":
          yield* invalidateBoth({ keys: [`row:${step.id}`] }, (id) => id === `row:${step.id}`)
          break
        case "Glob": {
          const { matches } = Pattern.makeUnsafe(step.glob)
          yield* invalidateBoth({ patterns: [step.glob] }, (id) => Node.isKeyId(id) && matches(id))
          break
        }
        case "Wait":
          yield* TestClock.adjust(step.millis)
      }
      const now = yield* Clock.currentTimeMillis
      for (let id = 0; id < 8; id++) {
        if ((index + id) % 4 !== 0 && index < steps.length - 1) continue
        const known = entries.get(id)
        const expected = known !== undefined && isFresh(known, now) ? known.value : undefined
        const answered = yield* peek(id)
        if (options.complete || answered !== undefined) assert.strictEqual(answered, expected, `key ${id}`)
        if (answered !== undefined) continue
        const { stale } = store.held(row(id), yield* Clock.Clock)
        const kept = known && keptBy(known, now)
        if (options.complete || stale !== undefined) {
          assert.deepStrictEqual(
            stale && { agedFor: stale.agedFor, invalidatedFor: stale.invalidatedFor },
            kept,
            `key ${id}`
          )
        }
      }
    }
    for (const { fill } of open) yield* fill.end
    if (!options.eager) return
    const carried = new Set([...entries.values()].flatMap((known) => known.ids.slice(1)))
    assert.isAtMost(store.tags(), carried.size, "no tag is kept that nothing carries")
  })
