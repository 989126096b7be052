/**
 * Each order of events that the protocol must survive on a single Redis, directed: what is acknowledged is never read
 * as it was before, whatever happens to the server, to the connections and to the processes.
 */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Deferred, Effect, Exit, Fiber, Layer, Logger, Schema, type Scope } from "effect"
import { type ChainableCommander, Redis } from "ioredis"
import { connect, createServer, type Socket } from "node:net"
import { afterAll, beforeAll, inject } from "vitest"
import { Cacheme, Node, Tag } from "../../../src/index.ts"
import type { Miss } from "../../../src/Entry.ts"
import type { Request } from "../../../src/Invalidation.ts"
import { type Acquired, type Fill, Store } from "../../../src/Store.ts"
import * as Names from "../../../src/store/redis/names.ts"
import * as scripts from "../../../src/store/redis/scripts.ts"
import { type RunningProxy, startProxy } from "../../support/proxy.ts"
import { freePort, type RedisOptions, type RunningRedis, startRedis } from "../../support/redis.ts"
import { layerOf, ownPrefix, replaceKey, type SharedStore, sharedStores } from "../../support/shared.ts"
import { invalidation, row } from "../StoreSuite.ts"

// ------------------------------------------------------------------------------------------------------- the servers

/** The servers' clock is off by so many microseconds, if this key is there. */
const clockOff = "clock-off"

const originals = { ...scripts.sources }
beforeAll(() => {
  for (const [name, source] of Object.entries(originals))
    scripts.sources[name as scripts.Name] = source.replace(
      "return t[1] * 1000000 + t[2]",
      `return t[1] * 1000000 + t[2] + tonumber(redis.call('GET', '${clockOff}') or '0')`
    )
})
afterAll(() => {
  Object.assign(scripts.sources, originals)
})

const aRedis = (options?: RedisOptions): Effect.Effect<RunningRedis, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(() => startRedis(options)),
    (redis) => Effect.promise(redis.stop)
  )

const aProxy = (port: number): Effect.Effect<RunningProxy, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(() => startProxy(port)),
    (proxy) => Effect.promise(proxy.stop)
  )

/** One address that leads to one server or another. */
const anAddress = (first: RunningRedis) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.promise(async () => {
        const sockets = new Set<Socket>()
        const target = { port: first.port }
        const server = createServer((client) => {
          const upstream = connect(target.port, "127.0.0.1")
          for (const [from, to] of [
            [client, upstream],
            [upstream, client]
          ] as const) {
            sockets.add(from)
            from.on("error", () => {}).on("close", () => to.destroy())
            from.pipe(to)
          }
        })
        const port = await freePort()
        await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve))
        return { server, sockets, target, port }
      }),
      ({ server, sockets }) =>
        Effect.promise(() => {
          for (const socket of sockets) socket.destroy()
          return new Promise((resolve) => server.close(resolve))
        })
    ),
    ({ sockets, target, port }) => ({
      url: `redis://127.0.0.1:${port}`,
      /** It leads elsewhere from now on, and who is connected must connect again. */
      repoint: (redis: RunningRedis) => {
        target.port = redis.port
        for (const socket of sockets) socket.destroy()
        sockets.clear()
      }
    })
  )

const aClient = (url: string = inject("redisUrl")): Effect.Effect<Redis, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const client = new Redis(url)
      client.on("error", () => {})
      return client
    }),
    (client) => Effect.sync(() => client.disconnect())
  )

/** Waits until something is so, for ten seconds at most. */
const until = (what: string, isSo: () => boolean | Promise<boolean>): Effect.Effect<void> =>
  Effect.promise(async () => {
    const end = performance.now() + 10_000
    while (!(await isSo())) {
      if (performance.now() > end) throw new Error(`in vain: ${what}`)
      await new Promise((resolve) => setTimeout(resolve, 2))
    }
  })

// ------------------------------------------------------------------------------------------------------ the processes

interface Process {
  readonly store: Store["Service"]
  readonly logs: ReadonlyArray<string>
  /** The value that is fresh, or why there is none. */
  readonly read: (id: number) => Effect.Effect<number | Miss>
  /** Begins a lookup: its position is taken now. */
  readonly begin: (id: number) => Effect.Effect<Fill>
  readonly acquire: (id: number) => Effect.Effect<Acquired>
  /** Looks up and stores. */
  readonly put: (id: number, value: number, tags?: ReadonlyArray<string>) => Effect.Effect<string>
  /** Invalidates the key, looks up and stores. */
  readonly renew: (id: number, value: number, tags?: ReadonlyArray<string>) => Effect.Effect<string>
  /** Invalidates; expects that it is acknowledged. */
  readonly invalidate: (targets: Partial<Request>) => Effect.Effect<void>
  readonly isUp: Effect.Effect<boolean>
}

