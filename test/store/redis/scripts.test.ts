import { assert, describe, inject, it } from "@effect/vitest"
import { Redis } from "ioredis"
import { onTestFinished } from "vitest"
import * as scripts from "../../../src/store/redis/scripts.ts"
import { ownPrefix } from "../../support/shared.ts"

const hour = 3_600_000_000

/** A cell of its own in the Redis of the tests, and the scripts on it, by a clock that the test can step. */
const aCell = async (url: string = inject("redisUrl")) => {
  const redis = new Redis(url)
  onTestFinished(() => redis.disconnect())
  const prefix = ownPrefix()
  const offset = `${prefix}offset`
  const sources: Record<string, string> = {}
  for (const [name, source] of Object.entries(scripts.sources)) {
    const stepped = source.replace(
      "return t[1] * 1000000 + t[2]",
      `return t[1] * 1000000 + t[2] + tonumber(redis.call('GET', '${offset}') or '0')`
    )
    assert.notStrictEqual(stepped, source)
    sources[name] = stepped
    redis.defineCommand(`cacheme${name[0]!.toUpperCase()}${name.slice(1)}`, { lua: stepped })
  }
  const keys: scripts.CellKeys = {
    state: `${prefix}state`,
    log: `${prefix}log`,
    position: `${prefix}position`
  }
  const channel = `${prefix}events`
  const run = <A = Array<string>>(
    name: scripts.Name,
    own: ReadonlyArray<string>,
    args: ReadonlyArray<string | number | Buffer>
  ) => scripts.run<A>(redis, name, keys, own, args)
  let begun = 0
  const anew = () => `${prefix.length}${++begun}`
  const noCheck = ["", 0, 0, 0]
  const invalidate = async (members: ReadonlyArray<string>, capacity = 1000, told = "") => {
    const [incarnation, previous, sequence, rows, checked] = await run<Array<string | number>>(
      "invalidate",
      [],
      [anew(), capacity, channel, told, ...noCheck, ...members]
    )
    return {
      incarnation: String(incarnation),
      previous: Number(previous),
      sequence: Number(sequence),
      rows: Number(rows),
      checked
    }
  }
  const sync = async (incarnation = "", cursor = 0, limit = 1000) => {
    const [own, sequence, floor, time, rows] = await run<[string, string, string, string, Array<string>]>(
      "sync",
      [],
      [anew(), incarnation, cursor, limit]
    )
    return { incarnation: own, sequence: Number(sequence), floor: Number(floor), time: Number(time), rows }
  }
  const acquire = async (
    leases: ReadonlyArray<string> = [],
    tokens: ReadonlyArray<string> = [],
    { length = 5000, known = [] as ReadonlyArray<string> } = {}
  ) => {
    const [incarnation, sequence, ...held] = await run<Array<string | number>>(
      "acquire",
      leases.map((lease) => prefix + lease),
      [anew(), length, ...tokens.flatMap((token) => [token, known.length, ...known])]
    )
    return { incarnation: String(incarnation), sequence: Number(sequence), held }
  }
  const store = async (
    entry: string,
    startedAt: { readonly incarnation: string; readonly sequence: number },
    members: ReadonlyArray<string>,
    { keep = 60_000, token = "", seen = 0, bytes = Buffer.from("bytes") } = {}
  ) =>
    (
      await run(
        "store",
        [`${prefix}lease:${entry}`, `${prefix}entry:${entry}`],
        [
          anew(),
          channel,
          startedAt.incarnation,
          startedAt.sequence,
          token,
          keep,
          seen,
          bytes,
          members.length,
          ...members
        ]
      )
    )[0]!
  const name = (key: string) => prefix + key
  return {
    redis,
    keys,
    channel,
    run,
    anew,
    invalidate,
    sync,
    acquire,
    store,
    name,
    entry: (entry: string) => redis.get(`${prefix}entry:${entry}`),
    /** Steps the clock of the server, by microseconds. */
    step: (by: number) => redis.set(offset, by),
    state: () => redis.hgetall(keys.state),
    position: () => redis.get(keys.position)
  }
}

