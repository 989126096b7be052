import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import * as Node from "../../../src/Node.ts"
import * as Pattern from "../../../src/Pattern.ts"
import * as Names from "../../../src/store/redis/names.ts"

interface Parts {
  readonly name?: string
  readonly key?: Record<string, Node.AnySchema>
  readonly value?: Node.AnySchema
  readonly error?: Node.AnySchema
  readonly version?: string | number
}

const define = ({
  name = "book",
  key = { id: Schema.Int },
  value = Schema.String,
  error,
  version
}: Parts = {}): Node.NodeDefinition =>
  class extends Node.Class<any>()(name, { key, value, error, version }) {}[Node.TypeId]

/** Parts of texts: whatever may be taken for a separator, an escape or a wildcard. */
const Tricky = Schema.Array(
  Schema.Literals([
    ...`{ } : % . * ? [ ] \\ ^ - \n 0 1 u # > a é`.split(" "),
    "%u0025",
    "%7B",
    "entry",
    "{0}",
    "😀",
    "\ud83d",
    "\ude00"
  ])
)
const tricky: [typeof Tricky, ...Array<typeof Tricky>] = [Tricky, Tricky, Tricky, Tricky, Tricky, Tricky]
type Tricks = ReadonlyArray<ReadonlyArray<string>>
const texts = (tricks: Tricks): Array<string> => tricks.map((parts) => parts.join(""))

/** What Redis does with a glob: `stringmatchlen` of its util.c, over bytes. */
const redisMatches = (pattern: Buffer, text: Buffer, p = 0, t = 0): boolean => {
  for (; p < pattern.length; p++) {
    const c = String.fromCharCode(pattern[p]!)
    if (c === "*") {
      while (pattern[p + 1] === 42) p++
      if (p + 1 === pattern.length) return true
      for (let from = t; from <= text.length; from++)
        if (redisMatches(pattern, text, p + 1, from)) return true
      return false
    }
    if (t >= text.length) return false
    if (c === "\\" && p + 1 < pattern.length) p++
    else if (c === "[") throw new Error("no classes are left")
    if (c !== "?" && pattern[p] !== text[t]) return false
    t++
  }
  return t === text.length
}

