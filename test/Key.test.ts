import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as Key from "../src/Key.ts"

const fields = {
  text: Schema.String,
  number: Schema.Finite,
  either: Schema.Union([Schema.Finite, Schema.String]),
  flag: Schema.Boolean
}
const spelling = Key.spelling("node", fields)
const AnyKey = Schema.Struct(fields)

describe("Key", () => {
  it.effect.prop(
    "unequal keys have unequal texts, and equal ones equal texts",
    [AnyKey, AnyKey],
    ([a, b]) =>
      Effect.sync(() => {
        const isEqual = Object.keys(fields).every((field) => {
          const [left, right] = [a[field as "text"], b[field as "text"]] as ReadonlyArray<unknown>
          return left === right
        })
        assert.strictEqual(spelling.text(a) === spelling.text(b), isEqual)
        assert.strictEqual(spelling.text({ ...a }), spelling.text(a))
      }),
    { arbitrary: { runs: 500 } }
  )

  it.effect.prop("the parts of a key never look like separators", [Schema.String], ([text]) =>
    Effect.sync(() => assert.notMatch(Key.escape(text), /[:>*#@]/))
  )

  for (const [name, schema] of [
    ["string", Schema.String],
    ["number", Schema.Finite],
    ["bigint", Schema.BigInt]
  ] as const) {
    it.effect.prop(
      `a single ${name} is its own raw key, and is read back from its text`,
      [schema],
      ([value]) =>
        Effect.sync(() => {
          const single = Key.spelling("node", { of: schema })
          const raw = single.raw({ of: value })
          assert.strictEqual(raw, value === 0 ? 0 : value)
          assert.strictEqual(single.write(raw), single.text({ of: value }))
          assert.strictEqual(single.parse(single.text({ of: value })), raw)
        })
    )
  }

  it("a text that is no key of a number is told", () => {
    const single = Key.spelling("node", { of: Schema.Finite })
    for (const text of ["", "01", "1e1", "x", " 1", "0x1"]) assert.isUndefined(single.parse(text), text)
    assert.isUndefined(Key.spelling("node", { of: Schema.BigInt }).parse("1.5"))
  })

  it("is measured in bytes", () => {
    assert.isFalse(Key.isTooLong("x".repeat(1024)))
    assert.isTrue(Key.isTooLong("x".repeat(1025)))
    assert.isTrue(Key.isTooLong("ü".repeat(513)))
    assert.isFalse(Key.isTooLong("ü".repeat(512)))
  })
})