type Cell = Awaited<ReturnType<typeof aCell>>

/** Expects the cell's three keys to belong together, and to have no expiry. */
const assertWhole = async ({ redis, keys, state, position }: Cell) => {
  const { incarnation, sequence, floor } = await state()
  assert.strictEqual(await position(), `${incarnation}:${sequence}`)
  assert.strictEqual(await redis.zscore(keys.log, "!"), incarnation)
  assert.isAtMost(Number(floor), Number(sequence))
  for (const key of Object.values(keys)) assert.strictEqual(await redis.ttl(key), -1)
}

const times = (n: number, f: (i: number) => string) => Array.from({ length: n }, (_, i) => f(i))

describe("every script", () => {
  /** What each is given where it makes no difference. */
  const harmless: { readonly [N in scripts.Name]?: (cell: Cell) => Promise<unknown> } = {
    sync: (cell) => cell.sync(),
    acquire: (cell) => cell.acquire(),
    invalidate: (cell) => cell.invalidate([]),
    measure: (cell) => cell.run("measure", [], [cell.anew()]),
    judge: (cell) => cell.run("judge", [], [cell.anew()]),
    store: (cell) => cell.run("store", [], [cell.anew(), cell.channel])
  }

  for (const [name, script] of Object.entries(harmless)) {
    it(`${name} begins a cell that is not there, and finds it the next time`, async () => {
      const cell = await aCell()
      await script(cell)
      await assertWhole(cell)
      const { incarnation } = await cell.state()
      await script(cell)
      await assertWhole(cell)
      assert.strictEqual((await cell.state()).incarnation, incarnation)
    })

    it(`${name} begins the cell anew unless all of it is there and belongs together`, async () => {
      const cell = await aCell()
      const { redis, keys } = cell
      const { state, log, position } = keys
      const garbage = async (key: string, type: number) => {
        await redis.del(key)
        if (type === 0) await redis.set(key, "\u0000garbage")
        if (type === 1) await redis.lpush(key, "garbage")
        if (type === 2) await redis.hset(key, "garbage", "1")
        if (type === 3) await redis.zadd(key, 1, "garbage")
        if (type === 4) await redis.set(key, "12:34")
      }
      const harms: ReadonlyArray<readonly [what: string, harm: () => Promise<unknown>, survives?: boolean]> =
        [
          ["state lost", () => redis.del(state)],
          ["log lost", () => redis.del(log)],
          ["position lost", () => redis.del(position), true],
          ["state and log lost", () => redis.del(state, log)],
          ["state and position lost", () => redis.del(state, position)],
          ["log and position lost", () => redis.del(log, position)],
          ["all lost", () => redis.del(state, log, position)],
          ...[0, 1, 2, 3, 4].flatMap((type) => [
            [`garbage ${type} for state`, () => garbage(state, type)] as const,
            [`garbage ${type} for log`, () => garbage(log, type)] as const,
            [`garbage ${type} for position`, () => garbage(position, type), true] as const
          ]),
          ["another server", () => redis.hset(state, "server", "0".repeat(40))],
          ["another incarnation in the state", () => redis.hset(state, "incarnation", "99")],
          ["another incarnation in the log", () => redis.zadd(log, 99, "!")],
          ["no sentinel in the log", () => redis.zrem(log, "!")],
          ...["sequence", "floor", "server", "longest", "pattern", "incarnation"].map(
            (field) => [`the state without its ${field}`, () => redis.hdel(state, field)] as const
          ),
          ...["sequence", "floor", "longest", "pattern"].map(
            (field) => [`garbage for the ${field}`, () => redis.hset(state, field, "garbage")] as const
          )
        ]
      for (const [what, harm, survives = false] of harms) {
        await cell.invalidate([":#a"])
        const before = await cell.state()
        await harm()
        await script(cell)
        await assertWhole(cell)
        const after = await cell.state()
        assert.strictEqual(after.incarnation === before.incarnation, survives, what)
        assert.strictEqual((await redis.zscore(log, ":#a")) !== null, survives, what)
        if (!survives) assert.isAtLeast(Number(after.floor), Number(before.sequence), what)
      }
    })
  }

  it("is loaded again by a server that has forgotten it", async () => {
    const cell = await aCell()
    const first = await cell.invalidate([":#a"])
    await cell.redis.script("FLUSH")
    const second = await cell.invalidate([":#a"])
    assert.deepStrictEqual([second.incarnation, second.previous], [first.incarnation, first.sequence])
  })
})

