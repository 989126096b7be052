/**
 * The bytes of an entry in Redis: one line of JSON, the header, and behind it the payload.
 *
 * ```text
 * [1,"207534187459021",1790000000000123,1790003600000,12,0,60000,"value","",27,["@book:100"]]
 * {"id":100,"title":"Solaris"}
 * ```
 *
 * The header holds, in this order: the version of this format; the incarnation and the sequence at which the lookup
 * began; when it expires, in milliseconds since the epoch, `null` for never; how many milliseconds the lookup took; how
 * many it may still be of use once it has aged out, and once it was invalidated, `null` for ever; the kind (`value`,
 * `error`, `absent`); the compression (`""`, `gzip`, `brotli`, `zstd`); the number of the payload's bytes; the ids of
 * the tags beside its own key.
 *
 * A header is believed only when all of it is as it must be, and the payload is as long as it says. The header is read
 * alone, so an entry that is not fresh costs no parsing of its payload.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { type Encoded, type Kind, kinds, type Unreadable, unreadable } from "../../Codec.ts"
import type { Windows } from "../../Entry.ts"
import { type Algorithm, type Compression, compress, decompress, isAlgorithm } from "./compression.ts"

const format = 1

/** What is known of an entry without its answer. */
export interface Header {
  /** Of the cell, when the lookup began: a decimal text. */
  readonly incarnation: string
  /** The cell's sequence when the lookup began. */
  readonly startedAt: number
  /** Milliseconds since the epoch; `Infinity` for never. */
  readonly expiresAt: number
  /** How long the lookup took, in milliseconds. */
  readonly took: number
  /** How long it may still be of use, in milliseconds. */
  readonly keep: Windows
  /** The ids of the tags it carries beside its own key. */
  readonly tags: ReadonlyArray<string>
}

/** A header as it was read, and where the payload is. */
export interface ReadHeader extends Header {
  readonly kind: Kind
  readonly compression: Algorithm | ""
  /** Where the payload begins. */
  readonly start: number
}

/**
 * Writes an entry: its bytes, or its text where nothing is to be compressed, because a command of texts alone is sent
 * much faster. Done at once, as an `Exit`, where nothing is compressed.
 */
export const write = (
  header: Header,
  { kind, json }: Encoded,
  compression: Compression
): Effect.Effect<string | Buffer> =>
  compression.algorithm === ""
    ? Exit.succeed(`${lineOf(header, kind, "", Buffer.byteLength(json))}\n${json}`)
    : Effect.mapEager(compress(Buffer.from(json), compression), ({ algorithm, bytes }) =>
        Buffer.concat([Buffer.from(`${lineOf(header, kind, algorithm, bytes.length)}\n`), bytes])
      )

/** Reads the header; `undefined` for whatever is no entry of this format. */
export const readHeader = (bytes: Buffer): ReadHeader | undefined => {
  const end = bytes.indexOf(newline)
  const fields = end < 0 ? undefined : parseJson(bytes.toString("utf8", 0, end))
  if (!Array.isArray(fields) || fields.length !== 11 || fields[0] !== format) return undefined
  const [, incarnation, startedAt, expires, took, aged, invalidated, kind, compression, size, tags] =
    fields as ReadonlyArray<unknown>
  const start = end + 1
  return isIncarnation(incarnation) &&
    isSequence(startedAt) &&
    isTime(expires) &&
    typeof took === "number" &&
    isTime(took) &&
    isTime(aged) &&
    isTime(invalidated) &&
    isKind(kind) &&
    (compression === "" || isAlgorithm(compression)) &&
    size === bytes.length - start &&
    (kind === "absent") === (size === 0) &&
    isTexts(tags)
    ? {
        incarnation,
        startedAt,
        expiresAt: expires ?? Infinity,
        took,
        keep: { aged: aged ?? Infinity, invalidated: invalidated ?? Infinity },
        kind,
        compression,
        tags,
        start
      }
    : undefined
}

/** Reads the payload: its JSON, `undefined` for `absent`. Done at once, as an `Exit`, where it is not compressed. */
export const readPayload = (
  bytes: Buffer,
  { kind, compression, start }: ReadHeader
): Effect.Effect<unknown, Unreadable> => {
  if (kind === "absent") return Exit.succeed(undefined)
  if (compression === "") return parsed(bytes.toString("utf8", start))
  return Effect.flatMap(decompress({ algorithm: compression, bytes: bytes.subarray(start) }), (json) =>
    parsed(json.toString())
  )
}

/** The header as it is written. */
const lineOf = (
  { incarnation, startedAt, expiresAt, took, keep: { aged, invalidated }, tags }: Header,
  kind: Kind,
  algorithm: Algorithm | "",
  size: number
): string =>
  // JSON writes Infinity as null. A clock that was set back makes a lookup look shorter than nothing.
  JSON.stringify([
    format,
    incarnation,
    startedAt,
    expiresAt,
    Math.max(0, took),
    aged,
    invalidated,
    kind,
    algorithm,
    size,
    tags
  ])

const newline = 10

const parsed = (text: string): Exit.Exit<unknown, Unreadable> => {
  const json = parseJson(text)
  return json === undefined ? unreadable("its payload is no JSON") : Exit.succeed(json)
}

const parseJson = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

const isIncarnation = (field: unknown): field is string =>
  typeof field === "string" && /^\d{1,15}$/.test(field)

const isSequence = (field: unknown): field is number => Number.isSafeInteger(field) && (field as number) >= 0

/** Milliseconds; `null` stands for `Infinity`. */
const isTime = (field: unknown): field is number | null =>
  field === null || (typeof field === "number" && field >= 0 && field < Infinity)

const isKind = (field: unknown): field is Kind => kinds.includes(field as Kind)

const isTexts = (field: unknown): field is ReadonlyArray<string> => {
  if (!Array.isArray(field)) return false
  for (const text of field) if (typeof text !== "string" || text === "") return false
  return true
}
