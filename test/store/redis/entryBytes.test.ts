import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Schema } from "effect"
import type { Encoded } from "../../../src/Codec.ts"
import * as Compression from "../../../src/store/redis/compression.ts"
import * as EntryBytes from "../../../src/store/redis/entryBytes.ts"

const header: EntryBytes.Header = {
  incarnation: "207534187459021",
  startedAt: 1_790_000_000_000_123,
  expiresAt: 1_790_003_600_000,
  took: 12,
  keep: { aged: 0, invalidated: 60_000 },
  tags: ["@book:100", "#shelf:é"]
}

const value: Encoded = { kind: "value", json: `{"id":100,"title":"Solárîs"}` }

const solaris = `{"title":"${"Solaris ".repeat(8)}"}`

/** What is read back: the header without its places in the bytes, and the payload. */
const read = Effect.fnUntraced(function* (bytes: Buffer) {
  const found = EntryBytes.readHeader(bytes)
  if (found === undefined) return undefined
  const { start, ...rest } = found
  assert.strictEqual(bytes[start - 1], 10)
  return { header: rest, payload: yield* EntryBytes.readPayload(bytes, found) }
})

/** What lies in Redis once it was written. */
const write = (written: EntryBytes.Header, encoded: Encoded, compression = Compression.none) =>
  Effect.mapEager(EntryBytes.write(written, encoded, compression), (entry) => Buffer.from(entry))

