/**
 * Compression of what is stored in Redis: of payloads that are large enough, where it makes them smaller.
 *
 * It runs on Node's thread pool. What was compressed says so itself, so a cache reads what another wrote with other
 * settings. What does not decompress, or not within 256 MiB, is unreadable: a miss.
 */
import * as zlib from "node:zlib"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { CachemeError } from "../../CachemeError.ts"
import { type Unreadable, unreadable } from "../../Codec.ts"
import * as Settings from "../../Settings.ts"

/** What payloads are compressed with. */
export type Algorithm = "gzip" | "brotli" | "zstd"

/** The options of compression. */
export interface Options {
  /**
   * What payloads are compressed with. `zstd` is the best of them, where Node has it (22.15 and later); `brotli` at
   * its middle quality is the smallest, `gzip` what everything else reads. Default `none`.
   */
  readonly compression?: Algorithm | "none" | undefined
  /** Payloads of at least so many bytes of JSON are compressed. Default 1000. */
  readonly compressionThreshold?: number | undefined
}

/** Checked options. */
export interface Compression {
  readonly algorithm: Algorithm | ""
  readonly threshold: number
}

/** A payload as it is stored. */
export interface Compressed {
  readonly algorithm: Algorithm | ""
  readonly bytes: Buffer
}

/** No compression. */
export const none: Compression = { algorithm: "", threshold: Infinity }

/** What is said to who asks for something else. */
export const expected = "none, gzip, brotli or zstd"

/** What is said to who gives another threshold. */
export const expectedThreshold = "an integer of zero or more, in bytes"

const largest = 256 * 1024 * 1024

/** Checks options and fills in the defaults. Fails with `InvalidSetting`, also for what this runtime does not have. */
export const make = (
  { compression = "none", compressionThreshold = 1000 }: Options = {},
  runtime: Partial<Pick<typeof zlib, "zstdCompress">> = zlib
): Effect.Effect<Compression, CachemeError> => {
  if (!isName(compression)) return Settings.invalid("compression", compression, expected)
  if (!Number.isInteger(compressionThreshold) || compressionThreshold < 0)
    return Settings.invalid("compressionThreshold", compressionThreshold, expectedThreshold)
  if (compression === "none") return Exit.succeed(none)
  if (compression === "zstd" && typeof runtime.zstdCompress !== "function")
    return Settings.invalid(
      "compression",
      compression,
      "none, gzip or brotli: zstd is in Node 22.15 and later, and not in this runtime"
    )
  return Exit.succeed({ algorithm: compression, threshold: compressionThreshold })
}

/** Reads the name of a compression; `undefined` for another text. */
export const parse = (text: string): Algorithm | "none" | undefined => {
  const name = text.trim().toLowerCase()
  return isName(name) ? name : undefined
}

const isName = (name: unknown): name is Algorithm | "none" => name === "none" || isAlgorithm(name)

/** True for what an entry may say that it is compressed with. */
export const isAlgorithm = (name: unknown): name is Algorithm =>
  name === "gzip" || name === "brotli" || name === "zstd"

/** Compresses a payload where that is worth it. Done at once, as an `Exit`, where it is too small. */
export const compress = (bytes: Buffer, { algorithm, threshold }: Compression): Effect.Effect<Compressed> =>
  algorithm === "" || bytes.length < threshold
    ? Exit.succeed({ algorithm: "", bytes })
    : Effect.callback((resume) =>
        compressors[algorithm](bytes, (error, compressed) =>
          resume(
            Exit.succeed(
              error === null && compressed.length < bytes.length
                ? { algorithm, bytes: compressed }
                : { algorithm: "", bytes }
            )
          )
        )
      )

/** Reverses {@link compress}. */
export const decompress = (
  { algorithm, bytes }: Compressed,
  maxBytes: number = largest
): Effect.Effect<Buffer, Unreadable> => {
  if (algorithm === "") return Exit.succeed(bytes)
  const decompressor = decompressors[algorithm]
  if (decompressor === undefined)
    return unreadable(`it is compressed with ${algorithm}, which this runtime lacks`)
  return Effect.callback((resume) =>
    decompressor(bytes, { maxOutputLength: maxBytes }, (error, decompressed) =>
      resume(
        error === null
          ? Exit.succeed(decompressed)
          : unreadable(`its ${algorithm} is broken: ${error.message}`)
      )
    )
  )
}

type Done = (error: Error | null, bytes: Buffer) => void

const { BROTLI_PARAM_QUALITY, BROTLI_PARAM_SIZE_HINT } = zlib.constants

const compressors: Readonly<Record<Algorithm, (bytes: Buffer, done: Done) => void>> = {
  gzip: zlib.gzip,
  // Brotli's default is its slowest.
  brotli: (bytes, done) =>
    zlib.brotliCompress(
      bytes,
      { params: { [BROTLI_PARAM_QUALITY]: 5, [BROTLI_PARAM_SIZE_HINT]: bytes.length } },
      done
    ),
  zstd: (bytes, done) => zlib.zstdCompress(bytes, done)
}

const decompressors: Readonly<
  Record<Algorithm, ((bytes: Buffer, options: { maxOutputLength: number }, done: Done) => void) | undefined>
> = {
  gzip: zlib.gunzip,
  brotli: zlib.brotliDecompress,
  zstd: zlib.zstdDecompress
}
