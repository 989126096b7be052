import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  DateTime,
  Duration,
  Effect,
  Equal,
  Exit,
  Fiber,
  HashMap,
  Option,
  Redacted,
  Schema,
  SchemaGetter
} from "effect"
import { TestClock } from "effect/testing"
import * as Codec from "../src/Codec.ts"
import { absence } from "../src/Entry.ts"
import * as Node from "../src/Node.ts"

class Book extends Schema.Class<Book>("Book")({ id: Schema.Int, title: Schema.String }) {}
class Pamphlet extends Schema.Class<Pamphlet>("Pamphlet")({ id: Schema.Int, title: Schema.String }) {}
class Gone extends Schema.TaggedError<Gone>("Gone")("Gone", { since: Schema.Date }) {}

const definitionOf = (value: Node.AnySchema, error?: Node.AnySchema): Node.NodeDefinition =>
  class extends Node.Class<any>()("thing", { key: { id: Schema.Int }, value, error }) {}[Node.TypeId]

/** What is read back of an outcome, and the JSON it took. */
const through = Effect.fnUntraced(function* (
  definition: Node.NodeDefinition,
  exit: Exit.Exit<unknown, unknown>
) {
  const { kind, json } = yield* Codec.encode(definition, exit)
  const read = yield* Codec.decode(definition, kind, kind === "absent" ? undefined : JSON.parse(json))
  return { kind, json, read }
})

const whyNot = (schema: Node.AnySchema, value: unknown) =>
  Effect.map(Effect.flip(Codec.encode(definitionOf(schema), Exit.succeed(value))), ({ why }) => why)

