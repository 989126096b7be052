/** The workloads over Redis: one server for all of them, which is started here, keeps nothing, and notes slow commands. */
import { Effect, type ManagedRuntime } from "effect"
import { Redis } from "ioredis"
import { type ChildProcess, fork } from "node:child_process"
import { join } from "node:path"
import { Cacheme } from "../src/index.ts"
import { type RunningRedis, startRedis } from "../test/support/redis.ts"
import { measure, type Subject, summarize, timed, uniform } from "./harness.ts"
import {
  All,
  makeRuntime,
  noLookup,
  Numbered,
  PageNode,
  Rows,
  RowsNode,
  rowsOf,
  Text,
  TextNode,
  textOf,
  type Tier,
  Versioned,
  VersionNode
} from "./redisCaches.ts"
import type { HerdOrder, HerdReport } from "./redisChild.ts"
import { makeFarPeers, makeTieredPeers, type RedisPeer, type Source } from "./redisPeers.ts"
import type { Size, Table, Workload } from "./workloads.ts"

// --------------------------------------------------------------------------------------------------------- the server

let started: Promise<RunningRedis> | undefined

/** From so many microseconds on a command is slow. */
const slow = 1000

/** What a workload works with. */
interface Bench {
  readonly url: string
  /** A plain connection. */
  readonly redis: Redis
  readonly runtimeOf: (tier: Tier, logCapacity?: number) => Promise<Cache>
}

/** A cache, and what runs its effects. */
interface Cache {
  readonly runPromise: <A, E>(effect: Effect.Effect<A, E, Cacheme>) => Promise<A>
  readonly runtime: ManagedRuntime.ManagedRuntime<Cacheme, unknown>
}

/** Runs a workload on an empty server, and tells afterwards which commands were slow. */
const overRedis =
  (work: (bench: Bench, size: Size, tick: () => void) => Promise<ReadonlyArray<Table>>): Workload["run"] =>
  async (size, tick) => {
    const { url } = await (started ??= startRedis({
      args: ["--slowlog-log-slower-than", String(slow), "--slowlog-max-len", "100000"]
    }))
    const redis = new Redis(url)
    await redis.flushall("SYNC")
    await redis.slowlog("RESET")
    const caches: Array<Cache> = []
    const runtimeOf = async (tier: Tier, logCapacity?: number): Promise<Cache> => {
      const runtime = makeRuntime(url, tier, logCapacity)
      const cache = { runtime, runPromise: Effect.runPromiseWith(await runtime.context()) }
      caches.push(cache)
      return cache
    }
    const tables = await work({ url, redis, runtimeOf }, size, tick)
    for (const { runtime } of caches) await runtime.dispose()
    const slowest = await slowCommands(redis)
    redis.disconnect()
    return [...tables, slowest]
  }

/** Of each connection's slow commands the slowest. Ours is called cacheme. */
const slowCommands = async (redis: Redis): Promise<Table> => {
  const found = (await redis.slowlog("GET", "-1")) as ReadonlyArray<
    readonly [number, number, number, ReadonlyArray<string>, string, string]
  >
  const byName = new Map<string, Array<number>>()
  const note = (name: string, microseconds: number) =>
    byName.set(name, [...(byName.get(name) ?? []), microseconds])
  for (const [, , microseconds, [command = ""], , client] of found)
    note(`${client === "cacheme" ? "cacheme" : "others"}, ${command.toUpperCase()}`, microseconds)
  return {
    title: `commands of Redis that took ${slow} µs or more (their number, and the slowest)`,
    unit: "µs",
    rows:
      byName.size === 0
        ? [summarize("none", [0])]
        : [...byName].map(([name, times]) => summarize(`${name} (${times.length})`, [Math.max(...times)]))
  }
}

// ------------------------------------------------------------------------------------------------------------ subjects

/** Reads one by one: each is awaited. */
const oneByOne = (
  name: string,
  keys: ReadonlyArray<number>,
  get: (id: number) => Promise<unknown>
): Subject => ({
  name,
  run: () =>
    timed(keys.length, async () => {
      for (const key of keys) await get(key)
    })
})

/** Reads many at once, so many times. */
const atOnce = (
  name: string,
  keys: ReadonlyArray<number>,
  times: number,
  all: (keys: ReadonlyArray<number>) => Promise<unknown>
): Subject => ({
  name,
  run: () =>
    timed(keys.length * times, async () => {
      for (let i = 0; i < times; i++) await all(keys)
    })
})

