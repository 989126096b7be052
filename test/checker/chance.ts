/** Chance that can be repeated: what one process does is the same for the same seed; how processes interleave is not. */
export interface Chance {
  /** An integer from 0 to below `limit`. */
  readonly below: (limit: number) => number
  /** One of these. */
  readonly of: <A>(these: ReadonlyArray<A>) => A
}

/** Makes chance from a seed (mulberry32). */
export const makeChance = (seed: number): Chance => {
  let state = seed >>> 0
  const below = (limit: number): number => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * limit)
  }
  return { below, of: (these) => these[below(these.length)]! }
}
