/**
 * One subject of W1 in a process of its own, which is told a sequence of keys and answers how many nanoseconds a read
 * took. So no subject has the others' caches beside its own in memory, or teaches V8 what only another one does.
 */
import { eq } from "drizzle-orm"
import { integer, pgTable, text } from "drizzle-orm/pg-core"
import { Cache, Effect, Layer, ManagedRuntime, Schema, Tracer } from "effect"
import { Db, Model } from "../src/drizzle/index.ts"
import { Cacheme, MemoryStore, Node, Tag } from "../src/index.ts"
import { timed, uniform, zipf } from "./harness.ts"
import { makePeers } from "./peers.ts"

/** How many keys there are. */
export const distinct = 10_000

const sequences = {
  hot: (reads: number) => Array.from({ length: reads }, () => 7),
  uniform: (reads: number) => uniform(reads, distinct),
  zipf: (reads: number) => zipf(reads, distinct),
  few: (reads: number) => uniform(reads, 1000)
}

/** What a subject is told. */
export interface Task {
  readonly keys: keyof typeof sequences
  readonly reads: number
}

/** Reads all these keys. */
type Reader = (keys: ReadonlyArray<number>) => Promise<unknown>

let lookups = 0
const valueOf = (id: number) => {
  lookups++
  return { id, version: 1 }
}

class All extends Tag.Class<All>()("all") {}
class ValueNode extends Node.Class<ValueNode>()("value", {
  key: { id: Schema.Int },
  value: Schema.Struct({ id: Schema.Int, version: Schema.Int }),
  timeToLive: "1 hour",
  tags: () => new All()
}) {}
class ForeverNode extends Node.Class<ForeverNode>()("forever", {
  key: { id: Schema.Int },
  value: Schema.Struct({ id: Schema.Int, version: Schema.Int }),
  timeToLive: "Infinity"
}) {}

const read = Cacheme.fn(ValueNode, ({ id }) => Effect.sync(() => valueOf(id)))
const readForever = Cacheme.fn(ForeverNode, ({ id }) => Effect.sync(() => valueOf(id)))
const piped = (id: number) => Effect.sync(() => valueOf(id)).pipe(Cacheme.memoize(new ValueNode({ id })))

const runtime = ManagedRuntime.make(
  Cacheme.layer({ freeze: false }).pipe(Layer.provide(MemoryStore.layer({ capacity: 200_000 })))
)

// ------------------------------------------------------------------------------------------------ ways of reading

const inGenerator =
  <R>(
    f: (id: number) => Effect.Effect<unknown, unknown, R>,
    runPromise: (effect: Effect.Effect<unknown, unknown, R>) => Promise<unknown> = runtime.runPromise as any
  ): Reader =>
  (keys) =>
    runPromise(
      Effect.gen(function* () {
        for (const key of keys) yield* f(key)
      })
    )

const awaited =
  (f: (id: number) => unknown): Reader =>
  async (keys) => {
    for (const key of keys) await f(key)
  }

/** A thousand at once, the same ones each time. */
const together = async (of: (keys: ReadonlyArray<number>) => () => unknown): Promise<Reader> => {
  for (let from = 0; from < distinct; from += 1000)
    await of(Array.from({ length: 1000 }, (_, i) => from + i))()
  return async (keys) => {
    const all = of(keys.slice(0, 1000))
    for (let done = 0; done < keys.length; done += 1000) await all()
  }
}

// ------------------------------------------------------------------------------------------------------ subjects

/** The node has a dozen others beside it, as in a program: V8 has seen many kinds of keys. */
const amongOthers = async (): Promise<Reader> => {
  for (const name of "abcdefghijkl") {
    const Other = Node.Class<any>()(name, { key: { [name]: Schema.Int }, value: Schema.Int })
    const ask = Cacheme.fn(Other, () => Effect.succeed(1))
    await inGenerator((id) => ask({ [name]: id }))(uniform(5000, 100))
  }
  return inGenerator((id) => read({ id }))
}

/** The README's quick start. */
const quickStart = async (): Promise<Reader> => {
  const books = pgTable("books", { id: integer().primaryKey(), title: text().notNull() })
  Model.make(books)
  class Book extends Schema.Class<Book>("Book")({ id: Schema.Int, title: Schema.String }) {}
  class BookNode extends Node.Class<BookNode>()("book", {
    key: { id: Schema.Int },
    value: Book,
    timeToLive: "10 minutes"
  }) {}
  const book = (id: number) =>
    Db.query((db) => db.select().from(books).where(eq(books.id, id))).pipe(
      Effect.flatMap(([row]) => (row ? Effect.succeed(row) : Effect.fail("no such book" as const))),
      Cacheme.memoize(new BookNode({ id }))
    )
  const withDatabase = ManagedRuntime.make(
    Layer.provideMerge(
      Db.layerPglite(),
      Cacheme.layer({ freeze: false }).pipe(Layer.provide(MemoryStore.layer({ capacity: 200_000 })))
    )
  )
  await withDatabase.runPromise(
    Db.mutate((db) => [
      db.execute("create table books (id int primary key, title text not null)"),
      db.execute(`insert into books select i, 'book ' || i from generate_series(0, ${distinct}) i`)
    ])
  )
  return inGenerator(book, withDatabase.runPromise)
}

const makeEffectCache = Cache.make({
  capacity: 200_000,
  timeToLive: "1 hour",
  lookup: (id: number) => Effect.sync(() => valueOf(id))
})

