/**
 * Which statements are worth preparing on the server?
 *
 * Drizzle's statements have parameters, and one that is not prepared takes two round trips: the first asks for the types
 * of its parameters. A prepared one takes one. But a connection keeps what it has prepared until it is closed, so only
 * texts that come again are prepared, and not without end: what Drizzle builds is often the same text, and sometimes, as
 * with a list of any length, never twice.
 */

/** So many texts are remembered that came once: one that comes again among so many others is worth preparing. */
const remembered = 500

/** So many are prepared on one connection; each takes some tens of kilobytes of the server's memory. */
const preparedAtMost = 200

/** Longer texts are not looked at, in characters: they are rare, and would take memory here. */
const longest = 8192

/** What the connections of a pool know together. */
export class PreparedStatements {
  readonly #texts = new Set<string>()
  #generation = 0
  #isGivenUp = false

  /** Tables have changed: what was prepared before may not fit them, and connections that prepared it are outdated. */
  forget(): void {
    this.#generation++
  }

  /** Nothing is prepared any more. True if something was until now. */
  giveUp(): boolean {
    const wasGivenUp = this.#isGivenUp
    this.#isGivenUp = true
    return !wasGivenUp
  }

  /** What one connection has prepared. */
  onConnection(): OnConnection {
    const generation = this.#generation
    const prepared = new Set<string>()
    return {
      isWorth: (text, parameters) => {
        if (this.#isGivenUp || text.length > longest || parameters.length === 0) return false
        const name = nameOf(text, parameters)
        if (prepared.has(name)) return true
        if (!this.#isRepeated(name) || prepared.size >= preparedAtMost) return false
        prepared.add(name)
        return true
      },
      isOutdated: () => prepared.size > 0 && generation !== this.#generation
    }
  }

  #isRepeated(name: string): boolean {
    // The last to be seen is the last to be forgotten.
    const isRepeated = this.#texts.delete(name)
    this.#texts.add(name)
    if (this.#texts.size > remembered) {
      for (const first of this.#texts) {
        this.#texts.delete(first)
        break
      }
    }
    return isRepeated
  }
}

/** What one connection has prepared. */
export interface OnConnection {
  /** Whether a statement is to be prepared, or is. */
  readonly isWorth: (text: string, parameters: ReadonlyArray<unknown>) => boolean
  /** True when tables have changed since: it is to be replaced by a new connection. */
  readonly isOutdated: () => boolean
}

/** postgres.js guesses types of values, and prepares a text once for each combination of them. */
const nameOf = (text: string, parameters: ReadonlyArray<unknown>): string =>
  parameters.map(kindOf).join("") + text

const kindOf = (value: unknown): string => {
  if (Array.isArray(value)) return `[${kindOf(value[0])}`
  if (typeof value === "boolean") return "t"
  if (typeof value === "bigint") return "i"
  if (value instanceof Date) return "d"
  return value instanceof Uint8Array ? "x" : "-"
}
