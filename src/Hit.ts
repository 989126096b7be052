/**
 * The hit: answered in the step in which it is asked.
 *
 * A memoized effect is one small object, `lookup` and `node`, that is an Effect and has an iterator of its own. Under
 * `yield*`, in a running fiber, the iterator looks into memory first, and on a hit is done before it began: the generator
 * goes on with the value, and the fiber's run loop never sees an effect. A miss hands out the effect itself, which goes
 * the way of all effects. Anywhere else (combinators, `runPromise`) the run loop evaluates the object, and a hit is an
 * `Exit`.
 *
 * It answers only where the full rule can be seen to hold at once:
 *
 * - not for a call with options of its own, nor for a node with `skip`, `on.hit` or `refresh.ahead`;
 * - not inside a transaction, whose rows may be others, nor inside a recording lookup, whose tags must be handed up;
 * - not a failure, nor a stale answer;
 * - under `yield*`, not each 128th time: then the run loop takes its turn, in which a fiber that only hits is interrupted
 *   and lets others run.
 *
 * What a context says (which cache, which clock, transaction, recorder) is worked out once and kept until another
 * context is seen: a Context never changes.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import * as Fiber from "effect/Fiber"
import * as Utils from "effect/Utils"
import type * as Node from "./Node.ts"
import { CurrentRecorder } from "./Recorder.ts"
import type { Found, Now } from "./Store.ts"
import { CurrentTransaction } from "./Transaction.ts"

/** The answer that may be given at once, counted as a hit; `undefined` where it cannot be seen to be right. */
export type Hit = (node: Node.Any, now: Now) => Found | undefined

/** Switched off by the tests, which all run without it, too. */
export const shortcut = { isOn: true }

/** An effect that is a node's lookup, and a hit when it can be. */
export interface Memoized {
  readonly node: Node.Any
  readonly lookup: unknown
}

/**
 * Makes memoized effects. `hitOf` finds the cache of a context; `answer` is the way that everything else goes.
 */
export const make = (
  hitOf: (context: Context.Context<never>) => Hit | undefined,
  answer: (memoized: Memoized, fiber: Fiber.Fiber<any, any>) => Effect.Effect<any, any, any>
): ((node: Node.Any, lookup: unknown) => Effect.Effect<any, any, any>) => {
  // What the context that was seen last says of hits.
  let context: Context.Context<never> | undefined
  let hit: Hit | undefined
  let clock: Clock.Clock

  const look = (next: Context.Context<never>): void => {
    const isAlone =
      Context.get(next, CurrentTransaction) === undefined && Context.get(next, CurrentRecorder) === undefined
    hit = isAlone ? hitOf(next) : undefined
    clock = Context.get(next, Clock.Clock)
    context = next
  }

  const find = (fiber: Fiber.Fiber<any, any>, node: Node.Any): Found | undefined => {
    if (!shortcut.isOn) return undefined
    if (fiber.context !== context) look(fiber.context)
    return hit === undefined ? undefined : hit(node, clock)
  }

  const prototype = Object.assign(
    Effectable.Prototype<Effect.Effect<any, any, any> & Memoized>({
      label: "Cacheme.memoize",
      evaluate(fiber) {
        return find(fiber, this.node)?.exit ?? answer(this, fiber)
      }
    }),
    {
      [Symbol.iterator](this: Effect.Effect<any, any, any> & Memoized) {
        // The count of operations is the fiber's own, by which it knows, at 2,048, when to let others run.
        const fiber = Fiber.getCurrent() as (Fiber.Fiber<any, any> & { currentOpCount: number }) | undefined
        if (fiber !== undefined && (++fiber.currentOpCount & 127) !== 0) {
          const found = find(fiber, this.node)
          if (found !== undefined) return new Done(found.value)
        }
        return new Utils.SingleShotGen(this)
      }
    }
  )

  class Answer implements Memoized {
    readonly node: Node.Any
    readonly lookup: unknown
    constructor(node: Node.Any, lookup: unknown) {
      this.node = node
      this.lookup = lookup
    }
  }
  Object.setPrototypeOf(Answer.prototype, prototype)
  return (node, lookup) => new Answer(node, lookup) as any
}

/** An iterator that is done. */
class Done {
  readonly done = true
  readonly value: unknown
  constructor(value: unknown) {
    this.value = value
  }
  next(): this {
    return this
  }
}
