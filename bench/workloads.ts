/** The workloads: what is done, in the same words for everyone. */
import { eq } from "drizzle-orm"
import { integer, pgTable, text } from "drizzle-orm/pg-core"
import { Cache, Effect, Layer, ManagedRuntime, Schema, Tracer } from "effect"
import { execFileSync } from "node:child_process"
import { join } from "node:path"
import { Db, Model } from "../src/drizzle/index.ts"
import { Cacheme, MemoryStore, Node, Tag } from "../src/index.ts"
import { measure, type Measured, type Subject, summarize, timed, uniform, zipf } from "./harness.ts"
import { makePeers, type Value } from "./peers.ts"
import { redisWorkloads } from "./redisWorkloads.ts"
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
class TaggedNode extends Node.Class<TaggedNode>()("tagged", {
  key: { id: Schema.Int, tags: Schema.Int },
  value: Schema.Int,
  timeToLive: "1 hour",
  tags: ({ tags }) => Array.from({ length: tags }, (_, number) => new Numbered({ number }))
}) {}

// The README's quick start.
const books = pgTable("books", { id: integer().primaryKey(), title: text().notNull() })
const Books = Model.make(books)
class Book extends Schema.Class<Book>("Book")({ id: Schema.Int, title: Schema.String }) {}
class BookNode extends Node.Class<BookNode>()("book", {
  key: { id: Schema.Int },
  value: Book,
  timeToLive: "10 minutes",
  tags: ({ id }) => Books.row({ id })
}) {}
const book = (id: number) =>
  Db.query((db) => db.select().from(books).where(eq(books.id, id))).pipe(
    Effect.flatMap(([row]) => (row ? Effect.succeed(row) : Effect.fail("no such book" as const))),
    Cacheme.memoize(new BookNode({ id }))
  )

const distinct = 10_000
const TestCache = Cacheme.layer({ freeze: false }).pipe(
  Layer.provide(MemoryStore.layer({ capacity: 200_000 }))
)
const ask = (id: number) =>
  Effect.sync(() => ({ id, version: 1 })).pipe(Cacheme.memoize(new ValueNode({ id })))

/** Makes the run loop see many kinds of effects, as it does in a program. */
const pollute = Effect.forEach(
  Array.from({ length: 2000 }, (_, i) => i),
  (i) =>
    Effect.succeed(i).pipe(
      Effect.map((n) => n + 1),
      Effect.flatMap((n) => (n % 7 === 0 ? Effect.fail(n) : Effect.sync(() => n))),
      Effect.catch(() => Effect.void),
      Effect.ensuring(Effect.void)
    )
)

// ------------------------------------------------------------------------------------------------- W1: memory hits