describe("invalidate", () => {
  it("bumps the sequence, and answers the one before, the one now, and how many rows there are", async () => {
    const cell = await aCell()
    const { redis, keys } = cell
    const first = await cell.invalidate([":#a", ":#b"])
    const second = await cell.invalidate([":#b", "~row:*"])
    assert.strictEqual(second.previous, first.sequence)
    assert.isAbove(second.sequence, first.sequence)
    assert.deepStrictEqual([first.rows, second.rows], [2, 3])
    const log = await redis.zrange(keys.log, "0", "-1", "WITHSCORES")
    assert.deepStrictEqual(log.slice(2), [
      ":#a",
      String(first.sequence),
      ":#b",
      String(second.sequence),
      "~row:*",
      String(second.sequence)
    ])
    assert.strictEqual((await cell.state()).pattern, String(second.sequence))
    await assertWhole(cell)
  })

  it("is the server's time in microseconds, and grows strictly though the clock goes back", async () => {
    const cell = await aCell()
    const now = Date.now() * 1000
    let last = 0
    for (const offset of [0, hour, 0, -hour, -hour, 5 * hour, 0, 0]) {
      await cell.step(offset)
      for (let i = 0; i < 3; i++) {
        const { previous, sequence } = await cell.invalidate([`:#${i}`])
        assert.isAtLeast(previous, last)
        assert.isAbove(sequence, last)
        if (offset > 0 && i === 0) assert.closeTo(sequence, now + offset, hour / 60)
        last = sequence
      }
      const { rows, sequence } = await cell.sync()
      assert.strictEqual(rows.length, 6)
      assert.strictEqual(sequence, last)
      // A lookup that begins now is fresh, one that began before is not.
      const point = await cell.acquire()
      assert.strictEqual(await cell.store("1", point, [":#0"]), "stored")
      assert.strictEqual(await cell.store("1", { ...point, sequence: last - 1 }, [":#2"]), "overtaken")
    }
  })

  it("tells the channel once, between the sequences", async () => {
    const cell = await aCell()
    const subscriber = new Redis(inject("redisUrl"))
    onTestFinished(() => subscriber.disconnect())
    await subscriber.subscribe(cell.channel)
    const message = new Promise<string>((resolve) => subscriber.once("message", (_, text) => resolve(text)))
    await cell.invalidate([":#silent"])
    const { incarnation, previous, sequence } = await cell.invalidate([":#a"], 1000, `["told"]`)
    assert.strictEqual(await message, ["invalidated", incarnation, previous, sequence, `["told"]`].join("\n"))
  })

  for (const count of [999, 1000, 1001, 4000, 8001, 20_000])
    it(`takes ${count} members at once`, async () => {
      const cell = await aCell()
      const { rows, sequence, incarnation } = await cell.invalidate(
        times(count, (i) => `:#${i}`),
        100_000
      )
      assert.strictEqual(rows, count)
      const synced = await cell.sync(incarnation, 0, 100_000)
      assert.strictEqual(synced.rows.length, 2 * count)
      assert.strictEqual(new Set(synced.rows.filter((_, i) => i % 2 === 1)).size, 1)
      assert.strictEqual(
        await cell.store("1", { incarnation, sequence: sequence - 1 }, [`:#${count - 1}`]),
        "overtaken"
      )
    })

  it("drops the oldest rows beyond the capacity, and raises the floor to the last of them", async () => {
    const cell = await aCell()
    const sequences: Array<number> = []
    for (let i = 0; i < 200; i++) {
      const { sequence, rows } = await cell.invalidate([`:#${i}`], 16)
      sequences.push(sequence)
      assert.isAtMost(rows, 16)
      const { floor, rows: left } = await cell.sync()
      assert.strictEqual(left.length / 2, rows)
      // What the floor does not cover is there.
      for (const [j, at] of sequences.entries())
        assert.strictEqual(left.includes(`:#${j}`), at > floor, `${j} of ${i}`)
      await assertWhole(cell)
    }
  })

  it("may have to drop what it has just noted: then nothing that began before is fresh", async () => {
    const cell = await aCell()
    const point = await cell.acquire()
    const { sequence, rows } = await cell.invalidate(
      times(100, (i) => `:#${i}`),
      16
    )
    assert.isAtMost(rows, 16)
    const { floor } = await cell.sync()
    assert.strictEqual(floor, sequence)
    assert.strictEqual(await cell.store("1", point, [":#other"]), "overtaken")
    assert.strictEqual(await cell.store("1", await cell.acquire(), [":#99"]), "stored")
  })

  it("drops rows once no entry can be so old, and none before", async () => {
    const cell = await aCell()
    const slack = 60_000_000
    // Kept for 100 s; the next for 10 s does not make that shorter.
    const begun = await cell.acquire()
    assert.strictEqual(await cell.store("1", begun, [":#a"], { keep: 100_000 }), "stored")
    assert.strictEqual(await cell.store("2", await cell.acquire(), [":#a"], { keep: 10_000 }), "stored")
    const { incarnation, sequence } = await cell.invalidate([":#a", ":#b"])
    await cell.step(100_000_000 + slack - 5_000_000)
    await cell.invalidate([":#c"])
    let synced = await cell.sync(incarnation)
    assert.include(synced.rows, ":#a")
    assert.isBelow(synced.floor, sequence)
    await cell.step(100_000_000 + slack + 1_000_000)
    await cell.invalidate([":#d"])
    synced = await cell.sync(incarnation)
    assert.deepStrictEqual(
      synced.rows.filter((_, i) => i % 2 === 0),
      [":#c", ":#d"]
    )
    assert.strictEqual(synced.floor, sequence)
    // Back again: what was forgotten stays below the floor.
    await cell.step(0)
    assert.strictEqual(await cell.store("1", begun, [":#a"]), "overtaken")
    await assertWhole(cell)
  })

  it("drops no row by its age once an entry is kept for ever", async () => {
    const cell = await aCell()
    assert.strictEqual(await cell.store("1", await cell.acquire(), [":#a"], { keep: 0 }), "stored")
    assert.strictEqual(await cell.store("2", await cell.acquire(), [":#a"], { keep: 10 }), "stored")
    await cell.invalidate([":#a"])
    await cell.step(1_000_000 * hour)
    await cell.invalidate([":#b"])
    assert.strictEqual((await cell.sync()).rows.length, 4)
    assert.strictEqual(await cell.redis.ttl(cell.name("entry:1")), -1)
  })

  it("tells whether something was invalidated before it, since a point", async () => {
    const cell = await aCell()
    const point = await cell.acquire()
    const replace = async (restsOn: ReadonlyArray<string>, since = point) => {
      const reply = await cell.run<Array<string | number>>(
        "invalidate",
        [],
        [
          cell.anew(),
          1000,
          cell.channel,
          "",
          since.incarnation,
          since.sequence,
          restsOn.length,
          ...restsOn,
          0,
          ":row:1"
        ]
      )
      return reply[4]
    }
    assert.strictEqual(await replace([":row:1", ":#a"]), 0)
    assert.strictEqual(await replace([":row:1", ":#a"]), 1)
    assert.strictEqual(await replace([":row:2", ":#a"]), 0)
    await cell.invalidate([":#a"])
    assert.strictEqual(await replace([":row:2", ":#a"]), 1)
    assert.strictEqual(await replace(times(3000, (i) => `:#${i}`)), 0)
    assert.strictEqual(await replace([...times(3000, (i) => `:#${i}`), ":#a"]), 1)
    const now = await cell.acquire()
    assert.strictEqual(await replace([":#b"], { ...now, sequence: now.sequence + 1000 }), 1)
    assert.strictEqual(await replace([":#b"], { ...now, incarnation: "7" }), 1)
    assert.strictEqual(await replace([":#b"], { ...now, sequence: 1 }), 1)
    assert.strictEqual(await replace([":#b"], now), 0)
    await cell.invalidate(["~x"])
    assert.strictEqual(await replace([":#b"], now), 1)
  })
})