const land = (fill: Fill, value: number, tags: ReadonlyArray<string> = []) =>
  Effect.ensuring(
    fill.store({ exit: Exit.succeed(value), tags: ["row:*", ...tags], timeToLive: 600_000 }),
    fill.end
  )

const aProcess = (
  kind: SharedStore,
  options: NonNullable<Parameters<typeof layerOf>[1]>
): Effect.Effect<Process, never, Scope.Scope> =>
  Effect.gen(function* () {
    const logs: Array<string> = []
    const logger = Logger.make(({ logLevel, message }) => void logs.push(`${logLevel}: ${String(message)}`))
    const context = yield* Layer.build(
      layerOf(kind, { deadline: "1 second", ...options }).pipe(Layer.provide(Logger.layer([logger])))
    ).pipe(Effect.orDie)
    const store = yield* Effect.provideContext(Store, context)
    const shared = store.shared!
    const begin = (id: number) => store.begin(row(id), [`row:${id}`, "row:*"])
    const put: Process["put"] = (id, value, tags) =>
      Effect.flatMap(begin(id), (fill) => land(fill, value, tags))
    const invalidate: Process["invalidate"] = (targets) =>
      Effect.map(Effect.orDie(store.invalidate(invalidation(targets))), ({ report }) => {
        assert.strictEqual(report.pending, 0, "it was not acknowledged")
      })
    return {
      store,
      logs,
      begin,
      read: (id) =>
        Effect.flatMap(Clock.Clock, (clock) =>
          Effect.map(shared.look([row(id)], clock), ([looked]) => {
            const { found, held } = looked!
            return found === undefined ? held.miss : (Exit.getSuccess(found.exit) as any).value
          })
        ),
      acquire: (id) =>
        Effect.flatMap(Clock.Clock, (clock) => {
          const wanted = {
            node: row(id),
            known: [`row:${id}`, "row:*"],
            isImpatient: false,
            accepts: () => true
          }
          return Effect.map(shared.acquire([wanted], clock), ([acquired]) => acquired!)
        }),
      put,
      renew: (id, value, tags) => Effect.andThen(invalidate({ keys: [`row:${id}`] }), put(id, value, tags)),
      invalidate,
      isUp: Effect.map(shared.status, ({ state, pending }) => state === "up" && pending === 0)
    }
  })

const untilUp = (...processes: ReadonlyArray<Process>) =>
  Effect.forEach(processes, ({ isUp }) => until("up", () => Effect.runPromise(isUp)), { discard: true })

/** Processes over one prefix, and what is beside them. */
const aWorld = (
  kind: SharedStore,
  options: Omit<NonNullable<Parameters<typeof layerOf>[1]>, "url"> & { readonly url?: string } = {}
) =>
  Effect.gen(function* () {
    const { url = inject("redisUrl"), prefix = ownPrefix(), ...more } = options
    const own = { prefix, url, ...more }
    const names = Names.make(prefix)
    const admin = yield* aClient(url)
    const definition = row(1)[Node.TypeId]
    const raw = (what: (redis: Redis) => Promise<unknown>) => Effect.promise(() => what(admin))
    return {
      admin,
      raw,
      process: (more: Partial<typeof own> = {}) => aProcess(kind, { ...own, ...more }),
      state: names.state(0),
      log: names.log(0),
      position: names.position(0),
      events: names.events(0),
      entry: (id: number) => names.entry(definition, `row:${id}`),
      lease: (id: number) => names.lease(definition, `row:${id}`),
      calls: async (command: string) =>
        Number(new RegExp(`cmdstat_${command}:calls=(\\d+)`).exec(await admin.info("commandstats"))?.[1] ?? 0)
    }
  })

const each = (
  what: string,
  body: (kind: SharedStore) => Effect.Effect<void, unknown, Scope.Scope>,
  timeout = 20_000
) => {
  for (const kind of sharedStores) it.live(`${what} (${kind})`, () => Effect.scoped(body(kind)), timeout)
}

const assertNot = (answer: number | Miss, old: number, label = "") =>
  assert.notStrictEqual(answer, old, `${label}: it was invalidated before`)

// ------------------------------------------------------------------------------------------------- lookups, answers

