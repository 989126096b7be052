import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, Logger, Schema } from "effect"
import { Cacheme, Node } from "../src/index.ts"
import { CachemeTest } from "../src/testing/index.ts"
import { reading, rowIds } from "./support/reading.ts"

class Count extends Node.Class<Count>()("count", { key: { id: Schema.Int }, value: Schema.Int }) {}
class Other extends Node.Class<Other>()("other", { key: { id: Schema.Int }, value: Schema.Int }) {}

const read = reading({ ids: rowIds("books", 7) })
const used = Effect.succeed(1).pipe(Cacheme.memoize(new Other({ id: 0 })))

/** A cache whose warnings are seen. */
const watched = () => {
  const warnings: Array<string> = []
  const logger = Logger.make(({ message, logLevel }) => {
    if (logLevel === "Warn") warnings.push(String(message))
  })
  const layer = CachemeTest.layer().pipe(Layer.provideMerge(Logger.layer([logger])))
  return { warnings, layer }
}

/** Looks a key up with a fiber that goes on once the lookup has ended. */
const outlived = (node: Count | Other, late: Effect.Effect<unknown, never, Cacheme>) =>
  Effect.gen(function* () {
    const gate = yield* Deferred.make<void>()
    let fiber: Fiber.Fiber<unknown> | undefined
    const lookup = Effect.gen(function* () {
      fiber = yield* Effect.forkDetach(Effect.andThen(Deferred.await(gate), late))
      return 1
    })
    yield* lookup.pipe(Cacheme.memoize(node))
    yield* Deferred.succeed(gate, undefined)
    yield* Fiber.join(fiber!)
    yield* Effect.yieldNow
  })

describe("a fiber that outlives its lookup", () => {
  it.effect("and reads then, or uses an answer, is warned of, once for a node", () => {
    const { warnings, layer } = watched()
    return Effect.gen(function* () {
      yield* outlived(new Count({ id: 1 }), read)
      assert.lengthOf(warnings, 1)
      assert.match(warnings[0]!, /node "count": a fiber outlived the lookup/)
      yield* outlived(new Count({ id: 2 }), read)
      assert.lengthOf(warnings, 1)
      yield* outlived(new Other({ id: 1 }), used)
      assert.lengthOf(warnings, 2)
      assert.match(warnings[1]!, /node "other"/)
      assert.isTrue((yield* Cacheme.explain(new Count({ id: 1 }))).dependencies!.isBare)
    }).pipe(Effect.provide(layer))
  })

  it.effect("and does neither is its own affair", () => {
    const { warnings, layer } = watched()
    return Effect.gen(function* () {
      yield* outlived(new Count({ id: 1 }), Effect.void)
      const waited = Effect.flatMap(Effect.forkChild(read), Fiber.join)
      yield* Effect.as(waited, 1).pipe(Cacheme.memoize(new Count({ id: 2 })))
      yield* Effect.yieldNow
      assert.deepStrictEqual(warnings, [])
    }).pipe(Effect.provide(layer))
  })
})
