import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { Redis } from "ioredis"
import { afterAll, beforeAll } from "vitest"
import { Cacheme } from "../../src/index.ts"
import {
  aClient,
  aProcess,
  aProxy,
  aRedis,
  aServerThatSays,
  isDown,
  isHit,
  isUp,
  Item,
  type Process,
  Shelf,
  statusOf,
  timed,
  Truth,
  until
} from "../support/outages.ts"
import type { RunningRedis } from "../support/redis.ts"
import { replaceKey, sharedStores } from "../support/shared.ts"

/**
 * Redis loses what it held, has no room, takes no writes or answers nonsense: what cannot be told is a miss, with one
 * lookup a key, and nothing older than a write is ever answered again.
 */
const faults: Array<unknown> = []
const noteFault = (reason: unknown) => void faults.push(reason)
beforeAll(() => void process.on("unhandledRejection", noteFault))
afterAll(() => {
  process.off("unhandledRejection", noteFault)
  assert.deepStrictEqual(faults, [])
})

/** Long: here it is not time that is tested, and several tests run at once. */
const deadline = "2 seconds"

const names = {
  state: "CM:1:{0}:state",
  log: "CM:1:{0}:log",
  position: "CM:1:{0}:position",
  events: "CM:1:{0}:events"
}

const ids = [1, 2, 3, 4, 5]

/** How many lookups a process makes to read all items, several times each; their versions must be the true ones. */
const lookupsOf = (truth: Truth, { run }: Process) =>
  Effect.gen(function* () {
    const before = truth.count
    for (let round = 0; round < 3; round++) {
      const versions = yield* run(Effect.forEach(ids, (id) => truth.read(id), { concurrency: "unbounded" }))
      assert.deepStrictEqual(
        versions,
        ids.map((id) => truth.versions.get(id) ?? 0)
      )
    }
    return truth.count - before
  })

/** Two processes over one Redis, which hold the first version of all items. */
const aScene = (
  kind: (typeof sharedStores)[number],
  options: { readonly args?: ReadonlyArray<string> } = {}
) =>
  Effect.gen(function* () {
    const redis = yield* aRedis(options)
    const client = yield* aClient(redis.url)
    const settings = { url: redis.url, deadline, bound: "10 millis" } as const
    const cache = yield* aProcess(kind, settings)
    const other = yield* aProcess(kind, settings)
    const truth = new Truth()
    for (const id of ids) yield* isHit(truth, cache, id)
    yield* lookupsOf(truth, other)
    return { redis, client, cache, other, truth }
  })

const settled = (...processes: ReadonlyArray<Process>) => Effect.forEach(processes, isUp, { discard: true })

/** Longer than the bound of `bounded`. */
const bound = Effect.sleep(15)

