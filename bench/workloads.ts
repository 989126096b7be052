/** The workloads: what is done, in the same words for everyone. */
import { Deferred, Effect, Layer, ManagedRuntime, Schema } from "effect"
import { execFileSync } from "node:child_process"
import { join } from "node:path"
import { Cacheme, MemoryStore, Node, Tag } from "../src/index.ts"
import { Apart, measure, type Measured, type Subject, summarize, timed } from "./harness.ts"
import * as hits from "./hits.ts"
import { makePeers, type Value } from "./peers.ts"
import { redisWorkloads } from "./redisWorkloads.ts"
import { W13 } from "./reads.ts"
import { W12 } from "./writes.ts"
import { hitRatios } from "./traces.ts"

/** A table of the report. */
export interface Table {
  readonly title: string
  /** What the numbers are, such as "ns a read". */
  readonly unit: string
  /** The subject that the others are compared with, if any. */
  readonly base?: string
  readonly rows: ReadonlyArray<Measured>
}

/** How much is done. */
export interface Size {
  readonly rounds: number
  readonly reads: number
}

/** One workload. */
export interface Workload {
  readonly name: string
  readonly about: string
  readonly run: (size: Size, tick: () => void) => Promise<ReadonlyArray<Table>>
}

class All extends Tag.Class<All>()("all") {}
class ValueNode extends Node.Class<ValueNode>()("value", {
  key: { id: Schema.Int },
  value: Schema.Struct({ id: Schema.Int, version: Schema.Int }),
  timeToLive: "1 hour",
  tags: () => new All()
}) {}

class Numbered extends Tag.Class<Numbered>()("numbered", { number: Schema.Int }) {}

const TestCache = Cacheme.layer({ freeze: false }).pipe(
  Layer.provide(MemoryStore.layer({ capacity: 200_000 }))
)
// ------------------------------------------------------------------------------------------------- W1: memory hits

const W1: Workload = {
  name: "W1",
  about: `Memory hits: every read is answered from a cache of ${hits.distinct} entries; the node is made each time, by a function of \`Cacheme.fn\` where it does not say otherwise. Each subject has a process of its own.`,
  async run({ rounds, reads }, tick) {
    const apart = new Apart(join(import.meta.dirname, "hits.ts"))
    const tables: Array<Table> = []
    const compare = async (
      title: string,
      unit: string,
      base: string,
      subjects: Record<string, unknown>,
      task: (name: string) => hits.Task
    ) => {
      const all = Object.keys(subjects).map((name) => apart.subject(name, task(name)))
      tables.push({ title, unit, base, rows: await measure(all, rounds, tick) })
    }
    // A hot key costs Effect's Cache 50 µs a read.
    const fewer = (name: string, reads: number) => (name.startsWith("Effect Cache") ? reads / 20 : reads)
    const sequences = {
      hot: "the hot key",
      uniform: `${hits.distinct} keys, each as likely`,
      zipf: `${hits.distinct} keys by Zipf's law`
    } as const
    for (const keys of ["hot", "uniform", "zipf"] as const) {
      await compare(
        `${sequences[keys]}, by \`yield*\` in one fiber`,
        "ns a read",
        "bare yield*",
        hits.inGenerators,
        (name) => ({ keys, reads: fewer(name, reads) })
      )
      await compare(
        `${sequences[keys]}, awaited one by one`,
        "ns a read",
        "cacheme, runPromise",
        hits.awaiteds,
        (name) => ({ keys, reads: fewer(name, reads / 4) })
      )
    }
    await compare(
      "1,000 keys with so many tags, while nothing is invalidated",
      "ns a read",
      "no tag",
      hits.byTags,
      () => ({ keys: "few", reads })
    )
    await compare("1,000 keys, with and without a tracer", "ns a read", "without", hits.byTracer, () => ({
      keys: "few",
      reads
    }))
    await compare("1,000 keys at once", "ns a key", "Map, a loop", hits.togethers, () => ({
      keys: "uniform",
      reads
    }))
    await apart.end()
    return tables
  }
}

// --------------------------------------------------------------------------------------------------- W5: cold herd