describe("Codec", () => {
  describe("encode and decode", () => {
    const cases: ReadonlyArray<readonly [string, Node.AnySchema, unknown, json: string]> = [
      ["a class", Book, new Book({ id: 1, title: "Solaris" }), `{"id":1,"title":"Solaris"}`],
      ["a Date", Schema.Date, new Date(5), `"1970-01-01T00:00:00.005Z"`],
      ["a bigint", Schema.BigInt, 12345678901234567890n, `"12345678901234567890"`],
      [
        "an Option",
        Schema.Option(Schema.Date),
        Option.some(new Date(5)),
        `{"_tag":"Some","value":"1970-01-01T00:00:00.005Z"}`
      ],
      ["no Option", Schema.Option(Schema.Date), Option.none(), `{"_tag":"None"}`],
      ["undefined", Schema.UndefinedOr(Schema.String), undefined, `null`],
      ["nothing", Schema.Void, undefined, `null`],
      ["null", Schema.NullOr(Schema.String), null, `null`],
      [
        "an optional field",
        Schema.Struct({ a: Schema.optional(Schema.Int) }),
        { a: undefined },
        `{"a":null}`
      ],
      ["a missing field", Schema.Struct({ a: Schema.optional(Schema.Int) }), {}, `{}`],
      ["what is no number", Schema.Number, Number.NaN, `"NaN"`],
      [
        "a Map",
        Schema.ReadonlyMap(Schema.Date, Schema.BigInt),
        new Map([[new Date(5), 2n]]),
        `[["1970-01-01T00:00:00.005Z","2"]]`
      ],
      ["a Set", Schema.ReadonlySet(Schema.BigInt), new Set([2n]), `["2"]`],
      ["a HashMap", Schema.HashMap(Schema.String, Schema.Int), HashMap.make(["a", 1]), `[["a",1]]`],
      ["bytes", Schema.Uint8Array, new Uint8Array([1, 2, 255]), `"AQL/"`],
      ["a Duration", Schema.Duration, Duration.infinity, `{"_tag":"Infinity"}`],
      ["a moment", Schema.DateTimeUtc, DateTime.makeUnsafe(5), `"1970-01-01T00:00:00.005Z"`],
      ["a URL", Schema.URL, new URL("https://a.example/?b"), `"https://a.example/?b"`],
      ["a transformed field", Schema.Struct({ a: Schema.FiniteFromString }), { a: 5 }, `{"a":"5"}`],
      ["half of a surrogate pair", Schema.String, "\ud83d", String.raw`"\ud83d"`],
      [
        "a field called __proto__",
        Schema.Record(Schema.String, Schema.String),
        JSON.parse(`{"__proto__":"x"}`),
        `{"__proto__":"x"}`
      ],
      ["a secret that its schema writes", Schema.RedactedFromValue(Schema.String), Redacted.make("s"), `"s"`]
    ]
    for (const [name, schema, value, json] of cases) {
      it.effect(`${name} comes back as it was`, () =>
        Effect.gen(function* () {
          const result = yield* through(definitionOf(schema), Exit.succeed(value))
          assert.strictEqual(result.kind, "value")
          assert.strictEqual(result.json, json)
          assert.deepStrictEqual(result.read, Exit.succeed(value))
        })
      )
    }

    const Everything = Schema.Struct({
      book: Book,
      choice: Schema.Union([
        Schema.TaggedStruct("A", { at: Schema.Date }),
        Schema.TaggedStruct("B", { count: Schema.BigInt })
      ]),
      maybe: Schema.optional(Schema.NullOr(Schema.Finite)),
      either: Schema.Union([Schema.Date, Schema.String, Schema.BigInt]),
      option: Schema.Option(Schema.String),
      map: Schema.ReadonlyMap(Schema.String, Schema.Date),
      bytes: Schema.Uint8Array,
      names: Schema.Record(Schema.String, Schema.Array(Schema.String)),
      date: Schema.DateFromString
    })
    const isSame = Schema.toEquivalence(Everything)

    it.effect.prop(
      "a value comes back as it was, or is not written",
      [Schema.toType(Everything)],
      ([value]) =>
        Effect.gen(function* () {
          const definition = definitionOf(Everything)
          const written = yield* Effect.exit(Codec.encode(definition, Exit.succeed(value)))
          if (Exit.isFailure(written)) {
            // Of this value only `maybe` and `either` may be others' as well.
            assert.match(JSON.stringify(written), /its JSON is another value's as well/)
            return
          }
          const read = yield* Codec.decode(definition, "value", JSON.parse(written.value.json))
          assert.isTrue(Exit.isSuccess(read) && isSame(read.value as typeof value, value))
        }),
      { arbitrary: { runs: 300 } }
    )

    it.effect.prop(
      "what a class is made of comes back as the class",
      [Schema.Struct(Book.fields)],
      ([fields]) =>
        Effect.gen(function* () {
          const { read } = yield* through(definitionOf(Book), Exit.succeed(new Book(fields)))
          assert.isTrue(Exit.isSuccess(read) && read.value instanceof Book)
          assert.isTrue(Equal.equals(read, Exit.succeed(new Book(fields))))
        })
    )

    it.effect("a declared failure comes back as a failure", () =>
      Effect.gen(function* () {
        const failure = Exit.fail(new Gone({ since: new Date(5) }))
        const { kind, json, read } = yield* through(definitionOf(Book, Gone), failure)
        assert.strictEqual(kind, "error")
        assert.strictEqual(json, `{"_tag":"Gone","since":"1970-01-01T00:00:00.005Z"}`)
        assert.isTrue(Exit.isFailure(read) && Cause.squash(read.cause) instanceof Gone)
        assert.deepStrictEqual((yield* Effect.flip(read as Exit.Exit<never, Gone>)).since, new Date(5))
      })
    )

    it.effect("that a batch had no answer comes back as just that", () =>
      Effect.gen(function* () {
        const { kind, json, read } = yield* through(definitionOf(Book), absence)
        assert.deepStrictEqual([kind, json], ["absent", ""])
        assert.strictEqual(read, absence)
      })
    )

    it.effect("a failure that equals an absence is a failure", () =>
      Effect.gen(function* () {
        const { kind, read } = yield* through(definitionOf(Book, Schema.String), Exit.fail("absent"))
        assert.strictEqual(kind, "error")
        assert.notStrictEqual(read, absence)
        assert.deepStrictEqual(read, Exit.fail("absent"))
      })
    )

    it.effect("excess properties survive neither writing nor reading", () =>
      Effect.gen(function* () {
        const definition = definitionOf(Schema.Struct({ id: Schema.Int }))
        const { json } = yield* Codec.encode(definition, Exit.succeed({ id: 1, password: "x" }))
        assert.strictEqual(json, `{"id":1}`)
        const read = yield* Codec.decode(definition, "value", { id: 1, password: "x" })
        assert.deepStrictEqual(read, Exit.succeed({ id: 1 }))
      })
    )

    it("is done at once where no schema waits", () => {
      const definition = definitionOf(Book, Gone)
      for (const exit of [
        Exit.succeed(new Book({ id: 1, title: "" })),
        Exit.fail(new Gone({ since: new Date(5) })),
        absence
      ])
        assert.isTrue(Exit.isExit(Codec.encode(definition, exit)))
      assert.isTrue(Exit.isExit(Codec.decode(definition, "value", { id: 1, title: "" })))
      assert.isTrue(Exit.isExit(Codec.decode(definition, "absent", undefined)))
    })

    it.effect("a transformation may wait", () =>
      Effect.gen(function* () {
        const Slow = Schema.String.pipe(
          Schema.decodeTo(Schema.String, {
            decode: SchemaGetter.transformEffect((text: string) =>
              Effect.delay(Effect.succeed(`${text}!`), 1)
            ),
            encode: SchemaGetter.transformEffect((text: string) =>
              Effect.delay(Effect.succeed(text.slice(0, -1)), 1)
            )
          })
        )
        const fiber = yield* Effect.forkChild(through(definitionOf(Slow), Exit.succeed("hi!")))
        yield* TestClock.adjust(2)
        const { json, read } = yield* Fiber.join(fiber)
        assert.strictEqual(json, `"hi"`)
        assert.deepStrictEqual(read, Exit.succeed("hi!"))
      })
    )
  })

  describe("encode", () => {
    it.effect("refuses what would be read back as something else", () =>
      Effect.gen(function* () {
        const another = "its JSON is another value's as well"
        const Maybe = Schema.Struct({ a: Schema.optional(Schema.NullOr(Schema.String)) })
        assert.strictEqual(yield* whyNot(Maybe, { a: undefined }), another)
        assert.strictEqual(
          yield* whyNot(Schema.Union([Schema.Date, Schema.String]), "1970-01-01T00:00:00.005Z"),
          another
        )
        assert.strictEqual(
          yield* whyNot(Schema.Union([Book, Pamphlet]), new Pamphlet({ id: 1, title: "" })),
          another
        )
        assert.strictEqual(yield* whyNot(Schema.Any, new Date(5)), another)
        assert.strictEqual(yield* whyNot(Schema.Array(Schema.Any), [new Map([[1, 2]])]), another)
      })
    )

    it.effect("writes what such a schema leaves no doubt of", () =>
      Effect.gen(function* () {
        const Maybe = Schema.Struct({ a: Schema.optional(Schema.NullOr(Schema.String)) })
        for (const [schema, value] of [
          [Maybe, { a: null }],
          [Maybe, {}],
          [Schema.Union([Schema.Date, Schema.String]), "Solaris"],
          [Schema.Union([Book, Pamphlet]), new Book({ id: 1, title: "" })],
          [Schema.Any, { a: [1, null] }]
        ] as const) {
          const { read } = yield* through(definitionOf(schema), Exit.succeed(value))
          assert.deepStrictEqual(read, Exit.succeed(value))
        }
      })
    )

    it.effect("refuses what has no JSON", () =>
      Effect.gen(function* () {
        assert.strictEqual(yield* whyNot(Schema.Any, () => 1), "it has no JSON")
        assert.match(yield* whyNot(Schema.Any, { a: 1n }), /BigInt/)
        assert.match(yield* whyNot(Schema.Unknown, new Date(5)), /Expected/)
        assert.match(yield* whyNot(Schema.instanceOf(Date), new Date(5)), /Expected/)
        assert.match(yield* whyNot(Schema.Struct({ [Symbol.for("a")]: Schema.Int }), {}), /must be strings/)
        assert.match(yield* whyNot(Book, { id: "x" }), /Expected/)
      })
    )

    it.effect("refuses secrets, unless their schema says how they are written", () =>
      Effect.gen(function* () {
        for (const schema of [
          Schema.Redacted(Schema.String),
          Schema.Struct({ a: Schema.Option(Schema.Array(Schema.Redacted(Schema.String))) }),
          Schema.NullOr(Schema.Redacted(Schema.String))
        ])
          assert.match(yield* whyNot(schema, null), /may hold a Redacted/)
      })
    )

    it.effect("refuses a value that is too deep", () =>
      Effect.gen(function* () {
        interface Tree {
          readonly leaves: ReadonlyArray<Tree>
        }
        const Tree = Schema.Struct({
          leaves: Schema.Array(Schema.suspend((): Schema.Codec<Tree> => Tree as Schema.Codec<Tree>))
        })
        let tree: Tree = { leaves: [] }
        for (let i = 0; i < 100_000; i++) tree = { leaves: [tree] }
        assert.match(yield* whyNot(Tree, tree), /stack/)
      })
    )

    it.effect("refuses what is neither an answer nor a single declared failure", () =>
      Effect.gen(function* () {
        const definition = definitionOf(Book, Gone)
        for (const exit of [
          Exit.die("x"),
          Exit.interrupt(1),
          Exit.failCause(Cause.combine(Cause.fail(new Gone({ since: new Date() })), Cause.die("x")))
        ]) {
          const { why } = yield* Effect.flip(Codec.encode(definition, exit))
          assert.strictEqual(why, "it is neither an answer nor a single failure")
        }
        const { why } = yield* Effect.flip(Codec.encode(definition, Exit.fail("x")))
        assert.match(why, /Expected/)
      })
    )
  })

  describe("decode", () => {
    it.effect("refuses what the schema does not accept, and says where", () =>
      Effect.gen(function* () {
        const { _tag, why } = yield* Effect.flip(
          Codec.decode(definitionOf(Book), "value", { id: 1.5, title: "" })
        )
        assert.strictEqual(_tag, "Unreadable")
        assert.match(why, /integer.*\["id"\]/)
        yield* Effect.flip(Codec.decode(definitionOf(Book), "error", {}))
        yield* Effect.flip(Codec.decode(definitionOf(Book, Gone), "error", { _tag: "Gone" }))
      })
    )

    it.effect("a transformation that throws makes an entry unreadable", () =>
      Effect.gen(function* () {
        const Broken = Schema.String.pipe(
          Schema.decodeTo(Schema.String, {
            decode: SchemaGetter.transform((): string => {
              throw new Error("broken\n here")
            }),
            encode: SchemaGetter.passthrough()
          })
        )
        const { why } = yield* Effect.flip(Codec.decode(definitionOf(Broken), "value", "x"))
        assert.strictEqual(why, "broken here")
      })
    )

    it.effect.prop("garbage is unreadable or the schema's", [Schema.Json], ([json]) =>
      Effect.gen(function* () {
        const schema = Schema.NullOr(Schema.Struct({ id: Schema.Int }))
        const exit = yield* Effect.exit(Codec.decode(definitionOf(schema), "value", json))
        if (Exit.isFailure(exit)) return assert.match(JSON.stringify(exit), /Unreadable/)
        assert.isTrue(Exit.isSuccess(exit.value) && Schema.is(schema)(exit.value.value))
      })
    )
  })

  describe("accept", () => {
    it.effect("makes rows the schema's, and tells what it does not accept", () =>
      Effect.gen(function* () {
        const definition = definitionOf(Book, Gone)
        const accepted = yield* Codec.accept(definition, Exit.succeed({ id: 1, title: "", excess: 1 }))
        assert.deepStrictEqual(accepted, {
          _tag: "Storable",
          exit: Exit.succeed(new Book({ id: 1, title: "" }))
        })
        const rejected = yield* Codec.accept(definition, Exit.succeed({ id: 1.5, title: "" }))
        assert.strictEqual(rejected._tag, "Rejected")
        const gone = new Gone({ since: new Date(5) })
        const failed = yield* Codec.accept(definition, Exit.fail(gone))
        assert.deepStrictEqual(failed, { _tag: "Storable", exit: Exit.fail(gone) })
        for (const exit of [Exit.fail("x"), Exit.die("x")])
          assert.deepStrictEqual(yield* Codec.accept(definition, exit), { _tag: "Undeclared" })
      })
    )
  })
})