describe("an invalidation by another process", () => {
  each("between the position of a lookup and its store", (kind) =>
    Effect.gen(function* () {
      const world = yield* aWorld(kind)
      const [one, other] = [yield* world.process(), yield* world.process()]
      for (const targets of [
        { tags: ["#a"] },
        { keys: ["row:1"] },
        { tags: ["row:*"] },
        { patterns: ["r*1"] }
      ]) {
        const fill = yield* one.begin(1)
        const later = yield* other.begin(1)
        yield* other.invalidate(targets)
        // The tag is known only now.
        assert.strictEqual(yield* land(fill, 1, ["#a"]), "overtaken")
        assert.strictEqual(yield* land(later, 1, ["#a"]), "overtaken")
        assert.strictEqual(yield* one.read(1), "absent")
      }
      assert.strictEqual(yield* one.put(1, 2, ["#a"]), "stored")
      assert.strictEqual(yield* other.read(1), 2)
    })
  )

  each("after the store, which every process has read", (kind) =>
    Effect.gen(function* () {
      const world = yield* aWorld(kind)
      const all = [yield* world.process(), yield* world.process(), yield* world.process()]
      let value = 0
      for (const targets of [
        { tags: ["#a"] },
        { keys: ["row:1"] },
        { tags: ["row:*"] },
        { patterns: ["r*1"] }
      ])
        for (const writer of all) {
          yield* all[0]!.put(1, ++value, ["#a"])
          for (const reader of all) assert.strictEqual(yield* reader.read(1), value)
          yield* writer.invalidate(targets)
          for (const reader of all) assertNot(yield* reader.read(1), value)
        }
    })
  )

  each("between the reply to a read and its use: who asks afterwards is not given it", (kind) =>
    Effect.gen(function* () {
      const redis = yield* aRedis()
      const proxy = yield* aProxy(redis.port)
      const world = yield* aWorld(kind, { url: redis.url })
      const [one, other] = [yield* world.process({ url: proxy.url }), yield* world.process()]
      yield* one.put(1, 1, ["#a"])
      assert.strictEqual(yield* one.read(1), 1)
      const commands = async () => (await world.calls("mget")) + (await world.calls("get"))
      const before = yield* Effect.promise(commands)
      proxy.holdReplies()
      const early = yield* Effect.forkChild(one.read(1))
      yield* until("answered", async () => (await commands()) > before)
      yield* other.invalidate({ tags: ["#a"] })
      const late = yield* Effect.forkChild(one.read(1))
      yield* until("answered", async () => (await commands()) > before + 1)
      proxy.releaseReplies()
      assert.strictEqual(yield* Fiber.join(late), "invalidated")
      yield* Fiber.join(early)
      assert.strictEqual(yield* one.read(1), "invalidated")
    })
  )

  each("and another answer in its place: the new one is read", (kind) =>
    Effect.gen(function* () {
      const world = yield* aWorld(kind)
      const [one, other] = [yield* world.process(), yield* world.process()]
      yield* one.put(1, 1, ["#a"])
      assert.strictEqual(yield* one.read(1), 1)
      for (let value = 2; value < 20; value++) {
        yield* other.invalidate({ tags: ["#a"] })
        yield* other.put(1, value, ["#a"])
        assert.strictEqual(yield* one.read(1), value)
      }
    })
  )

  each("of thousands of keys at once", (kind) =>
    Effect.gen(function* () {
      const world = yield* aWorld(kind)
      const [one, other] = [yield* world.process(), yield* world.process()]
      const ids = [1, 2, 4000, 4001, 9000]
      for (const id of ids) {
        yield* one.put(id, id)
        assert.strictEqual(yield* other.read(id), id)
      }
      yield* one.invalidate({ keys: Array.from({ length: 9000 }, (_, i) => `row:${i + 1}`) })
      const young = yield* world.process()
      for (const reader of [one, other, young])
        for (const id of ids) assert.strictEqual(yield* reader.read(id), "invalidated")
    })
  )
})

describe("a lease", () => {
  each("that has ended, or is lost, during the lookup: both look up, and the later answer stands", (kind) =>
    Effect.gen(function* () {
      const world = yield* aWorld(kind)
      const [one, other] = [yield* world.process(), yield* world.process()]
      const first = yield* one.acquire(1)
      assert.strictEqual((yield* other.acquire(1))._tag, "Elsewhere")
      yield* world.raw((redis) => redis.del(world.lease(1)))
      const second = yield* other.acquire(1)
      if (first._tag !== "Fill" || second._tag !== "Fill") return assert.fail("no lease was given")
      assert.strictEqual(yield* land(first.fill, 1, ["#a"]), "stored")
      assert.strictEqual((yield* other.acquire(1))._tag, "Found")
      yield* other.invalidate({ tags: ["#a"] })
      assert.strictEqual(yield* land(second.fill, 1, ["#a"]), "overtaken")
      // Nobody holds it any more.
      const third = yield* one.acquire(1)
      if (third._tag !== "Fill") return assert.fail("it is still held")
      assert.strictEqual(yield* land(third.fill, 3, ["#a"]), "stored")
      assert.strictEqual(yield* other.read(1), 3)
    })
  )

  each("is given back by a lookup that a pattern has overtaken", (kind) =>
    Effect.gen(function* () {
      const world = yield* aWorld(kind, { lease: "1 minute" })
      const [one, other] = [yield* world.process(), yield* world.process()]
      const acquired = yield* one.acquire(1)
      if (acquired._tag !== "Fill") return assert.fail("no lease was given")
      yield* other.invalidate({ patterns: ["row:*"] })
      assert.strictEqual(yield* land(acquired.fill, 1), "overtaken")
      yield* until("given back", async () => (await world.admin.exists(world.lease(1))) === 0)
      assert.strictEqual((yield* other.acquire(1))._tag, "Fill")
    })
  )
})

