import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  Deferred,
  Effect,
  Exit,
  Fiber,
  Layer,
  Logger,
  Option,
  References,
  Schema,
  Stream
} from "effect"
import { TestClock } from "effect/testing"
import { Cacheme, CachemeError, MemoryStore, Node, Tag } from "../src/index.ts"

class Author extends Tag.Class<Author>()("author", { id: Schema.Int }) {}
class Catalog extends Tag.Class<Catalog>()("catalog") {}

class Book extends Schema.Class<Book>("Book")({
  id: Schema.Int,
  title: Schema.String,
  authorId: Schema.Int
}) {
  get shout(): string {
    return this.title.toUpperCase()
  }
}
class BookGone extends Schema.TaggedError<BookGone>()("BookGone", { id: Schema.Int }) {}

class BookNode extends Node.Class<BookNode>()("book", {
  key: { id: Schema.Int },
  value: Book,
  error: BookGone,
  timeToLive: "10 minutes",
  tags: () => [undefined, [[new Catalog()], null], new Catalog()],
  valueTags: ({ authorId }) => new Author({ id: authorId })
}) {}

class OwnerNode extends Node.Class<OwnerNode>()("owner", {
  key: { id: Schema.Int },
  value: Schema.String,
  within: BookNode
}) {}

const TestCache = Cacheme.layer().pipe(Layer.provide(MemoryStore.layer()))

/** A database of books that counts how often it is asked. */
const makeBooks = () => {
  const rows = new Map<number, { id: number; title: string; authorId: number; internal: string }>()
  let lookups = 0
  const put = (id: number, title: string, authorId = 1) =>
    rows.set(id, { id, title, authorId, internal: "secret" })
  const find = (id: number) =>
    Effect.suspend(() => {
      lookups++
      const row = rows.get(id)
      return row === undefined ? Effect.fail(new BookGone({ id })) : Effect.succeed(row)
    })
  const read = (id: number) => find(id).pipe(Cacheme.memoize(new BookNode({ id })))
  return { rows, put, find, read, lookups: () => lookups }
}

