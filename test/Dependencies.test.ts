import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Layer, Logger, Metric, References, Schema } from "effect"
import { integer, pgTable, text } from "drizzle-orm/pg-core"
import { afterEach, vi } from "vitest"
import { Model } from "../src/drizzle/index.ts"
import { Cacheme, CachemeError, Node, Tag } from "../src/index.ts"
import { CachemeTest } from "../src/testing/index.ts"
import { reading, rowIds, rowsByValue } from "./support/reading.ts"
import { reasonOf } from "./support/reasonOf.ts"

const books = pgTable("books", {
  id: integer().primaryKey(),
  title: text(),
  reads: integer(),
  sales: integer()
})
const Books = Model.make(books, { volatile: { stats: ["reads"], money: ["sales"] } })
const shelves = pgTable("shelves", { id: integer().primaryKey() })
const Shelves = Model.make(shelves)

class Flag extends Tag.Class<Flag>()("flag", { of: Schema.String }) {}
class Count extends Node.Class<Count>()("count", { key: { id: Schema.Int }, value: Schema.Int }) {}
class Inner extends Node.Class<Inner>()("inner", { key: {}, value: Schema.Int, tags: () => Shelves.all }) {}

const count = new Count({ id: 1 })
const inner = Effect.succeed(1).pipe(Cacheme.memoize(new Inner()))
const test = Effect.provide(CachemeTest.layer())
const explained = (node: Node.Any) => Effect.map(Cacheme.explain(node), ({ dependencies }) => dependencies!)
const production = Effect.acquireRelease(
  Effect.sync(() => vi.stubEnv("NODE_ENV", "production")),
  () => Effect.sync(() => vi.unstubAllEnvs())
)

/** What is logged, down to a level. */
const logged = (level: "Debug" | "Warn") => {
  const lines: Array<string> = []
  const logger = Logger.make(({ message, logLevel }) => void lines.push(`${logLevel}: ${String(message)}`))
  const layer = Layer.mergeAll(Logger.layer([logger]), Layer.succeed(References.MinimumLogLevel, level))
  return { lines, layer }
}

afterEach(() => void vi.unstubAllEnvs())