// -------------------------------------------------------------------------------------------------- book-keeping lost

describe("book-keeping", () => {
  const parts = ["state", "log", "position"] as const
  const subsets = [1, 2, 3, 4, 5, 6, 7].map((bits) => parts.filter((_, i) => (bits & (1 << i)) !== 0))

  each("lost in part: what was invalidated before, or is afterwards, is not read", (kind) =>
    Effect.gen(function* () {
      const world = yield* aWorld(kind)
      const [one, other] = [yield* world.process(), yield* world.process()]
      let value = 0
      for (const subset of subsets) {
        const label = subset.join()
        yield* one.renew(1, ++value, ["#a"])
        yield* one.renew(2, value, ["#b"])
        for (const self of [one, other])
          for (const id of [1, 2]) assert.strictEqual(yield* self.read(id), value, label)
        const begun = yield* one.begin(3)
        yield* one.invalidate({ tags: ["#a"] })
        yield* world.raw((redis) => redis.del(...subset.map((part) => world[part])))
        assertNot(yield* other.read(1), value, label)
        assertNot(yield* (yield* world.process()).read(1), value, label)
        assertNot(yield* one.read(1), value, label)
        yield* other.invalidate({ tags: ["#b", "#c"] })
        assertNot(yield* one.read(2), value, label)
        assertNot(yield* other.read(2), value, label)
        assert.strictEqual(yield* land(begun, value, ["#c"]), "overtaken", label)
        // And it heals.
        assert.strictEqual(yield* one.renew(1, ++value, ["#a"]), "stored", label)
        for (const self of [one, other]) assert.strictEqual(yield* self.read(1), value, label)
      }
    })
  )

  each("replaced by garbage: the same, and it heals", (kind) =>
    Effect.gen(function* () {
      const world = yield* aWorld(kind)
      const [one, other] = [yield* world.process(), yield* world.process()]
      const garbage: ReadonlyArray<(commands: ChainableCommander, key: string) => ChainableCommander> = [
        (commands, key) => commands.set(key, Buffer.from([0, 255, 10, 13, 128])),
        (commands, key) => commands.set(key, "1:1"),
        (commands, key) => commands.lpush(key, "garbage"),
        (commands, key) => commands.hset(key, "incarnation", "garbage", "sequence", "garbage"),
        (commands, key) => commands.zadd(key, 1, "!", 2, ":#a"),
        (commands, key) => commands.sadd(key, "garbage"),
        (commands, key) => commands.xadd(key, "*", "garbage", "1")
      ]
      let value = 0
      for (const part of parts)
        for (const [i, write] of garbage.entries()) {
          const label = `${part} ${i}`
          yield* one.renew(1, ++value, ["#a"])
          yield* one.renew(2, value, ["#b"])
          for (const self of [one, other])
            for (const id of [1, 2]) assert.strictEqual(yield* self.read(id), value, label)
          yield* one.invalidate({ tags: ["#a"] })
          yield* world.raw((redis) =>
            replaceKey(redis, world[part], (commands) => write(commands, world[part]))
          )
          for (const self of [one, other, yield* world.process()])
            assertNot(yield* self.read(1), value, label)
          yield* other.invalidate({ tags: ["#b"] })
          for (const self of [one, other]) assertNot(yield* self.read(2), value, label)
          assert.strictEqual(yield* one.renew(1, ++value, ["#a"]), "stored", label)
          for (const self of [one, other]) assert.strictEqual(yield* self.read(1), value, label)
        }
    })
  )

  each("in a log that is too short: a tag that it has forgotten lies below the floor", (kind) =>
    Effect.gen(function* () {
      const world = yield* aWorld(kind, { logCapacity: 16 })
      const [one, other] = [yield* world.process(), yield* world.process()]
      for (let round = 1; round <= 5; round++) {
        yield* one.renew(1, round, ["#a"])
        for (const self of [one, other]) assert.strictEqual(yield* self.read(1), round)
        const begun = yield* one.begin(2)
        yield* one.invalidate({ tags: ["#a"] })
        for (let i = 0; i < 20 * round; i++) yield* one.invalidate({ tags: [`#other:${i}`] })
        const rows = yield* Effect.promise(() => world.admin.zcard(world.log))
        assert.isAtMost(rows, 17)
        for (const self of [other, one, yield* world.process()]) assertNot(yield* self.read(1), round)
        assert.strictEqual(yield* land(begun, round, ["#a"]), "overtaken")
      }
    })
  )
})

