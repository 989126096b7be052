import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Schema, Stream } from "effect"
import { inject } from "vitest"
import * as Attribution from "../src/Attribution.ts"
import { Cacheme, type Invalidation, MemoryStore, Node } from "../src/index.ts"
import { aClient, aProcess, aProxy, aRedis, isDown, isUp, type Process, until } from "./support/outages.ts"
import { ownPrefix, sharedStores } from "./support/shared.ts"

class Page extends Node.Class<Page>()("page", { key: { path: Schema.String }, value: Schema.String }) {}

const about = new Page({ path: "/about" })
const attributed = Effect.provideService(Cacheme.Attribution, { actor: "user:7", reason: "published" })

/** What a process is told of invalidations, from now on. */
const watch = ({ run }: Process, heard: Array<Invalidation.Invalidation>) =>
  Effect.forkChild(run(Stream.runForEach(Cacheme.events, (event) => Effect.sync(() => heard.push(event)))), {
    startImmediately: true
  })

const whoAndWhy = ({ actor, reason }: Attribution.Attribution) => ({ actor, reason })

describe("Attribution", () => {
  it.effect("is told with whatever a fiber invalidates, and with nothing else", () =>
    Effect.gen(function* () {
      const watching = yield* Effect.forkChild(Stream.runCollect(Stream.take(Cacheme.events, 6)), {
        startImmediately: true
      })
      yield* Cacheme.invalidate(about)
      yield* Effect.all([
        Cacheme.invalidate(about),
        Effect.void.pipe(Cacheme.mutation(about)),
        Cacheme.set(about, "text"),
        Effect.succeed("other text").pipe(Cacheme.refresh(about))
      ]).pipe(attributed)
      yield* Cacheme.invalidate(about)
      const events = yield* Fiber.join(watching)
      const nobody = { actor: undefined, reason: undefined }
      const user = { actor: "user:7", reason: "published" }
      assert.deepStrictEqual(events.map(whoAndWhy), [nobody, user, user, user, user, nobody])
      assert.deepStrictEqual(
        events.map(({ cause }) => cause),
        ["call", "call", "mutation", "replacement", "replacement", "call"]
      )
    }).pipe(Effect.provide(Cacheme.layer().pipe(Layer.provide(MemoryStore.layer()))))
  )

  it.effect("is made in parts, from the outside in", () =>
    Effect.gen(function* () {
      const watching = yield* Effect.forkChild(Stream.runCollect(Stream.take(Cacheme.events, 1)), {
        startImmediately: true
      })
      yield* Cacheme.invalidate(about).pipe(
        Effect.updateService(Cacheme.Attribution, (outer) => ({ ...outer, reason: "published" })),
        Effect.provideService(Cacheme.Attribution, { actor: "user:7" })
      )
      const [event] = yield* Fiber.join(watching)
      assert.deepStrictEqual(whoAndWhy(event!), { actor: "user:7", reason: "published" })
    }).pipe(Effect.provide(Cacheme.layer().pipe(Layer.provide(MemoryStore.layer()))))
  )

  it("is cut after 256 characters, and never within one", () => {
    const { actor, reason } = Attribution.bounded({ actor: "a".repeat(1000), reason: `${"r".repeat(255)}📚` })
    assert.strictEqual(actor, "a".repeat(256))
    assert.strictEqual(reason, "r".repeat(255))
    const many = Array.from({ length: 1000 }, (_, i) => ({ actor: `user:${i}` }))
    assert.lengthOf(Attribution.merged(many).actor!, 256)
  })

  it("of several is all that differ, in their order", () => {
    const merged = Attribution.merged([
      { actor: "user:7", reason: "renamed" },
      {},
      { actor: "job", reason: "counted" },
      { actor: "user:7" }
    ])
    assert.deepStrictEqual(merged, { actor: "user:7, job", reason: "renamed, counted" })
    assert.deepStrictEqual(Attribution.merged([{}, {}]), { actor: undefined, reason: undefined })
  })

  for (const kind of sharedStores) {
    it.live(`reaches the other processes that share a store: ${kind}`, () =>
      Effect.gen(function* () {
        const options = { url: inject("redisUrl"), prefix: ownPrefix(), deadline: "2 seconds" } as const
        const [writer, other] = yield* Effect.all([aProcess(kind, options), aProcess(kind, options)])
        const heard: Array<Invalidation.Invalidation> = []
        yield* watch(other, heard)
        yield* until(
          "the other process hears of it",
          Effect.as(
            writer
              .run(Effect.andThen(Cacheme.invalidate(about), Cacheme.set(about, "text")))
              .pipe(attributed),
            Effect.sync(() => heard.length > 1)
          ).pipe(Effect.flatten)
        )
        for (const event of heard)
          assert.deepStrictEqual(whoAndWhy(event), { actor: "user:7", reason: "published" })
        assert.includeMembers(
          heard.map(({ cause }) => cause),
          ["call", "replacement"]
        )
      })
    )
  }

  it.live(
    "may be missing in what a process of another version tells, or stand beside what this one does not know",
    () =>
      Effect.gen(function* () {
        const prefix = ownPrefix()
        const cache = yield* aProcess("validated", { url: inject("redisUrl"), prefix, deadline: "2 seconds" })
        const client = yield* aClient(inject("redisUrl"))
        const heard: Array<Invalidation.Invalidation> = []
        yield* watch(cache, heard)
        const tell = (request: object) => {
          const told = JSON.stringify([{ origin: "older", instant: 0, requests: [request] }])
          return Effect.promise(() =>
            client.publish(`${prefix}1:{0}:events`, `invalidated\n1\n0\n5\n${told}`)
          )
        }
        const older = { keys: ["page:/about"], tags: [], patterns: [], cause: "call" }
        yield* until(
          "it listens",
          Effect.map(tell(older), (listeners) => listeners > 0)
        )
        yield* tell({ ...older, actor: "a".repeat(300), color: "blue" })
        yield* until(
          "both are heard",
          Effect.sync(() => heard.some(({ actor }) => actor !== undefined))
        )
        assert.deepStrictEqual(whoAndWhy(heard[0]!), { actor: undefined, reason: undefined })
        assert.deepStrictEqual(whoAndWhy(heard.at(-1)!), { actor: "a".repeat(256), reason: undefined })
        assert.deepStrictEqual(heard[0]!.keys, ["page:/about"])
      })
  )

  it.live("is not lost by an invalidation that waits while Redis is away", () =>
    Effect.gen(function* () {
      const redis = yield* aRedis()
      const proxy = yield* aProxy(redis)
      const cache = yield* aProcess("validated", { url: proxy.url, deadline: 100 })
      const other = yield* aProcess("validated", { url: redis.url, deadline: "2 seconds" })
      const heard: Array<Invalidation.Invalidation> = []
      yield* watch(other, heard)
      yield* isUp(cache)
      yield* Effect.promise(proxy.refuse)
      yield* isDown(cache)
      const { pending } = yield* cache.run(Cacheme.invalidate(about)).pipe(attributed)
      assert.strictEqual(pending, 1)
      yield* cache.run(Cacheme.invalidate(new Page({ path: "/" })))
      yield* Effect.promise(proxy.accept)
      yield* isUp(cache)
      yield* until(
        "the other process hears of both",
        Effect.sync(() => heard.length >= 2)
      )
      assert.deepStrictEqual(
        heard.map((event) => ({ keys: event.keys, ...whoAndWhy(event) })),
        [
          { keys: ["page:/about"], actor: "user:7", reason: "published" },
          { keys: ["page:/"], actor: undefined, reason: undefined }
        ]
      )
    })
  )
})