const W5: Workload = {
  name: "W5",
  about:
    "A herd: 1,000 callers ask for one cold key, whose lookup takes 20 ms. Counted is what comes on top.",
  async run({ rounds }, tick) {
    const runtime = ManagedRuntime.make(TestCache)
    let lookups = 0
    const slow = (id: number): Promise<Value> =>
      new Promise((resolve) => {
        lookups++
        setTimeout(() => resolve({ id, version: 1 }), 20)
      })
    const single = Cacheme.fn(ValueNode, ({ id }) => Effect.promise(() => slow(id)))
    let id = 0
    const herd = (name: string, all: (id: number) => Promise<unknown>): Subject => ({
      name,
      run: async () => {
        lookups = 0
        const took = await timed(1, () => all(++id))
        if (lookups !== 1) throw new Error(`${name} made ${lookups} lookups`)
        return took - 20e6
      }
    })
    const peers = makePeers(slow)
    // What it costs that there are 1,000 fibers, which wait for one thing.
    const bare = (id: number) => {
      const deferred = Deferred.makeUnsafe<Value>()
      void slow(id).then((value) => Deferred.doneUnsafe(deferred, Effect.succeed(value)))
      return runtime.runPromise(
        Effect.all(
          Array.from({ length: 1000 }, () => Deferred.await(deferred)),
          { concurrency: "unbounded" }
        )
      )
    }
    const many = (f: () => Promise<unknown>) => Promise.all(Array.from({ length: 1000 }, f))
    const herds = [
      herd("cacheme", (id) =>
        runtime.runPromise(
          Effect.all(
            Array.from({ length: 1000 }, () => single({ id })),
            { concurrency: "unbounded" }
          )
        )
      ),
      herd("fibers that wait for a Deferred", bare),
      ...peers.map((peer) => herd(peer.name, (id) => many(() => peer.get(id))))
    ]
    const able: Array<Subject> = []
    for (const subject of herds) {
      try {
        await subject.run()
        able.push(subject)
      } catch {
        console.log(`\n${subject.name}: more than one lookup`)
      }
    }
    const rows = await measure(able, rounds, tick)
    await runtime.dispose()
    return [{ title: "1,000 callers, one lookup", unit: "ns past the lookup", base: "cacheme", rows }]
  }
}

// ------------------------------------------------------------------------------------------- W6: invalidating a tag

const W6: Workload = {
  name: "W6",
  about: "Invalidating a tag that every entry carries.",
  async run({ rounds }, tick) {
    const subjects: Array<Subject> = []
    const runtimes: Array<ManagedRuntime.ManagedRuntime<Cacheme, unknown>> = []
    for (const entries of [1000, 10_000, 100_000]) {
      const runtime = ManagedRuntime.make(TestCache)
      runtimes.push(runtime)
      const nodes = Array.from({ length: entries }, (_, id) => new ValueNode({ id }))
      const fill = Cacheme.getAll(nodes, (missing) =>
        Effect.succeed(missing.map((node) => [node, { id: node.id, version: 1 }] as const))
      )
      subjects.push({
        name: `${entries} entries`,
        run: async () => {
          await runtime.runPromise(fill)
          return timed(1, () => runtime.runPromise(Cacheme.invalidate(new All())))
        }
      })
    }
    // Warm: a process that invalidates for the first time is not what is asked about.
    for (const runtime of runtimes)
      await runtime.runPromise(Effect.replicateEffect(Cacheme.invalidate(new Numbered({ number: 1 })), 2000))
    const rows = await measure(subjects, rounds, tick)
    for (const runtime of runtimes) await runtime.dispose()
    return [{ title: "one invalidation, until it is acknowledged", unit: "ns", rows }]
  }
}

// ---------------------------------------------------------------------------------------------- W9: the stale race

const trials = 100