describe("what lies under the name of an entry and is none", () => {
  each("is a miss, counted as unreadable, and the next answer replaces it", (kind) =>
    Effect.gen(function* () {
      const world = yield* aWorld(kind)
      const one = yield* world.process()
      yield* one.renew(1, 1, ["#a"])
      const entry = yield* Effect.promise(() => world.admin.getBuffer(world.entry(1)))
      const head = JSON.parse(entry!.toString().split("\n")[0]!)
      const headed = (change: (fields: Array<unknown>) => void, payload = "1") => {
        const fields = [...head]
        change(fields)
        return Buffer.from(`${JSON.stringify(fields)}\n${payload}`)
      }
      const texts: ReadonlyArray<readonly [Buffer, Miss]> = [
        [Buffer.from([0, 255, 10, 13, 128]), "unreadable"],
        [Buffer.from(""), "unreadable"],
        [Buffer.from("\n"), "unreadable"],
        [Buffer.from("[]\n1"), "unreadable"],
        [entry!.subarray(0, -1), "unreadable"],
        [Buffer.concat([entry!, Buffer.from("1")]), "unreadable"],
        [headed((fields) => (fields[0] = 2)), "unreadable"],
        [headed((fields) => (fields[1] = "1; DROP")), "unreadable"],
        [headed((fields) => (fields[2] = "1")), "unreadable"],
        [headed((fields) => (fields[8] = "br2")), "unreadable"],
        [headed((fields) => (fields[10] = [1])), "unreadable"],
        [headed(() => {}, "x"), "unreadable"],
        [headed(() => {}, '"'), "unreadable"],
        // An entry, but of another incarnation.
        [headed((fields) => (fields[1] = "1")), "invalidated"]
      ]
      const all = [
        ...texts.map(([bytes, miss]) => [(redis: Redis) => redis.set(world.entry(1), bytes), miss] as const),
        // What is no string Redis does not give out.
        [(redis: Redis) => redis.lpush(world.entry(1), "garbage"), "absent"] as const,
        [(redis: Redis) => redis.hset(world.entry(1), "garbage", "1"), "absent"] as const
      ]
      for (const [i, [write, miss]] of all.entries()) {
        yield* world.raw((redis) => redis.del(world.entry(1)))
        yield* world.raw(write)
        const young = yield* world.process()
        assert.strictEqual(yield* young.read(1), miss, `${i}`)
        const acquired = yield* young.acquire(1)
        if (acquired._tag !== "Fill") return assert.fail(`${i}: ${acquired._tag}`)
        assert.strictEqual(yield* land(acquired.fill, 100 + i), "stored")
        assert.strictEqual(yield* (yield* world.process()).read(1), 100 + i)
      }
    })
  )

  each("nor of a lease keeps anybody from looking up", (kind) =>
    Effect.gen(function* () {
      const world = yield* aWorld(kind)
      const one = yield* world.process()
      const garbage: ReadonlyArray<(redis: Redis, key: string) => Promise<unknown>> = [
        (redis, key) => redis.set(key, Buffer.from([0, 255])),
        (redis, key) => redis.lpush(key, "garbage"),
        (redis, key) => redis.hset(key, "garbage", "1")
      ]
      for (const [i, write] of garbage.entries()) {
        yield* world.raw((redis) => write(redis, world.lease(i)))
        const acquired = yield* one.acquire(i)
        if (acquired._tag !== "Fill") return assert.fail(`${i}: ${acquired._tag}`)
        assert.strictEqual(yield* land(acquired.fill, i), "stored")
        assert.strictEqual(yield* Effect.promise(() => world.admin.exists(world.lease(i))), 0)
      }
    })
  )

  each("nor on the channel harms who hears it", (kind) =>
    Effect.gen(function* () {
      const world = yield* aWorld(kind)
      const [one, other] = [yield* world.process(), yield* world.process()]
      const heard: Array<string> = []
      yield* Effect.acquireRelease(
        Effect.sync(() => one.store.shared!.listen(({ tags }) => void heard.push(...tags))),
        (end) => Effect.sync(end)
      )
      yield* one.renew(1, 1, ["#a"])
      assert.strictEqual(yield* one.read(1), 1)
      const { incarnation } = yield* Effect.promise(() => world.admin.hgetall(world.state))
      for (const text of [
        "",
        "released",
        "invalidated",
        "invalidated\n1\n2\n3",
        "invalidated\n1\n2\n3\n{",
        "invalidated\n1\n2\n3\n{}",
        "invalidated\n1\n2\n3\nnull",
        "invalidated\n1\n2\n3\n[null]",
        "invalidated\n1\n2\n3\n[1]",
        'invalidated\n1\n2\n3\n[{"requests":[{}]}]',
        'invalidated\n1\n2\n3\n[{"requests":[{"keys":1,"tags":[],"patterns":[]}]}]',
        `invalidated\n${incarnation}\nx\ny\n[]`
      ])
        yield* world.raw((redis) => redis.publish(world.events, text))
      yield* other.invalidate({ tags: ["#heard"] })
      yield* until("heard", () => heard.includes("#heard"))
      assert.strictEqual(yield* one.read(1), 1)
      yield* other.invalidate({ tags: ["#a"] })
      assert.strictEqual(yield* one.read(1), "invalidated")
    })
  )
})

