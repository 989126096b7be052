import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Effect, Exit, Fiber, Layer, Option, PrimaryKey, Schema } from "effect"
import { TestClock } from "effect/testing"
import { Cacheme, MemoryStore, Node, Tag } from "../src/index.ts"

class Square extends Node.Class<Square>()("square", {
  key: { of: Schema.Int },
  value: Schema.Int,
  timeToLive: "1 minute"
}) {}

const TestCache = Cacheme.layer().pipe(Layer.provide(MemoryStore.layer()))

let lookups = 0
const square = Cacheme.fn(Square, ({ of }) => Effect.sync(() => (lookups++, of * of)))
const hits = Effect.map(Cacheme.stats, ({ nodes: [stats] }) => stats!.hits)

describe("a hit", () => {
  it.effect("is the same in a generator, in combinators, and in fibers of their own", () =>
    Effect.gen(function* () {
      lookups = 0
      assert.strictEqual(yield* square({ of: 3 }), 9)
      assert.strictEqual(yield* square({ of: 3 }), 9)
      assert.strictEqual(yield* Effect.map(square({ of: 3 }), (n) => n + 1), 10)
      assert.deepStrictEqual(
        yield* Effect.all([square({ of: 3 }), square({ of: 3 })], { concurrency: 2 }),
        [9, 9]
      )
      const fiber = yield* Effect.forkChild(square({ of: 3 }))
      assert.strictEqual(yield* Fiber.join(fiber), 9)
      assert.deepStrictEqual(yield* Effect.exit(square({ of: 3 })), Exit.succeed(9))
      assert.deepStrictEqual([lookups, yield* hits], [1, 6])
    }).pipe(Effect.provide(TestCache))
  )

  it.effect("is the same for each key of a batch, and counted once", () =>
    Effect.gen(function* () {
      lookups = 0
      const keys = [new Square({ of: 3 }), new Square({ of: 4 }), new Square({ of: 3 })]
      yield* square({ of: 3 })
      const answers = yield* Cacheme.getAll(keys, (missing) => {
        lookups++
        return Effect.succeed(missing.map((node) => [node, node.of ** 2] as const))
      })
      assert.deepStrictEqual(answers, [Option.some(9), Option.some(16), Option.some(9)])
      yield* TestClock.adjust("59 seconds")
      yield* Cacheme.getAll(keys, () => Effect.die("a miss"))
      assert.deepStrictEqual([lookups, yield* hits], [2, 5])
      yield* Cacheme.invalidate(new Square({ of: 3 }))
      const again = yield* Cacheme.getAll(keys, (missing) =>
        Effect.succeed(missing.map((node) => [node, -1] as const))
      )
      assert.deepStrictEqual(again, [Option.some(-1), Option.some(16), Option.some(-1)])
    }).pipe(Effect.provide(TestCache))
  )

  it.effect("an effect made before is judged when it runs: after its time, after an invalidation", () =>
    Effect.gen(function* () {
      lookups = 0
      const made = square({ of: 4 })
      yield* made
      yield* made
      yield* TestClock.adjust("1 minute")
      yield* made
      assert.strictEqual(lookups, 2)
      yield* Cacheme.invalidate(new Square({ of: 4 }))
      yield* made
      assert.strictEqual(lookups, 3)
    }).pipe(Effect.provide(TestCache))
  )

  it.effect("goes to the cache of its own context, wherever the generator changes it", () =>
    Effect.gen(function* () {
      let runs = 0
      const ask = Effect.sync(() => ++runs).pipe(Cacheme.memoize(new Square({ of: 5 })))
      assert.strictEqual(yield* ask, 1)
      const inner = Effect.gen(function* () {
        return [yield* ask, yield* ask]
      }).pipe(Effect.provide(Layer.fresh(TestCache)))
      assert.deepStrictEqual(yield* inner, [2, 2])
      assert.strictEqual(yield* ask, 1)
    }).pipe(Effect.provide(TestCache))
  )

  it.effect("without a cache is a defect that no try in the generator can catch", () =>
    Effect.gen(function* () {
      const exit = yield* Effect.exit(
        Effect.gen(function* () {
          try {
            return yield* square({ of: 6 }) as Effect.Effect<number>
          } catch {
            return -1
          }
        })
      )
      assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
    })
  )

  it.effect("in a lookup hands up what it rests on, though it was a hit", () =>
    Effect.gen(function* () {
      class Fact extends Tag.Class<Fact>()("fact") {}
      class Inner extends Node.Class<Inner>()("inner", {
        key: {},
        value: Schema.Int,
        tags: () => new Fact()
      }) {}
      class Outer extends Node.Class<Outer>()("outer", { key: {}, value: Schema.Int }) {}
      const inner = Effect.succeed(1).pipe(Cacheme.memoize(new Inner()))
      yield* inner
      yield* inner
      const outer = Effect.gen(function* () {
        return (yield* inner) + (yield* inner)
      }).pipe(Cacheme.memoize(new Outer()))
      yield* outer
      yield* Cacheme.invalidate(new Fact())
      assert.isTrue(Option.isNone(yield* Cacheme.peek(new Outer())))
    }).pipe(Effect.provide(TestCache))
  )

  it.effect("tells who wants to be told, and skips what is to be skipped", () =>
    Effect.gen(function* () {
      const told: Array<number> = []
      class Told extends Node.Class<Told>()("told", {
        key: { of: Schema.Int },
        value: Schema.Int,
        skip: ({ of }) => of === 2,
        on: { hit: (_, value) => Effect.sync(() => told.push(value)) }
      }) {}
      let runs = 0
      const ask = Cacheme.fn(Told, () => Effect.sync(() => ++runs))
      yield* Effect.all([ask({ of: 1 }), ask({ of: 1 }), ask({ of: 2 }), ask({ of: 2 })])
      assert.deepStrictEqual([told, runs], [[1], 3])
    }).pipe(Effect.provide(TestCache))
  )

  it.effect("of a lookup that is a function too is not mistaken for one", () =>
    Effect.gen(function* () {
      class Number extends Context.Service<Number, number>()("test/Number") {}
      const ask = Number.pipe(Cacheme.memoize(new Square({ of: 7 })), Effect.provideService(Number, 49))
      assert.deepStrictEqual([yield* ask, yield* ask], [49, 49])
    }).pipe(Effect.provide(TestCache))
  )

  it.effect("is no failure: a cached one fails in a generator too", () =>
    Effect.gen(function* () {
      class Gone extends Schema.TaggedError<Gone>()("Gone", {}) {}
      class Thing extends Node.Class<Thing>()("thing", { key: {}, value: Schema.Int, error: Gone }) {}
      const ask = Effect.fail(new Gone()).pipe(Cacheme.memoize(new Thing()))
      const failing = Effect.gen(function* () {
        yield* ask
        return "went on"
      })
      yield* Effect.exit(failing)
      assert.instanceOf(yield* Effect.flip(failing), Gone)
      yield* Cacheme.getAll([new Square({ of: 10 })], () => Effect.succeed([]), { absent: "1 minute" })
      assert.strictEqual(yield* square({ of: 10 }), 100)
    }).pipe(Effect.provide(TestCache))
  )

  it.effect("is none where the node skips the cache now, or the cache is switched off", () =>
    Effect.gen(function* () {
      let skips = false
      class Moody extends Node.Class<Moody>()("moody", { key: {}, value: Schema.Int, skip: () => skips }) {}
      let runs = 0
      const ask = Effect.sync(() => ++runs).pipe(Cacheme.memoize(new Moody()))
      assert.deepStrictEqual([yield* ask, yield* ask], [1, 1])
      skips = true
      assert.strictEqual(yield* ask, 2)
      skips = false
      const off = Effect.gen(function* () {
        return yield* ask
      }).pipe(Effect.provide(Cacheme.layer({ enabled: false })))
      assert.deepStrictEqual([yield* off, yield* ask], [3, 1])
    }).pipe(Effect.provide(Cacheme.layer().pipe(Layer.provideMerge(MemoryStore.layer()))))
  )
})