const unbounded = { concurrency: "unbounded" } as const

const inTurns = <A>(all: ReadonlyArray<A>, size: number): ReadonlyArray<ReadonlyArray<A>> =>
  Array.from({ length: Math.ceil(all.length / size) }, (_, i) => all.slice(i * size, (i + 1) * size))

const range = (length: number, from = 0): ReadonlyArray<number> => Array.from({ length }, (_, i) => from + i)

const isQuick = ({ rounds }: Size) => rounds < 5

// --------------------------------------------------------------------------------------------------------- W2: far hits

/** A kind of answer. */
interface Shape {
  readonly name: string
  readonly of: (id: number, bytes: number) => any
  readonly schema: Source["schema"]
  readonly node: (id: number, bytes: number, tags: number) => RowsNode | TextNode
}

const rows: Shape = {
  name: "rows",
  of: rowsOf,
  schema: Rows,
  node: (id, bytes, tags) => new RowsNode({ id, bytes, tags })
}

const text: Shape = {
  name: "one text",
  of: textOf,
  schema: Text,
  node: (id, bytes, tags) => new TextNode({ id, bytes, tags })
}

const W2: Workload = {
  name: "W2",
  about:
    "Far hits: every read is answered by Redis. Values are rows of a query, or one text; base is `GET` and `JSON.parse` by ioredis, which checks nothing. Peers' entries carry five tags where they can carry any. At once are 1,000 keys, of 100 KB 100. How many tags an entry carries is told by rows of 1 KB: it costs the same whatever their size.",
  run: overRedis(async ({ url, redis, runtimeOf }, size, tick) => {
    const { runPromise } = await runtimeOf("far")
    const pipelining = new Redis(url, { enableAutoPipelining: true })
    const tables: Array<Table> = []
    for (const [shape, bytes, tagCounts] of [
      [rows, 200, [5]],
      [rows, 1000, [0, 1, 5, 20]],
      [rows, 10_000, [5]],
      [rows, 100_000, [5]],
      [text, 100_000, [5]]
    ] as const) {
      await redis.flushall("SYNC")
      const ids = range(bytes >= 100_000 ? 100 : 1000)
      const answer = async (key: string) => shape.of(Number(key), bytes)
      const source: Source = {
        lookUp: answer,
        tagsOf: () => range(5).map((tag) => `tag:${tag}`),
        keyOf: ({ id }) => String(id),
        schema: shape.schema
      }
      const peers = await makeFarPeers(url, source, `${shape.name} ${bytes}`)
      const ask = (tags: number) => (id: number) =>
        noLookup.pipe(Cacheme.memoize(shape.node(id, bytes, tags) as any))
      for (const some of inTurns(ids, 50)) {
        for (const id of some) {
          await redis.set(`raw:${id}`, JSON.stringify(shape.of(id, bytes)))
          for (const { get } of peers) await get(String(id))
        }
        for (const tags of tagCounts)
          await runPromise(
            Cacheme.getAll(
              some.map((id) => shape.node(id, bytes, tags)),
              (missing) => Effect.succeed(missing.map((node) => [node, shape.of(node.id, bytes)] as any))
            )
          )
      }
      const raw = (client: Redis) => async (id: number) => JSON.parse((await client.get(`raw:${id}`))!)
      const gets: ReadonlyArray<readonly [string, (id: number) => Promise<unknown>]> = [
        ["ioredis, GET", raw(redis)],
        ["ioredis, auto-pipelining", raw(pipelining)],
        ...peers.map(({ name, get }) => [name, (id: number) => get(String(id))] as const)
      ]
      // Fewer of those that take longer.
      const reads = Math.max(50, Math.min(500, 2_000_000 / bytes))
      const some = uniform(isQuick(size) ? reads / 2 : reads, ids.length)
      const what = `${shape.name} of ${bytes} bytes`
      tables.push({
        title: `${what}, one by one`,
        unit: "ns a read",
        base: "ioredis, GET",
        rows: await measure(
          [
            ...tagCounts.map((tags) =>
              oneByOne(`cacheme, ${tags} tags`, some, (id) => runPromise(ask(tags)(id)))
            ),
            {
              name: "cacheme, 5 tags, in one fiber",
              run: () =>
                timed(some.length, () =>
                  runPromise(
                    Effect.gen(function* () {
                      for (const id of some) yield* ask(5)(id)
                    })
                  )
                )
            },
            ...gets.map(([name, get]) => oneByOne(name, some, get))
          ],
          size.rounds,
          tick
        )
      })
      const times = isQuick(size) || bytes >= 10_000 ? 1 : 3
      tables.push({
        title: `${what}, ${ids.length} at once`,
        unit: "ns a read",
        base: "ioredis, GET",
        rows: await measure(
          [
            ...tagCounts.map((tags) =>
              atOnce(`cacheme, ${tags} tags`, ids, times, (ids) =>
                runPromise(Effect.all(ids.map(ask(tags)), unbounded))
              )
            ),
            atOnce("cacheme, 5 tags, a promise each", ids, times, (ids) =>
              Promise.all(ids.map((id) => runPromise(ask(5)(id))))
            ),
            ...gets.map(([name, get]) => atOnce(name, ids, times, (ids) => Promise.all(ids.map(get))))
          ],
          size.rounds,
          tick
        )
      })
    }
    pipelining.disconnect()
    return tables
  })
}