// ------------------------------------------------------------------------------------------------------- the server

describe("a server", () => {
  each("that comes back with an older snapshot forgets everything", (kind) =>
    Effect.gen(function* () {
      const redis = yield* aRedis()
      const world = yield* aWorld(kind, { url: redis.url })
      const [one, other] = [yield* world.process(), yield* world.process()]
      yield* one.renew(1, 1, ["#a"])
      yield* one.renew(2, 2, ["#b"])
      for (const self of [one, other]) for (const id of [1, 2]) assert.strictEqual(yield* self.read(id), id)
      const begun = yield* one.begin(3)
      yield* world.raw((redis) => redis.save())
      yield* one.invalidate({ tags: ["#a"] })
      yield* Effect.promise(redis.restart)
      yield* untilUp(one, other)
      assert.strictEqual(yield* Effect.promise(() => world.admin.exists(world.entry(1))), 1)
      assert.strictEqual(yield* land(begun, 3, ["#a"]), "overtaken")
      const young = yield* world.process()
      for (const self of [other, one, young])
        for (const id of [1, 2]) assert.strictEqual(yield* self.read(id), "invalidated")
      assert.strictEqual(yield* one.renew(1, 3, ["#a"]), "stored")
      for (const self of [one, other, young]) assert.strictEqual(yield* self.read(1), 3)
    })
  )

  each(
    "that is promoted without the last writes forgets everything, and so does the first when it is again",
    (kind) =>
      Effect.gen(function* () {
        const options = { args: ["--repl-diskless-sync-delay", "0"] }
        const [a, b] = [yield* aRedis(options), yield* aRedis(options)]
        const [redisA, redisB] = [yield* aClient(a.url), yield* aClient(b.url)]
        const address = yield* anAddress(a)
        const world = yield* aWorld(kind, { url: address.url })
        const [one, other] = [yield* world.process(), yield* world.process()]
        const follow = (replica: Redis, primary: RunningRedis) =>
          Effect.andThen(
            Effect.promise(() => replica.replicaof("127.0.0.1", primary.port)),
            until("in step", async () => {
              const info = await replica.info("replication")
              return info.includes("master_link_status:up") && info.includes("master_sync_in_progress:0")
            })
          )
        const caughtUp = (primary: Redis, replica: Redis) =>
          until("caught up", async () => {
            const offset = /master_repl_offset:(\d+)/.exec(await primary.info("replication"))![1]
            return (await replica.info("replication")).includes(`slave_repl_offset:${offset}`)
          })
        yield* follow(redisB, a)
        yield* untilUp(one, other)
        let value = 0
        for (const [from, to, target] of [
          [redisA, redisB, b],
          [redisB, redisA, a],
          [redisA, redisB, b]
        ] as const) {
          yield* one.renew(1, ++value, ["#a"])
          yield* one.renew(2, value, ["#b"])
          for (const self of [one, other])
            for (const id of [1, 2]) assert.strictEqual(yield* self.read(id), value)
          yield* caughtUp(from, to)
          // It is cut off, and does not learn of this any more.
          yield* Effect.promise(() => to.replicaof("NO", "ONE"))
          yield* one.invalidate({ tags: ["#a"] })
          assert.strictEqual(yield* Effect.promise(() => to.exists(world.entry(1))), 1)
          address.repoint(target)
          yield* untilUp(one, other)
          const young = yield* world.process()
          for (const self of [other, one, young]) assertNot(yield* self.read(1), value, "promoted")
          yield* other.invalidate({ tags: ["#b"] })
          for (const self of [one, other]) assertNot(yield* self.read(2), value, "promoted")
          assert.strictEqual(yield* one.renew(1, ++value, ["#a"]), "stored")
          for (const self of [one, other, young]) assert.strictEqual(yield* self.read(1), value)
          yield* follow(from, target)
        }
      })
  )

  each("whose clock is stepped by an hour, back or forth, is as right as before", (kind) =>
    Effect.gen(function* () {
      const redis = yield* aRedis()
      const world = yield* aWorld(kind, { url: redis.url })
      const [one, other] = [yield* world.process(), yield* world.process()]
      const hour = 3_600_000_000
      let value = 0
      for (const off of [0, hour, 0, -hour, -2 * hour, 3 * hour, -hour, 0]) {
        yield* one.renew(1, ++value, ["#a"])
        yield* one.renew(2, value, ["#b"])
        const begun = yield* other.begin(3)
        for (const self of [one, other])
          for (const id of [1, 2]) assert.strictEqual(yield* self.read(id), value)
        yield* world.raw((redis) => redis.set(clockOff, off))
        yield* one.invalidate({ tags: ["#a"] })
        for (const self of [other, one])
          assert.strictEqual(yield* self.read(1), "invalidated", `off by ${off}`)
        assert.strictEqual(yield* land(begun, value, ["#a"]), "overtaken")
        // Nothing has ended it but, perhaps, its time.
        assert.include([value, "expired", "invalidated", "absent"], yield* other.read(2))
        yield* other.invalidate({ tags: ["#b"] })
        for (const self of [other, one]) assertNot(yield* self.read(2), value)
        yield* one.renew(1, ++value, ["#a"])
        for (const self of [other, one]) assert.strictEqual(yield* self.read(1), value, `off by ${off}`)
      }
    })
  )

  each(
    "whose memory is full acknowledges by losing the log; reads compute, and nobody takes it for away",
    (kind) =>
      Effect.gen(function* () {
        const redis = yield* aRedis({ args: ["--maxmemory-policy", "noeviction"] })
        const world = yield* aWorld(kind, { url: redis.url })
        const [one, other] = [yield* world.process(), yield* world.process()]
        yield* one.renew(1, 1, ["#a"])
        yield* one.renew(2, 2, ["#b"])
        for (const self of [one, other]) for (const id of [1, 2]) assert.strictEqual(yield* self.read(id), id)
        const begun = yield* other.begin(3)
        yield* world.raw((redis) => redis.config("SET", "maxmemory", "1"))
        yield* one.invalidate({ tags: ["#a"] })
        for (const self of [other, one]) for (const id of [1, 2]) assertNot(yield* self.read(id), id)
        assert.notStrictEqual(yield* land(begun, 3, ["#a"]), "stored")
        for (let i = 0; i < 20; i++)
          for (const self of [one, other]) {
            assert.isNotNumber(yield* self.read(i))
            const acquired = yield* self.acquire(i)
            if (acquired._tag === "Fill") assert.notStrictEqual(yield* land(acquired.fill, i), "stored")
            yield* self.invalidate({ tags: [`#${i}`] })
          }
        for (const self of [one, other]) {
          assert.isTrue(yield* self.isUp)
          assert.isAtMost(self.logs.length, 3, self.logs.join("\n"))
        }
        yield* world.raw((redis) => redis.config("SET", "maxmemory", "0"))
        assert.strictEqual(yield* one.renew(1, 3, ["#a"]), "stored")
        for (const self of [one, other]) assert.strictEqual(yield* self.read(1), 3)
      })
  )
})