describe.concurrent("Redis loses what it held", () => {
  for (const kind of sharedStores) {
    it.live(`${kind}: restarted empty: one lookup a key`, () =>
      Effect.gen(function* () {
        const { redis, cache, other, truth } = yield* aScene(kind)
        yield* cache.run(truth.write(1))
        yield* Effect.promise(redis.kill)
        yield* Effect.forEach([cache, other], isDown)
        yield* Effect.promise(redis.restart)
        yield* settled(cache, other)
        yield* bound
        assert.strictEqual(yield* lookupsOf(truth, cache), ids.length)
        yield* lookupsOf(truth, other)
        assert.strictEqual(yield* lookupsOf(truth, cache), 0)
      })
    )

    it.live(`${kind}: flushed: one lookup a key`, () =>
      Effect.gen(function* () {
        const { client, cache, other, truth } = yield* aScene(kind)
        yield* cache.run(truth.write(1))
        yield* Effect.promise(() => client.flushall())
        yield* bound
        assert.strictEqual(yield* lookupsOf(truth, cache), ids.length)
        assert.strictEqual(yield* lookupsOf(truth, other), 0)
      })
    )

    it.live(
      `${kind}: restarted from an older snapshot: nothing that was written since is answered as it was`,
      () =>
        Effect.gen(function* () {
          const { redis, client, cache, other, truth } = yield* aScene(kind)
          // The snapshot has the answers, and not the invalidation that ends one of them.
          yield* Effect.promise(() => client.save())
          yield* cache.run(truth.write(1))
          yield* Effect.promise(redis.kill)
          // Written while it is away, by somebody who has the row in an outbox, or has not.
          yield* other.run(truth.write(2))
          yield* Effect.promise(redis.restart)
          yield* settled(cache, other)
          yield* bound
          assert.isAtMost(yield* lookupsOf(truth, cache), ids.length)
          assert.isAtMost(yield* lookupsOf(truth, other), ids.length)
          assert.strictEqual(yield* lookupsOf(truth, cache), 0)
          // A process that knows nothing yet has the answers that were stored since.
          const newcomer = yield* aProcess(kind, { url: redis.url, deadline })
          assert.strictEqual(yield* lookupsOf(truth, newcomer), 0)
        })
    )
  }

  const entryOf = ({ run }: Process) =>
    run(Effect.map(Cacheme.explain(new Item({ id: 1 })), ({ storedAs }) => storedAs))

  for (const [what, lose] of [
    ["the state", (client) => client.del(names.state)],
    ["the log", (client) => client.del(names.log)],
    ["the position", (client) => client.del(names.position)],
    ["state and log", (client) => client.del(names.state, names.log)],
    ["state and position", (client) => client.del(names.state, names.position)],
    ["log and position", (client) => client.del(names.log, names.position)],
    ["all book-keeping", (client) => client.del(names.state, names.log, names.position)],
    ["an entry", (client, entry) => client.del(entry)],
    ["a lease", (client, entry) => client.del(entry.replace(":entry:", ":lease:"))],
    ["the sentinel of the log", (client) => client.zrem(names.log, "!")],
    ["the state, which is another's text now", (client) => client.set(names.state, "nonsense")],
    [
      "the log, which is another's list now",
      (client) => replaceKey(client, names.log, (commands) => commands.rpush(names.log, "x"))
    ],
    ["the position, which is nonsense now", (client) => client.set(names.position, "1:x:2")],
    [
      "the position, which is of another incarnation now",
      (client) => client.set(names.position, "1:9000000000000000")
    ],
    ["an entry, which is nonsense now", (client, entry) => client.set(entry, "nonsense")],
    [
      "an entry, which is a hash now",
      (client, entry) => replaceKey(client, entry, (commands) => commands.hset(entry, "a", 1))
    ]
  ] as ReadonlyArray<readonly [string, (client: Redis, entry: string) => Promise<unknown>]>) {
    it.live(`${what}: misses, and never an older answer`, () =>
      Effect.gen(function* () {
        const { client, cache, other, truth } = yield* aScene("redis")
        const entry = yield* entryOf(cache)
        yield* Effect.promise(() => lose(client, entry))
        yield* cache.run(truth.write(1))
        assert.isAtMost(yield* lookupsOf(truth, other), ids.length)
        assert.isAtMost(yield* lookupsOf(truth, cache), ids.length)
        yield* Effect.promise(() => lose(client, entry))
        // Once more, with readers who come before the next write.
        yield* lookupsOf(truth, other)
        yield* cache.run(truth.write(2))
        yield* lookupsOf(truth, other)
        yield* lookupsOf(truth, cache)
        assert.strictEqual(yield* lookupsOf(truth, cache), 0)
      })
    )
  }
})

describe.concurrent("Redis has no room", () => {
  it.live("invalidations are acknowledged, reads compute, and what could not be stored is counted", () =>
    Effect.gen(function* () {
      const { client, cache, other, truth } = yield* aScene("validated")
      yield* Effect.promise(async () => {
        await client.config("SET", "maxmemory-policy", "noeviction")
        await client.config("SET", "maxmemory", "1mb")
      })
      const refusal = yield* Effect.promise(() => client.set("x", "y").catch(String))
      assert.include(refusal, "OOM")
      const report = yield* cache.run(truth.write(1))
      // Acknowledged by deleting the log, in which it would have had its place.
      assert.deepStrictEqual([report.pending, report.position], [0, undefined])
      for (const process of [cache, other]) {
        const [lookups, took] = yield* timed(lookupsOf(truth, process))
        assert.isAtMost(lookups, 3 * ids.length)
        assert.isBelow(took, 2000)
      }
      yield* cache.run(truth.write(2))
      assert.strictEqual(yield* other.run(truth.read(2)), 1)
      // A value that is set is invalidated, and not stored.
      truth.versions.set(3, 7)
      assert.isFalse(yield* cache.run(Cacheme.set(new Item({ id: 3 }), { id: 3, version: 7 })))
      assert.strictEqual(yield* other.run(truth.read(3)), 7)
      const stats = yield* other.run(Cacheme.stats)
      assert.isAbove(stats.nodes.find(({ node }) => node === "item")!.refused.failed, 0)
      yield* Effect.promise(() => client.config("SET", "maxmemory", "0"))
      yield* settled(cache, other)
      for (const id of ids) yield* isHit(truth, cache, id)
      assert.strictEqual(yield* lookupsOf(truth, other), 0)
    })
  )

  it.live("evicting whatever it likes, it loses answers and nothing else", () =>
    Effect.gen(function* () {
      const { client, cache, other, truth } = yield* aScene("redis")
      yield* Effect.promise(() => client.config("SET", "maxmemory-policy", "allkeys-random"))
      for (let round = 0; round < 20; round++) {
        yield* cache.run(truth.write(1 + (round % 5)))
        // Room for nothing: all that can be evicted is, one key or all of them.
        yield* Effect.promise(async () => {
          await client.config("SET", "maxmemory", "1mb")
          await client.set("x", "y").catch(() => {})
          await client.config("SET", "maxmemory", "0")
        })
        yield* lookupsOf(truth, other)
        yield* lookupsOf(truth, cache)
      }
    })
  )
})