// ------------------------------------------------------------------------------------------ W3: hits and invalidations

const readAll = (ids: ReadonlyArray<number>) =>
  Effect.all(
    ids.map((id) => noLookup.pipe(Cacheme.memoize(new PageNode({ id })))),
    unbounded
  )

const fillRows = (ids: ReadonlyArray<number>) =>
  Effect.forEach(
    inTurns(ids, 100),
    (some) =>
      Cacheme.getAll(
        some.map((id) => new PageNode({ id })),
        (missing) => Effect.succeed(missing.map((node) => [node, rowsOf(node.id, 1000)] as const))
      ),
    { discard: true }
  )

const W3: Workload = {
  name: "W3",
  about:
    "Hits while another process invalidates other tags, so many times a second: rows of 1 KB with 5 tags, 1,000 keys.",
  run: overRedis(async ({ url, runtimeOf }, size, tick) => {
    const writer = await child("writer", url)
    const ids = range(1000)
    const tables: Array<Table> = []
    for (const tier of ["far", "validated", "bounded"] as const) {
      const { runPromise } = await runtimeOf(tier)
      await runPromise(fillRows(ids))
      const under = (rate: number, subject: Subject): Subject => ({
        name: rate === 0 ? "no invalidations" : `${rate} a second`,
        run: async () => {
          await ask(writer, rate)
          // The first reads at another rate are not what is asked about.
          await subject.run()
          const took = await subject.run()
          await ask(writer, 0)
          return took
        }
      })
      const one = (id: number) => runPromise(noLookup.pipe(Cacheme.memoize(new PageNode({ id }))))
      const reads = tier === "bounded" ? size.reads / 2 : isQuick(size) ? 500 : 1000
      const times = tier === "far" ? 10 : isQuick(size) ? 50 : 200
      const subjects = [
        ["one by one", oneByOne("", uniform(reads, 1000), one)],
        ["1,000 at once", atOnce("", ids, times, (ids) => runPromise(readAll(ids)))]
      ] as const
      for (const [how, subject] of subjects)
        tables.push({
          title: `${tier}, ${how}`,
          unit: "ns a read",
          base: "no invalidations",
          rows: await measure(
            [0, 100, 1000].map((rate) => under(rate, subject)),
            size.rounds,
            tick
          )
        })
    }
    writer.kill()
    return tables
  })
}

// ---------------------------------------------------------------------------------------------------- W4: the near tier

