/**
 * What the checker has found, and what it meets too seldom: each order of events directed, over proxies that hold what
 * is to come later.
 */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Layer, Logger, ManagedRuntime, Option, Schema, SchemaGetter } from "effect"
import { Redis } from "ioredis"
import { onTestFinished, vi } from "vitest"
import { Cacheme, Node, RedisStore, Tag, TieredStore } from "../../src/index.ts"
import { Cell } from "../../src/store/redis/Cell.ts"
import type { Store } from "../../src/Store.ts"
import { startProxy } from "../support/proxy.ts"
import { startRedis } from "../support/redis.ts"
import { sabotageOf } from "./sabotage.ts"

class Fact extends Tag.Class<Fact>()("fact", { id: Schema.Int }) {}

class Plain extends Node.Class<Plain>()("plain", {
  key: { id: Schema.Int },
  value: Schema.Int,
  timeToLive: "1 minute",
  tags: ({ id }) => new Fact({ id })
}) {}

class Outer extends Node.Class<Outer>()("outer", {
  key: { id: Schema.Int },
  value: Schema.Int,
  timeToLive: "1 minute"
}) {}

/** Values whose decoding waits for this, once it is set. */
const decoding: { gate: Deferred.Deferred<void> | undefined; waiting: number } = {
  gate: undefined,
  waiting: 0
}

class Slow extends Node.Class<Slow>()("slow", {
  key: { id: Schema.Int },
  value: Schema.Int.pipe(
    Schema.decodeTo(Schema.Int, {
      decode: SchemaGetter.transformEffect((found: number) => {
        if (decoding.gate === undefined) return Effect.succeed(found)
        decoding.waiting++
        return Effect.as(Deferred.await(decoding.gate), found)
      }),
      encode: SchemaGetter.passthrough()
    })
  ),
  timeToLive: "1 minute",
  tags: ({ id }) => new Fact({ id })
}) {}

/** A server that nobody shares, and the truth: what the lookups of plain nodes find. */
const aWorld = async () => {
  const redis = await startRedis()
  onTestFinished(redis.stop)
  const admin = new Redis(redis.url)
  onTestFinished(() => admin.disconnect())
  const truth = { version: 0 }
  const find = Effect.sync(() => truth.version)
  /** A process of an application, behind a proxy of its own. */
  const application = async (store: (url: string) => Layer.Layer<Store, unknown>) => {
    const proxy = await startProxy(redis.port)
    const runtime = ManagedRuntime.make(
      Cacheme.layer().pipe(Layer.provide(store(proxy.url)), Layer.provide(Logger.layer([])))
    )
    onTestFinished(async () => {
      await runtime.dispose()
      await proxy.stop()
    })
    const run = runtime.runPromise.bind(runtime)
    await run(Cacheme.stats)
    return {
      proxy,
      run,
      read: (id: number, lookup: Effect.Effect<number> = find) =>
        run(Cacheme.memoize(lookup, new Plain({ id }))),
      readSlow: (id: number) => run(Cacheme.memoize(find, new Slow({ id }))),
      readOuter: (id: number) =>
        run(Cacheme.memoize(Cacheme.memoize(find, new Plain({ id })), new Outer({ id }))),
      readAll: (ids: ReadonlyArray<number>) =>
        run(
          Cacheme.getAll(
            ids.map((id) => new Plain({ id })),
            (missing) => Effect.map(find, (found) => missing.map((node) => [node, found] as const))
          )
        ),
      invalidate: (id: number) => run(Cacheme.invalidate(new Fact({ id })))
    }
  }
  /** How often Redis has run a command. */
  const calls = async (command: string) =>
    Number(new RegExp(`cmdstat_${command}:calls=(\\d+)`).exec(await admin.info("commandstats"))?.[1] ?? 0)
  return { redis, admin, truth, application, calls }
}

const far = (url: string) => RedisStore.layer({ url, deadline: "1 second" })
const validated = (url: string) => TieredStore.layer({ url, deadline: "1 second", near: "validated" })
const bounded = (url: string) =>
  TieredStore.layer({ url, deadline: "1 second", near: "bounded", bound: "10 seconds" })

const until = async (isSo: () => boolean | Promise<boolean>): Promise<void> => {
  while (!(await isSo())) await new Promise((resolve) => setTimeout(resolve, 1))
}

describe("a pattern", () => {
  for (const [name, store] of [
    ["far", far],
    ["validated", validated],
    ["bounded", bounded]
  ] as const)
    it(`ends what rests on an answer that it reaches (${name})`, async () => {
      const { truth, application } = await aWorld()
      const [one, other] = [await application(store), await application(store)]
      assert.strictEqual(await one.readOuter(1), 0)
      truth.version = 1
      await one.run(Cacheme.invalidate({ pattern: "plain:1" }))
      assert.strictEqual(await one.readOuter(1), 1)
      assert.strictEqual(await other.readOuter(1), 1)
    })
})

describe("many at once", () => {
  it("get the answers that they were given, though one is invalidated while another is still waited for", async () => {
    const { application, calls } = await aWorld()
    const { proxy, readAll, invalidate, run } = await application(validated)
    await readAll([1, 2])
    const before = await calls("mget")
    proxy.holdReplies()
    const both = readAll([1, 2])
    await until(() => proxy.heldReplies() !== "")
    // The first is valid, the second no more: it is asked for once again.
    const second = invalidate(2)
    await new Promise((resolve) => setImmediate(resolve))
    proxy.releaseReplies()
    proxy.holdReplies()
    await until(async () => (await calls("mget")) > before)
    const first = run(Cacheme.invalidate(new Plain({ id: 1 })))
    await new Promise((resolve) => setImmediate(resolve))
    proxy.releaseReplies()
    assert.deepStrictEqual(await both, [Option.some(0), Option.some(0)])
    await Promise.all([first, second])
  })
})

