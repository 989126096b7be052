import { assert, describe, it } from "@effect/vitest"
import { Redis } from "ioredis"
import { afterAll, beforeAll, inject, onTestFinished, vi } from "vitest"
import { type Answer, Cell, type CellOptions } from "../../../src/store/redis/Cell.ts"
import { Away, type Link } from "../../../src/store/redis/Link.ts"
import type { Listener, Point } from "../../../src/store/redis/Mirror.ts"
import * as scripts from "../../../src/store/redis/scripts.ts"
import { type RunningRedis, startRedis } from "../../support/redis.ts"
import { ownPrefix, replaceKey } from "../../support/shared.ts"

// ----------------------------------------------------------------------------------------------------------- processes

/** What happens before a command is sent, and before its reply is handed on. */
interface Hooks {
  before?: (() => Promise<unknown>) | undefined
  after?: (() => Promise<unknown>) | undefined
}

/** A link that the test has in its hands. */
class HeldLink {
  isUp = true
  epoch = 1
  readonly redis: Redis
  readonly hooks: Record<string, Hooks> = {}
  readonly sent: Array<string> = []
  readonly suspected: Array<unknown> = []
  readonly #once = new Map<string, Array<Hooks>>()
  readonly #held: Redis

  constructor(url: string) {
    this.redis = new Redis(url)
    scripts.define(this.redis)
    this.#held = new Proxy(this.redis, {
      get: (redis, name: string) => {
        const command = (redis as any)[name]
        if (typeof command !== "function") return command
        return (...args: ReadonlyArray<unknown>) => {
          const { before, after } = this.#once.get(name)?.shift() ?? this.hooks[name] ?? {}
          this.sent.push(name)
          const send = () => command.apply(redis, args)
          const asked = before === undefined ? send() : before().then(send)
          return after === undefined
            ? asked
            : asked.then(async (reply: unknown) => {
                await after()
                return reply
              })
        }
      }
    })
  }

  run<A>(ask: (redis: Redis) => Promise<A>): Promise<A> {
    return this.isUp ? ask(this.#held) : Promise.reject(new Away("down"))
  }

  suspect(error: unknown): void {
    this.suspected.push(error)
  }

  /** Something to be done before the next command of a name is sent, or when its reply comes. */
  once(command: string, when: keyof Hooks, then: () => Promise<unknown>): void {
    this.#once.set(command, [...(this.#once.get(command) ?? []), { [when]: then }])
  }
}

/** Processes that share a cell. */
const aCell = (url: string = inject("redisUrl")) => {
  const prefix = ownPrefix()
  const admin = new Redis(url)
  onTestFinished(() => admin.disconnect())
  const options: CellOptions = {
    state: `${prefix}state`,
    log: `${prefix}log`,
    position: `${prefix}position`,
    events: `${prefix}events`,
    lease: 5000,
    logCapacity: 100_000,
    patience: 2000,
    declared: { count: 0, tables: new Map() },
    hasOthers: false
  }
  const process = (more: Partial<CellOptions> = {}, listener: Partial<Listener> = {}) => {
    const link = new HeldLink(url)
    onTestFinished(() => link.redis.disconnect())
    const told: Array<string> = []
    const cell = new Cell(
      link as unknown as Link,
      { ...options, ...more },
      {
        onRows: (ids, globs) => void told.push(...ids, ...globs),
        onGap: () => void told.push("gap"),
        ...listener
      }
    )
    let tokens = 0
    const self = {
      cell,
      link,
      told,
      invalidate: (...members: ReadonlyArray<string>) => cell.invalidate({ members, message: undefined }),
      acquire: (key: string) =>
        cell.acquire({
          entry: `${prefix}entry:${key}`,
          key,
          known: [key],
          lease: `${prefix}lease:${key}`,
          token: `${++tokens}`
        }),
      store: (key: string, point: Point, tags: ReadonlyArray<string> = [], keep = 60_000, token = "") =>
        cell.store({
          entry: `${prefix}entry:${key}`,
          lease: `${prefix}lease:${key}`,
          key,
          token,
          point,
          tags,
          bytes: Buffer.from(JSON.stringify({ ...point, tags })),
          keep
        }),
      /** Looks up and stores, as a lookup that took no time. */
      fill: async (key: string, tags: ReadonlyArray<string> = []) => {
        const point = await cell.position()
        assert.strictEqual(await self.store(key, point, tags), "stored")
        return point
      },
      /** What a reader gets: fresh, or why not. */
      read: (key: string) =>
        new Promise<string>((resolve) =>
          cell.read(`${prefix}entry:${key}`, key, (answer: Answer, fresh) => {
            if (!Buffer.isBuffer(answer)) return resolve(answer ?? "absent")
            const entry = JSON.parse(answer.toString())
            const header = { ...entry, startedAt: entry.sequence }
            if (fresh !== undefined) return resolve("fresh, as Redis says")
            const endedBy = cell.mirror.endedBy(header, key)
            resolve(endedBy === undefined ? "fresh" : `ended by ${endedBy || "?"}`)
          })
        ),
      validate: () => new Promise<boolean>((resolve) => cell.validate(resolve))
    }
    return self
  }
  return { admin, options, prefix, process }
}