describe("sync", () => {
  it("answers rows beyond a cursor in their order, so many at most", async () => {
    const cell = await aCell()
    const all: Array<string> = []
    for (let i = 0; i < 10; i++) all.push(`:#${i}`, String((await cell.invalidate([`:#${i}`])).sequence))
    const { incarnation, sequence, rows } = await cell.sync()
    assert.deepStrictEqual(rows, all)
    assert.strictEqual(String(sequence), all.at(-1))
    assert.deepStrictEqual((await cell.sync(incarnation, Number(all[9]), 3)).rows, all.slice(10, 16))
    assert.deepStrictEqual((await cell.sync(incarnation, sequence)).rows, [])
    // Of another incarnation, or from below the floor: everything.
    assert.deepStrictEqual((await cell.sync("7", sequence)).rows, all)
    assert.deepStrictEqual((await cell.sync(incarnation, 5)).rows, all)
  })

  it("answers the server's time", async () => {
    const cell = await aCell()
    assert.closeTo((await cell.sync()).time / 1000, Date.now(), 5000)
    await cell.step(hour)
    assert.closeTo((await cell.sync()).time / 1000, Date.now() + hour / 1000, 5000)
  })
})

describe("acquire", () => {
  it("gives each lease to one, for a time, and the point that has been reached", async () => {
    const cell = await aCell()
    const { sequence, incarnation } = await cell.invalidate([":#a"])
    assert.deepStrictEqual(await cell.acquire(["1", "2"], ["a", "b"]), {
      incarnation,
      sequence,
      held: [1, 1]
    })
    assert.deepStrictEqual((await cell.acquire(["2", "3"], ["c", "d"])).held, [0, 1])
    assert.isAtMost(await cell.redis.pttl(cell.name("1")), 5000)
    assert.isAbove(await cell.redis.pttl(cell.name("2")), 4000)
    // Who had to wait has marked it, once.
    await cell.acquire(["2"], ["e"])
    const at = `${incarnation}:${sequence}`
    assert.deepStrictEqual(await cell.redis.mget(cell.name("1"), cell.name("2")), [`a@${at}`, `b@${at}+`])
  })

  it("gives a lease again once it has ended", async () => {
    const cell = await aCell()
    assert.deepStrictEqual((await cell.acquire(["1"], ["a"], { length: 1 })).held, [1])
    while ((await cell.redis.exists(cell.name("1"))) === 1);
    assert.deepStrictEqual((await cell.acquire(["1"], ["b"])).held, [1])
    // The first comes late with its answer: it takes nothing from the second.
    await cell.run("release", [cell.name("1")], [cell.channel, "a", "released"])
    assert.match((await cell.redis.get(cell.name("1")))!, /^b@/)
  })

  it("takes a lease over whose answer can no longer be stored, and leaves it marked for those who wait", async () => {
    const cell = await aCell()
    const known = [":row:1", "row:*"]
    const acquire = async (token: string, more = known) =>
      (await cell.acquire(["1"], [token], { known: more })).held[0]
    assert.strictEqual(await acquire("a"), 1)
    await cell.invalidate([":#other"])
    assert.strictEqual(await acquire("b"), 0)
    await cell.invalidate([":row:1"])
    // Who knows of nothing that it rests on does not know.
    assert.strictEqual(await acquire("c", [":#x"]), 0)
    assert.strictEqual(await acquire("d"), 1)
    assert.match((await cell.redis.get(cell.name("1")))!, /^d@\d+:\d+\+$/)
    assert.strictEqual(await acquire("e"), 0)
    // The first gives back what it has no more.
    await cell.run("release", [cell.name("1")], [cell.channel, "a", "released"])
    assert.strictEqual(await acquire("f"), 0)
    await cell.run("reset", [], [cell.anew()])
    assert.strictEqual(await acquire("g"), 1)
  })

  it("takes what is no lease for nothing", async () => {
    const cell = await aCell()
    const harms: ReadonlyArray<(key: string) => Promise<unknown>> = [
      (key) => cell.redis.lpush(key, "garbage"),
      (key) => cell.redis.hset(key, "garbage", "1"),
      // A lease ends by itself; this would not.
      (key) => cell.redis.set(key, Buffer.from([0, 255, 43])),
      (key) => cell.redis.set(key, ""),
      (key) => cell.redis.set(key, "garbage", "PX", 60_000),
      (key) => cell.redis.set(key, "garbage@1:x+", "PX", 60_000),
      (key) => cell.redis.set(key, "garbage@1:1+", "PX", 60_000)
    ]
    for (const [i, harm] of harms.entries()) {
      await harm(cell.name(`${i}`))
      assert.deepStrictEqual((await cell.acquire([`${i}`], ["a"])).held, [1], `harm ${i}`)
      assert.isAbove(await cell.redis.pttl(cell.name(`${i}`)), 0)
    }
  })

  it("is kept by its holder, marked or not, and by nobody else", async () => {
    const cell = await aCell()
    await cell.acquire(["1", "2", "3"], ["a", "b", "c"], { length: 1000 })
    await cell.acquire(["2"], ["x"])
    const kept = await cell.run<number>(
      "renew",
      times(4, (i) => cell.name(`${i + 1}`)),
      [60_000, "a", "b", "x", "y"]
    )
    assert.strictEqual(kept, 2)
    assert.isAbove(await cell.redis.pttl(cell.name("1")), 1000)
    assert.isAbove(await cell.redis.pttl(cell.name("2")), 1000)
    assert.isAtMost(await cell.redis.pttl(cell.name("3")), 1000)
    assert.strictEqual(await cell.redis.exists(cell.name("4")), 0)
  })
})