const W4: Workload = {
  name: "W4",
  about:
    "Memory in front of Redis: rows of 1 KB with 5 tags, 1,000 keys, all of them in memory. `validated` asks Redis whether anything has been invalidated, `bounded` believes memory for a second. The peers believe theirs until a message comes, if they have messages.",
  run: overRedis(async ({ url, runtimeOf }, size, tick) => {
    const ids = range(1000)
    const validated = await runtimeOf("validated")
    const bounded = await runtimeOf("bounded")
    const source: Source = {
      lookUp: async (key) => rowsOf(Number(key), 1000),
      tagsOf: () => range(5).map((tag) => `tag:${tag}`),
      keyOf: ({ id }) => String(id),
      schema: Rows
    }
    const peers = await makeTieredPeers(url, source)
    await validated.runPromise(fillRows(ids))
    await bounded.runPromise(fillRows(ids))
    for (const { get } of peers) for (const id of ids) await get(String(id))
    const ask = (id: number) => noLookup.pipe(Cacheme.memoize(new PageNode({ id })))
    const many = uniform(size.reads / 10, 1000)
    const few = uniform(isQuick(size) ? 300 : 2000, 1000)
    const times = isQuick(size) ? 20 : 100
    const nodes = ids.map((id) => new PageNode({ id }))
    return [
      {
        title: "one by one, awaited",
        unit: "ns a read",
        base: "cacheme, bounded",
        rows: await measure(
          [
            oneByOne("cacheme, bounded", many, (id) => bounded.runPromise(ask(id))),
            {
              name: "cacheme, bounded, by `yield*`",
              run: () =>
                timed(many.length, () =>
                  bounded.runPromise(
                    Effect.gen(function* () {
                      for (const id of many) yield* ask(id)
                    })
                  )
                )
            },
            oneByOne("cacheme, validated", few, (id) => validated.runPromise(ask(id))),
            ...peers.map(({ name, get }) => oneByOne(name, few, (id) => get(String(id))))
          ],
          size.rounds,
          tick
        )
      },
      {
        title: "1,000 at once",
        unit: "ns a read",
        base: "cacheme, validated",
        rows: await measure(
          [
            ...(
              [
                ["cacheme, validated", validated],
                ["cacheme, bounded", bounded]
              ] as const
            ).flatMap(([name, { runPromise }]) => [
              atOnce(name, ids, times, (ids) => runPromise(readAll(ids))),
              atOnce(`${name}, getAll`, ids, times, () => runPromise(Cacheme.getAll(nodes, () => noLookup)))
            ]),
            ...peers.map(({ name, get }) =>
              atOnce(name, ids, Math.ceil(times / 10), (ids) => Promise.all(ids.map((id) => get(String(id)))))
            )
          ],
          size.rounds,
          tick
        )
      }
    ]
  })
}

// --------------------------------------------------------------------------------------------------- W5: the cold herd

const processes = 4

const W5: Workload = {
  name: "W5-redis",
  about: `A herd in ${processes} processes, of 250 callers each: all ask for one cold key, whose lookup takes 100 ms.`,
  run: overRedis(async ({ url }, size, tick) => {
    const herd: Array<ChildProcess> = []
    const names = new Set<string>()
    for (let i = 0; i < processes; i++) {
      const process = fork(childFile, ["herd", url])
      const found: ReadonlyArray<string> = await heardFrom(process)
      found.forEach((name) => names.add(name))
      herd.push(process)
    }
    const lookups = new Map([...names].map((name) => [name, [] as Array<number>]))
    let id = 0
    const subjects = [...names].map((subject): Subject => ({
      name: subject,
      run: async () => {
        const at = performance.timeOrigin + performance.now() + 20
        const order: HerdOrder = { subject, id: ++id, callers: 250, lookupTakes: 100, at }
        const reports = await Promise.all(herd.map((process) => ask(process, order) as Promise<HerdReport>))
        lookups.get(subject)!.push(reports.reduce((sum, { lookups }) => sum + lookups, 0))
        const began = Math.min(...reports.map(({ began }) => began))
        const ended = Math.max(...reports.map(({ ended }) => ended))
        return (ended - began - order.lookupTakes) * 1e6
      }
    }))
    // Processes that have just begun are not what is asked about.
    for (let i = 0; i < (isQuick(size) ? 2 : 8); i++) for (const { run } of subjects) await run()
    const rows = await measure(subjects, size.rounds, tick)
    for (const process of herd) process.kill()
    return [
      {
        title: "lookups of the key, in all processes",
        unit: "lookups",
        rows: [...lookups].map(([name, counts]) => summarize(name, counts))
      },
      { title: "until the last caller has the answer", unit: "ns past the lookup", base: "cacheme", rows }
    ]
  })
}

// -------------------------------------------------------------------------------------------- W6: invalidating a tag

