import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { CachemeError } from "../src/index.ts"
import * as Pattern from "../src/Pattern.ts"

/** What Redis does (`stringmatchlen` in util.c), written as it is there: recursive, and without any care for time. */
const redis = (glob: string, text: string): boolean => {
  if (glob === "") return text === ""
  const [char, rest] = [glob[0]!, glob.slice(1)]
  if (char === "*") return redis(rest, text) || (text !== "" && redis(glob, text.slice(1)))
  if (text === "") return false
  if (char === "?") return redis(rest, text.slice(1))
  if (char === "[") {
    let i = 1
    const negated = glob[i] === "^"
    if (negated) i++
    let found = false
    while (i < glob.length && glob[i] !== "]") {
      if (glob[i] === "\\" && i + 1 < glob.length) i++
      const from = glob[i]!
      if (glob[i + 1] === "-" && i + 2 < glob.length && glob[i + 2] !== "]") {
        const to = glob[i + 2]!
        const [low, high] = from <= to ? [from, to] : [to, from]
        if (low <= text[0]! && text[0]! <= high) found = true
        i += 3
      } else {
        if (text[0] === from) found = true
        i++
      }
    }
    return found !== negated && redis(glob.slice(i + 1), text.slice(1))
  }
  const literal = char === "\\" && rest !== "" ? rest[0] : char
  return text[0] === literal && redis(glob.slice(char === "\\" && rest !== "" ? 2 : 1), text.slice(1))
}

const Glob = Schema.Array(Schema.Literals(["a", "b", "*", "?", "[", "]", "^", "-", "\\", ":"])).check(
  Schema.isMinLength(1),
  Schema.isMaxLength(8)
)
const Text = Schema.Array(Schema.Literals(["a", "b", "c", "[", "]", "-", "\\", ":"])).check(
  Schema.isMaxLength(8)
)

describe("Pattern", () => {
  it.effect.prop(
    "matches what Redis matches",
    [Glob, Text],
    ([glob, text]) =>
      Effect.sync(() => {
        const expected = redis(glob.join(""), text.join(""))
        assert.strictEqual(Pattern.makeUnsafe(glob.join("")).matches(text.join("")), expected)
      }),
    { arbitrary: { runs: 3000 } }
  )

  it("matches keys as one would think", () => {
    const keys = ["book:1", "book:10", "book:1>owner", "author:1", "book:*"]
    const matched = (glob: string) => keys.filter((key) => Pattern.makeUnsafe(glob).matches(key))
    assert.deepStrictEqual(matched("book:*"), ["book:1", "book:10", "book:1>owner", "book:*"])
    assert.deepStrictEqual(matched("book:?"), ["book:1", "book:*"])
    assert.deepStrictEqual(matched("book:\\*"), ["book:*"])
    assert.deepStrictEqual(matched("[ab]*:1"), ["book:1", "author:1"])
    assert.deepStrictEqual(matched("*>owner"), ["book:1>owner"])
    assert.deepStrictEqual(matched("BOOK:*"), [])
  })

  it("takes no longer than key × pattern, whatever the stars", () => {
    // By backtracking, this would take until the end of time.
    assert.isFalse(Pattern.makeUnsafe(`${"*a".repeat(100)}b`).matches("a".repeat(1024)))
  })

  it("is refused when it is empty, has over 256 characters, or half of one", () => {
    for (const glob of ["", "*".repeat(257), "book:\uD83D*"]) {
      try {
        Pattern.makeUnsafe(glob)
        assert.fail("was accepted")
      } catch (error) {
        assert(error instanceof CachemeError && error.reason._tag === "InvalidTarget")
      }
    }
    assert.isTrue(Pattern.makeUnsafe("*".repeat(256)).matches("x"))
  })
})