describe.concurrent("Redis takes no writes", () => {
  const aPrimary = aRedis({ args: ["--repl-diskless-sync-delay", "0"] })
  const replicate = (client: Redis, primary: RunningRedis) =>
    Effect.promise(async () => {
      await client.replicaof("127.0.0.1", primary.port)
      while (!(await client.info("replication")).includes("master_link_status:up"))
        await new Promise((resolve) => setTimeout(resolve, 5))
    })

  it.live("a primary that becomes a replica is away, for who writes", () =>
    Effect.gen(function* () {
      const { client, cache, truth } = yield* aScene("redis")
      const primary = yield* aPrimary
      yield* replicate(client, primary)
      const report = yield* cache.run(truth.write(1))
      assert.deepInclude(report, { position: undefined, pending: 1 })
      assert.strictEqual(yield* cache.run(truth.read(1)), 1)
      yield* until(
        "it is told what it is",
        Effect.map(statusOf(cache), ({ state, why }) => state === "down" && why?.includes("replica") === true)
      )
      yield* Effect.promise(() => client.replicaof("NO", "ONE"))
      yield* isUp(cache)
      yield* isHit(truth, cache, 1)
    })
  )

  it.live("a primary that becomes a replica is away, for who only reads", () =>
    Effect.gen(function* () {
      const { client, cache, truth } = yield* aScene("redis")
      // The other primary has a replica already, and is used by other processes, over the same prefix.
      const primary = yield* aPrimary
      yield* replicate(yield* aClient((yield* aRedis()).url), primary)
      const elsewhere = yield* aProcess("redis", { url: primary.url, deadline })
      for (const id of ids) yield* isHit(truth, elsewhere, id)
      yield* replicate(client, primary)
      // A script is run once a second at least.
      const end = performance.now() + 2000
      while (performance.now() < end && (yield* statusOf(cache)).state === "up") {
        yield* cache.run(Effect.forEach(ids, (id) => truth.read(id)))
        yield* Effect.sleep(20)
      }
      assert.strictEqual((yield* statusOf(cache)).state, "down")
    })
  )

  it.live("a URL that leads to a replica is told of, and everything computes until it is a primary", () =>
    Effect.gen(function* () {
      const primary = yield* aPrimary
      const replica = yield* aRedis()
      const client = yield* aClient(replica.url)
      yield* replicate(client, primary)
      const cache = yield* aProcess("redis", { url: replica.url, deadline, connectTimeout: "200 millis" })
      assert.match(cache.logs.join("\n"), /Warn: .* is away \(.*replica.*give the URL of the primary\)/)
      const truth = new Truth()
      yield* cache.run(truth.write(1))
      assert.strictEqual(yield* cache.run(truth.read(1)), 1)
      yield* Effect.promise(() => client.replicaof("NO", "ONE"))
      yield* isUp(cache)
      yield* isHit(truth, cache, 1)
    })
  )
})