// ---------------------------------------------------------------------------------------------------- connections

describe("a connection", () => {
  each("that is cut when an invalidation has been applied: it is sent again, and is no harm", (kind) =>
    Effect.gen(function* () {
      const redis = yield* aRedis()
      const proxy = yield* aProxy(redis.port)
      const world = yield* aWorld(kind, { url: redis.url })
      const [one, other] = [yield* world.process({ url: proxy.url }), yield* world.process()]
      yield* one.renew(1, 1, ["#a"])
      for (const self of [one, other]) assert.strictEqual(yield* self.read(1), 1)
      const sequence = () => world.admin.hget(world.state, "sequence")
      const before = yield* Effect.promise(sequence)
      proxy.holdReplies()
      const invalidating = yield* Effect.forkChild(one.store.invalidate(invalidation({ tags: ["#a"] })))
      yield* until("applied", async () => (await sequence()) !== before)
      proxy.cut()
      proxy.releaseReplies()
      const { report } = yield* Fiber.join(invalidating)
      assert.strictEqual(report.pending, 1)
      assert.strictEqual(yield* other.read(1), "invalidated")
      // Stored before it is sent again: a needless miss then, but no wrong answer.
      yield* other.put(1, 2, ["#a"])
      yield* untilUp(one)
      for (const self of [one, other]) assert.include([2, "invalidated"], yield* self.read(1))
      yield* other.renew(1, 3, ["#a"])
      for (const self of [one, other]) assert.strictEqual(yield* self.read(1), 3)
    })
  )

  each("over which messages come, when it is lost, takes nothing with it", (kind) =>
    Effect.gen(function* () {
      const redis = yield* aRedis()
      const world = yield* aWorld(kind, { url: redis.url })
      const [one, other] = [yield* world.process(), yield* world.process()]
      const heard: Array<string> = []
      yield* Effect.acquireRelease(
        Effect.sync(() => one.store.shared!.listen(({ tags }) => void heard.push(...tags))),
        (end) => Effect.sync(end)
      )
      const subscribers = async () => Number((await world.admin.pubsub("NUMSUB", world.events))[1])
      yield* until("subscribed", async () => (await subscribers()) === 2)
      for (let round = 0; round < 10; round++) {
        yield* one.renew(1, round, ["#a"])
        for (const self of [one, other]) assert.strictEqual(yield* self.read(1), round)
        yield* world.raw((redis) => redis.client("KILL", "TYPE", "PUBSUB"))
        yield* other.invalidate({ tags: ["#a"] })
        for (const self of [one, other]) assert.strictEqual(yield* self.read(1), "invalidated")
      }
      yield* until("subscribed again", async () => (await subscribers()) === 2)
      yield* other.invalidate({ tags: ["#heard"] })
      yield* until("heard", () => heard.includes("#heard"))
    })
  )
})

