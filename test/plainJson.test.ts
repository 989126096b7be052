import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema, SchemaParser } from "effect"
import type * as Node from "../src/Node.ts"
import { isPlainFor } from "../src/plainJson.ts"

const testOf = (schema: Node.AnySchema) => isPlainFor(Schema.toCodecJson(schema).ast)

const Row = Schema.Struct({
  id: Schema.Int,
  price: Schema.Finite,
  title: Schema.NullOr(Schema.String),
  isNew: Schema.optionalKey(Schema.Boolean),
  kind: Schema.Literals(["book", "film"])
})

describe("isPlainFor", () => {
  it("takes what a struct of plain parts decodes to itself, and nothing with a part too many, too few or unlike", () => {
    const isPlain = testOf(Schema.Array(Row))!
    const row = { id: 1, price: 9.5, title: null, kind: "book" }
    assert.isTrue(isPlain([]))
    assert.isTrue(isPlain([row, { ...row, isNew: true, title: "Solaris" }]))
    const { id: _, ...without } = row
    for (const other of [
      { ...row, more: 1 },
      without,
      { ...row, id: 1.5 },
      { ...row, title: 7 },
      { ...row, kind: "song" },
      { ...row, isNew: "yes" },
      null,
      []
    ])
      assert.isFalse(isPlain([row, other]), JSON.stringify(other))
  })

  it("names of what all objects inherit are properties like others", () => {
    const isPlain = testOf(Schema.Struct({ constructor: Schema.String }))!
    assert.isFalse(isPlain({}))
    assert.isTrue(isPlain({ constructor: "a text" }))
  })

  it("cannot tell of what is transformed, checked, made an instance, or told apart by the first that fits", () => {
    for (const schema of [
      Schema.Date,
      Schema.Struct({ at: Schema.Date }),
      Schema.String.check(Schema.isMinLength(2)),
      Schema.Union([Schema.Struct({ a: Schema.Int }), Schema.Struct({ a: Schema.Int, b: Schema.Int })]),
      class Book extends Schema.Class<Book>("Book")({ id: Schema.Int }) {},
      Schema.Struct({}),
      Schema.Any
    ])
      assert.isUndefined(testOf(schema))
  })

  it("whatever it takes decodes to itself", () => {
    const isPlain = testOf(Row)!
    const decode = SchemaParser.decodeUnknownEffect(Schema.toCodecJson(Row))
    const names = ["id", "price", "title", "isNew", "kind", "more"]
    const parts = [undefined, null, 1, 1.5, "book", true]
    let taken = 0
    for (let choice = 0; choice < parts.length ** names.length; choice++) {
      const value = Object.fromEntries(
        names.map((name, i) => [name, parts[Math.floor(choice / parts.length ** i) % parts.length]])
      )
      // What is undefined is not there.
      const json: unknown = JSON.parse(JSON.stringify(value))
      if (!isPlain(json)) continue
      taken++
      assert.deepStrictEqual(Effect.runSync(decode(json)), json)
    }
    // One id, two prices, two titles, two kinds of news and one kind.
    assert.strictEqual(taken, 8)
  })
})