describe("release", () => {
  it("wakes only if somebody waits, whether an answer came or not", async () => {
    const cell = await aCell()
    const subscriber = new Redis(inject("redisUrl"))
    onTestFinished(() => subscriber.disconnect())
    await subscriber.subscribe(cell.channel)
    const heard: Array<string> = []
    const end = new Promise<void>((resolve) =>
      subscriber.on("message", (_, text) => (text === "end" ? resolve() : heard.push(text)))
    )
    const leases = ["lease:1", "lease:2", "3", "4"]
    const point = await cell.acquire(leases, ["a", "b", "c", "d"])
    await cell.acquire(["lease:2", "4"], ["x", "y"])
    await cell.store("1", point, [":#a"], { token: "a" })
    await cell.store("2", point, [":#a"], { token: "b" })
    await cell.run(
      "release",
      [cell.name("3"), cell.name("4")],
      [cell.channel, "c", "released", "d", "unstored"]
    )
    // Once more, of what somebody else holds, and of what nobody does.
    await cell.acquire(["4"], ["z"])
    await cell.run(
      "release",
      [cell.name("3"), cell.name("4")],
      [cell.channel, "c", "released", "d", "unstored"]
    )
    await cell.redis.publish(cell.channel, "end")
    await end
    assert.deepStrictEqual(heard, [`released\n${cell.name("lease:2")}`, `unstored\n${cell.name("4")}`])
    const { incarnation, sequence } = point
    const last = `z@${incarnation}:${sequence}`
    assert.deepStrictEqual(await cell.redis.mget(leases.map(cell.name)), [null, null, null, last])
  })
})

