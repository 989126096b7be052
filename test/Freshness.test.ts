import { assert, describe, it } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Fiber, Random, Schema } from "effect"
import { TestClock } from "effect/testing"
import * as Freshness from "../src/Freshness.ts"
import { Cacheme, CachemeError, Node, Tag } from "../src/index.ts"
import { CachemeTest } from "../src/testing/index.ts"

class Price extends Tag.Class<Price>()("price", { id: Schema.Int }) {}

class Offer extends Node.Class<Offer>()("offer", {
  key: { id: Schema.Int },
  value: Schema.Int,
  timeToLive: "10 seconds",
  tags: ({ id }) => new Price({ id })
}) {}

const offer = new Offer({ id: 1 })

/** A lookup that counts: it answers its number, or fails, or waits, as it is told. */
class Source {
  runs = 0
  fails = false
  gate: Deferred.Deferred<void> | undefined
  readonly lookup: Effect.Effect<number, "down"> = Effect.suspend(() => {
    const run = ++this.runs
    const answer = this.fails ? Effect.fail("down" as const) : Effect.succeed(run)
    return this.gate === undefined ? answer : Effect.andThen(Deferred.await(this.gate), answer)
  })
  /** Asks for the offer, with options of the call. */
  readonly ask = (overrides?: Node.Overrides<Offer, number, never, never>) =>
    this.lookup.pipe(Cacheme.memoize(offer, overrides))
}

const fork = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.forkChild(self, { startImmediately: true })

const offerStats = Effect.map(Cacheme.stats, ({ nodes }) => nodes.find(({ node }) => node === "offer")!)

