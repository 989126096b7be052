import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Deferred, Effect, Exit, Fiber, Layer, Ref, Schema, Scope } from "effect"
import { Cacheme, CachemeError, MemoryStore, Node, Tag } from "../src/index.ts"

class Fact extends Tag.Class<Fact>()("fact", { of: Schema.Int }) {}

class Answer extends Node.Class<Answer>()("answer", {
  key: { id: Schema.Int },
  value: Schema.Struct({ number: Schema.Int, about: Schema.Int }),
  valueTags: ({ about }) => new Fact({ of: about })
}) {}

class Language extends Context.Service<Language, string>()("test/Language") {}

const TestCache = Cacheme.layer().pipe(Layer.provide(MemoryStore.layer()))

/** A lookup that tells when it runs and waits to be let go; each run has its own number. */
const makeGated = (id = 1) =>
  Effect.gen(function* () {
    const runs: Array<{ readonly go: Deferred.Deferred<void, string>; stopped: boolean }> = []
    const started = yield* Ref.make(0)
    const lookup = Effect.gen(function* () {
      const run = { go: yield* Deferred.make<void, string>(), stopped: false }
      const number = runs.push(run)
      yield* Ref.update(started, (n) => n + 1)
      yield* Effect.onInterrupt(Deferred.await(run.go), () => Effect.sync(() => (run.stopped = true)))
      return { number, about: id }
    })
    return {
      ask: lookup.pipe(Cacheme.memoize(new Answer({ id }))),
      runs,
      letGo: (run: number) => Deferred.succeed(runs[run - 1]!.go, undefined),
      fail: (run: number) => Deferred.fail(runs[run - 1]!.go, "broken")
    }
  })

/** Starts a caller and returns once it waits. */
const fork = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.forkChild(self, { startImmediately: true })

const numberOf = <E>(fiber: Fiber.Fiber<{ readonly number: number }, E>) =>
  Effect.map(Fiber.join(fiber), ({ number }) => number)