describe.concurrent("Redis answers nonsense", () => {
  const bulk = (text: string) => `$${text.length}\r\n${text}\r\n`

  for (const [what, reply, test] of [
    ["OK to everything", "+OK\r\n", it.live],
    ["an error", "-ERR nonsense\r\n", it.live],
    ["a number", ":7\r\n", it.live],
    ["an empty array", "*0\r\n", it.live],
    ["an array of nothing", "*4\r\n$-1\r\n$-1\r\n$-1\r\n$-1\r\n", it.live],
    ["an array of texts", "*4\r\n+a\r\n+b\r\n+c\r\n+d\r\n", it.live]
  ] as const) {
    test(`${what}: reads compute and writes succeed, and nothing is acknowledged`, () =>
      Effect.gen(function* () {
        // It says what it is as Redis would, and so what ioredis itself reads.
        const sound: Readonly<Record<string, string>> = {
          ping: "+PONG\r\n",
          info: bulk("redis_version:7.0.0\r\nrole:master\r\n"),
          eval: ":1\r\n",
          subscribe: "-ERR not here\r\n"
        }
        const url = yield* aServerThatSays((command) => sound[command] ?? reply)
        const cache = yield* aProcess("validated", { url, deadline: 250, connectTimeout: "5 seconds" })
        const truth = new Truth()
        const readInTime = Effect.timeout(cache.run(truth.read(1)), "1 second")
        for (let i = 0; i < 3; i++) assert.strictEqual(yield* readInTime, 0)
        assert.deepInclude(yield* cache.run(truth.write(1)), { position: undefined, pending: 1 })
        assert.strictEqual(yield* readInTime, 1)
      }))
  }

  it.live("a server that is no Redis keeps the program from starting, or is away", () =>
    Effect.gen(function* () {
      const url = yield* aServerThatSays((command) => (command === "ping" ? "+PONG\r\n" : "+OK\r\n"))
      const error = yield* Effect.flip(aProcess("validated", { url, deadline, connectTimeout: "5 seconds" }))
      assert.match(
        error.message,
        /Redis at .* cannot be used: .*no redis_version; expected Redis 6.2 or later/
      )
      const web = yield* aServerThatSays(() => "HTTP/1.1 400 Bad Request\r\n\r\n")
      const cache = yield* aProcess("validated", { url: web, deadline, connectTimeout: "100 millis" })
      const truth = new Truth()
      yield* cache.run(truth.write(1))
      assert.strictEqual(yield* cache.run(truth.read(1)), 1)
      assert.strictEqual((yield* statusOf(cache)).state, "down")
    })
  )

  it.live("half of a reply, and the connection is cut", () =>
    Effect.gen(function* () {
      const redis = yield* aRedis()
      const proxy = yield* aProxy(redis)
      const cache = yield* aProcess("validated", { url: proxy.url, deadline })
      const truth = new Truth()
      for (const id of ids) yield* isHit(truth, cache, id)
      for (let i = 0; i < 5; i++) {
        proxy.cut()
        yield* cache.run(truth.write(1))
        assert.strictEqual(yield* cache.run(truth.read(1)), truth.versions.get(1))
      }
      yield* isUp(cache)
      yield* lookupsOf(truth, cache)
      assert.strictEqual(yield* lookupsOf(truth, cache), 0)
    })
  )
})

describe("Redis passes nonsense on", () => {
  it.live("what others say on its channel is heard with caution", () =>
    Effect.gen(function* () {
      const { client, cache, other, truth } = yield* aScene("validated")
      const crashes: Array<unknown> = []
      const note = (error: unknown) => void crashes.push(error)
      // The runner's own would end the run.
      const own = process.listeners("uncaughtException")
      process.removeAllListeners("uncaughtException").on("uncaughtException", note)
      const position = yield* Effect.promise(() => client.get(names.position))
      const [incarnation, sequence] = position!.split(":")
      for (const message of [
        "nonsense",
        "",
        "invalidated",
        "invalidated\n1\n2\n3\n{}",
        "invalidated\n1\n2\n3\n[1]",
        "invalidated\n1\n2\n3\nnull",
        `invalidated\n${incarnation}\n${sequence}\n${sequence}\n[{"requests":7}]`,
        `invalidated\n${incarnation}\n${sequence}\n${sequence}\n[{"origin":"o","instant":1,"requests":[{"keys":[],"tags":[7],"patterns":["${"*".repeat(300)}"],"cause":"?"}]}]`,
        `invalidated\n${incarnation}\nx\ny\n[]`,
        "released\n",
        "released"
      ])
        yield* Effect.promise(() => client.publish(names.events, message))
      // It hears what is right afterwards: the reply of a later command comes later.
      yield* other.run(truth.write(1))
      yield* Effect.sleep(20)
      process.removeAllListeners("uncaughtException")
      for (const listener of own) process.on("uncaughtException", listener)
      assert.deepStrictEqual(crashes.map(String), [])
      assert.strictEqual(yield* cache.run(truth.read(1)), 1)
      yield* cache.run(Cacheme.invalidate(new Shelf({ id: 2 })))
      assert.isAtMost(yield* lookupsOf(truth, cache), ids.length)
    })
  )
})