const times = <A>(n: number, f: (i: number) => A) => Array.from({ length: n }, (_, i) => f(i))

/** A promise that is settled from outside. */
const aGate = () => Promise.withResolvers<void>()

const turn = () => new Promise((resolve) => setImmediate(resolve))

// -------------------------------------------------------------------------------------------------------------- reads

describe("a read", () => {
  it("sees what another process has invalidated, though no message came", async () => {
    const { process } = aCell()
    const [one, other] = [process(), process()]
    await one.fill("row:1", ["#a"])
    await one.fill("row:2", ["#b"])
    for (const self of [one, other]) {
      await self.cell.sync()
      assert.strictEqual(await self.read("row:1"), "fresh")
    }
    await other.invalidate(":#a")
    assert.strictEqual(await one.read("row:1"), "ended by #a")
    assert.strictEqual(await one.read("row:2"), "fresh")
    await other.invalidate("~row:[2-9]")
    assert.strictEqual(await one.read("row:2"), "ended by row:[2-9]")
    assert.strictEqual(await one.read("row:3"), "absent")
  })

  it("is one command for many readers of one turn, and each waits for its own entry only once", async () => {
    const { process } = aCell()
    const { cell, link, read, fill } = process()
    await fill("row:1")
    await cell.sync()
    link.sent.length = 0
    const answers = await Promise.all([
      ...times(120, (i) => read(`row:${i}`)),
      ...times(120, () => read("row:1"))
    ])
    assert.deepStrictEqual(link.sent, ["mgetBuffer", "mgetBuffer", "mgetBuffer"])
    assert.deepStrictEqual(
      answers.map((answer) => answer === "fresh"),
      [...times(120, (i) => i === 1), ...times(120, () => true)]
    )
  })

  it("does not believe a sync that was sent before its own reply had come, unless that covers it", async () => {
    const { process } = aCell()
    const [one, other] = [process(), process()]
    await one.cell.sync()
    await one.fill("row:1", ["#a"])
    // A sync has been answered by Redis, and its reply is on the way, when the tag is invalidated.
    const gate = aGate()
    one.link.once("cachemeSync", "after", () => gate.promise)
    const syncing = one.cell.sync()
    await other.cell.sync()
    await other.invalidate(":#a")
    const reading = one.read("row:1")
    one.link.once("mgetBuffer", "after", async () => void setImmediate(gate.resolve))
    assert.strictEqual(await reading, "ended by #a")
    await syncing
  })

  it("joins a sync that covers it: a thousand who wait send one", async () => {
    const { process } = aCell()
    const [one, other] = [process(), process()]
    await one.fill("row:1", ["#a"])
    await one.cell.sync()
    await other.invalidate(":#b")
    one.link.sent.length = 0
    const answers = await Promise.all(times(1000, (i) => one.read(i % 2 === 0 ? "row:1" : `none:${i}`)))
    assert.strictEqual(answers.filter((answer) => answer === "fresh").length, 500)
    assert.isAtMost(one.link.sent.filter((name) => name === "cachemeSync").length, 2)
  })

  it("believes no reply that came over another connection than it was asked over", async () => {
    const { process } = aCell()
    const { cell, link, read, fill, validate } = process()
    await fill("row:1")
    await cell.sync()
    link.once("mgetBuffer", "after", async () => void link.epoch++)
    link.sent.length = 0
    assert.strictEqual(await read("row:1"), "fresh")
    // The second asking was over the new connection, as was the sync.
    assert.deepStrictEqual(link.sent, ["mgetBuffer", "mgetBuffer", "cachemeSync"])
    link.once("cachemeSync", "after", async () => void link.epoch++)
    link.epoch++
    link.sent.length = 0
    assert.isTrue(await validate())
    assert.isAtLeast(link.sent.filter((name) => name === "cachemeSync").length, 2)
  })

  it("is away when the connection never settles", async () => {
    const { process } = aCell()
    const { cell, link, read, fill, validate } = process()
    await fill("row:1")
    await cell.sync()
    link.hooks.mgetBuffer = { after: async () => void link.epoch++ }
    assert.strictEqual(await read("row:1"), "away")
    assert.isFalse(await validate())
    link.hooks.mgetBuffer = {}
    assert.isTrue(await validate())
    link.isUp = false
    assert.strictEqual(await read("row:1"), "away")
    assert.isFalse(await validate())
  })

  it("waits no longer than it is patient for the log", async () => {
    const { process } = aCell()
    const { cell, link, read, fill, validate } = process({ patience: 30 })
    await fill("row:1")
    await cell.sync()
    await process().invalidate(":#b")
    const gate = aGate()
    link.once("cachemeSync", "after", () => gate.promise)
    assert.strictEqual(await read("row:1"), "away")
    assert.isFalse(await validate())
    gate.resolve()
    assert.strictEqual(await read("row:1"), "fresh")
  })

  it("asks at least once a second whether it is still the same server", async () => {
    const { admin, options, process } = aCell()
    const { cell, link, read, validate, fill, told } = process()
    await fill("row:1")
    await cell.sync()
    const now = vi.spyOn(performance, "now")
    onTestFinished(() => now.mockRestore())
    const real = performance.now.bind(performance)
    let passed = 0
    const start = real()
    now.mockImplementation(() => start + passed)
    // Another server with the same data, which nothing but a script can tell.
    await admin.hset(options.state, "server", "0".repeat(40))
    passed = 900
    link.sent.length = 0
    assert.strictEqual(await read("row:1"), "fresh")
    assert.isTrue(await validate())
    assert.deepStrictEqual(link.sent, ["mgetBuffer", "mgetBuffer"])
    passed = 1100
    told.length = 0
    assert.isTrue(await validate())
    assert.deepStrictEqual(told, ["gap"])
    assert.strictEqual(await read("row:1"), "ended by ?")
  })

  it("of a process that was paused before it used the reply is right as of the reply, and the next one asks again", async () => {
    const { process } = aCell()
    const [one, other] = [process(), process()]
    await one.fill("row:1", ["#a"])
    await one.cell.sync()
    const gate = aGate()
    one.link.once("mgetBuffer", "after", () => gate.promise)
    const paused = one.read("row:1")
    await turn()
    await other.invalidate(":#a")
    const next = one.read("row:1")
    assert.strictEqual(await next, "ended by #a")
    gate.resolve()
    // It began before the invalidation: either is right. It is judged by what is known by now.
    assert.strictEqual(await paused, "ended by #a")
  })

  it("of an entry that is replaced between two commands judges the one that it has", async () => {
    const { process } = aCell()
    const [one, other] = [process(), process()]
    await one.fill("row:1", ["#a"])
    await one.cell.sync()
    one.link.once("cachemeSync", "before", async () => void (await other.fill("row:1", ["#a"])))
    await other.invalidate(":#a")
    assert.strictEqual(await one.read("row:1"), "ended by #a")
    assert.strictEqual(await one.read("row:1"), "fresh")
  })

  it("is not misled by garbage for the position, or by none", async () => {
    const { admin, options, process } = aCell()
    const { cell, link, read, validate, fill } = process()
    await fill("row:1")
    await cell.sync()
    const { incarnation } = cell.mirror
    for (const harm of [
      () => admin.del(options.position),
      () => admin.set(options.position, Buffer.from([0, 255])),
      () => admin.set(options.position, "12:34"),
      () => admin.set(options.position, `${incarnation}:9007199254740991`),
      () => admin.set(options.position, `${incarnation}:${"9".repeat(400)}`),
      () => replaceKey(admin, options.position, (commands) => commands.lpush(options.position, "garbage")),
      () => replaceKey(admin, options.position, (commands) => commands.hset(options.position, "garbage", "1"))
    ]) {
      await harm()
      assert.isTrue(await validate(), harm.toString())
      await harm()
      assert.strictEqual(await read("row:1"), "fresh", harm.toString())
    }
    assert.isEmpty(link.suspected)
  })
})

