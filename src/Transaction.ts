/**
 * What a database transaction in progress means to the cache.
 *
 * Inside one, a cached answer may be served only if the transaction would see the same rows (read committed) and has
 * itself changed nothing the answer rests on. Everything else is computed on the transaction's own connection and
 * neither shared nor stored: nobody else may see rows that are not committed, and a lookup that waited for a
 * connection while its own transaction held one could wait for ever. Invalidations wait for the commit.
 */
import * as Context from "effect/Context"
import type { Request, Targets } from "./Invalidation.ts"
import { isKeyId } from "./Node.ts"
import * as Pattern from "./Pattern.ts"

/** A transaction, as far as the cache needs to know it. */
export interface Transaction {
  /** True when committed rows of others are visible to it at once, as cached answers are. */
  readonly readCommitted: boolean
  /** What it has changed so far, including what a savepoint has taken back. */
  readonly changed: Changes
  /** Keeps an invalidation until the outermost commit. */
  readonly defer: (request: Request) => void
}

/** The transaction that the current fiber works in, if any. */
export const CurrentTransaction: Context.Reference<Transaction | undefined> = Context.Reference<
  Transaction | undefined
>("cacheme/Transaction", { defaultValue: () => undefined })

/** A growing set of invalidation targets, asked whether it reaches an entry. */
export class Changes {
  readonly #ids = new Set<string>()
  readonly #patterns: Array<Pattern.Pattern> = []

  add(targets: Targets): void {
    for (const key of targets.keys) this.#ids.add(key)
    for (const tag of targets.tags) this.#ids.add(tag)
    for (const glob of targets.patterns) this.#patterns.push(Pattern.makeUnsafe(glob))
  }

  /** The first of an entry's ids (its key and its tags) that has been changed. */
  reaches(ids: Iterable<string>): string | undefined {
    if (this.#ids.size === 0 && this.#patterns.length === 0) return undefined
    for (const id of ids) {
      if (this.#ids.has(id)) return id
      if (isKeyId(id) && this.#patterns.some((pattern) => pattern.matches(id))) return id
    }
    return undefined
  }
}

/** Why the transaction that a fiber works in, if any, may not be given an answer, if so. */
export const hiddenBy = (
  transaction: Transaction | undefined,
  answer: { readonly ids: () => Iterable<string> }
): string | undefined => {
  if (transaction === undefined) return undefined
  if (!transaction.readCommitted) return "it reads a snapshot that may be older than the answer"
  const changed = transaction.changed.reaches(answer.ids())
  return changed === undefined ? undefined : `it has itself changed ${changed}`
}