describe("dependencies", () => {
  it.effect("an answer is ended by what its lookup has read, as by tags", () =>
    Effect.gen(function* () {
      const ask = Effect.as(reading({ ids: rowIds("books", 7) }), 1).pipe(Cacheme.memoize(count))
      for (const target of [Books.row({ id: 7 }), Books.unknown]) {
        yield* ask
        yield* Cacheme.invalidate([Books.row({ id: 8 }), Shelves.all])
        yield* CachemeTest.assertFresh(count)
        yield* Cacheme.invalidate(target)
        yield* CachemeTest.assertNotFresh(count)
      }
    }).pipe(test)
  )

  it.effect("manual: not what it reads; what it uses and depends on all the same", () =>
    Effect.gen(function* () {
      class Manual extends Node.Class<Manual>()("manual", {
        key: {},
        value: Schema.Int,
        dependencies: "manual"
      }) {}
      const node = new Manual()
      const lookup = Effect.gen(function* () {
        yield* reading({ ids: rowIds("books", 7) })
        yield* Cacheme.dependOn(new Flag({ of: "x" }))
        return yield* inner
      })
      for (const target of [new Flag({ of: "x" }), Shelves.all]) {
        yield* lookup.pipe(Cacheme.memoize(node))
        yield* Cacheme.invalidate(Books.all)
        yield* CachemeTest.assertFresh(node)
        yield* Cacheme.invalidate(target)
        yield* CachemeTest.assertNotFresh(node)
      }
      // A call decides for itself.
      yield* lookup.pipe(Cacheme.memoize(node, { dependencies: "recorded" }))
      yield* Cacheme.invalidate(Books.all)
      yield* CachemeTest.assertNotFresh(node)
      yield* reading({ ids: rowIds("books", 7) }).pipe(Effect.as(1), Cacheme.memoize(node))
      assert.deepInclude(yield* explained(node), { sources: [], isBare: false })
    }).pipe(test)
  )

  describe("required", () => {
    class Strict extends Node.Class<Strict>()("strict", {
      key: { id: Schema.Int },
      value: Schema.Int,
      dependencies: "required"
    }) {}
    const strict = new Strict({ id: 1 })
    const bare = Effect.succeed(1)
    const defectOf = (exit: Exit.Exit<unknown, unknown>) => {
      assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
      const error = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
      assert.instanceOf(error, CachemeError)
      return error.message
    }

    it.effect("an answer that rests on nothing is a defect that says where tags are lost", () =>
      Effect.gen(function* () {
        const message = defectOf(yield* Effect.exit(bare.pipe(Cacheme.memoize(strict))))
        for (const part of [/strict:1\b/, /"strict"/, /runPromise/, /Effect\.cached/, /lazy stream/])
          assert.match(message, part)
        yield* CachemeTest.assertNotFresh(strict)
        const oneOff = { key: "one-off", value: Schema.Int, dependencies: "required" } as const
        assert.match(defectOf(yield* Effect.exit(bare.pipe(Cacheme.memoize(oneOff)))), /one-off/)
        const fn = Cacheme.fn(Count, () => bare, { dependencies: "required" })
        assert.match(defectOf(yield* Effect.exit(fn({ id: 2 }))), /count:2/)
        const batch = Cacheme.getAll([strict], () => Effect.succeed([[strict, 1] as const]))
        assert.match(defectOf(yield* Effect.exit(batch)), /strict:1/)
      }).pipe(test)
    )

    it.effect("anything it rests on will do: read, used, or by hand; and having read what no row is in", () =>
      Effect.gen(function* () {
        for (const lookup of [
          reading({ ids: rowIds("books", 7) }),
          reading({ ids: [] }),
          inner,
          Cacheme.dependOn(new Flag({ of: "x" }))
        ]) {
          yield* Effect.as(lookup, 1).pipe(Cacheme.memoize(strict))
          yield* CachemeTest.assertFresh(strict)
          yield* Cacheme.invalidate(strict)
        }
        for (const [name, tags] of [
          ["by-key", { tags: () => new Flag({ of: "x" }) }],
          ["by-value", { valueTags: () => new Flag({ of: "x" }) }]
        ] as const) {
          const Tagged = Node.Class<any>()(name, {
            key: {},
            value: Schema.Int,
            dependencies: "required",
            ...tags
          })
          assert.strictEqual(yield* bare.pipe(Cacheme.memoize(new Tagged({}))), 1)
        }
        const failed = yield* Effect.flip(Effect.fail("down").pipe(Cacheme.memoize(strict)))
        assert.strictEqual(failed, "down")
        assert.isTrue(yield* Cacheme.set(strict, 1))
      }).pipe(test)
    )

    it.effect("in production it is given, and only logged", () =>
      Effect.gen(function* () {
        yield* production
        const { lines, layer } = logged("Debug")
        yield* Effect.gen(function* () {
          assert.strictEqual(yield* bare.pipe(Cacheme.memoize(strict)), 1)
          yield* CachemeTest.assertFresh(strict)
        }).pipe(test, Effect.provide(layer))
        assert.lengthOf(lines, 1)
        assert.match(lines[0]!, /^Debug: .*strict:1 .*carries no tag/)
      })
    )
  })

  it.effect("an answer that rests on nothing is told at debug, and by explain", () => {
    const { lines, layer } = logged("Debug")
    return Effect.gen(function* () {
      yield* Effect.succeed(1).pipe(Cacheme.memoize(count))
      assert.match(lines.join(), /count:1 .*carries no tag/)
      const { message, dependencies } = yield* Cacheme.explain(count)
      assert.isTrue(dependencies!.isBare)
      assert.match(message, /carries no tag: only its time to live ends it/)
      lines.length = 0
      yield* Effect.as(reading({ ids: rowIds("books", 1) }), 1).pipe(Cacheme.memoize(new Count({ id: 2 })))
      assert.notMatch(lines.join(), /carries no tag/)
      assert.isFalse((yield* explained(new Count({ id: 2 }))).isBare)
    }).pipe(test, Effect.provide(layer))
  })

  it("is refused where it is none of the three", () => {
    const reason = reasonOf(() =>
      Node.Class<any>()("odd", { key: {}, value: Schema.Int, dependencies: "automatic" as never })
    )
    assert.deepInclude(reason, {
      definition: `node "odd"`,
      field: "dependencies",
      expected: "recorded, manual or required",
      actual: `"automatic"`
    })
  })
})