describe("a log longer than one answer", () => {
  it("is read whole before anything is judged by it", async () => {
    const { process } = aCell()
    const [one, other] = [process(), process()]
    await one.cell.sync()
    for (const count of [999, 1000, 1001, 2500, 9000]) {
      const tags = times(count, (i) => `:#${count}.${i}`)
      await one.fill("row:1", [`#${count}.0`])
      await one.fill("row:2", [`#${count}.${count - 1}`])
      await one.fill("row:3", ["#none"])
      await other.invalidate(...tags)
      assert.strictEqual(await one.read("row:2"), `ended by #${count}.${count - 1}`)
      assert.strictEqual(await one.read("row:1"), `ended by #${count}.0`)
      assert.strictEqual(await one.read("row:3"), "fresh")
    }
  })

  it("is not believed where it was cut, though the position was seen before", async () => {
    const { process } = aCell()
    const [one, other] = [process(), process()]
    await one.cell.sync()
    await one.fill("row:0")
    // Invalidated so often that a delta goes with every read.
    for (let i = 0; i < 20; i++) {
      await other.invalidate(":#often")
      await one.read("row:0")
    }
    await one.fill("row:1", ["#a"])
    await one.cell.sync()
    await other.invalidate(":#a")
    // The position has been answered when much happens, and the tag is invalidated once more, last of all. The delta
    // is cut before that.
    one.link.once("cachemeSync", "before", async () => {
      await other.invalidate(...times(1200, (i) => `:#other:${i}`))
      await other.invalidate(":#a")
    })
    const reading = one.read("row:1")
    assert.strictEqual(await reading, "ended by #a")
  })
})