describe("Flight", () => {
  describe("sharing", () => {
    it.effect("a thousand callers of a cold key make one lookup", () =>
      Effect.gen(function* () {
        const { ask, runs, letGo } = yield* makeGated()
        const callers = yield* Effect.replicateEffect(fork(ask), 1000)
        yield* letGo(1)
        const answers = yield* Effect.forEach(callers, numberOf)
        assert.deepStrictEqual(new Set(answers), new Set([1]))
        assert.strictEqual(runs.length, 1)
      }).pipe(Effect.provide(TestCache))
    )

    it.effect("different keys do not wait for each other", () =>
      Effect.gen(function* () {
        const one = yield* makeGated(1)
        const two = yield* makeGated(2)
        const first = yield* fork(one.ask)
        const second = yield* fork(two.ask)
        yield* two.letGo(1)
        assert.strictEqual(yield* numberOf(second), 1)
        yield* one.letGo(1)
        assert.strictEqual(yield* numberOf(first), 1)
      }).pipe(Effect.provide(TestCache))
    )

    it.effect("a failure is shared by the followers, and nothing is stored", () =>
      Effect.gen(function* () {
        const { ask, runs, fail } = yield* makeGated()
        const callers = yield* Effect.replicateEffect(fork(Effect.exit(ask)), 10)
        yield* fail(1)
        const exits = yield* Effect.forEach(callers, Fiber.join)
        for (const exit of exits) assert.deepStrictEqual(exit, Exit.fail("broken"))
        assert.strictEqual(runs.length, 1)
        const again = yield* fork(ask)
        assert.strictEqual(runs.length, 2)
        yield* Fiber.interrupt(again)
      }).pipe(Effect.provide(TestCache))
    )

    it.effect("a defect reaches every caller as a defect", () =>
      Effect.gen(function* () {
        const go = yield* Deferred.make<void>()
        const ask = Deferred.await(go).pipe(
          Effect.andThen(Effect.die("bug")),
          Cacheme.memoize(new Answer({ id: 9 }))
        )
        const callers = yield* Effect.replicateEffect(fork(Effect.exit(ask)), 3)
        yield* Deferred.succeed(go, undefined)
        for (const caller of callers) {
          const exit = yield* Fiber.join(caller)
          assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
        }
      }).pipe(Effect.provide(TestCache))
    )
  })

  describe("an invalidation during the lookup", () => {
    it.effect("of the key: later callers start a newer lookup at once, and only that is stored", () =>
      Effect.gen(function* () {
        const { ask, runs, letGo } = yield* makeGated()
        const before = yield* fork(ask)
        yield* Cacheme.invalidate(new Answer({ id: 1 }))
        const after = yield* fork(ask)
        assert.strictEqual(runs.length, 2)
        yield* letGo(2)
        assert.strictEqual(yield* numberOf(after), 2)
        yield* letGo(1)
        assert.strictEqual(yield* numberOf(before), 1)
        assert.strictEqual((yield* ask).number, 2)
        assert.strictEqual(runs.length, 2)
      }).pipe(Effect.provide(TestCache))
    )

    it.effect(
      "of a tag known only from the answer: who joined does not get it, and shares one next lookup",
      () =>
        Effect.gen(function* () {
          const { ask, runs, letGo } = yield* makeGated()
          const leader = yield* fork(ask)
          const early = yield* Effect.replicateEffect(fork(ask), 500)
          yield* Cacheme.invalidate(new Fact({ of: 1 }))
          const late = yield* Effect.replicateEffect(fork(ask), 499)
          assert.strictEqual(runs.length, 1)
          yield* letGo(1)
          assert.strictEqual(yield* numberOf(leader), 1)
          yield* Effect.yieldNow
          assert.strictEqual(runs.length, 2)
          yield* letGo(2)
          const answers = yield* Effect.forEach([...early, ...late], numberOf)
          assert.deepStrictEqual(new Set(answers), new Set([2]))
          assert.strictEqual(runs.length, 2)
          assert.strictEqual((yield* ask).number, 2)
        }).pipe(Effect.provide(TestCache))
    )

    it.effect("nobody waits for more than two lookups, however often it is invalidated", () =>
      Effect.gen(function* () {
        const { ask, runs, letGo } = yield* makeGated()
        yield* fork(ask)
        const follower = yield* fork(ask)
        yield* Cacheme.invalidate(new Fact({ of: 1 }))
        yield* letGo(1)
        yield* Effect.yieldNow
        assert.strictEqual(runs.length, 2)
        yield* Cacheme.invalidate(new Fact({ of: 1 }))
        yield* letGo(2)
        assert.strictEqual(yield* numberOf(follower), 2)
        const { reason } = yield* Cacheme.explain(new Answer({ id: 1 }))
        assert.strictEqual(reason._tag, "Absent")
      }).pipe(Effect.provide(TestCache))
    )

    it.effect("of something else changes nothing", () =>
      Effect.gen(function* () {
        const { ask, runs, letGo } = yield* makeGated()
        const callers = yield* Effect.replicateEffect(fork(ask), 10)
        yield* Cacheme.invalidate(new Fact({ of: 2 }))
        yield* Cacheme.invalidate(new Answer({ id: 2 }))
        yield* letGo(1)
        assert.deepStrictEqual(new Set(yield* Effect.forEach(callers, numberOf)), new Set([1]))
        assert.strictEqual((yield* ask).number, 1)
        assert.strictEqual(runs.length, 1)
      }).pipe(Effect.provide(TestCache))
    )

    it.effect("by pattern refuses the answer too", () =>
      Effect.gen(function* () {
        const { ask, runs, letGo } = yield* makeGated()
        yield* fork(ask)
        yield* Cacheme.invalidate({ pattern: "ans*:?" })
        const after = yield* fork(ask)
        assert.strictEqual(runs.length, 2)
        yield* letGo(1)
        yield* letGo(2)
        assert.strictEqual(yield* numberOf(after), 2)
      }).pipe(Effect.provide(TestCache))
    )

    it.effect("a failure that began before it is not given to those who came after it", () =>
      Effect.gen(function* () {
        const { ask, runs, fail, letGo } = yield* makeGated()
        const before = yield* fork(Effect.exit(ask))
        yield* Cacheme.invalidate(new Fact({ of: 1 }))
        const after = yield* fork(ask)
        yield* fail(1)
        assert.deepStrictEqual(yield* Fiber.join(before), Exit.fail("broken"))
        yield* Effect.yieldNow
        assert.strictEqual(runs.length, 2)
        yield* letGo(2)
        assert.strictEqual(yield* numberOf(after), 2)
      }).pipe(Effect.provide(TestCache))
    )
  })

  describe("interruption", () => {
    it.effect("a follower outlives an interrupted leader", () =>
      Effect.gen(function* () {
        const { ask, runs, letGo } = yield* makeGated()
        const leader = yield* fork(ask)
        const follower = yield* fork(ask)
        yield* Fiber.interrupt(leader)
        assert.isFalse(runs[0]!.stopped)
        yield* letGo(1)
        assert.strictEqual(yield* numberOf(follower), 1)
        assert.strictEqual((yield* ask).number, 1)
      }).pipe(Effect.provide(TestCache))
    )

    it.effect("an interrupted follower harms nobody", () =>
      Effect.gen(function* () {
        const { ask, runs, letGo } = yield* makeGated()
        const leader = yield* fork(ask)
        const follower = yield* fork(ask)
        yield* Fiber.interrupt(follower)
        yield* letGo(1)
        assert.strictEqual(yield* numberOf(leader), 1)
        assert.strictEqual(runs.length, 1)
      }).pipe(Effect.provide(TestCache))
    )

    it.effect("the last caller's interruption stops the lookup and waits for that", () =>
      Effect.gen(function* () {
        const { ask, runs, letGo } = yield* makeGated()
        const callers = yield* Effect.replicateEffect(fork(ask), 3)
        yield* Effect.forEach(callers, Fiber.interrupt)
        assert.isTrue(runs[0]!.stopped)
        const next = yield* fork(ask)
        assert.strictEqual(runs.length, 2)
        yield* letGo(2)
        assert.strictEqual(yield* numberOf(next), 2)
      }).pipe(Effect.provide(TestCache))
    )

    it.effect("a caller that comes while a lookup is being stopped starts a new one", () =>
      Effect.gen(function* () {
        const stopping = yield* Deferred.make<void>()
        const stopped = yield* Deferred.make<void>()
        let runs = 0
        const ask = Effect.suspend(() => {
          const number = ++runs
          return number === 1
            ? Effect.onInterrupt(Effect.never, () =>
                Effect.andThen(Deferred.succeed(stopping, undefined), Deferred.await(stopped))
              )
            : Effect.succeed({ number, about: 1 })
        }).pipe(Cacheme.memoize(new Answer({ id: 1 })))
        const only = yield* fork(ask)
        const interrupting = yield* fork(Fiber.interrupt(only))
        yield* Deferred.await(stopping)
        assert.strictEqual((yield* ask).number, 2)
        yield* Deferred.succeed(stopped, undefined)
        yield* Fiber.join(interrupting)
        assert.strictEqual((yield* ask).number, 2)
      }).pipe(Effect.provide(TestCache))
    )

    it.effect("callers that wait for a next lookup can leave it too", () =>
      Effect.gen(function* () {
        const { ask, runs, letGo } = yield* makeGated()
        yield* fork(ask)
        const follower = yield* fork(ask)
        yield* Cacheme.invalidate(new Fact({ of: 1 }))
        yield* letGo(1)
        yield* Effect.yieldNow
        assert.strictEqual(runs.length, 2)
        yield* Fiber.interrupt(follower)
        assert.isTrue(runs[1]!.stopped)
      }).pipe(Effect.provide(TestCache))
    )

    it.effect("closing the layer stops running lookups", () =>
      Effect.gen(function* () {
        const { ask, runs } = yield* makeGated()
        const scope = yield* Scope.make()
        const context = yield* Layer.buildWithScope(TestCache, scope)
        const caller = yield* fork(Effect.exit(Effect.provideContext(ask, context)))
        assert.strictEqual(runs.length, 1)
        yield* Scope.close(scope, Exit.void)
        assert.isTrue(runs[0]!.stopped)
        assert.isTrue(Exit.hasInterrupts(yield* Fiber.join(caller)))
        const late = yield* Effect.exit(
          Effect.provideContext(Cacheme.invalidate(new Answer({ id: 1 })), context)
        )
        const error = Exit.isFailure(late) ? Cause.squash(late.cause) : undefined
        assert.isTrue(error instanceof CachemeError && error.reason._tag === "Closed")
      })
    )
  })

  describe("context", () => {
    it.effect("a lookup runs with the services of its leader", () =>
      Effect.gen(function* () {
        const ask = Effect.map(Language, (language) => ({ number: language.length, about: 1 })).pipe(
          Cacheme.memoize(new Answer({ id: 1 }))
        )
        assert.strictEqual((yield* Effect.provideService(ask, Language, "French")).number, 6)
        assert.strictEqual((yield* Effect.provideService(ask, Language, "Thai")).number, 6)
      }).pipe(Effect.provide(TestCache))
    )

    it.effect("a lookup cannot lean on the caller's scope", () =>
      Effect.gen(function* () {
        const scoped = Effect.as(Effect.scope, { number: 1, about: 1 })
        // @ts-expect-error the lookup outlives its first caller, whose scope may close before it has ended
        const ask = scoped.pipe(Cacheme.memoize(new Answer({ id: 1 })))
        const exit = yield* Effect.exit(ask as Effect.Effect<unknown, unknown, Cacheme | Scope.Scope>)
        assert.isTrue(Exit.isFailure(exit))
        const closing = Effect.scoped(scoped).pipe(Cacheme.memoize(new Answer({ id: 2 })))
        assert.strictEqual((yield* closing).number, 1)
      }).pipe(Effect.scoped, Effect.provide(TestCache))
    )
  })
})
