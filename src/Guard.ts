/**
 * Keeps the faults of a store from those who use it: a store that throws, dies or answers nonsense costs the cache, not
 * the answer. Reads find nothing, answers are not stored, and an invalidation that failed is a typed error, because a
 * lost one must never be silent. Each fault is counted by whoever asked, and logged: reads once for each message.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import { CachemeError, StoreFailed } from "./CachemeError.ts"
import { type Fill, Store } from "./Store.ts"

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

  const guardFill = (fill: Fill): Fill => ({
    isOvertaken: () => attempt("isOvertaken", fill.isOvertaken, true),
    isQuiet: () => attempt("isQuiet", fill.isQuiet, false),
    store: (entry) => recover("store", fill.store(entry), "failed"),
    discard: recover("discard", fill.discard, undefined),
    end: recover("end", fill.end, undefined)
  })
  const fills = new WeakMap<Fill, Fill>()

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
            (fill) => {
              const guarded = guardFill(fill)
              fills.set(guarded, fill)
              return guarded
            }
          ),
          noFill
        )
      ),
    // A position that is not known is one that nothing can be stored with.
    position: recover("position", store.position, Number.NaN),
    invalidate: (request, replacement) => {
      const fill = replacement && fills.get(replacement.fill)
      const applied = Effect.suspend(() =>
        store.invalidate(request, replacement && fill && { ...replacement, fill })
      )
      return Effect.catchCause(applied, (cause) =>
        Cause.hasDies(cause)
          ? Effect.fail(
              new CachemeError({
                reason: new StoreFailed({ operation: "invalidate", found: String(Cause.squash(cause)) })
              })
            )
          : Effect.failCause(cause)
      )
    },
    explain: (node) => recover("explain", store.explain(node), { _tag: "Absent" }),
    size: (definition) => attempt("size", () => store.size(definition), 0),
    evictions: (definition) => attempt("evictions", () => store.evictions(definition), 0),
    tags: () => attempt("tags", () => store.tags(), 0)
  })
}

/** Instead of the right to store an answer: the answer is given, and not stored. */
const noFill: Fill = {
  isOvertaken: () => false,
  isQuiet: () => true,
  store: () => Effect.succeed("failed"),
  discard: Effect.void,
  end: Effect.void
}
