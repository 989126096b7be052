import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Schema } from "effect"
import * as zlib from "node:zlib"
import * as Compression from "../../../src/store/redis/compression.ts"

const algorithms = ["gzip", "brotli", "zstd"] as const

const compressible = Buffer.from(`{"title":"${"Solaris ".repeat(200)}"}`)

const of = (compression: Compression.Algorithm, compressionThreshold?: number) =>
  Compression.make({ compression, compressionThreshold })

describe("compression", () => {
  describe("make", () => {
    it.effect("is none, and from 1000 bytes on, unless told", () =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* Compression.make(), Compression.none)
        assert.deepStrictEqual(yield* Compression.make({ compression: "none" }), Compression.none)
        assert.deepStrictEqual(yield* of("gzip"), { algorithm: "gzip", threshold: 1000 })
        assert.deepStrictEqual(yield* of("zstd", 0), { algorithm: "zstd", threshold: 0 })
      })
    )

    it.effect("refuses what it does not know", () =>
      Effect.gen(function* () {
        const wrong = yield* Effect.flip(Compression.make({ compression: "lz4" as "gzip" }))
        assert.strictEqual(wrong.message, `compression is "lz4", expected none, gzip, brotli or zstd`)
        assert.strictEqual(wrong.reason._tag, "InvalidSetting")
        for (const threshold of [-1, 1.5, Number.NaN, Infinity, "1000" as unknown as number])
          assert.match(
            (yield* Effect.flip(of("gzip", threshold))).message,
            /^compressionThreshold is .* bytes$/
          )
      })
    )

    it.effect("refuses zstd where the runtime has none, and says what to do", () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(Compression.make({ compression: "zstd" }, {}))
        assert.strictEqual(
          error.message,
          `compression is "zstd", expected none, gzip or brotli: zstd is in Node 22.15 and later, and not in this runtime`
        )
        assert.deepStrictEqual(yield* Compression.make({ compression: "gzip" }, {}), yield* of("gzip"))
      })
    )
  })

  it("reads the names that it knows", () => {
    for (const name of ["none", ...algorithms] as const) {
      assert.strictEqual(Compression.parse(name), name)
      assert.strictEqual(Compression.parse(` ${name.toUpperCase()} `), name)
      assert.include(Compression.expected, name)
    }
    for (const text of ["", "lz4", "gzip:3", "0"]) assert.isUndefined(Compression.parse(text))
  })

  for (const algorithm of algorithms) {
    describe(algorithm, () => {
      it.effect("makes a large payload smaller, and back", () =>
        Effect.gen(function* () {
          const compressed = yield* Compression.compress(compressible, yield* of(algorithm))
          assert.strictEqual(compressed.algorithm, algorithm)
          assert.isBelow(compressed.bytes.length, 200)
          assert.deepStrictEqual(yield* Compression.decompress(compressed), compressible)
        })
      )

      it.effect("leaves a payload below the threshold, at once", () =>
        Effect.gen(function* () {
          const bytes = compressible.subarray(0, 999)
          const effect = Compression.compress(bytes, yield* of(algorithm))
          assert.deepStrictEqual(effect, Exit.succeed({ algorithm: "", bytes }))
          const next = yield* Compression.compress(compressible.subarray(0, 1000), yield* of(algorithm))
          assert.strictEqual(next.algorithm, algorithm)
        })
      )

      it.effect("leaves a payload that would not be smaller", () =>
        Effect.gen(function* () {
          for (const bytes of [Buffer.alloc(0), Buffer.from("7")]) {
            const left = yield* Compression.compress(bytes, yield* of(algorithm, 0))
            assert.deepStrictEqual(left, { algorithm: "", bytes })
          }
        })
      )

      it.effect("does not decompress beyond the bound", () =>
        Effect.gen(function* () {
          const { bytes } = yield* Compression.compress(Buffer.alloc(1_000_000), yield* of(algorithm))
          const whole = yield* Compression.decompress({ algorithm, bytes }, 1_000_000)
          assert.lengthOf(whole, 1_000_000)
          const { why } = yield* Effect.flip(Compression.decompress({ algorithm, bytes }, 999_999))
          assert.match(why, new RegExp(`^its ${algorithm} is broken`))
        })
      )

      it.effect("what is cut off is unreadable", () =>
        Effect.gen(function* () {
          const { bytes } = yield* Compression.compress(compressible, yield* of(algorithm))
          for (const length of [1, bytes.length >> 1, bytes.length - 1]) {
            const cut = Compression.decompress({ algorithm, bytes: bytes.subarray(0, length) })
            assert.strictEqual((yield* Effect.flip(cut))._tag, "Unreadable")
          }
        })
      )

      it.effect.prop("garbage is unreadable, or some bytes", [Schema.Uint8Array], ([garbage]) =>
        Effect.gen(function* () {
          const exit = yield* Effect.exit(Compression.decompress({ algorithm, bytes: Buffer.from(garbage) }))
          if (Exit.isSuccess(exit)) return assert.isTrue(Buffer.isBuffer(exit.value))
          assert.match(JSON.stringify(exit), /Unreadable/)
        })
      )
    })
  }

  it.effect("reads what zlib's other settings have written", () =>
    Effect.gen(function* () {
      for (const [algorithm, bytes] of [
        ["gzip", zlib.gzipSync(compressible, { level: 9 })],
        ["brotli", zlib.brotliCompressSync(compressible)],
        [
          "zstd",
          zlib.zstdCompressSync(compressible, { params: { [zlib.constants.ZSTD_c_compressionLevel]: 19 } })
        ]
      ] as const)
        assert.deepStrictEqual(yield* Compression.decompress({ algorithm, bytes }), compressible)
    })
  )
})