describe("a batch", () => {
  class Book extends Node.Class<Book>()("book", { key: { id: Schema.Int }, value: Schema.Int }) {}
  class Copy extends Node.Class<Copy>()("copy", {
    key: { shelf: Schema.Int, id: Schema.String },
    value: Schema.Int
  }) {}

  /** Looks all of them up with these reads, one after the other. */
  const lookUp = <N extends Node.Any>(
    nodes: ReadonlyArray<N>,
    ...reads: ReadonlyArray<Effect.Effect<unknown, never, Cacheme>>
  ) =>
    Cacheme.getAll(nodes, (missing) =>
      Effect.as(
        Effect.forEach(reads, (read) => read),
        missing.map((node) => [node, 1 as never] as const)
      )
    )
  const three = [1, 2, 3].map((id) => new Book({ id }))
  const byId = (...ids: ReadonlyArray<number>) =>
    reading({ source: "books by id", idsByValue: rowsByValue("books", ids) })
  /** Of these nodes, those that a target has ended. */
  const endedBy = (nodes: ReadonlyArray<Node.Any>, ...ids: ReadonlyArray<string>) =>
    Effect.gen(function* () {
      yield* Cacheme.use((cacheme) =>
        Effect.flatten(cacheme.publish({ keys: [], tags: ids, patterns: [], cause: "commit" }))
      )
      const ended: Array<string> = []
      for (const node of nodes)
        if ((yield* Cacheme.explain(node)).reason._tag === "Invalidated")
          ended.push((yield* Cacheme.explain(node)).key)
      return ended
    })

  it.effect("each key rests on the rows of its own value, and on what all rest on", () =>
    Effect.gen(function* () {
      yield* lookUp(
        three,
        reading({
          source: "books by id",
          ids: ["@shelves:*"],
          idsByValue: rowsByValue("books", [1, 2, 3])
        })
      )
      assert.deepStrictEqual(yield* endedBy(three, "@books:id=2"), ["book:2"])
      assert.deepStrictEqual((yield* explained(three[2]!)).sources, [
        { statement: "books by id", ids: ["@shelves:*", "@books:id=3", "@books:?"] }
      ])
      assert.deepStrictEqual(yield* endedBy(three, "@books:?"), ["book:1", "book:2", "book:3"])
      yield* lookUp(three, reading({ ids: ["@shelves:*"], idsByValue: rowsByValue("books", [1, 2, 3]) }))
      assert.deepStrictEqual(yield* endedBy(three, "@shelves:*"), ["book:1", "book:2", "book:3"])
    }).pipe(test)
  )

  it.effect("a thousand keys rest on a row each", () =>
    Effect.gen(function* () {
      const ids = Array.from({ length: 1000 }, (_, i) => i)
      const nodes = ids.map((id) => new Book({ id }))
      yield* lookUp(nodes, byId(...ids))
      assert.deepStrictEqual(yield* endedBy(nodes, "@books:id=500"), ["book:500"])
    }).pipe(test)
  )

  it.effect("of keys with several fields that one decides whose values were asked for", () =>
    Effect.gen(function* () {
      const copies = [new Copy({ shelf: 1, id: "a" }), new Copy({ shelf: 1, id: "b" })]
      yield* lookUp(copies, reading({ idsByValue: rowsByValue("copies", ["a", "b"]) }))
      assert.deepStrictEqual(yield* endedBy(copies, "@copies:id=b"), ["copy:1:b"])
      assert.lengthOf(yield* endedBy(copies, "@copies:?"), 2)
      yield* lookUp(copies, reading({ idsByValue: rowsByValue("shelves", [1]) }))
      assert.deepStrictEqual(yield* endedBy(copies, "@shelves:id=1"), ["copy:1:a", "copy:1:b"])
    }).pipe(test)
  )

  it.effect("where two fields could have been asked for, each rests on the rows of both its values", () =>
    Effect.gen(function* () {
      const copies = [new Copy({ shelf: 1, id: "2" }), new Copy({ shelf: 2, id: "1" })]
      yield* lookUp(copies, reading({ idsByValue: rowsByValue("shelves", [1, 2]) }))
      assert.lengthOf(yield* endedBy(copies, "@shelves:id=1"), 2)
    }).pipe(test)
  )

  it.effect("all rest on everything where the values are not exactly those of a field", () =>
    Effect.gen(function* () {
      for (const values of [
        [1, 2],
        [1, 2, 3, 4],
        [10, 20, 30],
        ["1", "2", "three"]
      ]) {
        yield* lookUp(three, reading({ idsByValue: rowsByValue("authors", values) }))
        assert.lengthOf(yield* endedBy(three, `@authors:id=${values[1]}`), 3, values.join())
      }
      // Book 2 was asked for in one place, shelf 2 in another.
      const pinned = [...rowsByValue("books", [1, 2, 3])].map(
        ([id, ids]) => [id, id === "2" ? [...ids, ...rowIds("shelves", 2)] : ids] as const
      )
      yield* lookUp(three, reading({ idsByValue: new Map(pinned) }))
      assert.lengthOf(yield* endedBy(three, "@shelves:id=2"), 3)
      const mixed = [...three, new Copy({ shelf: 1, id: "4" })]
      yield* lookUp(mixed, byId(1, 2, 3, 4))
      assert.lengthOf(yield* endedBy(mixed, "@books:id=4"), 4)
    }).pipe(test)
  )

  it.effect(
    "all rest on what was asked for after something was read: author 2 may not be that of book 2",
    () =>
      Effect.gen(function* () {
        const authors = reading({ idsByValue: rowsByValue("authors", [1, 2, 3]) })
        yield* lookUp(three, byId(1, 2, 3), authors)
        assert.lengthOf(yield* endedBy(three, "@authors:id=2"), 3)
        yield* lookUp(three, inner, authors)
        assert.lengthOf(yield* endedBy(three, "@authors:id=2"), 3)
        yield* lookUp(three, byId(1, 2, 3), authors)
        assert.deepStrictEqual(yield* endedBy(three, "@books:id=1"), ["book:1"])
      }).pipe(test)
  )

  it.effect("one key alone rests on everything", () =>
    Effect.gen(function* () {
      yield* lookUp([three[0]!], byId(1))
      yield* Cacheme.invalidate(Books.row({ id: 1 }))
      yield* CachemeTest.assertNotFresh(three[0]!)
      yield* Effect.as(byId(2, 3), 1).pipe(Cacheme.memoize(three[1]!))
      yield* Cacheme.invalidate(Books.row({ id: 3 }))
      yield* CachemeTest.assertNotFresh(three[1]!)
    }).pipe(test)
  )
})

