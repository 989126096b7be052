import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Queue, Schema } from "effect"
import { Reactivity } from "effect/reactivity"
import { Cacheme, MemoryStore, Node, Tag } from "../src/index.ts"
import { layerOf, ownPrefix } from "./support/shared.ts"

class BookNode extends Node.Class<BookNode>()("book", { key: { id: Schema.Int }, value: Schema.Int }) {}
class Shelf extends Tag.Class<Shelf>()("shelf", { id: Schema.Int }) {}

/** The number of times that queries under several names for what may be invalidated have run. */
const watch = Effect.gen(function* () {
  const runs = { text: 0, node: 0, record: 0, class: 0, tag: 0, other: 0 }
  const queues: Array<Queue.Dequeue<number>> = []
  for (const [name, keys] of [
    ["text", ["book:1"]],
    ["node", [new BookNode({ id: 1 })]],
    ["record", { book: [1] }],
    ["class", ["book"]],
    ["tag", [new Shelf({ id: 1 })]],
    ["other", ["book:2"]]
  ] as const)
    queues.push(
      yield* Reactivity.query(
        Effect.sync(() => ++runs[name]),
        keys
      )
    )
  yield* Effect.forEach(queues, Queue.take)
  return { runs, queues }
})

const InMemory = Cacheme.layer().pipe(
  Layer.provide(MemoryStore.layer()),
  Layer.provideMerge(Reactivity.layer)
)

describe("Reactivity", () => {
  it.effect("queries run again when what they are named after is invalidated", () =>
    Effect.gen(function* () {
      const { runs, queues } = yield* watch
      yield* Cacheme.invalidate(new BookNode({ id: 1 }))
      yield* Effect.forEach(queues.slice(0, 3), Queue.take)
      assert.deepStrictEqual(runs, { text: 2, node: 2, record: 2, class: 1, tag: 1, other: 1 })
      yield* Cacheme.invalidate(BookNode)
      yield* Effect.forEach([queues[2]!, queues[3]!], Queue.take)
      assert.deepStrictEqual(runs, { text: 2, node: 2, record: 3, class: 2, tag: 1, other: 1 })
      yield* Cacheme.invalidate(new Shelf({ id: 1 }))
      yield* Queue.take(queues[4]!)
      assert.deepStrictEqual(runs, { text: 2, node: 2, record: 3, class: 2, tag: 2, other: 1 })
    }).pipe(Effect.scoped, Effect.provide(InMemory))
  )

  it.live("they run again when another process has invalidated it", () =>
    Effect.gen(function* () {
      const prefix = ownPrefix()
      const shared = () => Layer.fresh(Cacheme.layer().pipe(Layer.provide(layerOf("validated", { prefix }))))
      const here = yield* Layer.build(shared().pipe(Layer.provideMerge(Reactivity.layer)))
      const there = yield* Layer.build(shared())
      const { queues } = yield* Effect.provideContext(watch, here)
      // A subscription may still be under way: it is told of what comes after it.
      const told = Effect.forEach(queues.slice(0, 3), Queue.take)
      const write = Effect.provideContext(Cacheme.invalidate(new BookNode({ id: 1 })), there)
      yield* Effect.raceFirst(told, Effect.forever(Effect.andThen(write, Effect.sleep("20 millis"))))
      assert.isTrue(Context.get(there, Cacheme) !== Context.get(here, Cacheme))
    }).pipe(Effect.scoped)
  )
})
