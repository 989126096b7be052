/**
 * A Redis-style glob over keys: `*`, `?`, `[abc]`, `[a-z]`, `[^a]`, and `\` before a character that is meant itself.
 *
 * It means here what it means to Redis, so that a pattern drops the same keys from memory and from Redis. Matching
 * never backtracks further than the last `*`, so its time is at most key × pattern, both bounded. (Globs for files
 * treat `/` and a leading dot apart, which keys do not.)
 *
 * @see https://redis.io/docs/latest/commands/keys/
 */
import { CachemeError, describe, InvalidTarget } from "./CachemeError.ts"

/** The longest pattern, in characters. */
const maxLength = 256

/** A compiled glob. */
export interface Pattern {
  readonly glob: string
  readonly matches: (text: string) => boolean
}

type Step = (char: string) => boolean

/** Compiles a glob. Throws `InvalidTarget` when it is empty or too long, or holds half of a character. */
export const makeUnsafe = (glob: string): Pattern => {
  // Half of a character has no UTF-8: what it matches here it would not match in another process.
  if (glob.length === 0 || glob.length > maxLength || !glob.isWellFormed()) {
    throw new CachemeError({
      reason: new InvalidTarget({
        target: `the pattern ${describe(glob)}`,
        expected: `1 to ${maxLength} whole characters`
      })
    })
  }
  const steps = parse(glob)
  return { glob, matches: (text) => matches(steps, text) }
}

/** Steps of one character each; `undefined` stands for `*`. */
const parse = (glob: string): ReadonlyArray<Step | undefined> => {
  const steps: Array<Step | undefined> = []
  for (let i = 0; i < glob.length; i++) {
    const char = glob[i]!
    if (char === "*") {
      if (steps.length === 0 || steps.at(-1) !== undefined) steps.push(undefined)
    } else if (char === "?") steps.push(() => true)
    else if (char === "[") {
      const [step, end] = charClass(glob, i + 1)
      steps.push(step)
      i = end
    } else {
      const literal = char === "\\" && i + 1 < glob.length ? glob[++i]! : char
      steps.push((c) => c === literal)
    }
  }
  return steps
}

/** Reads a class from after its `[`; like Redis, an unclosed class ends with the glob. */
const charClass = (glob: string, start: number): readonly [Step, end: number] => {
  let i = start
  const negated = glob[i] === "^"
  if (negated) i++
  const ranges: Array<readonly [string, string]> = []
  for (; i < glob.length && glob[i] !== "]"; i++) {
    if (glob[i] === "\\" && i + 1 < glob.length) i++
    const from = glob[i]!
    if (glob[i + 1] === "-" && i + 2 < glob.length && glob[i + 2] !== "]") {
      const to = glob[i + 2]!
      ranges.push(from <= to ? [from, to] : [to, from])
      i += 2
    } else ranges.push([from, from])
  }
  return [(c) => ranges.some(([from, to]) => from <= c && c <= to) !== negated, i]
}

const matches = (steps: ReadonlyArray<Step | undefined>, text: string): boolean => {
  let step = 0
  let at = 0
  let star = -1
  let starAt = 0
  while (at < text.length) {
    if (step < steps.length && steps[step] === undefined) {
      star = step++
      starAt = at
    } else if (step < steps.length && steps[step]!(text[at]!)) {
      step++
      at++
    } else if (star >= 0) {
      step = star + 1
      at = ++starAt
    } else return false
  }
  while (step < steps.length && steps[step] === undefined) step++
  return step === steps.length
}