describe("a process whose invalidation waits", () => {
  it("is not given what it read before by its memory", async () => {
    const { truth, application, calls } = await aWorld()
    const other = await application(far)
    await other.read(1)
    const { proxy, read, invalidate } = await application(bounded)
    // The answer of Redis is on its way when the invalidation begins, and arrives; the invalidation gets lost.
    const before = await calls("mget")
    proxy.holdReplies()
    const reading = read(1)
    await until(async () => (await calls("mget")) > before)
    proxy.holdRequests()
    truth.version = 1
    const invalidating = invalidate(1)
    await new Promise((resolve) => setImmediate(resolve))
    proxy.releaseReplies()
    assert.strictEqual(await reading, 0)
    proxy.cut()
    assert.isAbove((await invalidating).pending, 0)
    assert.strictEqual(await read(1), 1)
    proxy.releaseRequests()
  })

  it("is not given the answer of a lookup that began before", async () => {
    const { truth, application } = await aWorld()
    const { proxy, read, invalidate } = await application((url) =>
      RedisStore.layer({ url, deadline: "200 millis" })
    )
    const gate = Deferred.makeUnsafe<void>()
    let begun = false
    const early = read(
      1,
      Effect.suspend(() => {
        const { version } = truth
        begun = true
        return Effect.as(Deferred.await(gate), version)
      })
    )
    await until(() => begun)
    // Another invalidation gets no answer; the one that counts waits behind it.
    proxy.holdRequests()
    assert.isAbove((await invalidate(2)).pending, 0)
    truth.version = 1
    assert.isAbove((await invalidate(1)).pending, 0)
    const late = read(1)
    Deferred.doneUnsafe(gate, Effect.void)
    await new Promise((resolve) => setTimeout(resolve, 20))
    proxy.releaseRequests()
    assert.strictEqual(await early, 0)
    assert.strictEqual(await late, 1)
  })
})

describe("a flight that finds what another process has stored", () => {
  it("does not give it to who joined after it was invalidated", async () => {
    const { truth, application, calls } = await aWorld()
    const [one, other] = [await application(far), await application(far)]
    const before = await calls("mget")
    one.proxy.holdReplies()
    const early = one.readSlow(1)
    await until(async () => (await calls("mget")) > before)
    await other.readSlow(1)
    decoding.gate = Deferred.makeUnsafe()
    onTestFinished(() => void (decoding.gate = undefined))
    // It finds the other's answer as it takes off, and takes its time to decode it.
    one.proxy.releaseReplies()
    await until(() => decoding.waiting > 0)
    truth.version = 1
    assert.strictEqual((await other.invalidate(1)).pending, 0)
    const late = one.readSlow(1)
    await one.run(Effect.sleep(50))
    Deferred.doneUnsafe(decoding.gate, Effect.void)
    assert.strictEqual(await early, 0)
    assert.strictEqual(await late, 1)
  })
})

/** What a read gets that meets a sync which began before the invalidation that it must see: 1, or 0 from before. */
const besideASync = async (): Promise<number> => {
  const { truth, application, calls } = await aWorld()
  // What is told by messages may be lost at any time.
  const deaf = vi.spyOn(Cell.prototype, "hear").mockReturnValue(false)
  onTestFinished(() => deaf.mockRestore())
  const [one, other] = [await application(far), await application(far)]
  await one.read(1)
  await one.read(3)
  await other.invalidate(2)
  // A read sees that something was invalidated, and asks what.
  /** An entry has come. */
  const hasRead = () => one.proxy.heldReplies().includes('"value"')
  one.proxy.holdReplies()
  const first = one.read(3)
  await until(hasRead)
  const syncs = await calls("evalsha")
  one.proxy.releaseReplies()
  one.proxy.holdReplies()
  await until(async () => (await calls("evalsha")) > syncs)
  // Redis has answered that when something else is invalidated, which the next read must see.
  truth.version = 1
  await other.invalidate(1)
  const second = one.read(1)
  await until(hasRead)
  one.proxy.releaseReplies()
  await first
  return second
}

describe("a read beside a sync that began before", () => {
  it("waits for another one", async () => {
    assert.strictEqual(await besideASync(), 1)
  })

  it("is where the sabotage shows that does not", async () => {
    onTestFinished(sabotageOf("early join").apply())
    assert.strictEqual(await besideASync(), 0)
  })
})

/** What the first read gets of a server that has gone back to before an invalidation: 1, or 0 from before. */
const afterGoingBack = async (): Promise<number> => {
  const { redis, admin, truth, application } = await aWorld()
  const [one, other] = [await application(far), await application(far)]
  await one.read(1)
  await one.read(1)
  await admin.save()
  // It does not hear of the invalidation, and is the first to speak to the server when it is back.
  one.proxy.holdReplies()
  truth.version = 1
  await other.invalidate(1)
  await other.proxy.refuse()
  await redis.restart()
  one.proxy.cut()
  one.proxy.releaseReplies()
  // While there is no connection, reads compute.
  for (;;) {
    let hasComputed = false
    const found = await one.read(
      1,
      Effect.sync(() => {
        hasComputed = true
        return truth.version
      })
    )
    if (!hasComputed) return found
    await one.run(Effect.sleep(1))
  }
}

describe("a server that has gone back to before an invalidation", () => {
  it("is not believed over another connection", async () => {
    assert.strictEqual(await afterGoingBack(), 1)
  })

  it("is where the sabotage shows that takes any connection for the old one", async () => {
    onTestFinished(sabotageOf("any connection").apply())
    assert.strictEqual(await afterGoingBack(), 0)
  })
})