describe("store", () => {
  it("stores for a time, or for ever, whatever lay there", async () => {
    const cell = await aCell()
    const bytes = Buffer.from([0, 255, 13, 10])
    await cell.redis.lpush(cell.name("entry:1"), "garbage")
    const point = await cell.acquire()
    assert.strictEqual(await cell.store("1", point, [":row:1"], { bytes, keep: 5000 }), "stored")
    assert.deepStrictEqual(await cell.redis.getBuffer(cell.name("entry:1")), bytes)
    assert.closeTo(await cell.redis.pttl(cell.name("entry:1")), 5000, 1000)
    assert.strictEqual((await cell.state()).longest, "5000")
    assert.strictEqual(await cell.store("1", point, [":row:1"], { keep: 0 }), "stored")
    assert.strictEqual(await cell.redis.pttl(cell.name("entry:1")), -1)
    assert.strictEqual((await cell.state()).longest, "forever")
  })

  it("refuses what was overtaken, what began below the floor, in another incarnation or in the future", async () => {
    const cell = await aCell()
    const begun = await cell.acquire()
    const { sequence } = await cell.invalidate([":#a"])
    for (const [point, members, verdict] of [
      [begun, [":row:1", ":#a"], "overtaken"],
      [begun, [":#a", ":row:1"], "overtaken"],
      [begun, [":row:1", ":#b"], "stored"],
      [{ ...begun, sequence }, [":#a"], "stored"],
      [{ ...begun, sequence: sequence - 1 }, [":#a"], "overtaken"],
      [{ ...begun, sequence: sequence + 1 }, [":#a"], "overtaken"],
      [{ ...begun, sequence: begun.sequence - 1 }, [":#b"], "overtaken"],
      [{ ...begun, incarnation: "7" }, [":#b"], "overtaken"]
    ] as const)
      assert.strictEqual(await cell.store("1", point, members), verdict, JSON.stringify({ point, members }))
  })

  it("takes answers with hundreds of tags, and thousands", async () => {
    const cell = await aCell()
    const begun = await cell.acquire()
    await cell.invalidate([":#x"])
    for (const count of [300, 1000, 1001, 9000]) {
      const members = times(count, (i) => `:#${i}`)
      assert.strictEqual(await cell.store("1", begun, members), "stored")
      assert.strictEqual(await cell.store("1", begun, [...members, ":#x"]), "overtaken")
      assert.strictEqual(await cell.store("1", begun, [":#x", ...members]), "overtaken")
    }
  })

  it("judges each of many by itself", async () => {
    const cell = await aCell()
    const { redis, channel } = cell
    const begun = await cell.acquire(["l1", "l2", "l3"], ["a", "b", "c"])
    await cell.invalidate([":#x"])
    const item = (token: string, bytes: string, ...members: ReadonlyArray<string>) => [
      begun.incarnation,
      begun.sequence,
      token,
      1000,
      0,
      bytes,
      members.length,
      ...members
    ]
    const verdicts = await cell.run("store", ["l1", "e1", "l2", "e2", "l3", "e3"].map(cell.name), [
      cell.anew(),
      channel,
      ...item("a", "1", ":1"),
      ...item("b", "2", ":#x", ":2"),
      ...item("c", "3", ":3", ":4")
    ])
    assert.deepStrictEqual(verdicts, ["stored", "overtaken", "stored"])
    assert.deepStrictEqual(await redis.mget(["e1", "e2", "e3", "l1", "l2", "l3"].map(cell.name)), [
      "1",
      null,
      "3",
      null,
      null,
      null
    ])
  })

  it("does not decide about patterns: it tells up to where they are to be looked at, and keeps the lease", async () => {
    const cell = await aCell()
    const begun = await cell.acquire(["lease:1"], ["a"])
    const { sequence } = await cell.invalidate(["~row:*"])
    const verdict = `patterns:${sequence}`
    assert.strictEqual(await cell.store("1", begun, [":row:1"], { token: "a" }), verdict)
    assert.strictEqual(await cell.store("1", begun, [":row:1"], { token: "a", seen: sequence - 1 }), verdict)
    assert.match((await cell.redis.get(cell.name("lease:1")))!, /^a@/)
    assert.isNull(await cell.entry("1"))
    const later = await cell.invalidate(["~list:*"])
    assert.strictEqual(
      await cell.store("1", begun, [":row:1"], { token: "a", seen: sequence }),
      `patterns:${later.sequence}`
    )
    assert.strictEqual(
      await cell.store("1", begun, [":row:1"], { token: "a", seen: later.sequence }),
      "stored"
    )
    assert.strictEqual(await cell.redis.exists(cell.name("lease:1")), 0)
    assert.strictEqual(await cell.store("1", await cell.acquire(), [":row:1"]), "stored")
  })
})

