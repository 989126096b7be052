/**
 * A number for an answer that is the same for equal answers, to tell later whether a new one differs without keeping the
 * old one.
 *
 * `Hash.hash` of the whole answer would be that number, too, but it remembers each object it has met for as long as that
 * lives, which for what a cache holds is long. So plain data is walked here, and only what else it holds is asked.
 */
import * as Hash from "effect/Hash"
import { isData } from "./freeze.ts"

/** Answers of more parts than this are not compared. */
const partsAtMost = 100_000
const depthAtMost = 100

/** The number of a value; `undefined` where it is too large, refers to itself, or cannot be looked at. */
export const digest = (value: unknown): number | undefined => {
  let parts = 0
  const walk = (part: unknown, depth: number): number => {
    if (++parts > partsAtMost || depth > depthAtMost) throw new RangeError("too large to be compared")
    if (typeof part !== "object" || part === null || !isData(part)) return Hash.hash(part)
    let sum = 0
    if (Array.isArray(part)) for (const item of part) sum = Hash.combine(sum, walk(item, depth + 1))
    // In whatever order the properties are.
    else
      for (const name of Object.keys(part))
        sum = (sum + Hash.combine(Hash.string(name), walk((part as any)[name], depth + 1))) | 0
    return sum
  }
  try {
    return walk(value, 0)
  } catch {
    return undefined
  }
}