describe("entryBytes", () => {
  describe("the format", () => {
    const golden: ReadonlyArray<readonly [string, EntryBytes.Header, Encoded, bytes: string]> = [
      [
        "an answer",
        header,
        value,
        `[1,"207534187459021",1790000000000123,1790003600000,12,0,60000,"value","",30,["@book:100","#shelf:é"]]\n` +
          `{"id":100,"title":"Solárîs"}`
      ],
      [
        "a failure",
        { ...header, tags: [] },
        { kind: "error", json: `"gone"` },
        `[1,"207534187459021",1790000000000123,1790003600000,12,0,60000,"error","",6,[]]\n"gone"`
      ],
      [
        "an absence",
        { ...header, incarnation: "0", startedAt: 0, tags: ["*"] },
        { kind: "absent", json: "" },
        `[1,"0",0,1790003600000,12,0,60000,"absent","",0,["*"]]\n`
      ],
      [
        "an answer for ever",
        { ...header, expiresAt: Infinity, keep: { aged: Infinity, invalidated: Infinity } },
        { kind: "value", json: "null" },
        `[1,"207534187459021",1790000000000123,null,12,null,null,"value","",4,["@book:100","#shelf:é"]]\nnull`
      ]
    ]
    for (const [name, written, encoded, text] of golden) {
      it.effect(`${name} is written like this, and read back`, () =>
        Effect.gen(function* () {
          const bytes = yield* write(written, encoded)
          assert.strictEqual(bytes.toString(), text)
          assert.deepStrictEqual(yield* read(Buffer.from(text)), {
            header: { ...written, kind: encoded.kind, compression: "" },
            payload: encoded.json === "" ? undefined : JSON.parse(encoded.json)
          })
        })
      )
    }

    const compressed = {
      gzip: "H4sIAAAAAAAAA6tWKsksyUlVslIKzs9JLMosViCXVqoFAJmtlSpMAAAA",
      brotli: "G0sAAAR0Y6melWiphmQUBEGjmJJQclQ5accWcILhXTG5ggc=",
      zstd: "KLUv/SBM3QAAoHsidGl0bGUiOiJTb2xhcmlzICJ9AQC6s4QB"
    } as const
    for (const [algorithm, base64] of Object.entries(compressed) as Array<[Compression.Algorithm, string]>) {
      it.effect(`what was once compressed with ${algorithm} is read back`, () =>
        Effect.gen(function* () {
          const payload = Buffer.from(base64, "base64")
          const line = `[1,"207534187459021",1790000000000123,1790003600000,12,0,60000,"value","${algorithm}",${payload.length},["@book:100","#shelf:é"]]\n`
          const bytes = Buffer.concat([Buffer.from(line), payload])
          assert.deepStrictEqual(yield* read(bytes), {
            header: { ...header, kind: "value", compression: algorithm },
            payload: JSON.parse(solaris)
          })
        })
      )

      it.effect(`${algorithm} is written with its name and its length`, () =>
        Effect.gen(function* () {
          const compression = yield* Compression.make({ compression: algorithm, compressionThreshold: 76 })
          const bytes = yield* write(header, { kind: "value", json: solaris }, compression)
          const found = EntryBytes.readHeader(bytes)!
          assert.strictEqual(found.compression, algorithm)
          assert.isBelow(bytes.length - found.start, 76)
          assert.deepStrictEqual(yield* EntryBytes.readPayload(bytes, found), JSON.parse(solaris))
          const small = write(header, value, compression)
          assert.deepStrictEqual(small, write(header, value))
        })
      )
    }
  })

  it("is written and read at once where nothing is compressed", () => {
    const written = write(header, value)
    assert.isTrue(Exit.isExit(written))
    const bytes = (written as Exit.Success<Buffer>).value
    assert.isTrue(Exit.isExit(EntryBytes.readPayload(bytes, EntryBytes.readHeader(bytes)!)))
  })

  it.effect("a lookup that a clock set back made shorter than nothing took no time", () =>
    Effect.gen(function* () {
      const bytes = yield* write({ ...header, took: -5 }, value)
      assert.strictEqual(EntryBytes.readHeader(bytes)?.took, 0)
    })
  )

  const Milliseconds = Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0))
  const Written = Schema.Struct({
    incarnation: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 2 ** 48 - 1 })),
    startedAt: Schema.Int.check(Schema.isGreaterThanOrEqualTo(0)),
    expiresAt: Schema.Union([Milliseconds, Schema.Literal("never")]),
    took: Milliseconds,
    aged: Milliseconds,
    invalidated: Milliseconds,
    tags: Schema.Array(Schema.NonEmptyString),
    separators: Schema.Array(
      Schema.Literals(["\n", "\0", `"`, "\\", "[", "]", ",", ":", "\u2028", "é", "\ud83d"])
    ),
    payload: Schema.Json
  })
  type Written = typeof Written.Type

  const headerOf = (made: Written): EntryBytes.Header => ({
    incarnation: String(made.incarnation),
    startedAt: made.startedAt + 0,
    expiresAt: made.expiresAt === "never" ? Infinity : made.expiresAt + 0,
    took: made.took + 0,
    keep: { aged: made.aged + 0, invalidated: made.invalidated + 0 },
    tags: [...made.tags, ...made.separators, `@${made.separators.join("")}`]
  })

  it.effect.prop("whatever is written is read back", [Written], ([made]) =>
    Effect.gen(function* () {
      const written = headerOf(made)
      const json = JSON.stringify(made.payload)
      const bytes = yield* write(written, { kind: "value", json })
      assert.deepStrictEqual(yield* read(bytes), {
        header: { ...written, kind: "value", compression: "" },
        payload: JSON.parse(json)
      })
    })
  )

  describe("readHeader", () => {
    const assertRight = (found: EntryBytes.ReadHeader, bytes: Buffer) => {
      assert.match(found.incarnation, /^\d{1,15}$/)
      assert.isTrue(Number.isSafeInteger(found.startedAt) && found.startedAt >= 0)
      assert.isTrue(Number.isFinite(found.took))
      for (const time of [found.expiresAt, found.took, found.keep.aged, found.keep.invalidated])
        assert.isTrue(typeof time === "number" && time >= 0)
      assert.include(["value", "error", "absent"], found.kind)
      assert.include(["", "gzip", "brotli", "zstd"], found.compression)
      assert.isTrue(Array.isArray(found.tags))
      for (const tag of found.tags) assert.isTrue(typeof tag === "string" && tag.length > 0)
      assert.isAtMost(found.start, bytes.length)
    }

    it.prop("never throws at garbage, and takes none for an entry", [Schema.Uint8Array], ([garbage]) => {
      assert.isUndefined(EntryBytes.readHeader(Buffer.from(garbage)))
      assert.isUndefined(EntryBytes.readHeader(Buffer.concat([Buffer.from("\n"), garbage])))
      assert.isUndefined(EntryBytes.readHeader(Buffer.concat([Buffer.from("[1]\n"), garbage])))
    })

    it.prop("takes no other JSON for a header", [Schema.Json], ([json]) => {
      for (const line of [json, [json], [1, json], Array.from({ length: 11 }, () => json)])
        assert.isUndefined(EntryBytes.readHeader(Buffer.from(`${JSON.stringify(line)}\n1`)))
    })

    it.effect("takes nothing that was cut off, or lengthened, for an entry", () =>
      Effect.gen(function* () {
        const bytes = yield* write(header, value)
        for (let length = 0; length < bytes.length; length++)
          assert.isUndefined(EntryBytes.readHeader(bytes.subarray(0, length)), String(length))
        assert.isUndefined(EntryBytes.readHeader(Buffer.concat([bytes, Buffer.from(" ")])))
      })
    )

    it.effect("with any byte changed there is no header, or a right one", () =>
      Effect.gen(function* () {
        const bytes = yield* write(header, value)
        let refused = 0
        for (let at = 0; at < bytes.length; at++) {
          for (let byte = 0; byte < 256; byte++) {
            const mutated = Buffer.from(bytes)
            mutated[at] = byte
            const found = EntryBytes.readHeader(mutated)
            if (found === undefined) refused++
            else {
              assertRight(found, mutated)
              const payload = yield* Effect.exit(EntryBytes.readPayload(mutated, found))
              assert.isTrue(Exit.isSuccess(payload) || /Unreadable/.test(JSON.stringify(payload)))
            }
          }
        }
        assert.isAbove(refused, 10_000)
      })
    )

    const fields: ReadonlyArray<unknown> = [1, "1", 5, 6, 7, 8, 9, "value", "", 4, ["a"]]
    const line = (place: number, field: unknown) =>
      Buffer.from(`${JSON.stringify(fields.with(place, field))}\nnull`)

    it("believes this, which the next tests change", () => {
      assert.isDefined(EntryBytes.readHeader(line(0, 1)))
    })

    it.prop("believes only what is right in every place", [Schema.Json, Schema.Int], ([json, integer]) => {
      const place = ((integer % fields.length) + fields.length) % fields.length
      const bytes = line(place, json)
      const found = EntryBytes.readHeader(bytes)
      if (found !== undefined) assertRight(found, bytes)
    })

    it("believes no other version of the format, and no wrong field", () => {
      for (const [place, wrong] of [
        [0, [0, 2, "1", null]],
        [1, [1, "", "a", "-1", "1.5", "1234567890123456", null, ["1"]]],
        [2, ["5", -1, 1.5, 2 ** 53, null, true]],
        [3, ["6", -1, true, []]],
        [4, ["7", -1, null, []]],
        [5, ["8", -1, {}]],
        [6, ["9", -1, false]],
        [7, ["", "values", "absent", null, ["value"]]],
        [8, [null, "none", "lz4", ["gzip"], 0]],
        [9, [3, 5, "4", null, 4.5]],
        [10, [null, "a", {}, [""], [1], [null], ["a", ["b"]]]]
      ] as const)
        for (const field of wrong)
          assert.isUndefined(EntryBytes.readHeader(line(place, field)), `${place}: ${JSON.stringify(field)}`)
      const text = JSON.stringify(fields)
      for (const other of [
        text,
        `${text}\nnul`,
        `${text} \n\nnull`,
        `{}\nnull`,
        `${text.slice(0, -1)},1]\nnull`
      ])
        assert.isUndefined(EntryBytes.readHeader(Buffer.from(other)), other)
      for (const time of [6, 7, 8, 9]) {
        const endless = text.replace(`,${time},`, ",1e999,")
        assert.isUndefined(EntryBytes.readHeader(Buffer.from(`${endless}\nnull`)), endless)
      }
      const absent = JSON.stringify(fields.with(7, "absent").with(9, 0))
      assert.isDefined(EntryBytes.readHeader(Buffer.from(`${absent}\n`)))
      assert.isUndefined(EntryBytes.readHeader(Buffer.from(`${JSON.stringify(fields.with(9, 0))}\n`)))
    })
  })

  describe("readPayload", () => {
    it.effect("what is no JSON, or does not decompress, is unreadable", () =>
      Effect.gen(function* () {
        const whyNot = Effect.fnUntraced(function* (compression: Compression.Algorithm | "") {
          const bytes = Buffer.from(`[1,"1",5,6,7,8,9,"value","${compression}",4,[]]\n{"a"`)
          return (yield* Effect.flip(EntryBytes.readPayload(bytes, EntryBytes.readHeader(bytes)!))).why
        })
        assert.strictEqual(yield* whyNot(""), "its payload is no JSON")
        for (const algorithm of ["gzip", "brotli", "zstd"] as const)
          assert.match(yield* whyNot(algorithm), new RegExp(`^its ${algorithm} is broken: `))
      })
    )
  })
})