const W6: Workload = {
  name: "W6-redis",
  about:
    "Invalidating a tag that every entry carries, until Redis has acknowledged it. That an entry is stale already changes nothing for cacheme and bentocache, so they are filled once.",
  run: overRedis(async ({ url, runtimeOf }, size, tick) => {
    const counts = isQuick(size) ? [1000, 10_000] : [1000, 100_000]
    const { runPromise } = await runtimeOf("far")
    const source: Source = {
      lookUp: async (key) => ({ id: Number(key), version: 1 }),
      tagsOf: () => ["all"],
      keyOf: ({ id }) => String(id),
      schema: Versioned
    }
    const peers = new Map((await makeFarPeers(url, source)).map((peer) => [peer.name, peer]))
    const fill = async (count: number) => {
      for (const some of inTurns(range(count), 1000))
        await runPromise(
          Cacheme.getAll(
            some.map((id) => new VersionNode({ id })),
            (missing) => Effect.succeed(missing.map((node) => [node, { id: node.id, version: 1 }] as const))
          )
        )
    }
    const fillPeer = async ({ get }: RedisPeer, count: number) => {
      for (const some of inTurns(range(count), 500)) await Promise.all(some.map((id) => get(String(id))))
    }
    const [bento, dedupe] = [peers.get("bentocache")!, peers.get("async-cache-dedupe")!]
    const tables: Array<Table> = []
    for (const count of counts) {
      await fill(count)
      await fillPeer(bento, count)
      const rows = await measure(
        [
          {
            name: "cacheme",
            run: () => timed(1, () => runPromise(Cacheme.invalidate(new All())))
          },
          {
            name: "cacheme, 20 tags",
            run: () =>
              timed(1, () =>
                runPromise(Cacheme.invalidate(range(20).map((number) => new Numbered({ number }))))
              )
          },
          { name: "bentocache", run: () => timed(1, () => bento.forgetTag!("all")) }
        ],
        size.rounds * 5,
        tick
      )
      // It deletes entry by entry, so there must be some; and takes its time.
      const deleting = {
        name: "async-cache-dedupe",
        run: async () => {
          await fillPeer(dedupe, count)
          return timed(1, () => dedupe.forgetTag!("all"))
        }
      }
      const deleted = await measure([deleting], count > 10_000 ? 1 : size.rounds, tick)
      tables.push({ title: `${count} entries`, unit: "ns", base: "cacheme", rows: [...rows, ...deleted] })
    }
    return tables
  })
}

// ------------------------------------------------------------------------------------------------------- W7: batches

const W7: Workload = {
  name: "W7",
  about:
    "A batch of 1,000 keys, 100 of which are missing, rows of 200 bytes and of 1 KB with 5 tags: the missing are looked up at once and stored, or have no answer. Answers come in the order of the keys. By hand it is `MGET`, `JSON.parse`, and a pipeline of `SET`.",
  run: overRedis(async ({ url, redis, runtimeOf }, size, tick) => {
    const far = await runtimeOf("far")
    const validated = await runtimeOf("validated")
    const source = (bytes: number, isThere: boolean): Source => ({
      lookUp: async (key) => (isThere || Number(key) < 900 ? rowsOf(Number(key), bytes) : undefined),
      tagsOf: () => range(5).map((tag) => `tag:${tag}`),
      keyOf: ({ id }) => String(id),
      schema: Rows
    })
    const batch = (cache: Cache, ids: ReadonlyArray<number>, bytes: number, isThere: boolean) =>
      cache.runPromise(
        Cacheme.getAll(
          ids.map((id) => new RowsNode({ id, bytes, tags: 5 })),
          (missing) =>
            Effect.succeed(
              missing.flatMap((node) =>
                isThere || node.id < 900 ? [[node, rowsOf(node.id, bytes)] as const] : []
              )
            )
        )
      )
    const byHand = async (ids: ReadonlyArray<number>, bytes: number, isThere: boolean) => {
      const found = await redis.mget(ids.map((id) => `raw:${id}`))
      const pipeline = redis.pipeline()
      const answers = found.map((json, i) => {
        if (json !== null) return JSON.parse(json)
        const value = isThere || ids[i]! < 900 ? rowsOf(ids[i]!, bytes) : undefined
        if (value !== undefined) pipeline.set(`raw:${ids[i]}`, JSON.stringify(value), "PX", 3_600_000)
        return value
      })
      if (pipeline.length > 0) await pipeline.exec()
      return answers
    }
    const tables: Array<Table> = []
    for (const [bytes, isThere] of [
      [200, true],
      [200, false],
      [1000, true],
      [1000, false]
    ] as const) {
      await redis.flushall("SYNC")
      const peers = [
        ...(await makeFarPeers(url, source(bytes, isThere), `far ${bytes} ${isThere}`)),
        ...(await makeTieredPeers(url, source(bytes, isThere), `tiered ${bytes} ${isThere}`))
      ].filter(({ getMany }) => getMany !== undefined)
      const subjects: ReadonlyArray<readonly [string, (ids: ReadonlyArray<number>) => Promise<any>]> = [
        ["by hand", (ids) => byHand(ids, bytes, isThere)],
        ["cacheme, far", (ids) => batch(far, ids, bytes, isThere)],
        ["cacheme, validated", (ids) => batch(validated, ids, bytes, isThere)],
        ...peers.map(
          ({ name, getMany }) => [name, (ids: ReadonlyArray<number>) => getMany!(ids.map(String))] as const
        )
      ]
      let next = 1000
      // Missing are keys that nobody has asked for, in the midst of the others.
      const idsOf = () => {
        const fresh = isThere ? (next += 100) : 900
        return range(1000).map((i) => (i % 10 === 9 ? fresh + (i - 9) / 10 : i - Math.floor(i / 10)))
      }
      const able: Array<Subject> = []
      for (const [name, get] of subjects) {
        await get(range(900))
        const ids = idsOf()
        const answers: ReadonlyArray<any> = await get(ids)
        const inOrder = answers.every((answer, i) => {
          const value = answer?._tag === "Some" ? answer.value : answer?._tag === "None" ? undefined : answer
          return value === undefined || value === null ? !isThere && ids[i]! >= 900 : value.id === ids[i]
        })
        if (name.startsWith("cacheme") && !inOrder) throw new Error(`${name}: the answers are out of order`)
        able.push({
          name: inOrder ? name : `${name} (in another order)`,
          run: () => {
            const ids = idsOf()
            return timed(1, () => get(ids))
          }
        })
      }
      tables.push({
        title: `${bytes} bytes, the missing ${isThere ? "are looked up and stored" : "have no answer"}`,
        unit: "ns a batch",
        base: "by hand",
        rows: await measure(able, size.rounds * 3, tick)
      })
    }
    return tables
  })
}