describe("many rows", () => {
  const numbers = (length: number, from = 0) => Array.from({ length }, (_, i) => from + i)
  const idsOf = (node: Node.Any) =>
    Effect.map(Cacheme.explain(node), ({ reason }) => (reason._tag === "Fresh" ? reason.tags.slice(1) : []))

  it.effect("of a table become all its rows: a write to any of them ends the answer", () =>
    Effect.gen(function* () {
      const ask = Effect.as(reading({ ids: rowIds("books", ...numbers(64)) }), 1).pipe(Cacheme.memoize(count))
      yield* ask
      assert.sameMembers([...(yield* idsOf(count))], ["@books:?", "@books:*"])
      assert.deepStrictEqual((yield* explained(count)).collapsed, ["books"])
      assert.match((yield* Cacheme.explain(count)).message, /so many rows .*"books"/)
      for (const target of [Books.row({ id: 3 }), Books.row({ id: 999 }), Books.unknown]) {
        yield* ask
        yield* Cacheme.invalidate(target)
        yield* CachemeTest.assertNotFresh(count)
      }
      const stats = (yield* Cacheme.stats).nodes[0]!
      assert.strictEqual(stats.collapsed, 3)
    }).pipe(test)
  )

  it.effect("are counted as a metric", () =>
    Effect.gen(function* () {
      yield* Effect.as(reading({ ids: rowIds("books", ...numbers(64)) }), 1).pipe(Cacheme.memoize(count))
      const found = (yield* Metric.snapshot).find(({ id }) => id === "cacheme_collapsed_total")
      assert.deepInclude(found, { attributes: { node: "count" }, state: { count: 1, incremental: true } })
    }).pipe(test, Effect.provideService(Metric.MetricRegistry, new Map()))
  )

  it.effect("up to 64 tags stay as they are", () =>
    Effect.gen(function* () {
      const ids = rowIds("books", ...numbers(63))
      yield* Effect.as(reading({ ids }), 1).pipe(Cacheme.memoize(count))
      assert.sameMembers([...(yield* idsOf(count))], [...ids])
      assert.deepStrictEqual((yield* explained(count)).collapsed, [])
    }).pipe(test)
  )

  it.effect("the table with most goes first, in each of its groups, and only until there is room", () =>
    Effect.gen(function* () {
      const few = rowIds("shelves", ...numbers(20))
      const group = (name: string) => numbers(25).map((id) => `@books~${name}:id=${id}`)
      const flags = numbers(100).map((of) => `#flag:${of}`)
      yield* Effect.as(
        Effect.all([
          reading({ source: "few", ids: few }),
          reading({ source: "many", ids: [...group("stats"), ...group("money")] }),
          Cacheme.dependOn(numbers(100).map((of) => new Flag({ of: String(of) }))),
          inner
        ]),
        1
      ).pipe(Cacheme.memoize(count))
      const all = ["@books~stats:*", "@books~money:*"]
      const used = ["inner", "inner:*", "@shelves:*"]
      assert.sameMembers([...(yield* idsOf(count))], [...few, ...all, ...flags, ...used])
      const { sources, collapsed } = yield* explained(count)
      assert.deepStrictEqual(collapsed, ["books"])
      assert.deepStrictEqual(
        sources.filter(({ statement }) => statement === "many"),
        [{ statement: "many", ids: all }]
      )
    }).pipe(test)
  )

  it.effect("given by hand stay as they are, also beside too many that were read", () =>
    Effect.gen(function* () {
      class Hand extends Node.Class<Hand>()("hand", {
        key: {},
        value: Schema.Int,
        tags: () => numbers(70).map((id) => Shelves.row({ id })),
        valueTags: () => Books.row({ id: 7 })
      }) {}
      const hand = new Hand()
      yield* Effect.as(reading({ ids: rowIds("books", ...numbers(70)) }), 1).pipe(Cacheme.memoize(hand))
      const ids = yield* idsOf(hand)
      assert.includeMembers([...ids], ["@shelves:id=69", "@books:id=7", "@books:*"])
      assert.notInclude(ids, "@books:id=8")
    }).pipe(test)
  )

  it.effect("a row of each of many tables is nothing to put together", () =>
    Effect.gen(function* () {
      const ids = numbers(70).flatMap((table) => rowIds(`t${table}`, 1))
      yield* Effect.as(reading({ ids }), 1).pipe(Cacheme.memoize(count))
      assert.sameMembers([...(yield* idsOf(count))], ids)
    }).pipe(test)
  )

  it.effect("of a batch: what all rest on, and what each has of its own", () =>
    Effect.gen(function* () {
      const nodes = [1, 2].map((id) => new Count({ id }))
      const own = new Map([1, 2].map((id) => [String(id), rowIds("shelves", ...numbers(40, id * 100))]))
      yield* Cacheme.getAll(nodes, () =>
        Effect.as(
          reading({ ids: rowIds("books", ...numbers(30)), idsByValue: own }),
          nodes.map((node) => [node, 1] as const)
        )
      )
      const ids = yield* idsOf(nodes[0]!)
      assert.sameMembers([...ids], [...rowIds("books", ...numbers(30)), "@shelves:*", "@shelves:?"])
      yield* Cacheme.invalidate(Shelves.row({ id: 1 }))
      for (const node of nodes) yield* CachemeTest.assertNotFresh(node)
    }).pipe(test)
  )

  it.effect("of a batch that are its own go into a table that all rest on already", () =>
    Effect.gen(function* () {
      const nodes = [1, 2].map((id) => new Count({ id }))
      yield* Cacheme.getAll(nodes, () =>
        Effect.as(
          reading({ ids: rowIds("books", ...numbers(70)), idsByValue: rowsByValue("books", [1, 2]) }),
          nodes.map((node) => [node, 1] as const)
        )
      )
      assert.sameMembers([...(yield* idsOf(nodes[0]!))], ["@books:*", "@books:?"])
    }).pipe(test)
  )
})