describe("a fiber that only hits", () => {
  const forever = Effect.gen(function* () {
    for (;;) yield* square({ of: 9 })
  })

  it.effect("lets others run", () =>
    Effect.gen(function* () {
      yield* square({ of: 9 })
      const busy = yield* Effect.forkChild(forever)
      const other = yield* Effect.forkChild(Effect.succeed("had its turn"))
      assert.strictEqual(yield* Fiber.join(other), "had its turn")
      yield* Fiber.interrupt(busy)
    }).pipe(Effect.provide(TestCache))
  )

  it.effect("can be interrupted", () =>
    Effect.gen(function* () {
      yield* square({ of: 9 })
      const busy = yield* Effect.forkChild(forever)
      yield* Effect.yieldNow
      yield* Fiber.interrupt(busy)
      assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(busy)))
    }).pipe(Effect.provide(TestCache))
  )
})

describe("the look at a key", () => {
  const fields = {
    int: Schema.Int,
    number: Schema.Number,
    finite: Schema.Finite,
    string: Schema.String,
    boolean: Schema.Boolean,
    brand: Schema.Int.pipe(Schema.brand("Id")),
    positive: Schema.Int.check(Schema.isGreaterThan(0)),
    literal: Schema.Literals(["", "1", true]),
    text: Schema.NumberFromString,
    short: Schema.NonEmptyString
  }
  const values: ReadonlyArray<unknown> = [
    0,
    -0,
    1,
    1.5,
    -7,
    Number.NaN,
    Infinity,
    2 ** 53,
    2 ** 60,
    "",
    "1",
    "x".repeat(400),
    true,
    false,
    null,
    undefined,
    1n,
    {},
    [],
    new Date(0),
    Symbol.iterator
  ]

  it("accepts exactly what the schema accepts", () => {
    for (const [name, schema] of Object.entries(fields)) {
      const One = Node.Class<any>()("one", { key: { [name]: schema }, value: Schema.Int })
      for (const value of values) {
        const isAccepted = Schema.is(schema as Schema.Schema<unknown>)(value)
        const make = () => new One({ [name]: value } as never)
        if (isAccepted) assert.doesNotThrow(make, `${name} ${String(value)}`)
        else assert.throws(make, /node "one": field/, `${name} ${String(value)}`)
      }
    }
  })

  it("knows missing, unknown and inherited fields", () => {
    class Two extends Node.Class<Two>()("two", {
      key: { a: Schema.Int, b: Schema.String },
      value: Schema.Int
    }) {}
    assert.strictEqual(PrimaryKey.value(new Two({ a: 1, b: "x" })), "two:1:x")
    assert.strictEqual(PrimaryKey.value(new Two({ b: "x", a: 1 })), "two:1:x")
    assert.deepStrictEqual(Object.entries(new Two({ a: 1, b: "x" })), Object.entries({ a: 1, b: "x" }))
    for (const wrong of [{ a: 1 }, { a: 1, b: "x", c: 2 }, { a: "1", b: "x" }, null, 7, "two"])
      assert.throws(() => new Two(wrong as never), /node "two": field/)
    const inherited = Object.create({ a: 1, b: "x" }) as { a: number; b: string }
    let text: string
    try {
      text = PrimaryKey.value(new Two(inherited))
    } catch (error) {
      text = (error as Error).message
    }
    assert.match(text, /two:1:x|node "two": field/)
  })

  it("counts the names of the keys that a key lies within", () => {
    const Parent = Node.Class<any>()("p".repeat(100), { key: { of: Schema.String }, value: Schema.Int })
    const Child = Node.Class<any>()("c".repeat(100), {
      key: { of: Schema.String },
      value: Schema.Int,
      within: Parent
    })
    assert.doesNotThrow(() => new Child({ of: "€".repeat(270) }))
    assert.throws(() => new Child({ of: "€".repeat(290) }), /at most 1024 bytes/)
  })

  it("keeps keys within their length", () => {
    class Long extends Node.Class<Long>()("long", { key: { of: Schema.String }, value: Schema.Int }) {}
    for (const character of ["a", "%", "ä", "😀"]) {
      for (const length of [100, 300, 330, 340, 341, 342, 500, 1019, 1020, 1100]) {
        const of = character.repeat(length)
        const bytes = new TextEncoder().encode(`long:${of.replaceAll("%", "%25")}`).length
        if (bytes <= 1024) assert.doesNotThrow(() => new Long({ of }), `${character} ${length}`)
        else assert.throws(() => new Long({ of }), /at most 1024 bytes/, `${character} ${length}`)
      }
    }
  })
})