describe("stale.whileRevalidate", () => {
  const stale = { whileRevalidate: "5 seconds" } as const

  it.effect("gives an aged answer at once within its window, and refreshes it in the background", () =>
    Effect.gen(function* () {
      const source = new Source()
      const ask = source.ask({ stale })
      assert.strictEqual(yield* ask, 1)
      yield* TestClock.adjust("14999 millis")
      const explained = yield* Cacheme.explain(offer)
      assert.deepInclude(explained, { answered: false, stale: { atOnce: 0, ifError: 0 } })
      assert.strictEqual(yield* ask, 1)
      yield* Effect.yieldNow
      assert.strictEqual(source.runs, 2)
      assert.strictEqual(yield* ask, 2)
      yield* CachemeTest.assertFresh(offer)
      assert.deepInclude(yield* offerStats, { hits: 1, stale: 1, misses: 2, lookups: 2, requests: 3 })
      assert.deepStrictEqual((yield* offerStats).missesBy, {
        absent: 1,
        expired: 1,
        invalidated: 0,
        unreadable: 0,
        away: 0
      })
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("not after its window, and not at all after an invalidation", () =>
    Effect.gen(function* () {
      const source = new Source()
      const ask = source.ask({ stale })
      yield* ask
      yield* TestClock.adjust("15 seconds")
      assert.strictEqual(yield* ask, 2)
      yield* TestClock.adjust("12 seconds")
      yield* Cacheme.invalidate(new Price({ id: 1 }))
      assert.strictEqual(yield* ask, 3)
      yield* Cacheme.invalidate(new Price({ id: 1 }))
      assert.strictEqual(yield* ask, 4)
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("makes one lookup for a thousand hits, and backs off while it fails", () =>
    Effect.gen(function* () {
      const source = new Source()
      const ask = source.ask({ stale: { whileRevalidate: "1 hour" } })
      yield* ask
      yield* TestClock.adjust("10 seconds")
      source.fails = true
      for (let i = 0; i < 1000; i++) assert.strictEqual(yield* ask, 1)
      assert.strictEqual(source.runs, 2)
      const { failedRefreshes, message } = yield* Cacheme.explain(offer)
      assert.strictEqual(failedRefreshes, 1)
      assert.match(message, /refresh has failed 1 time/)
      // Asked for all the time: 100 ms, 200 ms, 400 ms … up to 30 s, each by chance up to a fifth more or less.
      let asked = 0
      for (let second = 0; second < 100; second++) {
        yield* ask
        asked++
        yield* TestClock.adjust("1 second")
      }
      assert.isAtLeast(source.runs, 6)
      assert.isAtMost(source.runs, 14)
      assert.strictEqual(asked, 100)
      source.fails = false
      yield* TestClock.adjust("40 seconds")
      yield* ask
      yield* Effect.yieldNow
      yield* CachemeTest.assertFresh(offer)
      assert.strictEqual((yield* Cacheme.explain(offer)).failedRefreshes, 0)
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("does not try again for an answer that nobody asks for", () =>
    Effect.gen(function* () {
      const source = new Source()
      const ask = source.ask({ stale: { whileRevalidate: "1 hour" } })
      yield* ask
      yield* TestClock.adjust("10 seconds")
      source.fails = true
      yield* ask
      yield* TestClock.adjust("30 minutes")
      assert.strictEqual(source.runs, 2)
      assert.strictEqual((yield* Cacheme.explain(offer)).failedRefreshes, 0)
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("a refresh outlives the caller that started it, and its scope", () =>
    Effect.gen(function* () {
      const source = new Source()
      const ask = source.ask({ stale })
      yield* ask
      yield* TestClock.adjust("10 seconds")
      source.gate = yield* Deferred.make<void>()
      const caller = yield* fork(Effect.scoped(ask))
      assert.strictEqual(yield* Fiber.join(caller), 1)
      assert.isTrue((yield* Cacheme.explain(offer)).lookupRunning)
      yield* Deferred.succeed(source.gate, undefined)
      yield* Effect.yieldNow
      assert.strictEqual(yield* ask, 2)
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("a caller without a window joins the refresh, and its interruption does not stop it", () =>
    Effect.gen(function* () {
      const source = new Source()
      const ask = source.ask({ stale })
      const patient = source.ask()
      yield* ask
      yield* TestClock.adjust("10 seconds")
      source.gate = yield* Deferred.make<void>()
      yield* ask
      const [first, second] = [yield* fork(patient), yield* fork(patient)]
      yield* Fiber.interrupt(first)
      yield* Deferred.succeed(source.gate, undefined)
      assert.strictEqual(yield* Fiber.join(second), 2)
      assert.strictEqual(source.runs, 2)
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("a newer answer that is not to be stored ends the stale one", () =>
    Effect.gen(function* () {
      const source = new Source()
      const times = {
        timeToLive: (exit: Exit.Exit<number, unknown>) =>
          Exit.isSuccess(exit) && exit.value === 1 ? 10_000 : 0
      }
      const ask = source.ask({ stale, ...times })
      yield* ask
      yield* TestClock.adjust("11 seconds")
      assert.strictEqual(yield* ask, 1)
      yield* Effect.yieldNow
      assert.strictEqual(yield* ask, 3)
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("an answer that rests on a stale one is never kept", () =>
    Effect.gen(function* () {
      const source = new Source()
      class Page extends Node.Class<Page>()("page", { key: {}, value: Schema.String }) {}
      const page = source.lookup.pipe(
        Cacheme.memoize(offer, { stale }),
        Effect.map((n) => `offer ${n}`),
        Cacheme.memoize(new Page())
      )
      yield* source.ask({ stale })
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(yield* page, "offer 1")
      yield* CachemeTest.assertNotFresh(new Page())
      assert.strictEqual(yield* page, "offer 2")
      yield* CachemeTest.assertFresh(new Page())
    }).pipe(Effect.provide(CachemeTest.layer()))
  )
})

describe("stale.afterInvalidation", () => {
  const stale = { afterInvalidation: "5 seconds" } as const

  it.effect("gives an invalidated answer within its window, counted from the first invalidation", () =>
    Effect.gen(function* () {
      const source = new Source()
      const ask = source.ask({ stale, timeToLive: "1 hour" })
      yield* ask
      yield* Cacheme.invalidate(new Price({ id: 1 }))
      source.fails = true
      yield* TestClock.adjust("4 seconds")
      assert.strictEqual(yield* ask, 1)
      yield* Cacheme.invalidate(new Price({ id: 1 }))
      yield* Cacheme.invalidate(offer)
      yield* TestClock.adjust("999 millis")
      assert.strictEqual(yield* ask, 1)
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(yield* Effect.flip(ask), "down")
      assert.deepStrictEqual((yield* offerStats).missesBy, {
        absent: 1,
        expired: 0,
        invalidated: 3,
        unreadable: 0,
        away: 0
      })
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("of its key, of its class, by pattern: all the same", () =>
    Effect.gen(function* () {
      for (const target of [offer, Offer, { pattern: "offer:*" }]) {
        const source = new Source()
        const ask = source.ask({ stale })
        yield* Cacheme.refresh(source.lookup, offer, { stale })
        yield* Cacheme.invalidate(target)
        assert.strictEqual(yield* ask, 1)
        yield* Effect.yieldNow
        assert.strictEqual(yield* ask, 2)
      }
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("an answer that has aged out too needs both windows", () =>
    Effect.gen(function* () {
      const source = new Source()
      const ask = source.ask({ stale })
      yield* ask
      yield* TestClock.adjust("9 seconds")
      yield* Cacheme.invalidate(offer)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* ask, 2)
    }).pipe(Effect.provide(CachemeTest.layer()))
  )
})

describe("stale.ifError", () => {
  const stale = { ifError: "1 minute" } as const

  it.effect("gives an aged answer when the lookup fails or dies, within its window", () =>
    Effect.gen(function* () {
      const source = new Source()
      const ask = source.ask({ stale })
      yield* ask
      yield* TestClock.adjust("10 seconds")
      source.fails = true
      assert.deepInclude(yield* Cacheme.explain(offer), { answered: false })
      assert.strictEqual(yield* ask, 1)
      assert.strictEqual(source.runs, 2)
      const dying = Effect.die("bug").pipe(Cacheme.memoize(offer, { stale }))
      assert.strictEqual(yield* dying, 1)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* Effect.flip(ask), "down")
      assert.deepInclude(yield* offerStats, { stale: 2, failures: 3 })
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("not an invalidated one, unless afterInvalidation allows it too", () =>
    Effect.gen(function* () {
      const source = new Source()
      const ask = source.ask({ stale })
      yield* ask
      yield* Cacheme.invalidate(new Price({ id: 1 }))
      source.fails = true
      assert.strictEqual(yield* Effect.flip(ask), "down")
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("not instead of a failure that the node declares, which is an answer", () =>
    Effect.gen(function* () {
      class Gone extends Schema.TaggedError<Gone>()("Gone", {}) {}
      class Thing extends Node.Class<Thing>()("thing", {
        key: {},
        value: Schema.Int,
        error: Gone,
        timeToLive: "10 seconds",
        stale
      }) {}
      yield* Effect.succeed(1).pipe(Cacheme.memoize(new Thing()))
      yield* TestClock.adjust("10 seconds")
      const gone = yield* Effect.flip(Effect.fail(new Gone()).pipe(Cacheme.memoize(new Thing())))
      assert.instanceOf(gone, Gone)
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("an interrupted lookup is none that failed", () =>
    Effect.gen(function* () {
      const source = new Source()
      const ask = source.ask({ stale })
      yield* ask
      yield* TestClock.adjust("10 seconds")
      for (const lookup of [Effect.interrupt, Effect.failCause(Cause.interrupt())]) {
        const exit = yield* Effect.exit(lookup.pipe(Cacheme.memoize(offer, { stale })))
        assert.isTrue(Exit.hasInterrupts(exit))
      }
    }).pipe(Effect.provide(CachemeTest.layer()))
  )
})

describe("a stale answer", () => {
  it.effect("is told apart in the caller's span, however it came about", () =>
    Effect.gen(function* () {
      const stale = { whileRevalidate: "1 second", ifError: "1 hour" } as const
      const policy = { stale, lookup: { softTimeout: "1 second" } } as const
      const marks: Array<unknown> = []
      const marked = <A, E, R>(self: Effect.Effect<A, E, R>) =>
        self.pipe(
          Effect.tap(() =>
            Effect.map(Effect.currentSpan, (span) => marks.push(span.attributes.get("cacheme.stale")))
          ),
          Effect.asVoid,
          Effect.withSpan("caller")
        )
      const answering = (lookup: Effect.Effect<number, string>) => [
        marked(lookup.pipe(Cacheme.memoize(offer, policy))),
        marked(
          Cacheme.getAll(
            [offer],
            (missing) => Effect.map(lookup, (n) => missing.map((node) => [node, n] as const)),
            policy
          )
        )
      ]
      const store = Effect.succeed(1).pipe(Cacheme.refresh(offer, policy))
      yield* store
      yield* Effect.all(answering(Effect.succeed(2)))
      assert.deepStrictEqual(marks.splice(0), [undefined, undefined])
      for (const ask of answering(Effect.succeed(3))) {
        yield* store
        yield* TestClock.adjust("10 seconds")
        yield* ask
      }
      for (const ask of answering(Effect.fail("down"))) {
        yield* store
        yield* TestClock.adjust("20 seconds")
        yield* ask
      }
      for (const ask of answering(Effect.never)) {
        yield* store
        yield* TestClock.adjust("20 seconds")
        const asked = yield* fork(ask)
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(asked)
      }
      assert.deepStrictEqual(marks, Array(6).fill(true))
    }).pipe(Effect.provide(CachemeTest.layer()))
  )
})

describe("the windows", () => {
  class Wide extends Node.Class<Wide>()("wide", {
    key: {},
    value: Schema.Int,
    timeToLive: "1 second",
    stale: { whileRevalidate: "10 seconds" }
  }) {}

  it.effect("the nearest setting wins, each for itself: call, node, cache", () =>
    Effect.gen(function* () {
      const source = new Source()
      const byNode = source.lookup.pipe(Cacheme.memoize(new Wide()))
      const byCall = source.lookup.pipe(Cacheme.memoize(new Wide(), { stale: { whileRevalidate: 0 } }))
      yield* byNode
      yield* TestClock.adjust("5 seconds")
      // The cache's window is closed by nobody.
      source.fails = true
      assert.strictEqual(yield* byCall, 1)
      assert.strictEqual(yield* byNode, 1)
      yield* TestClock.adjust("7 seconds")
      assert.strictEqual(yield* byNode, 1)
      yield* TestClock.adjust("50 seconds")
      assert.strictEqual(yield* Effect.flip(byNode), "down")
    }).pipe(Effect.provide(CachemeTest.layer({ stale: { ifError: "1 minute", whileRevalidate: "1 hour" } })))
  )

  it.effect("are closed unless somebody opens them", () =>
    Effect.gen(function* () {
      const source = new Source()
      const ask = source.ask()
      yield* ask
      yield* Cacheme.invalidate(offer)
      assert.strictEqual(yield* ask, 2)
      yield* TestClock.adjust("10 seconds")
      source.fails = true
      assert.strictEqual(yield* Effect.flip(ask), "down")
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("an option that is none does not compile", () =>
    Effect.sync(() => {
      const lookup = Effect.succeed(1)
      const asks = [
        // @ts-expect-error no such option
        lookup.pipe(Cacheme.memoize(offer, { timeToLve: "1 second" })),
        // @ts-expect-error no such window
        lookup.pipe(Cacheme.memoize(offer, { stale: { always: true } })),
        // @ts-expect-error turns belong to the node
        Cacheme.memoize(lookup, offer, { lookup: { concurrency: 1 } }),
        // @ts-expect-error no such option
        Cacheme.getAll([offer], () => Effect.succeed([]), { absnt: "1 second" }),
        // @ts-expect-error no such option
        lookup.pipe(Cacheme.memoize({ key: "a", value: Schema.Int, lookup: { tmeout: 1 } }))
      ]
      assert.lengthOf(asks, 5)
    })
  )

  it.effect("a bad one is an error that names it", () =>
    Effect.gen(function* () {
      const node = yield* Effect.flip(
        Effect.try({
          try: () =>
            Node.Class<any>()("bad", { key: {}, value: Schema.Int, stale: { ifError: "soon" as never } }),
          catch: (error) => error as CachemeError
        })
      )
      assert.match(node.message, /node "bad": stale.ifError is "soon", expected a Duration/)
      const layer = yield* Effect.flip(
        Effect.scoped(Effect.provide(Effect.void, CachemeTest.layer({ stale: { whileRevalidate: -1 } })))
      )
      assert.match(layer.message, /stale.whileRevalidate is -1, expected a Duration/)
      for (const [options, message] of [
        [{ refresh: { ahead: Number.NaN } }, /refresh.ahead is NaN, expected a number of zero or more/],
        [{ refresh: { jitter: 2 } }, /refresh.jitter is 2, expected a number from 0 to 1/],
        [{ lookup: { timeout: "never" as never } }, /lookup.timeout is "never", expected a Duration/],
        [{ lookup: { retry: 3 as never } }, /lookup.retry is 3, expected a Schedule/]
      ] as const) {
        assert.throws(() => Effect.succeed(1).pipe(Cacheme.memoize(offer, options)), message)
      }
      assert.throws(
        () => Node.Class<any>()("bad", { key: {}, value: Schema.Int, lookup: { concurrency: 0 } }),
        /lookup.concurrency is 0, expected an integer of at least 1/
      )
    })
  )

  const Aged = Schema.Literals([-1000, -1, 0, 1, 10, 1000])
  const Invalidated = Schema.Literals(["never", 0, 1, 10, 1000])
  const Window = Schema.Literals([0, 1, 10, 100_000])
  it.effect.prop(
    "open exactly while each reason why an answer is not fresh is within its own",
    [Aged, Invalidated, Window, Window],
    ([agedFor, since, aged, invalidated]) =>
      Effect.sync(() => {
        const invalidatedFor = since === "never" ? -Infinity : since
        const stale = { exit: Exit.void, ids: () => [], agedFor, invalidatedFor }
        const expected =
          (agedFor < 0 || agedFor < aged) && (invalidatedFor === -Infinity || invalidatedFor < invalidated)
        assert.strictEqual(Freshness.isWithin(stale, { aged, invalidated }), expected)
      }),
    { arbitrary: { runs: 200 } }
  )
})

describe("refresh", () => {
  it.effect(
    "ahead looks up early, the likelier the nearer the end, and gives the fresh answer meanwhile",
    () =>
      Effect.gen(function* () {
        let runs = 0
        const slow = Effect.suspend(() => {
          const run = ++runs
          return Effect.as(Effect.sleep("1 second"), run)
        })
        const ask = slow.pipe(Cacheme.memoize(offer, { refresh: { ahead: 1 } }))
        const first = yield* fork(ask)
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* Fiber.join(first), 1)
        // Nine seconds before the end, e^-9 of the reads would look up.
        for (let i = 0; i < 100; i++) yield* ask
        assert.strictEqual(runs, 1)
        yield* TestClock.adjust("9500 millis")
        for (let i = 0; i < 100; i++) assert.strictEqual(yield* ask, 1)
        assert.strictEqual(runs, 2)
        yield* TestClock.adjust("499 millis")
        assert.strictEqual(yield* ask, 1)
        yield* TestClock.adjust("501 millis")
        assert.strictEqual(yield* ask, 2)
        assert.strictEqual(runs, 2)
      }).pipe(Effect.provide(CachemeTest.layer()), Random.withSeed("ahead"))
  )

  it.effect("ahead may be the node's", () =>
    Effect.gen(function* () {
      let runs = 0
      class Early extends Node.Class<Early>()("early", {
        key: {},
        value: Schema.Int,
        timeToLive: "10 seconds",
        refresh: { ahead: 1e9 }
      }) {}
      const ask = Effect.suspend(() => Effect.as(Effect.sleep(1), ++runs)).pipe(Cacheme.memoize(new Early()))
      const first = yield* fork(ask)
      yield* TestClock.adjust(1)
      yield* Fiber.join(first)
      assert.strictEqual(yield* ask, 1)
      yield* TestClock.adjust(1)
      assert.isAbove(runs, 1)
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("ahead follows the paper's rule", () =>
    Effect.sync(() => {
      const fresh = { expiresAt: 10_000, took: 1000 }
      const due = (now: number, ahead: number) => {
        let count = 0
        for (let i = 1; i < 10_000; i++) if (Freshness.isDueEarly(fresh, ahead, now, i / 10_000)) count++
        return count / 10_000
      }
      // P(-took · ahead · ln U ≥ left) = e^(-left / (took · ahead))
      for (const [left, ahead] of [
        [1000, 1],
        [500, 1],
        [2000, 1],
        [2000, 2]
      ] as const) {
        assert.closeTo(due(10_000 - left, ahead), Math.exp(-left / (1000 * ahead)), 0.001)
      }
      assert.isFalse(Freshness.isDueEarly({ expiresAt: Infinity, took: 1 }, 1, 1e15, 1e-9))
      assert.isFalse(Freshness.isDueEarly({ expiresAt: 10, took: 0 }, 1, 9, 1e-9))
    })
  )

  it.effect("jitter shortens each time to live, at most by its part", () =>
    Effect.gen(function* () {
      const lefts: Array<number> = []
      for (let id = 0; id < 200; id++) {
        yield* Effect.succeed(id).pipe(
          Cacheme.memoize(new Offer({ id }), { refresh: { jitter: 0.5 }, timeToLive: "10 seconds" })
        )
        const { reason } = yield* Cacheme.explain(new Offer({ id }))
        assert(reason._tag === "Fresh")
        lefts.push(reason.expiresIn)
      }
      assert.isAtMost(Math.max(...lefts), 10_000)
      assert.isAtLeast(Math.min(...lefts), 5000)
      assert.isAbove(Math.max(...lefts) - Math.min(...lefts), 4000)
    }).pipe(Effect.provide(CachemeTest.layer()), Random.withSeed("jitter"))
  )
})