const W1: Workload = {
  name: "W1",
  about: `Memory hits: every read is answered from a cache of ${distinct} entries; the node is made each time.`,
  async run({ rounds, reads }, tick) {
    const runtime = ManagedRuntime.make(Layer.provideMerge(Db.layerPglite(), TestCache))
    const context = await runtime.context()
    await runtime.runPromise(pollute)
    await runtime.runPromise(
      Db.mutate((db) => [
        db.execute("create table books (id int primary key, title text not null)"),
        db.execute(`insert into books select i, 'book ' || i from generate_series(0, ${distinct}) i`)
      ])
    )
    const sequences = {
      "the hot key": Array.from({ length: reads }, () => 7),
      [`${distinct} keys, each as likely`]: uniform(reads, distinct),
      [`${distinct} keys by Zipf's law`]: zipf(reads, distinct)
    }
    const map = new Map(Array.from({ length: distinct }, (_, id) => [id, { id, version: 1 }]))
    const peers = makePeers((id) => Promise.resolve({ id, version: 1 }))
    const effectCache = await runtime.runPromise(
      Cache.make({
        capacity: 200_000,
        timeToLive: "1 hour",
        lookup: (id: number) => Effect.succeed({ id, version: 1 })
      })
    )
    for (let id = 0; id < distinct; id++) {
      await runtime.runPromise(ask(id))
      await runtime.runPromise(book(id))
      await runtime.runPromise(Cache.get(effectCache, id))
      for (const peer of peers) await peer.get(id)
    }
    const generator =
      (name: string, f: (id: number) => Effect.Effect<unknown, unknown, Cacheme | Db>) =>
      (keys: ReadonlyArray<number>): Subject => ({
        name,
        run: () =>
          timed(keys.length, () =>
            runtime.runPromise(
              Effect.gen(function* () {
                for (const key of keys) yield* f(key)
              })
            )
          )
      })
    const promise =
      (name: string, f: (id: number) => unknown) =>
      (keys: ReadonlyArray<number>): Subject => ({
        name,
        run: () =>
          timed(keys.length, async () => {
            for (const key of keys) await f(key)
          })
      })
    const runPromise = Effect.runPromiseWith(context)
    const runSync = Effect.runSyncWith(context)
    const inGenerators = [
      generator("bare yield*", (id) => Effect.succeed(id)),
      generator("cacheme", ask),
      generator("cacheme, the README's quick start", book),
      generator("cacheme, in a combinator", (id) => Effect.map(ask(id), (value) => value)),
      // A hot key costs it 50 µs a read.
      (keys: ReadonlyArray<number>) =>
        generator("Effect Cache", (id) => Cache.get(effectCache, id))(keys.slice(0, keys.length / 20))
    ]
    const awaited = [
      promise("Map", (id) => map.get(id)),
      promise("cacheme, runPromise", (id) => runPromise(ask(id))),
      promise("cacheme, ManagedRuntime", (id) => runtime.runPromise(ask(id))),
      promise("cacheme, runSync", (id) => runSync(ask(id))),
      (keys: ReadonlyArray<number>) =>
        promise("Effect Cache, runPromise", (id) => runPromise(Cache.get(effectCache, id)))(
          keys.slice(0, keys.length / 20)
        ),
      ...peers.map((peer) => promise(peer.name, peer.get))
    ]
    const tables: Array<Table> = []
    for (const [name, keys] of Object.entries(sequences)) {
      const shorter = keys.slice(0, Math.ceil(reads / 4))
      tables.push({
        title: `${name}, by \`yield*\` in one fiber`,
        unit: "ns a read",
        base: "bare yield*",
        rows: await measure(
          inGenerators.map((subject) => subject(keys)),
          rounds,
          tick
        )
      })
      tables.push({
        title: `${name}, awaited one by one`,
        unit: "ns a read",
        base: "cacheme, runPromise",
        rows: await measure(
          awaited.map((subject) => subject(shorter)),
          rounds,
          tick
        )
      })
    }
    const tagged = (tags: number) => (id: number) =>
      Effect.succeed(1).pipe(Cacheme.memoize(new TaggedNode({ id, tags })))
    for (let id = 0; id < 1000; id++)
      await runtime.runPromise(Effect.all([0, 1, 5, 20].map((tags) => tagged(tags)(id))))
    const few = uniform(reads, 1000)
    tables.push({
      title: "1,000 keys with so many tags, while nothing is invalidated",
      unit: "ns a read",
      base: "no tag",
      rows: await measure(
        [
          generator("no tag", tagged(0)),
          generator("1 tag", tagged(1)),
          generator("5 tags", tagged(5)),
          generator("20 tags", tagged(20))
        ].map((subject) => subject(few)),
        rounds,
        tick
      )
    })
    const tracer = Tracer.make({ span: (options) => new Tracer.NativeSpan(options) })
    const withTracer = (name: string, isTraced: boolean): Subject => ({
      name,
      run: () => {
        const reading = Effect.gen(function* () {
          for (const key of few) yield* ask(key)
        }).pipe(Effect.withSpan("reading"))
        const traced = isTraced ? Effect.withTracer(reading, tracer) : reading
        return timed(few.length, () => runtime.runPromise(traced))
      }
    })
    tables.push({
      title: "1,000 keys, with and without a tracer",
      unit: "ns a read",
      base: "without",
      rows: await measure([withTracer("without", false), withTracer("with a tracer", true)], rounds, tick)
    })
    const together = uniform(1000, distinct)
    const nodes = together.map((id) => new ValueNode({ id }))
    const batches = reads / 4000
    const times = (f: () => Promise<unknown>) => () =>
      timed(batches * together.length, async () => {
        for (let i = 0; i < batches; i++) await f()
      })
    tables.push({
      title: "1,000 keys at once",
      unit: "ns a key",
      base: "cacheme, getAll",
      rows: await measure(
        [
          { name: "Map, a loop", run: times(async () => together.map((id) => map.get(id))) },
          {
            name: "cacheme, getAll",
            run: times(() => runPromise(Cacheme.getAll(nodes, () => Effect.die("a miss"))))
          },
          {
            name: "cacheme, Effect.all",
            run: times(() => runPromise(Effect.all(together.map(ask), { concurrency: "unbounded" })))
          },
          ...peers.map((peer) => ({
            name: `${peer.name}, Promise.all`,
            run: times(() => Promise.all(together.map(peer.get)))
          }))
        ],
        rounds,
        tick
      )
    })
    await runtime.dispose()
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
export const workloads: ReadonlyArray<Workload> = [W1, W5, W6, W8, W9, W11, ...redisWorkloads]