// -------------------------------------------------------------------------------------------------- W9: the stale race

const trials = 100

const W9: Workload = {
  name: "W9-redis",
  about: `The stale-set race between two caches on one Redis, ${trials} times: a value changes, and one cache invalidates it while the other's lookup, which has read the old one, still runs. Counted is how often a reader of either that came after the invalidation was given the old value. \`bounded\` is left out: it may be behind, by its bound.`,
  run: overRedis(async ({ url, runtimeOf }, size, tick) => {
    let version = 0
    let gate: Promise<unknown> | undefined
    let begun = () => {}
    const lookUp = async (key: string) => {
      const read = version
      const held = gate
      gate = undefined
      begun()
      await held
      return { id: Number(key), version: read }
    }
    const source: Source = {
      lookUp,
      tagsOf: () => ["all"],
      keyOf: ({ id }) => String(id),
      schema: Versioned
    }
    const race = async (
      here: (id: number) => Promise<any>,
      there: (id: number) => Promise<any>,
      forget: (id: number) => Promise<unknown>,
      from: number
    ): Promise<number> => {
      let stale = 0
      for (let id = from; id < from + trials; id++) {
        let release: (_: unknown) => void = () => {}
        version = 1
        gate = new Promise((resolve) => (release = resolve))
        const hasBegun = new Promise<void>((resolve) => (begun = resolve))
        const first = here(id)
        await hasBegun
        version = 2
        await forget(id)
        const during = [here(id), there(id)]
        // They may be as far as they come before the old answer is there.
        await new Promise((resolve) => setTimeout(resolve, 2))
        release(undefined)
        await first
        const read = await Promise.all([...during, here(id), there(id)])
        read.push(await here(id), await there(id))
        if (read.some((value) => value.version === 1)) stale++
      }
      tick()
      return stale
    }
    const counts: Array<{ name: string; key: number; tag: number | undefined }> = []
    const ask = (cache: Cache) => (id: number) =>
      cache.runPromise(
        Effect.promise(() => lookUp(String(id))).pipe(Cacheme.memoize(new VersionNode({ id })))
      )
    for (const tier of ["far", "validated"] as const) {
      const [a, b] = [await runtimeOf(tier), await runtimeOf(tier)]
      const from = tier === "far" ? 0 : 10_000
      counts.push({
        name: `cacheme, ${tier}`,
        key: await race(
          ask(a),
          ask(b),
          (id) => b.runPromise(Cacheme.invalidate(new VersionNode({ id }))),
          from
        ),
        tag: await race(ask(a), ask(b), () => b.runPromise(Cacheme.invalidate(new All())), from + trials)
      })
    }
    for (const make of [makeFarPeers, makeTieredPeers]) {
      const [these, those] = [await make(url, source), await make(url, source)]
      for (const [i, a] of these.entries()) {
        const b = those[i]!
        const here = (id: number) => a.get(String(id))
        const there = (id: number) => b.get(String(id))
        counts.push({
          name: a.name,
          key: await race(here, there, (id) => b.forget(String(id)), 0),
          tag: a.forgetTag && (await race(here, there, () => b.forgetTag!("all"), trials))
        })
      }
    }
    const table = (title: string, pick: (row: (typeof counts)[number]) => number | undefined): Table => ({
      title,
      unit: `stale of ${trials}`,
      rows: counts.flatMap((row) => {
        const count = pick(row)
        return count === undefined ? [] : [summarize(row.name, [count])]
      })
    })
    return [table("invalidated by key", ({ key }) => key), table("invalidated by tag", ({ tag }) => tag)]
  })
}