describe("a process that has not read the log yet", () => {
  it("asks Redis, which is right as of then, and the log is read meanwhile", async () => {
    const { process } = aCell()
    const [one, other] = [process(), process()]
    await one.fill("row:1", ["#a"])
    const gate = aGate()
    other.link.once("cachemeSync", "after", () => gate.promise)
    const reading = other.read("row:1")
    await turn()
    gate.resolve()
    assert.match(await reading, /^fresh/)
    await one.invalidate(":#a")
    assert.strictEqual(await other.read("row:1"), "ended by #a")
  })
})

// --------------------------------------------------------------------------------------------------- answers, leases

describe("an answer", () => {
  it("is stored unless something it rests on was invalidated since its lookup began, by whomever", async () => {
    const { process } = aCell()
    const [one, other] = [process(), process()]
    for (const [members, verdict] of [
      [[":#a"], "overtaken"],
      [[":row:1"], "overtaken"],
      [["~row:*"], "overtaken"],
      [["~list:*"], "overtaken"],
      [["~row:2", ":#b"], "stored"],
      [["~row:2", ":#a"], "overtaken"]
    ] as const) {
      const { point } = await one.acquire("row:1")
      await other.invalidate(...members)
      assert.strictEqual(await one.store("row:1", point, ["#a", "list:1"]), verdict, members.join())
      await one.cell.reset()
      assert.strictEqual(await one.store("row:1", point, ["#a"]), "overtaken")
    }
  })

  it("that a pattern has overtaken gives its lease back", async () => {
    const { admin, process, prefix } = aCell()
    const [one, other] = [process(), process()]
    for (const self of [one, other]) await self.cell.sync()
    const acquired = await one.acquire("row:1")
    assert.isTrue(acquired.isHeld)
    await other.invalidate("~row:*")
    assert.strictEqual(await one.store("row:1", acquired.point, [], 1000, "1"), "overtaken")
    await vi.waitUntil(async () => (await admin.exists(`${prefix}lease:row:1`)) === 0)
    assert.isTrue((await other.acquire("row:1")).isHeld)
  })

  it("that comes after its lease has ended is as good, and leaves the lease that somebody else has", async () => {
    const { process } = aCell()
    const [one, other] = [process({ lease: 1 }), process()]
    const late = await one.acquire("row:1")
    let acquired = await other.acquire("row:1")
    while (!acquired.isHeld) acquired = await other.acquire("row:1")
    assert.strictEqual(await one.store("row:1", late.point, ["#a"], 1000, "1."), "stored")
    assert.isFalse((await one.acquire("row:1")).isHeld)
    await one.cell.sync()
    assert.strictEqual(await one.read("row:1"), "fresh")
    assert.strictEqual(await other.store("row:1", acquired.point, ["#a"], 1000, ""), "stored")
  })

  it("may be kept for longer than Redis can count, and harms no other that is stored with it", async () => {
    const { process } = aCell()
    const { cell, store, read } = process()
    await cell.sync()
    const point = await cell.position()
    const keeps = [Infinity, 1e300, Number.MAX_SAFE_INTEGER, 1e16, 0.001, 5000]
    const verdicts = await Promise.all(keeps.map((keep, i) => store(`row:${i}`, point, [], keep)))
    assert.deepStrictEqual(
      verdicts,
      keeps.map(() => "stored")
    )
    assert.strictEqual(await read("row:1"), "fresh")
  })

  it("of many goes with them in few commands", async () => {
    const { process } = aCell()
    const { cell, link, acquire, store } = process()
    await cell.sync()
    link.sent.length = 0
    const acquired = await Promise.all(times(100, (i) => acquire(`row:${i}`)))
    assert.isTrue(acquired.every(({ isHeld, answer }) => isHeld && answer === null))
    assert.deepStrictEqual(link.sent, ["cachemeAcquire", "mgetBuffer", "cachemeAcquire", "mgetBuffer"])
    link.sent.length = 0
    await Promise.all(
      acquired.map(({ point }, i) =>
        store(
          `row:${i}`,
          point,
          times(300, (j) => `#${j}`)
        )
      )
    )
    assert.deepStrictEqual(
      link.sent,
      times(5, () => "cachemeStore")
    )
  })
})

