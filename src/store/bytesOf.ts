/**
 * How many bytes an entry takes, roughly: what V8 needs for such values, rounded up. Looking at a heap exactly would take
 * longer than the lookup that filled it.
 */
import * as Exit from "effect/Exit"
import type { Entry } from "../Entry.ts"

const perEntry = 256
const perText = 16
const perObject = 24
const perPlace = 8

/** The estimate for an entry under a key. */
export const bytesOf = (key: string, entry: Entry): number => {
  const value = Exit.isSuccess(entry.exit) ? entry.exit.value : entry.exit.cause
  return perEntry + textBytes(key) + entry.tags.length * perPlace + valueBytes(value)
}

const textBytes = (text: string): number => perText + text.length * 2

/** Walks over a value without recursion, so that a deep one cannot overflow the stack; shared parts count once. */
const valueBytes = (value: unknown): number => {
  const seen = new Set<object>()
  const rest: Array<unknown> = [value]
  let bytes = 0
  while (rest.length > 0) {
    const part = rest.pop()
    if (typeof part === "string") bytes += textBytes(part)
    else if (typeof part === "bigint") bytes += perText + part.toString(16).length / 2
    else if (typeof part !== "object" || part === null) bytes += perPlace
    else if (!seen.has(part)) {
      seen.add(part)
      bytes += perObject
      if (ArrayBuffer.isView(part) || part instanceof ArrayBuffer) bytes += part.byteLength
      else if (part instanceof Map || part instanceof Set) {
        bytes += part.size * perPlace * 4
        part.forEach((item, key) => rest.push(item, key))
      } else if (Array.isArray(part)) {
        bytes += part.length * perPlace
        for (const item of part) rest.push(item)
      } else {
        const items = Object.values(part)
        bytes += items.length * perPlace
        for (const item of items) rest.push(item)
      }
    }
  }
  return Math.ceil(bytes)
}
