import { assert, describe, it } from "@effect/vitest"
import { Effect, Equal, Exit, Hash, HashMap, Layer, Option, PrimaryKey, Schema } from "effect"
import * as Persistable from "effect/persistence/Persistable"
import { Cacheme, CachemeError, MemoryStore, Node, Tag } from "../src/index.ts"
import { reasonOf } from "./support/reasonOf.ts"

class Book extends Schema.Class<Book>("Book")({ id: Schema.Int, title: Schema.String }) {}
class BookNode extends Node.Class<BookNode>()("book", { key: { id: Schema.Int }, value: Book }) {}
class PageNode extends Node.Class<PageNode>()("page", {
  key: { id: Schema.Int, number: Schema.Int },
  value: Schema.String,
  within: BookNode
}) {}
class Shelf extends Node.Class<Shelf>()("shelf", { key: {}, value: Schema.Array(Book) }) {}
class Reader extends Tag.Class<Reader>()("reader", { name: Schema.String, age: Schema.Int }) {}
class Everything extends Tag.Class<Everything>()("everything") {}

const idOf = (node: Node.Any) => node[Node.TypeId].id(node)
const TestCache = Cacheme.layer().pipe(Layer.provide(MemoryStore.layer()))

describe("Node", () => {
  it("an instance is a key: it compares by value, and is a PrimaryKey and a Persistable", () => {
    const key = new BookNode({ id: 1 })
    assert.isTrue(Equal.equals(key, new BookNode({ id: 1 })))
    assert.isFalse(Equal.equals(key, new BookNode({ id: 2 })))
    assert.strictEqual(Hash.hash(key), Hash.hash(new BookNode({ id: 1 })))
    assert.deepStrictEqual(
      HashMap.get(HashMap.make([key, "one"]), new BookNode({ id: 1 })),
      Option.some("one")
    )
    assert.strictEqual(key.id, 1)
    assert.strictEqual(PrimaryKey.value(key), "book:1")
    assert.strictEqual(key[Persistable.symbol].success, Book)
    assert.strictEqual(new Shelf()[Node.TypeId].name, "shelf")
  })

  it("keys are spelled so that a person can read them", () => {
    assert.strictEqual(idOf(new BookNode({ id: 1 })), "book:1")
    assert.strictEqual(idOf(new PageNode({ id: 1, number: 2 })), "book:1>page:2")
    assert.strictEqual(idOf(new Shelf()), "shelf")
    assert.strictEqual(new Reader({ name: "Ann: @home", age: 7 }).id, "#reader:Ann%3A %40home:7")
    assert.strictEqual(new Everything().id, "#everything")
  })

  it.effect("rows become instances, also inside an array", () =>
    Effect.gen(function* () {
      const shelf = yield* Effect.succeed([{ id: 1, title: "Emma", extra: true }]).pipe(
        Cacheme.memoize(new Shelf())
      )
      assert.instanceOf(shelf[0], Book)
      assert.notProperty(shelf[0], "extra")
    }).pipe(Effect.provide(TestCache))
  )

  describe("bad input", () => {
    it("a key field that is unknown, missing or ill-typed neither compiles nor passes", () => {
      for (const [make, definition, field, expected] of [
        // @ts-expect-error a string is no integer
        [() => new BookNode({ id: "1" }), `node "book"`, "id", "number"],
        // @ts-expect-error the field is missing
        [() => new BookNode({}), `node "book"`, "id", ""],
        // @ts-expect-error the field is unknown
        [() => new BookNode({ id: 1, title: "Emma" }), `node "book"`, "title", "only the fields id"],
        [() => new BookNode({ id: 1.5 }), `node "book"`, "id", "integer"],
        [() => new BookNode({ id: Number.NaN }), `node "book"`, "id", ""],
        // @ts-expect-error the second field is missing
        [() => new PageNode({ id: 1 }), `node "page"`, "number", ""],
        // @ts-expect-error tags are no different
        [() => new Reader({ name: "Ann" }), `tag "reader"`, "age", ""],
        // @ts-expect-error tags are no different
        [() => new Reader({ name: 1, age: 1 }), `tag "reader"`, "name", "string"]
      ] as const) {
        const reason = reasonOf(make)
        assert(reason._tag === "InvalidKey")
        assert.deepInclude(reason, { definition, field })
        assert.include(reason.expected, expected)
        assert.include(reason.message, definition)
      }
    })

    it("a key or a tag over 1 KiB", () => {
      class Text extends Node.Class<Text>()("text", { key: { of: Schema.String }, value: Schema.Void }) {}
      class Fact extends Tag.Class<Fact>()("fact", { of: Schema.String }) {}
      assert.isDefined(new Text({ of: "x".repeat(1000) }))
      assert.strictEqual(reasonOf(() => new Text({ of: "x".repeat(1024) }))._tag, "InvalidKey")
      assert.strictEqual(reasonOf(() => new Text({ of: "ü".repeat(600) }))._tag, "InvalidKey")
      assert.strictEqual(reasonOf(() => new Fact({ of: "x".repeat(1024) }))._tag, "InvalidKey")
    })

    it("an invalid Duration, name or parent", () => {
      for (const timeToLive of [Number.NaN, -1, "soon", "-1 second"] as ReadonlyArray<any>) {
        const options = { key: {}, value: Schema.Int, timeToLive }
        const reason = reasonOf(() => class extends Node.Class<any>()("bad", options) {})
        assert.deepInclude(reason, {
          _tag: "InvalidDefinition",
          definition: `node "bad"`,
          field: "timeToLive"
        })
      }
      for (const name of ["", "a:b", "a>b", "#a", "1a", "a b", "x".repeat(101)]) {
        assert.strictEqual(
          reasonOf(() => Node.Class<any>()(name, { key: {}, value: Schema.Int }))._tag,
          "InvalidDefinition"
        )
        assert.strictEqual(reasonOf(() => Tag.Class<any>()(name))._tag, "InvalidDefinition")
      }
      const parentless = reasonOf(() =>
        // @ts-expect-error the key must have the fields of the node it lies within
        Node.Class<any>()("loose", { key: { number: Schema.Int }, value: Schema.Int, within: BookNode })
      )
      assert.deepInclude(parentless, { _tag: "InvalidDefinition", field: "within" })
      assert.include(parentless.message, `field "id"`)
      // @ts-expect-error the class must be named as its own type argument
      class Nameless extends Node.Class()("nameless", { key: {}, value: Schema.Int }) {}
      assert.isFunction(Nameless)
    })

    it.effect("two different definitions of one name, told with both places when they meet", () =>
      Effect.gen(function* () {
        class First extends Node.Class<First>()("twice", { key: {}, value: Schema.Int }) {}
        class Same extends Node.Class<Same>()("twice", { key: {}, value: Schema.Int }) {}
        class Other extends Node.Class<Other>()("twice", { key: {}, value: Schema.String }) {}
        assert.strictEqual(yield* Effect.succeed(1).pipe(Cacheme.memoize(new First())), 1)
        // Hot reload: the same again goes on with what is there.
        assert.strictEqual(yield* Effect.succeed(2).pipe(Cacheme.memoize(new Same())), 1)
        const exit = yield* Effect.exit(Effect.succeed("2").pipe(Cacheme.memoize(new Other())))
        const error = Exit.isFailure(exit) ? exit.cause.reasons[0] : undefined
        const defect = error?._tag === "Die" ? error.defect : undefined
        assert(defect instanceof CachemeError && defect.reason._tag === "DefinitionConflict")
        assert.strictEqual(defect.reason.name, `node "twice"`)
        assert.match(defect.reason.first, /Node\.test\.ts:\d+:\d+/)
        assert.match(defect.reason.second, /Node\.test\.ts:\d+:\d+/)
        assert.strictEqual(defect.reason.difference, "value")

        class Fact extends Tag.Class<Fact>()("fact", { id: Schema.Int }) {}
        class OtherFact extends Tag.Class<OtherFact>()("fact", { id: Schema.String }) {}
        yield* Cacheme.invalidate(new Fact({ id: 1 }))
        assert.isTrue(Exit.hasDies(yield* Effect.exit(Cacheme.invalidate(new OtherFact({ id: "1" })))))
      }).pipe(Effect.provide(TestCache))
    )
  })
})