// ----------------------------------------------------------------------------------------------------- invalidations

describe("an invalidation", () => {
  it("of many in one turn is one command, and each tag is known to the process at once", async () => {
    const { process } = aCell()
    const { cell, link, told, invalidate } = process()
    await cell.sync()
    link.sent.length = 0
    const before = cell.mirror.cursor
    const all = await Promise.all(times(50, (i) => invalidate(":#all", `:#${i}`)))
    assert.deepStrictEqual(link.sent, ["cachemeInvalidate"])
    assert.strictEqual(new Set(all.map(({ point }) => point.sequence)).size, 1)
    assert.isAbove(cell.mirror.cursor, before)
    assert.includeMembers(told, ["#all", ...times(50, (i) => `#${i}`)])
  })

  it("does not make up for what others have invalidated before it", async () => {
    const { process } = aCell()
    const [one, other] = [process(), process()]
    for (const self of [one, other]) await self.cell.sync()
    await one.fill("row:1", ["#a"])
    assert.strictEqual(await one.read("row:1"), "fresh")
    await other.invalidate(":#a")
    await one.invalidate(":#b")
    assert.strictEqual(await one.read("row:1"), "ended by #a")
  })

  it("whose reply is lost and which is sent again is no harm", async () => {
    const { process } = aCell()
    const [one, other] = [process(), process()]
    for (const self of [one, other]) await self.cell.sync()
    await one.fill("row:1", ["#a"])
    one.link.once("cachemeInvalidate", "after", () => Promise.reject(new Away("closed")))
    const lost = await one.invalidate(":#a").catch((error: Away) => error.why)
    assert.strictEqual(lost, "closed")
    assert.strictEqual(await other.read("row:1"), "ended by #a")
    await one.invalidate(":#a")
    for (const self of [one, other]) assert.strictEqual(await self.read("row:1"), "ended by #a")
    await other.fill("row:1", ["#a"])
    for (const self of [one, other]) assert.strictEqual(await self.read("row:1"), "fresh")
  })

  it("that began the cell anew tells memory at once that it may hold nothing", async () => {
    const { admin, options, process } = aCell()
    const { cell, told, invalidate } = process()
    await cell.sync()
    await invalidate(":#a")
    await admin.del(options.state)
    told.length = 0
    await invalidate(":#b")
    assert.deepStrictEqual(told, ["gap"])
  })

  it("is told by a message only if that tells of all that went with it", async () => {
    const { options, process } = aCell()
    const [one, other] = [process(), process()]
    for (const self of [one, other]) await self.cell.sync()
    const subscriber = new Redis(inject("redisUrl"))
    onTestFinished(() => subscriber.disconnect())
    await subscriber.subscribe(options.events)
    const heard: Array<string> = []
    subscriber.on("message", (_, message) => heard.push(message))
    await Promise.all([
      one.cell.invalidate({ members: [":#a"], message: "a" }),
      one.cell.invalidate({ members: [":#b"], message: undefined })
    ])
    await Promise.all([
      one.cell.invalidate({ members: [":#a"], message: "a" }),
      one.cell.invalidate({ members: [":#b"], message: "b" })
    ])
    await vi.waitUntil(() => heard.length > 0)
    assert.deepStrictEqual(
      heard.map((message) => message.split("\n").at(-1)),
      [`["a","b"]`]
    )
  })

  it("tells whether an answer that comes with it may replace what is stored", async () => {
    const { process } = aCell()
    const [one, other] = [process(), process()]
    for (const self of [one, other]) await self.cell.sync()
    const replace = async (point: Point) =>
      one.cell.replace({ members: [":row:1"], message: undefined }, point, ["row:1", "#a"])
    const point = await one.cell.position()
    const first = await replace(point)
    assert.isTrue(first.isSound)
    // Its own invalidation came after that point.
    assert.isFalse((await replace(point)).isSound)
    const since = await one.cell.position()
    await other.invalidate(":#a")
    assert.isFalse((await replace(since)).isSound)
    assert.strictEqual(await one.store("row:1", first.point, ["#a"]), "overtaken")
    const last = await replace(await one.cell.position())
    assert.strictEqual(await one.store("row:1", last.point, ["#a"]), "stored")
    await other.cell.reset()
    assert.isFalse((await replace(last.point)).isSound)
  })

  it("of a process that never reads does not make its memory of the log grow without end", async () => {
    const { process } = aCell()
    const [writer, listener] = [process({ logCapacity: 100 }), process({ logCapacity: 100 })]
    for (const self of [writer, listener]) await self.cell.sync()
    const now = vi.spyOn(performance, "now")
    onTestFinished(() => now.mockRestore())
    const start = performance.now()
    let passed = 0
    now.mockImplementation(() => start + passed)
    for (let i = 0; i < 60; i++) {
      passed += 100
      const members = times(10, (j) => `:#${i}.${j}`)
      const previous = writer.cell.mirror.cursor
      const { point } = await writer.invalidate(...members)
      listener.cell.hear(point, previous, members)
      await turn()
    }
    for (const { cell } of [writer, listener]) {
      await vi.waitUntil(() => cell.mirror.size < 300)
      assert.isAbove(cell.mirror.size, 50)
    }
  })
})

