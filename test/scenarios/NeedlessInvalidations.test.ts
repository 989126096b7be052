import { assert, describe, it } from "@effect/vitest"
import { pgTable, integer } from "drizzle-orm/pg-core"
import { Effect, Layer, Logger, Metric, Option, Schema } from "effect"
import { afterEach, vi } from "vitest"
import { Model } from "../../src/drizzle/index.ts"
import { Cacheme, Node } from "../../src/index.ts"
import type { Read } from "../../src/Recorder.ts"
import { CachemeTest } from "../../src/testing/index.ts"
import { startProcesses, until } from "../support/processes.ts"
import { reading, rowIds } from "../support/reading.ts"
import { sharedStores } from "../support/shared.ts"

/** An invalidation whose keys find the same answer again was needless: it is counted, and what would help is told. */
const Books = Model.make(pgTable("books", { id: integer().primaryKey(), authorId: integer() }))
const Shelves = Model.make(pgTable("shelves", { id: integer().primaryKey() }))

class Point extends Schema.Class<Point>("Point")({ x: Schema.Int }) {}
class Answer extends Node.Class<Answer>()("answer", {
  key: { id: Schema.Int },
  value: Schema.Struct({ points: Schema.Array(Point), when: Schema.optional(Schema.Date) }),
  timeToLive: "10 minutes"
}) {}

const all = { ids: ["@books:*", "@books:?"] }
const byAuthor = {
  ...all,
  fallbacks: [{ table: "books", because: "a condition on authorId", key: ["authorId"] }]
}

/** A question that has read something, and whose answer is what it is told to be. */
class Source {
  x = 1
  when: number | undefined
  read: Partial<Read> = all
  readonly lookup = Effect.suspend(() =>
    Effect.as(reading(this.read), {
      points: [{ x: this.x }, { x: 2 }],
      ...(this.when === undefined ? {} : { when: new Date(this.when) })
    })
  )
  readonly ask = (id = 1) => this.lookup.pipe(Cacheme.memoize(new Answer({ id })))
}

const tables = Effect.map(Cacheme.stats, ({ tables }) => tables)
const writeBook = (id = 1) => Cacheme.invalidate(Books.row({ id }))

/** A cache whose warnings are seen. */
const watched = () => {
  const warnings: Array<string> = []
  const logger = Logger.make(({ message, logLevel }) => {
    if (logLevel === "Warn") warnings.push(String(message))
  })
  const layer = CachemeTest.layer().pipe(Layer.provideMerge(Logger.layer([logger])))
  return { warnings, layer }
}

afterEach(() => void vi.unstubAllEnvs())