describe("names", () => {
  const names = Names.make("CM:")
  const book = define()

  it("are these", () => {
    assert.deepStrictEqual(
      [
        names.state(0),
        names.log(0),
        names.position(0),
        names.events(0),
        names.entry(book, "book:100"),
        names.lease(book, "book:100"),
        names.entryPattern("book:1*")
      ],
      [
        "CM:1:{0}:state",
        "CM:1:{0}:log",
        "CM:1:{0}:position",
        "CM:1:{0}:events",
        `CM:1:{0}:entry:1.${Names.fingerprint(book)}:book:100`,
        `CM:1:{0}:lease:1.${Names.fingerprint(book)}:book:100`,
        "CM:1:{0}:entry:*.???????????:book:1*"
      ]
    )
  })

  it.prop(
    "two different names never meet, also once they are UTF-8",
    tricky,
    (tricks) => {
      const [prefix, prefix2, version, version2, id, id2] = texts(tricks)
      const definitions = [define({ version: `v${version}` }), define({ version: `v${version2}` })]
      const met = new Map<string, string>()
      for (const p of [prefix!, prefix2!])
        for (const [i, v] of [version, version2].entries())
          for (const k of [`k${id!}`, `k${id2!}`]) {
            const made = Names.make(p)
            for (const kind of ["entry", "lease"] as const) {
              const name = Buffer.from(made[kind](definitions[i]!, k)).toString("hex")
              const parts = JSON.stringify([p, v, k, kind])
              assert.strictEqual(met.get(name) ?? parts, parts)
              met.set(name, parts)
            }
            for (const name of [made.state(0), made.log(0), made.position(0), made.events(0)])
              assert.isFalse(met.has(Buffer.from(name).toString("hex")))
          }
    },
    { arbitrary: { runs: 500 } }
  )

  it.prop(
    "a key is read back from the name of its entry, and from no other",
    tricky,
    (tricks) => {
      const [prefix = "", version, id = ""] = texts(tricks)
      const made = Names.make(prefix, ["0", "1", "x}y"])
      const definition = define({ version: `v${version}` })
      const name = made.entry(definition, id)
      assert.strictEqual(made.idOf(Buffer.from(name).toString()), id)
      for (const other of [
        made.lease(definition, id),
        made.state(0),
        Names.make(`${prefix}x`, ["0", "1"]).entry(definition, id),
        Names.make(prefix, ["2"]).entry(definition, id),
        name.replace("1:{", "2:{"),
        `x${name}`,
        made.entry(definition, "").slice(0, -1)
      ])
        if (other !== name) assert.isUndefined(made.idOf(other), other)
    },
    { arbitrary: { runs: 500 } }
  )

  it("what no name is spelled like has no key", () => {
    const begin = `CM:1:{0}:entry:1.${Names.fingerprint(book)}`
    assert.strictEqual(names.idOf(`${begin}:a`), "a")
    for (const name of [
      "",
      "CM:",
      begin,
      `${begin}x:a`,
      `${begin}:%u0041`,
      "CM:1:{0}:entry:a",
      "CM:1:{0}:entry:1.short:a"
    ])
      assert.isUndefined(names.idOf(name), name)
  })

  it("the cell is the only hash tag of a name", () => {
    for (const prefix of ["{a}", "a{", "{}", "}{"]) {
      const made = Names.make(prefix, ["7"])
      for (const name of [made.state(0), made.entry(define({ version: "{b}" }), "{c}:{d}")])
        assert.strictEqual(/\{(.*?)\}/.exec(name)?.[1], "7")
    }
  })

  describe("cellOf", () => {
    it("is the same in every process, for ever", () => {
      const made = Names.make(
        "",
        Array.from({ length: 1000 }, (_, i) => String(i))
      )
      assert.deepStrictEqual(
        ["", "book:1", "book:2", "book:100>owner", "é😀"].map((id) => made.cellOf(id)),
        [923, 313, 617, 146, 40]
      )
    })

    it("is always 0 where there is one", () => assert.strictEqual(names.cellOf("book:1"), 0))

    it("spreads keys evenly, and entry and lease follow it", () => {
      const made = Names.make("", ["a", "b", "c"])
      const counts = [0, 0, 0]
      for (let i = 0; i < 30_000; i++) counts[made.cellOf(`book:${i}`)]!++
      for (const count of counts) assert.closeTo(count, 10_000, 500)
      for (const id of ["book:1", "book:2", "book:3", "book:4"]) {
        const root = `1:{${["a", "b", "c"][made.cellOf(id)]}}:`
        assert.isTrue(made.entry(book, id).startsWith(root))
        assert.isTrue(made.lease(book, id).startsWith(root))
      }
    })
  })

  describe("entryPattern", () => {
    it("leaves what is literal as it is", () => {
      const begin = "CM:1:{0}:entry:*.???????????:"
      for (const [glob, widened] of [
        ["book:1*", "book:1*"],
        ["*", "*"],
        ["a?c", "a?*c"],
        ["??*?", "???*"],
        ["[ab]c", "?*c"],
        ["[^]]c", String.raw`?*\]c`],
        ["[a\\]b", "?*"],
        ["[ab", "?*"],
        ["\\*\\?\\[\\\\]", "\\*\\?\\[\\\\\\]"],
        ["a\\", "a\\\\"],
        ["a%2Fb", "a%*2Fb"]
      ] as const)
        assert.strictEqual(names.entryPattern(glob), begin + widened)
      assert.strictEqual(
        Names.make("[a]*{b}", ["x", "y"]).entryPattern("c"),
        String.raw`\[a\]\*%7Bb%7D1:{*}:entry:*.???????????:c`
      )
    })

    it.prop(
      "reaches every entry whose key matches, as Redis matches",
      tricky,
      (tricks) => {
        const [prefix = "", version, id = "", other = ""] = texts(tricks)
        const made = Names.make(prefix)
        const definition = define({ version: `v${version}` })
        const name = Buffer.from(made.entry(definition, id))
        const escaped = id.replaceAll(/[*?[\]\\]/g, String.raw`\$&`)
        const units = Array.from({ length: id.length }, (_, i) => id[i]!)
        const half = Math.floor(id.length / 2)
        for (const glob of [
          escaped,
          `${escaped}*`,
          "*",
          "?".repeat(id.length),
          units.map((unit, i) => (i % 3 === 0 ? "?" : `\\${unit}`)).join(""),
          units.map((unit, i) => (i === half ? `[\\${unit}x]` : `\\${unit}`)).join(""),
          units.map((unit, i) => (i === half ? `[^x]` : `\\${unit}`)).join(""),
          other,
          `*${other}*`
        ]) {
          // None other is a pattern.
          if (glob.length === 0 || glob.length > 256 || !glob.isWellFormed()) continue
          if (!Pattern.makeUnsafe(glob).matches(id)) continue
          assert.isTrue(redisMatches(Buffer.from(made.entryPattern(glob)), name), glob)
        }
      },
      { arbitrary: { runs: 500 } }
    )

    it("does not reach other keys, kinds or prefixes", () => {
      const glob = Buffer.from(names.entryPattern("book:1*"))
      for (const name of [
        names.entry(book, "book:2"),
        names.entry(book, "xbook:1"),
        names.lease(book, "book:1"),
        Names.make("X:").entry(book, "book:1")
      ])
        assert.isFalse(redisMatches(glob, Buffer.from(name)), name)
    })
  })

  describe("fingerprint", () => {
    const struct = (fields: Schema.Struct.Fields): Parts => ({ value: Schema.Struct(fields) as any })
    /** Each made anew. */
    const makers: ReadonlyArray<() => Parts> = [
      () => ({}),
      () => ({ name: "booklet" }),
      () => ({ version: 2 }),
      () => ({ version: "1" }),
      () => ({ key: { number: Schema.Int } }),
      () => ({ key: { id: Schema.String } }),
      () => ({ error: Schema.String }),
      () => ({ value: Schema.Int, error: Schema.String }),
      () => ({ value: Schema.Finite }),
      () => ({ value: Schema.FiniteFromString }),
      () => ({ value: Schema.NullOr(Schema.String) }),
      () => ({ value: Schema.String.check(Schema.isMinLength(1)) }),
      () => ({ value: Schema.String.check(Schema.isMinLength(2)) }),
      () => ({ value: Schema.Date }),
      () => ({ value: Schema.DateFromString }),
      () => ({ value: Schema.DateFromMillis }),
      () => struct({ a: Schema.String }),
      () => struct({ b: Schema.String }),
      () => struct({ a: Schema.String, b: Schema.String }),
      () => struct({ a: Schema.Int }),
      () => struct({ a: Schema.optional(Schema.String) }),
      () => struct({ a: Schema.optionalKey(Schema.String) }),
      () => struct({ a: Schema.Option(Schema.String) }),
      () => ({ value: Schema.Struct({ a: Schema.String }).pipe(Schema.encodeKeys({ a: "b" })) }),
      () => ({ value: class A extends Schema.Class<A>("A")({ a: Schema.String }) {} }),
      () => ({ value: class B extends Schema.Class<B>("B")({ a: Schema.String }) {} }),
      () => {
        interface Tree {
          readonly leaves: ReadonlyArray<Tree>
        }
        const Tree = Schema.Struct({
          leaves: Schema.Array(Schema.suspend((): Schema.Codec<Tree> => Tree as any))
        })
        return { value: Tree as any }
      }
    ]

    it("is the same for two separately made equal definitions", () => {
      for (const make of makers) {
        const made = Names.fingerprint(define(make()))
        assert.match(made, /^[\w-]{11}$/)
        assert.strictEqual(Names.fingerprint(define(make())), made)
      }
    })

    it("differs by name, version, key and schemas", () => {
      const all = makers.map((make) => Names.fingerprint(define(make())))
      assert.lengthOf(new Set(all), makers.length)
    })

    it("tells apart what only its JSON, or only its type, shows", () => {
      const Whole = Schema.String.pipe(Schema.decodeTo(Schema.FiniteFromString))
      const fingerprints = [Schema.FiniteFromString, Schema.String, Schema.Finite, Schema.BigInt].map(
        (value) => Names.fingerprint(define({ value }))
      )
      assert.lengthOf(new Set(fingerprints), 4)
      assert.match(Names.fingerprint(define({ value: Whole })), /^[\w-]{11}$/)
    })

    it("is there for a schema without JSON", () => {
      const value = Schema.Struct({ [Symbol.for("a")]: Schema.Int })
      assert.match(Names.fingerprint(define({ value })), /^[\w-]{11}$/)
    })
  })
})