// ------------------------------------------------------------------------------------------------- flights, nesting

class Fact extends Tag.Class<Fact>()("fact", { id: Schema.Int }) {}
class Inner extends Node.Class<Inner>()("inner", {
  key: { id: Schema.Int },
  value: Schema.Int,
  tags: ({ id }) => new Fact({ id })
}) {}
class Outer extends Node.Class<Outer>()("outer", { key: { id: Schema.Int }, value: Schema.Int }) {}

describe("a cache", () => {
  const aCache = (kind: SharedStore, prefix: string) =>
    Effect.map(
      Layer.build(
        Cacheme.layer({ prefix }).pipe(
          Layer.provide(layerOf(kind, { prefix, bound: "1 hour" })),
          Layer.provide(Logger.layer([]))
        )
      ).pipe(Effect.orDie),
      (context) =>
        <A, E>(self: Effect.Effect<A, E, Cacheme>) =>
          Effect.provideContext(self, context)
    )

  each("gives who joins a flight that began before the acknowledgement a newer answer", (kind) =>
    Effect.gen(function* () {
      const prefix = ownPrefix()
      const [one, other] = [yield* aCache(kind, prefix), yield* aCache(kind, prefix)]
      let truth = 0
      const [begun, gate] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
      let lookups = 0
      const lookup = Effect.suspend(() => {
        const found = truth
        if (++lookups > 1) return Effect.succeed(found)
        Deferred.doneUnsafe(begun, Effect.void)
        return Effect.as(Deferred.await(gate), found)
      })
      const ask = Cacheme.memoize(lookup, new Inner({ id: 1 }))
      const early = yield* Effect.forkChild(one(ask))
      yield* Deferred.await(begun)
      truth = 1
      yield* other(Cacheme.invalidate(new Fact({ id: 1 })))
      const late = yield* Effect.forEach(Array.from({ length: 50 }), () => Effect.forkChild(one(ask)))
      const elsewhere = yield* Effect.forkChild(other(ask))
      yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 20)))
      Deferred.doneUnsafe(gate, Effect.void)
      yield* Fiber.join(early)
      for (const fiber of [...late, elsewhere]) assert.strictEqual(yield* Fiber.join(fiber), 1)
      assert.isAtMost(lookups, 4)
    })
  )

  each("never stores an answer that rests on one which was older than its own beginning", (kind) =>
    Effect.gen(function* () {
      const prefix = ownPrefix()
      const [one, other] = [yield* aCache(kind, prefix), yield* aCache(kind, prefix)]
      const admin = yield* aClient()
      scripts.define(admin)
      const names = Names.make(prefix)
      const keys = { state: names.state(0), log: names.log(0), position: names.position(0) }
      let truth = 0
      const inner = (id: number) =>
        Cacheme.memoize(
          Effect.sync(() => truth),
          new Inner({ id })
        )
      const outer = (id: number) => Cacheme.memoize(inner(id), new Outer({ id }))
      const outers = (id: number) =>
        Cacheme.getAll([new Outer({ id })], (missing) =>
          Effect.map(inner(id), (found) => missing.map((node) => [node, found] as const))
        )
      const asked = (id: number) =>
        Cacheme.memoize(
          Cacheme.getAll([new Inner({ id })], () =>
            Effect.succeed([[new Inner({ id }), truth] as const])
          ).pipe(Effect.map(([found]) => (found as any).value as number)),
          new Outer({ id })
        )
      const peeked = (id: number) =>
        Cacheme.memoize(
          Effect.flatMap(Cacheme.peek(new Inner({ id })), (found) =>
            found._tag === "Some" ? Effect.succeed(found.value) : Effect.sync(() => truth)
          ),
          new Outer({ id })
        )
      for (const [id, ask] of [outer, outers, asked, peeked].entries()) {
        const before = truth
        assert.strictEqual(yield* one(inner(id)), before)
        truth++
        // An invalidation of which no message tells.
        yield* Effect.promise(() =>
          scripts.run(admin, "invalidate", keys, [], ["1", 1000, "", "", "", 0, 0, 0, `:#fact:${id}`])
        )
        if (kind === "bounded")
          assert.strictEqual(yield* one(inner(id)), before, "memory believes it for a while")
        yield* one<unknown, unknown>(ask(id))
        assert.strictEqual(yield* other(outer(id)), truth)
        const explained = yield* other(Cacheme.explain(new Outer({ id })))
        assert.strictEqual(explained.reason._tag, "Fresh")
      }
    })
  )
})