describe("NeedlessInvalidations", () => {
  it.effect("are counted by the table whose tag has ended the answer", () =>
    Effect.gen(function* () {
      const source = new Source()
      assert.deepStrictEqual(yield* tables, [])
      yield* source.ask()
      yield* writeBook()
      yield* source.ask()
      assert.deepStrictEqual(yield* tables, [{ table: "books", invalidated: 1, needless: 1 }])
      source.x = 3
      yield* writeBook()
      yield* source.ask()
      yield* source.ask()
      assert.deepStrictEqual(yield* tables, [{ table: "books", invalidated: 2, needless: 1 }])
      source.read = { ids: rowIds("shelves", 1) }
      yield* writeBook()
      yield* source.ask()
      yield* Cacheme.invalidate(Shelves.row({ id: 1 }))
      yield* source.ask()
      assert.deepStrictEqual(yield* tables, [
        { table: "books", invalidated: 3, needless: 2 },
        { table: "shelves", invalidated: 1, needless: 1 }
      ])
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("not where something else than a table has ended it, or nobody has looked up again", () =>
    Effect.gen(function* () {
      const source = new Source()
      yield* source.ask()
      for (const end of [Cacheme.invalidate(new Answer({ id: 1 })), Cacheme.invalidate(Answer)]) {
        yield* end
        yield* source.ask()
      }
      yield* source.lookup.pipe(Cacheme.refresh(new Answer({ id: 1 })))
      yield* writeBook()
      assert.deepStrictEqual(yield* tables, [])
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("failures that are kept are not compared", () =>
    Effect.gen(function* () {
      class Failing extends Node.Class<Failing>()("failing", {
        key: {},
        value: Schema.Int,
        error: Schema.String
      }) {}
      const lookup = (error: string) =>
        Effect.andThen(reading(all), Effect.fail(error)).pipe(Cacheme.memoize(new Failing()), Effect.flip)
      for (const error of ["a", "b", "b"]) {
        assert.strictEqual(yield* lookup(error), error)
        yield* writeBook()
      }
      assert.deepStrictEqual(yield* tables, [{ table: "books", invalidated: 2, needless: 0 }])
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("not where a value was set meanwhile, or the lookup has failed", () =>
    Effect.gen(function* () {
      class Hand extends Node.Class<Hand>()("hand", { key: {}, value: Schema.Int, tags: () => Books.all }) {}
      const one = Effect.succeed(1).pipe(Cacheme.memoize(new Hand()))
      yield* one
      yield* Cacheme.set(new Hand(), 2)
      yield* writeBook()
      yield* one
      assert.deepStrictEqual(yield* tables, [{ table: "books", invalidated: 1, needless: 0 }])
      yield* writeBook()
      yield* Effect.exit(Effect.fail("down").pipe(Cacheme.memoize(new Hand())))
      assert.deepStrictEqual(yield* tables, [{ table: "books", invalidated: 1, needless: 0 }])
      yield* one
      assert.deepStrictEqual(yield* tables, [{ table: "books", invalidated: 2, needless: 1 }])
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("answers are the same if all that is in them is", () =>
    Effect.gen(function* () {
      const source = new Source()
      const changes: ReadonlyArray<[() => void, number]> = [
        [() => (source.when = 1), 0],
        [() => (source.when = 1), 1],
        [() => (source.when = 2), 1],
        [() => (source.x = 5), 1],
        [() => (source.x = 5), 2]
      ]
      yield* source.ask()
      for (const [change, needless] of changes) {
        change()
        yield* writeBook()
        yield* source.ask()
        assert.deepInclude((yield* tables)[0], { needless })
      }
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("of each key of a batch, and of what a batch has no answer for", () =>
    Effect.gen(function* () {
      const nodes = [1, 2, 3].map((id) => new Answer({ id }))
      let x = 1
      const ask = Cacheme.getAll(
        nodes,
        (missing) =>
          Effect.as(
            reading(all),
            missing
              .filter(({ id }) => id < 3)
              .map((node) => [node, { points: [{ x: node.id === 1 ? 1 : x }] }] as const)
          ),
        { absent: "1 minute" }
      )
      yield* ask
      x = 2
      yield* writeBook()
      const answers = yield* ask
      assert.deepStrictEqual(answers.map(Option.isSome), [true, true, false])
      assert.deepStrictEqual(yield* tables, [{ table: "books", invalidated: 3, needless: 2 }])
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("while a stale answer is given, by the refresh in the background", () =>
    Effect.gen(function* () {
      const source = new Source()
      const ask = source.lookup.pipe(
        Cacheme.memoize(new Answer({ id: 1 }), { stale: { afterInvalidation: "1 minute" } })
      )
      yield* ask
      yield* writeBook()
      yield* ask
      yield* until(Effect.map(tables, ([books]) => books?.needless === 1))
    }).pipe(Effect.provide(CachemeTest.layer()))
  )

  it.effect("are metrics, gone with the cache", () =>
    Effect.gen(function* () {
      const registry: Metric.MetricRegistry = new Map()
      yield* Effect.gen(function* () {
        const source = new Source()
        for (let i = 0; i < 3; i++) {
          yield* source.ask()
          yield* writeBook()
        }
        source.x++
        yield* source.ask()
        const read = (name: string) =>
          Effect.map(Metric.snapshot, (all) => all.find(({ id }) => id === `cacheme_table_${name}_total`))
        assert.deepInclude(yield* read("invalidated"), {
          attributes: { table: "books" },
          state: { count: 3, incremental: true }
        })
        assert.deepInclude(yield* read("needless"), { state: { count: 2, incremental: true } })
      }).pipe(Effect.provide(CachemeTest.layer()), Effect.provideService(Metric.MetricRegistry, registry))
      assert.strictEqual(registry.size, 0)
    })
  )

  for (const kind of sharedStores) {
    it.effect(`of what another process has written, too (${kind})`, () =>
      Effect.scoped(
        Effect.gen(function* () {
          const [a, b] = yield* startProcesses(kind)
          const source = new Source()
          yield* a(source.ask())
          yield* b(writeBook())
          yield* until(
            Effect.andThen(
              a(source.ask()),
              Effect.map(a(tables), (counted) => counted.length > 0)
            )
          )
          assert.deepStrictEqual(yield* a(tables), [{ table: "books", invalidated: 1, needless: 1 }])
          assert.deepStrictEqual(yield* b(tables), [])
          // What a has looked up b knows the tags of, but not the statements.
          const explain = Effect.map(
            Cacheme.explain(new Answer({ id: 1 })),
            ({ dependencies }) => dependencies?.sources
          )
          assert.deepStrictEqual(yield* a(explain), [{ statement: "select", ids: all.ids }])
          assert.deepStrictEqual(yield* b(explain), [{ statement: undefined, ids: all.ids }])
        })
      )
    )
  }

  it.effect("of what a shared store keeps within a window", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const [a] = yield* startProcesses("redis")
        const source = new Source()
        const ask = source.lookup.pipe(
          Cacheme.memoize(new Answer({ id: 1 }), { stale: { afterInvalidation: "1 minute" } })
        )
        yield* a(ask)
        yield* a(writeBook())
        yield* a(ask)
        yield* until(Effect.map(a(tables), ([books]) => books?.needless === 1))
      })
    )
  )

  it.effect("not where another process had the answer after all", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const [a, b] = yield* startProcesses("redis")
        const source = new Source()
        yield* a(source.ask())
        yield* b(writeBook())
        const miss = () => b(source.ask())
        yield* a(source.lookup.pipe(Cacheme.memoize(new Answer({ id: 1 }), { on: { miss } })))
        yield* a(Cacheme.invalidate(new Answer({ id: 1 })))
        yield* a(source.ask())
        assert.deepStrictEqual(yield* a(tables), [])
      })
    )
  )

  describe("by all rows of a table, of which a key would have named some", () => {
    /** Invalidates and asks, so often, with the same answer. */
    const repeat = (times: number, source: Source) =>
      Effect.gen(function* () {
        for (let i = 0; i < times; i++) {
          yield* writeBook()
          yield* source.ask()
        }
      })

    it.effect("are warned of at the twentieth, with the key that would help, once", () => {
      const { warnings, layer } = watched()
      return Effect.gen(function* () {
        const source = new Source()
        source.read = byAuthor
        yield* source.ask()
        for (let i = 0; i < 11; i++) {
          source.x++
          yield* repeat(1, source)
        }
        yield* repeat(19, source)
        assert.deepStrictEqual(warnings, [])
        yield* repeat(1, source)
        assert.deepStrictEqual(warnings, [
          `cacheme: 20 of the last 31 lookups that rest on "books" found the same answer again: declare Model.make(books, { keys: { byAuthorId: ["authorId"] } })`
        ])
        yield* repeat(30, source)
        assert.lengthOf(warnings, 1)
      }).pipe(Effect.provide(layer))
    })

    it.effect("for the key that would help most, of several columns as well", () => {
      const { warnings, layer } = watched()
      return Effect.gen(function* () {
        const source = new Source()
        const place = { table: "books", because: "a condition", key: ["shelf", "authorId"] }
        source.read = { ...all, fallbacks: [place] }
        yield* source.ask()
        yield* repeat(1, source)
        source.read = { ...all, fallbacks: [...byAuthor.fallbacks, place] }
        yield* repeat(1, source)
        yield* repeat(18, source)
        assert.lengthOf(warnings, 1)
        assert.match(warnings[0]!, /keys: \{ byShelfAndAuthorId: \["shelf", "authorId"\] \}/)
        yield* repeat(10, source)
        assert.lengthOf(warnings, 1)
        source.read = byAuthor
        yield* repeat(4, source)
        assert.lengthOf(warnings, 2)
        assert.match(warnings[1]!, /byAuthorId/)
      }).pipe(Effect.provide(layer))
    })

    it.effect("not where rows were named, where no key would help, or in production", () => {
      const { warnings, layer } = watched()
      return Effect.gen(function* () {
        const source = new Source()
        for (const read of [
          all,
          { ...all, fallbacks: [{ table: "books", because: "a condition with or" }] },
          { ...byAuthor, ids: [...rowIds("books", 1), "@books:*"] },
          { ...byAuthor, fallbacks: [{ ...byAuthor.fallbacks[0]!, table: "authors" }] }
        ]) {
          source.read = read
          yield* source.ask()
          yield* repeat(25, source)
        }
        vi.stubEnv("NODE_ENV", "production")
        yield* Effect.gen(function* () {
          source.read = byAuthor
          yield* source.ask()
          yield* repeat(25, source)
          assert.deepInclude((yield* tables)[0], { needless: 25 })
        }).pipe(Effect.provide(CachemeTest.layer(), { local: true }))
        assert.deepStrictEqual(warnings, [])
      }).pipe(Effect.provide(layer))
    })
  })
})