describe("a message", () => {
  it("brings the mirror on where nothing is missing, over the connection that it was verified on", async () => {
    const { process } = aCell()
    const [one, other] = [process(), process()]
    for (const self of [one, other]) await self.cell.sync()
    await one.fill("row:1", ["#a"])
    const { cursor: previous } = other.cell.mirror
    const { point } = await one.invalidate(":#a")
    assert.isTrue(other.cell.hear(point, previous, [":#a"]))
    other.link.sent.length = 0
    assert.strictEqual(await other.read("row:1"), "ended by #a")
    assert.deepStrictEqual(other.link.sent, ["mgetBuffer"])
    const later = await one.invalidate(":#b")
    assert.isFalse(other.cell.hear(later.point, previous, [":#b"]))
    other.link.epoch++
    assert.isFalse(other.cell.hear(later.point, point.sequence, [":#b"]))
  })
})

// ------------------------------------------------------------------------------------------------------- full memory

describe("a Redis whose memory is full", () => {
  let redis: RunningRedis
  beforeAll(async () => {
    redis = await startRedis({ args: ["--maxmemory-policy", "noeviction"] })
  })
  afterAll(() => redis.stop())

  it("acknowledges an invalidation by losing the log, and stores nothing", async () => {
    const { admin, options, process } = aCell(redis.url)
    const [one, other] = [process(), process()]
    for (const self of [one, other]) await self.cell.sync()
    const point = await one.fill("row:1", ["#a"])
    assert.strictEqual(await other.read("row:1"), "fresh")
    await admin.config("SET", "maxmemory", "1")
    onTestFinished(async () => void (await admin.config("SET", "maxmemory", "0")))
    await one.invalidate(":#a")
    assert.strictEqual(await admin.exists(options.state, options.log, options.position), 0)
    assert.notStrictEqual(await other.read("row:1"), "fresh")
    assert.notStrictEqual(await one.read("row:1"), "fresh")
    assert.notStrictEqual(await one.store("row:1", point, ["#a"]), "stored")
    await admin.config("SET", "maxmemory", "0")
    assert.strictEqual(await other.read("row:1"), "ended by ?")
    await one.fill("row:1", ["#a"])
    for (const self of [one, other]) assert.strictEqual(await self.read("row:1"), "fresh")
  })

  it("knows the refusal as Redis 6 words it", async () => {
    const { admin, options, process } = aCell(redis.url)
    const one = process()
    await one.cell.sync()
    one.link.once("cachemeInvalidate", "before", () =>
      Promise.reject(
        new Error(
          "ERR Error running script (call to f_12): @user_script:31: @user_script: 31: -OOM command not allowed when used memory > 'maxmemory'."
        )
      )
    )
    await one.invalidate(":#a")
    assert.strictEqual(await admin.exists(options.state, options.log, options.position), 0)
    one.link.once("cachemeInvalidate", "before", () => Promise.reject(new Error("ERR nothing of OOM")))
    const failed = await one.invalidate(":#a").catch((error: Error) => error.message)
    assert.strictEqual(failed, "ERR nothing of OOM")
  })
})