// ---------------------------------------------------------------------------------------------------------- W10: the log

const W10: Workload = {
  name: "W10",
  about:
    "The log of invalidations in Redis, its mirror in a process, and what a new process waits until its first hit in Redis (from the making of its cache on; while the log is being read Redis judges), by the number of distinct tags that were invalidated.",
  run: overRedis(async ({ url, redis, runtimeOf }, size, tick) => {
    const capacity = 2_000_000
    const { runPromise } = await runtimeOf("far", capacity)
    const set = Cacheme.set(new VersionNode({ id: 1 }), { id: 1, version: 1 })
    await runPromise(set)
    const counts = isQuick(size) ? [0, 10_000, 100_000] : [0, 10_000, 100_000, 1_000_000]
    const bytes: Array<ReturnType<typeof summarize>> = []
    const heap: Array<ReturnType<typeof summarize>> = []
    const waits: Array<ReturnType<typeof summarize>> = []
    let done = 0
    for (const count of counts) {
      for (const some of inTurns(range(count - done, done), 4000))
        await runPromise(Cacheme.invalidate(some.map((number) => new Numbered({ number }))))
      done = count
      const name = `${count} tags`
      bytes.push(summarize(name, [Number(await redis.memory("USAGE", "CM:1:{0}:log", "SAMPLES", 0))]))
      tick()
      const runs = { heap: [] as Array<number>, waits: [] as Array<number> }
      for (let round = 0; round < Math.min(5, size.rounds); round++) {
        runs.waits.push(await toldBy("startup", url, capacity))
        runs.heap.push(await toldBy("mirror", url, capacity))
        tick()
      }
      heap.push(summarize(name, runs.heap))
      waits.push(summarize(name, runs.waits))
    }
    return [
      { title: "the log in Redis", unit: "bytes", rows: bytes },
      { title: "the mirror in a process", unit: "bytes", rows: heap },
      { title: "a new process, until its first hit in Redis", unit: "ms", rows: waits }
    ]
  })
}

// ------------------------------------------------------------------------------------------------------ other processes

const childFile = join(import.meta.dirname, "redisChild.ts")

/** Starts another process, and waits until it is ready. */
const child = async (role: string, url: string): Promise<ChildProcess> => {
  const process = fork(childFile, [role, url])
  await heardFrom(process)
  return process
}

/** Tells another process something, and waits for its answer. */
const ask = async (process: ChildProcess, message: HerdOrder | number): Promise<unknown> => {
  process.send(message)
  return heardFrom(process)
}

/** The next message of another process, which must not end before. */
const heardFrom = (process: ChildProcess): Promise<any> =>
  new Promise((resolve, reject) => {
    const ended = () => reject(new Error("another process of the workload has ended"))
    process.once("exit", ended)
    process.once("message", (message) => {
      process.off("exit", ended)
      resolve(message)
    })
  })

/** What another process has to tell; then it is ended. */
const toldBy = async (role: string, url: string, logCapacity: number): Promise<number> => {
  const process = fork(childFile, [role, url, String(logCapacity)], { execArgv: ["--expose-gc"] })
  const told: number = await heardFrom(process)
  process.kill()
  return told
}

/** All workloads over Redis. */
export const redisWorkloads: ReadonlyArray<Workload> = [W2, W3, W4, W5, W6, W7, W9, W10]