describe("explain", () => {
  it.effect("tells the statement of each id, what fell back, and what nobody tells of", () =>
    Effect.gen(function* () {
      class Tagged extends Node.Class<Tagged>()("tagged", {
        key: {},
        value: Schema.Int,
        tags: () => new Flag({ of: "x" })
      }) {}
      const node = new Tagged()
      assert.isUndefined((yield* Cacheme.explain(node)).dependencies)
      const fallback = { table: "books", because: "a condition on title", key: ["title"] }
      yield* Effect.gen(function* () {
        yield* reading({ source: "select 1", ids: rowIds("shelves", 1) })
        yield* reading({ source: "select 1", ids: rowIds("shelves", 2) })
        yield* reading({ source: "select 2", ids: ["@books:*"], fallbacks: [fallback], untold: ["the time"] })
        yield* reading({ source: "select 2", ids: ["@books:*"], fallbacks: [fallback], untold: ["the time"] })
        return 1
      }).pipe(Cacheme.memoize(node))
      const { dependencies, message } = yield* Cacheme.explain(node)
      assert.deepStrictEqual(dependencies, {
        sources: [
          { statement: "select 1", ids: ["@shelves:id=1", "@shelves:?", "@shelves:id=2"] },
          { statement: "select 2", ids: ["@books:*"] },
          { statement: undefined, ids: ["#flag:x"] }
        ],
        fallbacks: [fallback],
        untold: ["the time"],
        collapsed: [],
        isBare: false
      })
      assert.match(message, /depends on the time, .*only its time to live bounds it/)
      assert.match(message, /"books".*: a condition on title/)
      // What it rested on is known after its end, too.
      yield* Cacheme.invalidate(Books.all)
      assert.deepStrictEqual((yield* explained(node)).sources.slice(0, 2), dependencies!.sources.slice(0, 2))
    }).pipe(test)
  )

  it.effect("knows the statements of the last 1,024 keys; of those long before, the ids", () =>
    Effect.gen(function* () {
      for (let id = 0; id <= 2048; id++)
        yield* Effect.as(reading({ ids: rowIds("books", id) }), 1).pipe(Cacheme.memoize(new Count({ id })))
      assert.deepStrictEqual((yield* explained(new Count({ id: 0 }))).sources, [
        { statement: undefined, ids: rowIds("books", 0) }
      ])
      assert.deepStrictEqual((yield* explained(new Count({ id: 1025 }))).sources, [
        { statement: "select", ids: rowIds("books", 1025) }
      ])
    }).pipe(test)
  )
})