describe("judge", () => {
  const header = (
    startedAt: { readonly incarnation: string; readonly sequence: number },
    tags: ReadonlyArray<string>
  ) =>
    Buffer.from(
      `${JSON.stringify([1, startedAt.incarnation, startedAt.sequence, null, 5, 0, 0, "value", "", 2, tags])}\n42`
    )

  it("finds what is fresh, by its header, and says nothing of the rest", async () => {
    const cell = await aCell()
    const judge = (...entries: ReadonlyArray<string>) =>
      cell.run(
        "judge",
        entries.map((entry) => cell.name(`entry:${entry}`)),
        [cell.anew(), ...entries.map((entry) => `:row:${entry}`)]
      )
    const point = await cell.acquire()
    const write = (entry: string, tags: ReadonlyArray<string>, startedAt = point) =>
      cell.store(entry, startedAt, [`:row:${entry}`, ...tags.map((tag) => `:${tag}`)], {
        bytes: header(startedAt, tags)
      })
    await write("1", ["#a", "é"])
    await write("2", ["#b"])
    await write("3", [])
    await write(
      "4",
      times(300, (i) => `#${i}`)
    )
    await cell.redis.set(cell.name("entry:5"), "garbage\nmore")
    await cell.redis.lpush(cell.name("entry:6"), "garbage")
    await cell.redis.set(cell.name("entry:7"), "[1]\n")
    await cell.redis.set(cell.name("entry:8"), `[1,"${point.incarnation}","x",1,1,1,1,1,1,1,[]]\n`)
    await cell.redis.set(
      cell.name("entry:9"),
      `[1,"${point.incarnation}",${point.sequence},1,1,1,1,1,1,1,[{}]]\n`
    )
    const fresh = `${point.incarnation}:${point.sequence}`
    const all = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"]
    assert.deepStrictEqual(await judge(...all), [fresh, fresh, fresh, fresh, "", "", "", "", "", ""])
    await cell.invalidate([":#b", ":row:3", ":#299"])
    assert.deepStrictEqual((await judge(...all)).slice(0, 4), [fresh, "", "", ""])
    await cell.invalidate([":é"])
    assert.deepStrictEqual(await judge("1"), [""])
    const later = await cell.acquire()
    await write("1", ["é"], later)
    assert.deepStrictEqual(await judge("1"), [`${later.incarnation}:${later.sequence}`])
    await cell.invalidate(["~nothing"])
    assert.deepStrictEqual(await judge("1"), [""])
    await cell.run("reset", [], [cell.anew()])
    assert.deepStrictEqual(await judge("1"), [""])
  })
})

describe("reset, measure", () => {
  it("begins anew, and tells of the log in numbers", async () => {
    const cell = await aCell()
    const measure = () => cell.run<Array<string | number>>("measure", [], [cell.anew()])
    const { sequence } = await cell.invalidate([":#a", ":#b"])
    await cell.invalidate([":#c"])
    const [time, rows, floor, oldest] = await measure()
    assert.closeTo(Number(time) / 1000, Date.now(), 5000)
    assert.strictEqual(rows, 3)
    assert.isBelow(Number(floor), sequence)
    assert.strictEqual(Number(oldest), sequence)
    const before = await cell.state()
    await cell.run("reset", [], [cell.anew()])
    const after = await cell.state()
    assert.notStrictEqual(after.incarnation, before.incarnation)
    const measured = await measure()
    assert.deepStrictEqual(measured.slice(1), [0, after.floor!, after.sequence!])
    await assertWhole(cell)
  })
})
