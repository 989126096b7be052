/**
 * Keeps the faults of a store from those who use it: a store that throws, dies or answers nonsense costs the cache, not
 * the answer. Reads find nothing, answers are not stored, and an invalidation that failed is a typed error, because a
 * lost one must never be silent. Each fault is counted by whoever asked, and logged: reads once for each message.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import { CachemeError, StoreFailed } from "./CachemeError.ts"
import type { Entry } from "./Entry.ts"
import type { Request } from "./Invalidation.ts"
import {
  type Acquired,
  type Applied,
  type Fill,
  type Position,
  type Shared,
  Store,
  type Stored
} from "./Store.ts"

const toldAtMost = 100

/** The same store, whose faults are misses. */
export const guard = (store: Store["Service"]): Store["Service"] => {
  const told = new Set<string>()
  const untold: Array<string> = []

  const note = (operation: string, error: unknown): void => {
    const message = `cacheme: the store failed in ${operation}: ${String(error)}`
    if (told.has(message) || told.size >= toldAtMost) return
    told.add(message)
    untold.push(message)
  }
  // What is asked without an effect is told by the next effect.
  const tell = Effect.suspend(() =>
    Effect.forEach(untold.splice(0), (message) => Effect.logError(message), { discard: true })
  )

  const attempt = <A>(operation: string, f: () => A, otherwise: A): A => {
    try {
      return f()
    } catch (error) {
      note(operation, error)
      return otherwise
    }
  }
  const recover = <A>(operation: string, self: Effect.Effect<A>, otherwise: A): Effect.Effect<A> =>
    Effect.catchCause(self, (cause) => {
      if (Cause.hasInterruptsOnly(cause)) return Effect.failCause(cause)
      note(operation, Cause.squash(cause))
      return Effect.as(tell, otherwise)
    })

  /** A lost invalidation is never silent. */
  const orFail = (applied: Effect.Effect<Applied, CachemeError>): Effect.Effect<Applied, CachemeError> =>
    Effect.catchCause(applied, (cause) =>
      Cause.hasDies(cause)
        ? Effect.fail(
            new CachemeError({
              reason: new StoreFailed({ operation: "invalidate", found: String(Cause.squash(cause)) })
            })
          )
        : Effect.failCause(cause)
    )

  /** A batch has a thousand of these, so what is not asked for is not made. */
  class GuardedFill implements Fill {
    readonly #fill: Fill
    constructor(fill: Fill) {
      this.#fill = fill
    }
    isOvertaken(): boolean {
      return attempt("isOvertaken", () => this.#fill.isOvertaken(), true)
    }
    isQuiet(answers: ReadonlyArray<ReadonlyArray<string>>): Effect.Effect<boolean> {
      return recover(
        "isQuiet",
        Effect.suspend(() => this.#fill.isQuiet(answers)),
        false
      )
    }
    store(entry: Entry): Effect.Effect<Stored> {
      return recover("store", this.#fill.store(entry), "failed")
    }
    replace(request: Request, entry: Entry): Effect.Effect<Applied, CachemeError> {
      return orFail(Effect.suspend(() => this.#fill.replace(request, entry)))
    }
    get discard(): Effect.Effect<void> {
      return recover("discard", this.#fill.discard, undefined)
    }
    noteUnstored(): void {
      attempt("noteUnstored", () => this.#fill.noteUnstored(), undefined)
    }
    get end(): Effect.Effect<void> {
      return recover("end", this.#fill.end, undefined)
    }
  }
  const guardFill = (fill: Fill): Fill => new GuardedFill(fill)

  const unfilled = guardFill(noFill(store))

  const guardShared = (shared: Shared): Shared => ({
    look: (nodes, now) =>
      recover(
        "look",
        Effect.suspend(() => shared.look(nodes, now)),
        nodes.map(() => ({ held: { miss: "away", stale: undefined } }))
      ),
    acquire: (wanted, now) =>
      Effect.andThen(
        tell,
        recover(
          "acquire",
          Effect.map(
            Effect.suspend(() => shared.acquire(wanted, now)),
            (all): ReadonlyArray<Acquired> =>
              all.map((acquired) =>
                acquired._tag === "Fill" ? { ...acquired, fill: guardFill(acquired.fill) } : acquired
              )
          ),
          wanted.map((): Acquired => ({ _tag: "Fill", fill: unfilled }))
        )
      ),
    lease: shared.lease,
    listen: (tell) => shared.listen(tell),
    nameOf: (node) => shared.nameOf(node),
    status: shared.status
  })

  return Store.of({
    label: store.label,
    peek: (node, now) => {
      // Without a function to call: this is the hit.
      try {
        return store.peek(node, now)
      } catch (error) {
        note("peek", error)
        return undefined
      }
    },
    held: (node, now) => attempt("held", () => store.held(node, now), { miss: "absent", stale: undefined }),
    begin: (node, known, since) =>
      Effect.andThen(
        tell,
        recover(
          "begin",
          Effect.map(
            Effect.suspend(() => store.begin(node, known, since)),
            guardFill
          ),
          unfilled
        )
      ),
    // A position that is not known is one that nothing can be stored with.
    position: recover("position", store.position, Number.NaN as Position),
    invalidate: (request) => orFail(Effect.suspend(() => store.invalidate(request))),
    explain: (node) => recover("explain", store.explain(node), { _tag: "Absent" }),
    size: (definition) => attempt("size", () => store.size(definition), 0),
    evictions: (definition) => attempt("evictions", () => store.evictions(definition), 0),
    tags: () => attempt("tags", () => store.tags(), 0),
    shared: store.shared && guardShared(store.shared)
  })
}

/** Instead of the right to store an answer: the answer is given, and not stored. */
const noFill = (store: Store["Service"]): Fill => ({
  isOvertaken: () => false,
  isQuiet: () => Effect.succeed(store.shared === undefined),
  store: () => Effect.succeed("failed"),
  replace: (request) =>
    Effect.map(store.invalidate(request), (applied) => ({ ...applied, stored: "failed" })),
  discard: Effect.void,
  noteUnstored: () => {},
  end: Effect.void
})