const W9: Workload = {
  name: "W9",
  about: `The stale-set race, ${trials} times: a value changes and is invalidated while its lookup, which has read the old one, still runs. Counted is how often a reader that came after the invalidation was given the old value, when all was done.`,
  async run(_, tick) {
    let version = 0
    let release: () => void = () => {}
    const slow = (id: number): Promise<Value> => {
      const read = version
      return new Promise((resolve) => {
        release = () => resolve({ id, version: read })
      })
    }
    const race = async (
      ask: (id: number) => Promise<Value>,
      forget: (id: number) => Promise<unknown>
    ): Promise<number> => {
      // lru-cache rejects those who wait when their key is deleted, which is no stale answer.
      const get = (id: number) => ask(id).catch(() => undefined)
      let stale = 0
      for (let trial = 0; trial < trials; trial++) {
        const id = 1_000_000 + trial
        version = 1
        const first = get(id)
        await new Promise(setImmediate)
        const landFirst = release
        version = 2
        await forget(id)
        const during = get(id)
        await new Promise(setImmediate)
        landFirst()
        release()
        await first
        await new Promise(setImmediate)
        release()
        const values = [await during]
        const after = get(id)
        await new Promise(setImmediate)
        release()
        values.push(await after)
        if (values.some((value) => value?.version === 1)) stale++
      }
      tick()
      return stale
    }
    const runtime = ManagedRuntime.make(TestCache)
    const ours = Cacheme.fn(ValueNode, ({ id }) => Effect.promise(() => slow(id)))
    const rows: Array<{ name: string; key: number; tag: number | undefined }> = [
      {
        name: "cacheme",
        key: await race(
          (id) => runtime.runPromise(ours({ id })),
          (id) => runtime.runPromise(Cacheme.invalidate(new ValueNode({ id })))
        ),
        tag: await race(
          (id) => runtime.runPromise(ours({ id: id + trials })),
          () => runtime.runPromise(Cacheme.invalidate(new All()))
        )
      }
    ]
    for (const peer of makePeers(slow)) {
      rows.push({
        name: peer.name,
        key: await race(peer.get, peer.forget),
        tag: peer.forgetTag && (await race((id) => peer.get(id + trials), peer.forgetTag))
      })
    }
    await runtime.dispose()
    const table = (title: string, pick: (row: (typeof rows)[number]) => number | undefined): Table => ({
      title,
      unit: `stale of ${trials}`,
      rows: rows.flatMap((row) => {
        const count = pick(row)
        return count === undefined ? [] : [{ name: row.name, median: count, low: count, high: count }]
      })
    })
    return [table("invalidated by key", (row) => row.key), table("invalidated by tag", (row) => row.tag)]
  }
}

// --------------------------------------------------------------------------------------------- W8: bytes per entry

const W8: Workload = {
  name: "W8",
  about:
    "What an entry takes beside its value, in a cache of 100,000 with integer keys; its share of the cache itself is in it. Each in a process of its own; the tags are the same for all entries, where it does not say otherwise.",
  async run({ rounds }, tick) {
    const subjects = [
      "no tag",
      "1 tag",
      "5 tags",
      "1 tag of its own",
      "lru-cache",
      "layered-loader",
      "Effect Cache"
    ]
    const rows: Array<Measured> = []
    for (const name of subjects) {
      const bytes: Array<number> = []
      for (let round = 0; round < Math.min(5, rounds); round++) {
        const args = ["--expose-gc", join(import.meta.dirname, "memory.ts"), name]
        bytes.push(Number(execFileSync(process.execPath, args, { encoding: "utf8" })))
        tick()
      }
      rows.push(summarize(name.includes("tag") ? `cacheme, ${name}` : name, bytes))
    }
    return [{ title: "an entry", unit: "bytes", base: "lru-cache", rows }]
  }
}

// -------------------------------------------------------------------------------------------------- W11: hit ratios

const W11: Workload = {
  name: "W11",
  about:
    "Hit ratios on real traces, with room for 1, 5 and 10 % of the distinct keys, beside lru-cache and the optimum (Belady), which knows the future.",
  async run(_, tick) {
    return ["web12", "orm-busy"].flatMap((trace) =>
      hitRatios(join(import.meta.dirname, "traces", `${trace}.trace.br`), tick).map(({ part, ratios }) => ({
        title: `${trace}, room for ${part} %`,
        unit: "hits in 100",
        rows: ratios.map(({ name, ratio }) => ({ name, median: ratio, low: ratio, high: ratio }))
      }))
    )
  }
}

/** All workloads. */
export const workloads: ReadonlyArray<Workload> = [W1, W5, W6, W8, W9, W11, ...redisWorkloads, W12, W13]