/** Nodes that differ in nothing but how many tags their entries carry. */
const tagged = (count: number): Reader => {
  class Numbered extends Tag.Class<Numbered>()("numbered", { number: Schema.Int }) {}
  const tags = Array.from({ length: count }, (_, number) => new Numbered({ number }))
  class TaggedNode extends Node.Class<TaggedNode>()("tagged", {
    key: { id: Schema.Int },
    value: Schema.Int,
    timeToLive: "1 hour",
    tags: () => tags
  }) {}
  const ask = Cacheme.fn(TaggedNode, () => Effect.succeed(1))
  return inGenerator((id) => ask({ id }))
}

const traced = (isTraced: boolean): Reader => {
  const tracer = Tracer.make({ span: (options) => new Tracer.NativeSpan(options) })
  return (keys) => {
    const reading = Effect.gen(function* () {
      for (const id of keys) yield* read({ id })
    }).pipe(Effect.withSpan("reading"))
    return runtime.runPromise(isTraced ? Effect.withTracer(reading, tracer) : reading)
  }
}

const map = new Map(Array.from({ length: distinct }, (_, id) => [id, { id, version: 1 }]))

const peer = (name: string) => makePeers(async (id) => valueOf(id)).find((peer) => peer.name === name)!

/** The ways to read by `yield*` in one fiber. */
export const inGenerators: Record<string, () => Reader | Promise<Reader>> = {
  "bare yield*": () => inGenerator((id) => Effect.succeed(id)),
  cacheme: () => inGenerator((id) => read({ id })),
  "cacheme, one node of many": amongOthers,
  "cacheme, without a time to live": () => inGenerator((id) => readForever({ id })),
  "cacheme, piped": () => inGenerator(piped),
  "cacheme, the README's quick start": quickStart,
  "cacheme, in a combinator": () => inGenerator((id) => Effect.map(read({ id }), (value) => value)),
  "Effect Cache": async () => {
    const cache = await runtime.runPromise(makeEffectCache)
    return inGenerator((id) => Cache.get(cache, id))
  }
}

const peerNames = makePeers(async (id) => valueOf(id)).map(({ name }) => name)

/** The ways to await one read after the other. */
export const awaiteds: Record<string, () => Reader | Promise<Reader>> = {
  Map: () => awaited((id) => map.get(id)),
  "cacheme, runPromise": async () => {
    const runPromise = Effect.runPromiseWith(await runtime.context())
    return awaited((id) => runPromise(read({ id })))
  },
  "cacheme, ManagedRuntime": () => awaited((id) => runtime.runPromise(read({ id }))),
  "cacheme, runSync": async () => {
    const context = await runtime.context()
    const [runSync, runPromise] = [Effect.runSyncWith(context), Effect.runPromiseWith(context)]
    for (let id = 0; id < distinct; id++) await runPromise(read({ id }))
    return awaited((id) => runSync(read({ id })))
  },
  "Effect Cache, runPromise": async () => {
    const runPromise = Effect.runPromiseWith(await runtime.context())
    const cache = await runPromise(makeEffectCache)
    return awaited((id) => runPromise(Cache.get(cache, id)))
  },
  ...Object.fromEntries(peerNames.map((name) => [name, () => awaited(peer(name).get)]))
}

/** The ways to read a thousand keys at once. */
export const togethers: Record<string, () => Reader | Promise<Reader>> = {
  "Map, a loop": () => together((keys) => () => keys.map((id) => map.get(id))),
  "cacheme, getAll": async () => {
    const runPromise = Effect.runPromiseWith(await runtime.context())
    return together((keys) => {
      const nodes = keys.map((id) => new ValueNode({ id }))
      return () =>
        runPromise(
          Cacheme.getAll(nodes, (missing) =>
            Effect.succeed(missing.map((node) => [node, valueOf(node.id)] as const))
          )
        )
    })
  },
  "cacheme, Effect.all": async () => {
    const runPromise = Effect.runPromiseWith(await runtime.context())
    return together(
      (keys) => () =>
        runPromise(
          Effect.all(
            keys.map((id) => read({ id })),
            { concurrency: "unbounded" }
          )
        )
    )
  },
  ...Object.fromEntries(
    peerNames.map((name) => [
      `${name}, Promise.all`,
      () => {
        const { get } = peer(name)
        return together((keys) => () => Promise.all(keys.map(get)))
      }
    ])
  )
}

/** Entries with more or fewer tags. */
export const byTags: Record<string, () => Reader> = {
  "no tag": () => tagged(0),
  "1 tag": () => tagged(1),
  "5 tags": () => tagged(5),
  "20 tags": () => tagged(20)
}

/** With and without somebody who follows. */
export const byTracer: Record<string, () => Reader> = {
  without: () => traced(false),
  "with a tracer": () => traced(true)
}

// ---------------------------------------------------------------------------------------------------- the process

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

const serve = async (name: string): Promise<void> => {
  const make = { ...inGenerators, ...awaiteds, ...togethers, ...byTags, ...byTracer }[name]!
  await runtime.runPromise(pollute)
  const reader = await make()
  await reader(Array.from({ length: distinct }, (_, id) => id))
  const enough = performance.now() + 500
  while (performance.now() < enough) await reader(sequences.uniform(1000))
  process.on("message", async ({ keys, reads }: Task) => {
    const sequence = sequences[keys](reads)
    lookups = 0
    // Not counted: the processor's caches are still those of whoever had their turn before.
    await reader(sequence.slice(0, reads / 10))
    const took = await timed(reads, () => reader(sequence))
    if (lookups > 0) throw new Error(`${name} made ${lookups} lookups`)
    process.send!(took)
  })
  process.on("disconnect", () => process.exit(0))
  process.send!("ready")
}

if (import.meta.main) await serve(process.argv[2]!)