describe("Cacheme", () => {
  describe("memoize", () => {
    it.effect("answers the second question from the cache", () =>
      Effect.gen(function* () {
        const books = makeBooks()
        books.put(1, "Emma")
        const first = yield* books.read(1)
        const second = yield* books.read(1)
        assert.strictEqual(books.lookups(), 1)
        assert.strictEqual(first, second)
      }).pipe(Effect.provide(TestCache))
    )

    it.effect(
      "hands out the schema's value, on a miss as on a hit: instances, without excess properties",
      () =>
        Effect.gen(function* () {
          const books = makeBooks()
          books.put(1, "Emma")
          for (const answer of [yield* books.read(1), yield* books.read(1)]) {
            assert.instanceOf(answer, Book)
            assert.strictEqual(answer.shout, "EMMA")
            assert.notProperty(answer, "internal")
          }
        }).pipe(Effect.provide(TestCache))
    )

    it.effect("works data-first", () =>
      Effect.gen(function* () {
        const books = makeBooks()
        books.put(1, "Emma")
        yield* Cacheme.memoize(books.find(1), new BookNode({ id: 1 }))
        yield* Cacheme.memoize(books.find(1), new BookNode({ id: 1 }))
        assert.strictEqual(books.lookups(), 1)
      }).pipe(Effect.provide(TestCache))
    )

    it.effect("adds no error but the node's own, and no requirement but Cacheme", () =>
      Effect.gen(function* () {
        class Plain extends Node.Class<Plain>()("plain", { key: {}, value: Schema.Int }) {}
        const plain: Effect.Effect<number, "mine", Cacheme> = Effect.succeed(1).pipe(
          Effect.flatMap((n) => (n > 0 ? Effect.succeed(n) : Effect.fail("mine" as const))),
          Cacheme.memoize(new Plain())
        )
        const declared: Effect.Effect<Book, BookGone, Cacheme> = makeBooks().read(1)
        // @ts-expect-error the lookup's answer is not the node's
        Effect.succeed("1").pipe(Cacheme.memoize(new Plain()))
        assert.strictEqual(yield* plain, 1)
        assert.isTrue(Exit.isFailure(yield* Effect.exit(declared)))
      }).pipe(Effect.provide(TestCache))
    )

    it.effect("looks up again once the time to live has passed", () =>
      Effect.gen(function* () {
        const books = makeBooks()
        books.put(1, "Emma")
        yield* books.read(1)
        yield* TestClock.adjust("599999 millis")
        yield* books.read(1)
        assert.strictEqual(books.lookups(), 1)
        yield* TestClock.adjust("1 millis")
        yield* books.read(1)
        assert.strictEqual(books.lookups(), 2)
      }).pipe(Effect.provide(TestCache))
    )

    it.effect("takes the time to live from the call, then the node, then the layer", () =>
      Effect.gen(function* () {
        class Silent extends Node.Class<Silent>()("silent", { key: {}, value: Schema.Int }) {}
        class Loud extends Node.Class<Loud>()("loud", {
          key: {},
          value: Schema.Int,
          timeToLive: "2 seconds"
        }) {}
        const remaining = (node: Node.Any) =>
          Effect.map(Cacheme.explain(node), ({ reason }) =>
            reason._tag === "Fresh" ? reason.expiresIn : undefined
          )
        yield* Effect.succeed(1).pipe(Cacheme.memoize(new Silent()))
        yield* Effect.succeed(1).pipe(Cacheme.memoize(new Loud()))
        assert.strictEqual(yield* remaining(new Silent()), 3000)
        assert.strictEqual(yield* remaining(new Loud()), 2000)
        yield* Cacheme.invalidate(new Loud())
        yield* Effect.succeed(1).pipe(Cacheme.memoize(new Loud(), { timeToLive: "1 second" }))
        assert.strictEqual(yield* remaining(new Loud()), 1000)
      }).pipe(
        Effect.provide(Cacheme.layer({ timeToLive: "3 seconds" }).pipe(Layer.provide(MemoryStore.layer())))
      )
    )

    it.effect("lets the answer and the key decide the time to live, zero storing nothing", () =>
      Effect.gen(function* () {
        class Count extends Node.Class<Count>()("count", {
          key: { id: Schema.Int },
          value: Schema.Int,
          timeToLive: (exit, { id }) => (Exit.isSuccess(exit) && exit.value > 10 ? 1000 * id : 0)
        }) {}
        let n = 0
        const count = (value: number) =>
          Effect.sync(() => (n++, value)).pipe(Cacheme.memoize(new Count({ id: 2 })))
        yield* count(1)
        yield* count(1)
        assert.strictEqual(n, 2)
        yield* count(11)
        yield* count(11)
        assert.strictEqual(n, 3)
        const { reason } = yield* Cacheme.explain(new Count({ id: 2 }))
        assert.deepInclude(reason, { _tag: "Fresh", expiresIn: 2000 })
      }).pipe(Effect.provide(TestCache))
    )

    it.effect("caches declared failures, and only those", () =>
      Effect.gen(function* () {
        const books = makeBooks()
        assert.deepStrictEqual(yield* Effect.exit(books.read(1)), Exit.fail(new BookGone({ id: 1 })))
        assert.deepStrictEqual(yield* Effect.exit(books.read(1)), Exit.fail(new BookGone({ id: 1 })))
        assert.strictEqual(books.lookups(), 1)

        let n = 0
        const undeclared = Effect.suspend(() => Effect.fail(++n)).pipe(
          Cacheme.memoize(new BookNode({ id: 2 }))
        )
        yield* Effect.exit(undeclared)
        yield* Effect.exit(undeclared)
        assert.strictEqual(n, 2)
        const defect = Effect.suspend(() => Effect.die(++n)).pipe(Cacheme.memoize(new BookNode({ id: 3 })))
        yield* Effect.exit(defect)
        yield* Effect.exit(defect)
        assert.strictEqual(n, 4)
      }).pipe(Effect.provide(TestCache))
    )

    it.effect("a cached failure carries the key's tags: creating the row ends it", () =>
      Effect.gen(function* () {
        const books = makeBooks()
        yield* Effect.exit(books.read(1))
        books.put(1, "Emma")
        const { entries } = yield* Cacheme.invalidate(new Catalog())
        assert.strictEqual(entries, 1)
        assert.strictEqual((yield* books.read(1)).title, "Emma")
      }).pipe(Effect.provide(TestCache))
    )

    it.effect("skips the cache by a flag or a predicate, of the node or of the call", () =>
      Effect.gen(function* () {
        class Odd extends Node.Class<Odd>()("odd", {
          key: { id: Schema.Int },
          value: Schema.Int,
          skip: ({ id }) => id % 2 === 1
        }) {}
        let n = 0
        const ask = (id: number, overrides?: { readonly skip: boolean }) =>
          Effect.sync(() => ++n).pipe(Cacheme.memoize(new Odd({ id }), overrides))
        yield* ask(1)
        yield* ask(1)
        assert.strictEqual(n, 2)
        yield* ask(2)
        yield* ask(2)
        assert.strictEqual(n, 3)
        assert.strictEqual(yield* ask(2, { skip: true }), 4)
        assert.strictEqual(yield* ask(2), 3)
        assert.strictEqual(yield* ask(1, { skip: false }), 5)
        assert.strictEqual(yield* ask(1, { skip: false }), 5)
      }).pipe(Effect.provide(TestCache))
    )

    it.effect("tells hits and misses; the call's callbacks win, and a failing one changes nothing", () =>
      Effect.gen(function* () {
        const told: Array<string> = []
        const tell = (text: string) => Effect.sync(() => told.push(text))
        class Told extends Node.Class<Told>()("told", {
          key: { id: Schema.Int },
          value: Schema.Int,
          on: { hit: ({ id }, value) => tell(`hit ${id} ${value}`), miss: ({ id }) => tell(`miss ${id}`) }
        }) {}
        const ask = (overrides?: Node.Overrides<Told, number, never>) =>
          Effect.succeed(7).pipe(Cacheme.memoize(new Told({ id: 1 }), overrides))
        yield* ask()
        yield* ask()
        yield* ask({ on: { hit: () => tell("mine") } })
        assert.deepStrictEqual(told, ["miss 1", "hit 1 7", "mine"])
        assert.strictEqual(yield* ask({ on: { hit: () => Effect.die("broken callback") } }), 7)
      }).pipe(Effect.provide(TestCache), Effect.provideService(References.MinimumLogLevel, "None"))
    )

    it.effect("asks one-off questions by a string", () =>
      Effect.gen(function* () {
        let n = 0
        const settings = Effect.sync(() => ({ theme: "dark", n: ++n })).pipe(
          Cacheme.memoize({
            key: "settings",
            value: Schema.Struct({ theme: Schema.String, n: Schema.Int }),
            timeToLive: "1 minute",
            tags: new Catalog()
          })
        )
        assert.strictEqual((yield* settings).n, 1)
        assert.strictEqual((yield* settings).n, 1)
        assert.strictEqual((yield* Cacheme.invalidate({ keys: ["settings"] })).entries, 1)
        assert.strictEqual((yield* settings).n, 2)
        yield* Cacheme.invalidate(new Catalog())
        assert.strictEqual((yield* settings).n, 3)
        yield* TestClock.adjust("1 minute")
        assert.strictEqual((yield* settings).n, 4)
      }).pipe(Effect.provide(TestCache))
    )

    it.effect("keeps one-offs of one key but different schemas apart", () =>
      Effect.gen(function* () {
        const text = yield* Effect.succeed("text").pipe(
          Cacheme.memoize({ key: "same", value: Schema.String })
        )
        const number = yield* Effect.succeed(1).pipe(Cacheme.memoize({ key: "same", value: Schema.Int }))
        assert.deepStrictEqual([text, number], ["text", 1])
        assert.strictEqual((yield* Cacheme.invalidate({ keys: ["same"] })).entries, 2)
      }).pipe(Effect.provide(TestCache))
    )

    it.effect("keeps the lookup of a one-off apart from that of a node whose key has its text", () =>
      Effect.gen(function* () {
        class Text extends Node.Class<Text>()("text", { key: { of: Schema.Int }, value: Schema.String }) {}
        const node = Effect.succeed("node").pipe(Effect.delay(10), Cacheme.memoize(new Text({ of: 7 })))
        const oneOff = Effect.succeed("one-off").pipe(
          Effect.delay(10),
          Cacheme.memoize({ key: "text:7", value: Schema.String })
        )
        const both = yield* Effect.forkChild(Effect.all([node, oneOff], { concurrency: 2 }))
        yield* TestClock.adjust(10)
        assert.deepStrictEqual(yield* Fiber.join(both), ["node", "one-off"])
      }).pipe(Effect.provide(TestCache))
    )

    it("refuses one-off keys that could be taken for tags", () => {
      for (const key of ["", "#author:1", "@books:*", "book:*", "x".repeat(1025)]) {
        const lookup = Effect.succeed(1)
        assert.throws(() => lookup.pipe(Cacheme.memoize({ key, value: Schema.Int })), CachemeError, /key/)
      }
    })

    it.effect(
      "an answer that the schema does not accept reaches its caller, is counted, warned of once, and not stored",
      () => {
        const warnings: Array<unknown> = []
        const capture = Logger.layer([
          Logger.make(({ logLevel, message }) => {
            if (logLevel === "Warn") warnings.push(message)
          })
        ])
        return Effect.gen(function* () {
          class Strict extends Node.Class<Strict>()("strict", {
            key: {},
            value: Schema.Struct({
              items: Schema.Array(Schema.Struct({ size: Schema.Number.check(Schema.isGreaterThan(0)) }))
            })
          }) {}
          const ask = Effect.sync(() => ({ items: [{ size: 1 }, { size: -1 }] })).pipe(
            Cacheme.memoize(new Strict())
          )
          assert.strictEqual((yield* ask).items[1]!.size, -1)
          yield* ask
          const {
            nodes: [stats]
          } = yield* Cacheme.stats
          assert.deepInclude(stats, { node: "strict", lookups: 2, hits: 0 })
          assert.deepInclude(stats?.refused, { rejected: 2 })
          assert.strictEqual(warnings.length, 1)
          assert.match(String(warnings[0]), /"strict".*\["items"\]\[1\]\["size"\]/)
        }).pipe(Effect.provide([TestCache, capture]))
      }
    )

    it.effect("a node whose own functions fail costs the entry, not the answer", () =>
      Effect.gen(function* () {
        const broken = {
          tags: Node.Class<any>()("broken-tags", {
            key: {},
            value: Schema.Int,
            tags: () => {
              throw new Error("no tags today")
            }
          }),
          valueTags: Node.Class<any>()("broken-value-tags", {
            key: {},
            value: Schema.Int,
            valueTags: () => "author:1" as never
          }),
          timeToLive: Node.Class<any>()("broken-time", { key: {}, value: Schema.Int, timeToLive: () => -1 })
        }
        for (const node of Object.values(broken)) {
          let n = 0
          const ask = Effect.sync(() => ++n).pipe(Cacheme.memoize(new node() as Node.Any))
          assert.deepStrictEqual([yield* ask, yield* ask], [1, 2])
        }
        for (const { refused, entries } of (yield* Cacheme.stats).nodes)
          assert.deepStrictEqual([refused.faulty, entries], [2, 0])
      }).pipe(Effect.provide(TestCache), Effect.provideService(References.MinimumLogLevel, "None"))
    )

    it.effect("writes a debug line for each lookup, and none for a hit", () => {
      const lines: Array<string> = []
      const capture = Logger.layer([
        Logger.make(({ logLevel, message }) => {
          if (logLevel === "Debug") lines.push(String(message))
        })
      ])
      return Effect.gen(function* () {
        const slow = Effect.succeed("Anne").pipe(
          Effect.delay("20 millis"),
          Cacheme.memoize(new OwnerNode({ id: 5 }))
        )
        const caller = yield* Effect.forkChild(slow, { startImmediately: true })
        yield* TestClock.adjust("20 millis")
        yield* Fiber.join(caller)
        yield* slow
        assert.deepStrictEqual(lines, [
          "cacheme: looked up CM:book:5>owner in 20 ms: answered, stored; it carries no tag, only its time to live ends it"
        ])
      }).pipe(
        Effect.provide([TestCache, capture]),
        Effect.provideService(References.MinimumLogLevel, "Debug")
      )
    })
  })

  describe("fn", () => {
    it.effect("is a function of the key's fields", () =>
      Effect.gen(function* () {
        const books = makeBooks()
        books.put(1, "Emma")
        const read = Cacheme.fn(BookNode, ({ id }) => books.find(id))
        assert.strictEqual((yield* read({ id: 1 })).title, "Emma")
        yield* read({ id: 1 })
        yield* books.read(1)
        assert.strictEqual(books.lookups(), 1)
        // @ts-expect-error the key has an id, not a name
        assert.throws(() => read({ name: "Emma" }), CachemeError, /"id" is missing/)
      }).pipe(Effect.provide(TestCache))
    )
  })

  describe("peek", () => {
    it.effect("gives what is there without computing", () =>
      Effect.gen(function* () {
        const books = makeBooks()
        books.put(1, "Emma")
        assert.deepStrictEqual(yield* Cacheme.peek(new BookNode({ id: 1 })), Option.none())
        const answer = yield* books.read(1)
        assert.deepStrictEqual(yield* Cacheme.peek(new BookNode({ id: 1 })), Option.some(answer))
        yield* Effect.exit(books.read(2))
        assert.deepStrictEqual(
          yield* Effect.exit(Cacheme.peek(new BookNode({ id: 2 }))),
          Exit.fail(new BookGone({ id: 2 }))
        )
      }).pipe(Effect.provide(TestCache))
    )
  })

  describe("invalidate", () => {
    const read3 = Effect.gen(function* () {
      const books = makeBooks()
      books.put(1, "Emma", 1)
      books.put(2, "Persuasion", 1)
      books.put(3, "Dracula", 2)
      yield* Effect.forEach([1, 2, 3], books.read)
      return books
    })

    it.effect("ends the entries of a node, a class, a tag, an array, and says how many", () =>
      Effect.gen(function* () {
        const books = yield* read3
        const ended = (target: Parameters<typeof Cacheme.invalidate>[0]) =>
          Effect.map(Cacheme.invalidate(target), ({ entries }) => entries)
        assert.strictEqual(yield* ended(new BookNode({ id: 3 })), 1)
        assert.strictEqual(yield* ended(new BookNode({ id: 3 })), 0)
        assert.strictEqual(yield* ended(new Author({ id: 1 })), 2)
        assert.strictEqual(yield* ended(BookNode), 0)
        yield* Effect.forEach([1, 2, 3], books.read)
        assert.strictEqual(books.lookups(), 6)
        assert.strictEqual(
          yield* ended([new Author({ id: 2 }), [new BookNode({ id: 3 }), new BookNode({ id: 1 })]]),
          2
        )
        assert.strictEqual(yield* ended(BookNode), 1)
        assert.strictEqual(yield* ended(BookNode), 0)
      }).pipe(Effect.provide(TestCache))
    )

    it.effect("takes keys, tags and a pattern at once", () =>
      Effect.gen(function* () {
        const books = yield* read3
        const report = yield* Cacheme.invalidate({
          keys: ["book:1"],
          tags: [[new Author({ id: 2 })]],
          pattern: "book:?"
        })
        assert.strictEqual(report.entries, 3)
        yield* Effect.forEach([1, 2, 3], books.read)
        assert.strictEqual((yield* Cacheme.invalidate({ pattern: "book:[12]" })).entries, 2)
        assert.strictEqual((yield* Cacheme.invalidate({ pattern: "*" })).entries, 1)
      }).pipe(Effect.provide(TestCache))
    )

    it.effect("of a key ends the keys that lie within it, by node, class, text and pattern", () =>
      Effect.gen(function* () {
        let n = 0
        const owner = (id: number) =>
          Effect.sync(() => `owner ${++n}`).pipe(Cacheme.memoize(new OwnerNode({ id })))
        yield* owner(100)
        yield* owner(1000)
        for (const target of [
          new BookNode({ id: 100 }),
          { keys: ["book:100"] },
          { pattern: "book:100" },
          { pattern: "book:100>*" },
          new OwnerNode({ id: 100 })
        ]) {
          assert.strictEqual((yield* Cacheme.invalidate(target)).entries, 1)
          yield* owner(100)
        }
        assert.strictEqual((yield* Cacheme.invalidate(BookNode)).entries, 2)
      }).pipe(Effect.provide(TestCache))
    )

    it.effect("fails with a typed error for what names nothing", () =>
      Effect.gen(function* () {
        for (const [target, message] of [
          [{ pattern: "x".repeat(257) }, /pattern.*256/],
          [{ pattern: "" }, /pattern.*256/],
          [{ keys: ["k".repeat(1025)] }, /key.*1024/],
          [{ keys: [""] }, /key.*1024/],
          [{}, /expected a node/],
          [42, /42.*expected a node/],
          [{ key: "book:1" }, /expected a node/],
          [undefined, /expected a node/]
        ] as const) {
          const error = yield* Effect.flip(Cacheme.invalidate(target as never))
          assert.strictEqual(
            error.reason._tag === "InvalidTarget" || error.reason._tag === "InvalidKey",
            true
          )
          assert.match(error.message, message)
        }
      }).pipe(Effect.provide(TestCache))
    )
  })

  describe("mutation", () => {
    it.effect("invalidates when the effect succeeds, and nothing when it fails", () =>
      Effect.gen(function* () {
        const books = makeBooks()
        books.put(1, "Emma")
        yield* books.read(1)
        yield* Effect.exit(Effect.fail("no").pipe(Cacheme.mutation(new Author({ id: 1 }))))
        yield* Effect.exit(Effect.die("no").pipe(Cacheme.mutation(new Author({ id: 1 }))))
        yield* books.read(1)
        assert.strictEqual(books.lookups(), 1)
        const done = yield* Effect.sync(() => books.put(1, "Clueless")).pipe(
          Effect.as("done"),
          Cacheme.mutation(new Author({ id: 1 }), [new BookNode({ id: 7 })])
        )
        assert.strictEqual(done, "done")
        assert.strictEqual((yield* books.read(1)).title, "Clueless")
        yield* Cacheme.mutation(Effect.void, BookNode)
        yield* books.read(1)
        assert.strictEqual(books.lookups(), 3)
      }).pipe(Effect.provide(TestCache))
    )

    it.effect("invalidates what was interrupted: it may have written all the same", () =>
      Effect.gen(function* () {
        const books = makeBooks()
        books.put(1, "Emma")
        yield* books.read(1)
        const committing = yield* Deferred.make<void>()
        const writer = yield* Effect.forkChild(
          Effect.uninterruptible(
            Effect.andThen(
              Deferred.await(committing),
              Effect.sync(() => books.put(1, "Clueless"))
            )
          ).pipe(Cacheme.mutation(new Author({ id: 1 }))),
          { startImmediately: true }
        )
        const interrupting = yield* Effect.forkChild(Fiber.interrupt(writer), { startImmediately: true })
        yield* Deferred.succeed(committing, undefined)
        yield* Fiber.join(interrupting)
        // Nobody waited for its acknowledgement; a later one comes after it.
        yield* Cacheme.invalidate(new Author({ id: 99 }))
        assert.strictEqual((yield* books.read(1)).title, "Clueless")
      }).pipe(Effect.provide(TestCache))
    )
  })

  describe("nested lookups", () => {
    class Shelf extends Node.Class<Shelf>()("shelf", {
      key: { id: Schema.Int },
      value: Schema.Array(Schema.String)
    }) {}

    it.effect("an answer rests on what the answers inside it rest on", () =>
      Effect.gen(function* () {
        const books = makeBooks()
        books.put(1, "Emma", 1)
        books.put(2, "Dracula", 2)
        const shelf = Effect.forEach([1, 2], books.read, { concurrency: 2 }).pipe(
          Effect.map((found) => found.map(({ title }) => title)),
          Cacheme.memoize(new Shelf({ id: 1 }))
        )
        yield* books.read(2)
        assert.deepStrictEqual(yield* shelf, ["Emma", "Dracula"])
        for (const target of [
          new Author({ id: 2 }),
          new BookNode({ id: 1 }),
          BookNode,
          { pattern: "book:2" }
        ]) {
          books.put(1, `${books.rows.get(1)!.title}!`, 1)
          books.put(2, `${books.rows.get(2)!.title}!`, 2)
          yield* Cacheme.invalidate([new Author({ id: 1 }), target])
          assert.strictEqual((yield* shelf)[0], books.rows.get(1)!.title)
        }
        assert.include((yield* Cacheme.explain(new Shelf({ id: 1 }))).reason, { _tag: "Fresh" })
      }).pipe(Effect.provide(TestCache))
    )

    it.effect("an inner answer that was invalidated during the outer lookup refuses the outer one", () =>
      Effect.gen(function* () {
        const books = makeBooks()
        books.put(1, "Emma")
        const used = yield* Deferred.make<void>()
        const go = yield* Deferred.make<void>()
        const shelf = books.read(1).pipe(
          Effect.tap(() => Effect.andThen(Deferred.succeed(used, undefined), Deferred.await(go))),
          Effect.map(({ title }) => [title]),
          Cacheme.memoize(new Shelf({ id: 1 }))
        )
        const first = yield* Effect.forkChild(shelf)
        yield* Deferred.await(used)
        books.put(1, "Clueless")
        yield* Cacheme.invalidate(new Author({ id: 1 }))
        yield* Deferred.succeed(go, undefined)
        assert.deepStrictEqual(yield* Fiber.join(first), ["Emma"])
        assert.deepStrictEqual(yield* shelf, ["Clueless"])
      }).pipe(Effect.provide(TestCache))
    )

    it.effect("dependOn adds what only the lookup knows, and does nothing outside of one", () =>
      Effect.gen(function* () {
        yield* Cacheme.dependOn(new Author({ id: 9 }))
        let n = 0
        const shelf = Effect.sync(() => [`${++n}`]).pipe(
          Effect.tap(() => Cacheme.dependOn(new Author({ id: 9 }), [new Catalog()])),
          Cacheme.memoize(new Shelf({ id: 1 }))
        )
        yield* shelf
        assert.strictEqual((yield* Cacheme.invalidate(new Author({ id: 9 }))).entries, 1)
        yield* shelf
        assert.strictEqual(n, 2)
      }).pipe(Effect.provide(TestCache))
    )

    it.effect("an answer over one whose tags cannot be told is not stored", () =>
      Effect.gen(function* () {
        class Vague extends Node.Class<Vague>()("vague", {
          key: {},
          value: Schema.Int,
          valueTags: () => {
            throw new Error("cannot tell")
          }
        }) {}
        let n = 0
        const shelf = Effect.sync(() => ++n).pipe(
          Cacheme.memoize(new Vague()),
          Effect.map((value) => [String(value)]),
          Cacheme.memoize(new Shelf({ id: 1 }))
        )
        assert.deepStrictEqual([yield* shelf, yield* shelf], [["1"], ["2"]])
      }).pipe(Effect.provide(TestCache), Effect.provideService(References.MinimumLogLevel, "None"))
    )
  })

  describe("explain", () => {
    it.effect("tells why a key is or is not answered", () =>
      Effect.gen(function* () {
        const books = makeBooks()
        books.put(1, "Emma")
        const why = Effect.map(Cacheme.explain(new BookNode({ id: 1 })), ({ message }) => message)
        assert.strictEqual(
          yield* why,
          "book:1 is not answered from the cache: it was never stored, or has been evicted"
        )
        yield* books.read(1)
        assert.strictEqual(yield* why, "book:1 is answered from the cache: it is fresh for 10m more")
        yield* Cacheme.invalidate(new Author({ id: 1 }))
        assert.strictEqual(
          yield* why,
          "book:1 is not answered from the cache: #author:1 was invalidated after its lookup began"
        )
        yield* books.read(1)
        yield* Cacheme.invalidate(new BookNode({ id: 1 }))
        assert.include(yield* why, "book:1 was invalidated")
        yield* books.read(1)
        yield* TestClock.adjust("10 minutes")
        assert.include(yield* why, "its time to live has passed")
        const { storedAs, lookupRunning, answered } = yield* Cacheme.explain(new BookNode({ id: 1 }))
        assert.deepStrictEqual([storedAs, lookupRunning, answered], ["CM:book:1", false, false])
      }).pipe(Effect.provide(TestCache))
    )

    it.effect("tells that a lookup is running, that a node is skipped, that the cache is off", () =>
      Effect.gen(function* () {
        const go = yield* Deferred.make<string>()
        const caller = yield* Effect.forkChild(
          Deferred.await(go).pipe(Cacheme.memoize(new OwnerNode({ id: 1 }))),
          { startImmediately: true }
        )
        assert.isTrue((yield* Cacheme.explain(new OwnerNode({ id: 1 }))).lookupRunning)
        yield* Fiber.interrupt(caller)
        assert.isFalse((yield* Cacheme.explain(new OwnerNode({ id: 1 }))).lookupRunning)
        class Never extends Node.Class<Never>()("never", { key: {}, value: Schema.Int, skip: true }) {}
        assert.strictEqual((yield* Cacheme.explain(new Never())).reason._tag, "Skipped")
        const off = Cacheme.layer({ enabled: false }).pipe(Layer.provide(MemoryStore.layer()))
        const explained = yield* Effect.provide(Cacheme.explain(new OwnerNode({ id: 1 })), off)
        assert.strictEqual(explained.reason._tag, "Disabled")
      }).pipe(Effect.provide(TestCache))
    )
  })

  describe("stats, nodes and events", () => {
    it.effect("count what happened per node", () =>
      Effect.gen(function* () {
        const books = makeBooks()
        books.put(1, "Emma")
        yield* books.read(1)
        yield* books.read(1)
        yield* books.read(1)
        yield* Effect.exit(books.read(2))
        yield* Effect.succeed("Anne").pipe(Cacheme.memoize(new OwnerNode({ id: 1 })))
        const { nodes: stats } = yield* Cacheme.stats
        assert.deepInclude(stats[0], {
          node: "book",
          requests: 4,
          hits: 2,
          misses: 2,
          lookups: 2,
          failures: 1,
          entries: 2
        })
        assert.deepInclude(stats[1], {
          node: "owner",
          requests: 1,
          hits: 0,
          misses: 1,
          lookups: 1,
          entries: 1
        })
        assert.deepStrictEqual(
          (yield* Cacheme.nodes).map(({ name }) => name),
          ["book", "owner"]
        )
      }).pipe(Effect.provide(TestCache))
    )

    it.effect("events tell every invalidation, in order, with its position and cause", () =>
      Effect.gen(function* () {
        const watching = yield* Cacheme.events.pipe(Stream.take(3), Stream.runCollect, (self) =>
          Effect.forkChild(self, { startImmediately: true })
        )
        yield* Cacheme.invalidate(new BookNode({ id: 1 }))
        yield* Effect.void.pipe(Cacheme.mutation(new Author({ id: 1 })))
        yield* Cacheme.invalidate({ pattern: "book:*" })
        const events = yield* Fiber.join(watching)
        assert.deepStrictEqual(
          events.map(({ keys, tags, patterns, cause, position }) => ({
            keys,
            tags,
            patterns,
            cause,
            position
          })),
          [
            { keys: ["book:1"], tags: [], patterns: [], cause: "call", position: 1 },
            { keys: [], tags: ["#author:1"], patterns: [], cause: "mutation", position: 2 },
            { keys: [], tags: [], patterns: ["book:*"], cause: "call", position: 3 }
          ]
        )
      }).pipe(Effect.provide(TestCache))
    )
  })

  describe("bad input", () => {
    it.effect("an ill-typed key inside an effect is a defect that names node and field", () =>
      Effect.gen(function* () {
        const exit = yield* Effect.exit(
          // @ts-expect-error the id is an integer
          Effect.suspend(() => Effect.succeed("x").pipe(Cacheme.memoize(new OwnerNode({ id: "1" }))))
        )
        assert.isTrue(Exit.isFailure(exit))
        const error = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
        assert.match(String(error), /node "owner": field "id"/)
      }).pipe(Effect.provide(TestCache))
    )
  })
})
