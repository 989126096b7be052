import { assert, describe, it } from "@effect/vitest"
import { Effect, Option, Schema, type Scope } from "effect"
import { Cacheme, Node, Tag } from "../../src/index.ts"
import { type Process, rawClient, startProcesses, until } from "../support/processes.ts"
import { type SharedStore, sharedStores } from "../support/shared.ts"

/**
 * Old and new code side by side: neither decodes what the other has written, and both see each other's writes. What
 * cannot be read is a miss.
 */
class Author extends Tag.Class<Author>()("author", { of: Schema.String }) {}
const options = { key: { id: Schema.Int }, tags: () => new Author({ of: "lem" }) }
class Old extends Node.Class<Old>()("book", {
  ...options,
  value: Schema.Struct({ id: Schema.Int, title: Schema.String })
}) {}
class New extends Node.Class<New>()("book", {
  ...options,
  value: Schema.Struct({ id: Schema.Int, title: Schema.NonEmptyString, pages: Schema.Int })
}) {}
class Newer extends Node.Class<Newer>()("book", {
  ...options,
  value: Schema.Struct({ id: Schema.Int, title: Schema.String }),
  version: 2
}) {}

const each = (name: string, body: (kind: SharedStore) => Effect.Effect<void, unknown, Scope.Scope>) => {
  for (const kind of sharedStores) it.effect(`${name} (${kind})`, () => Effect.scoped(body(kind)), 10_000)
}

const statsOf = (process: Process) => Effect.map(process(Cacheme.stats), ({ nodes }) => nodes[0]!)

const sees = <A, E, R>(kind: SharedStore, self: Effect.Effect<A, E, R>, expected: A) =>
  Effect.gen(function* () {
    if (kind === "bounded") {
      const since = performance.now()
      const isSo = (answer: A) => JSON.stringify(answer) === JSON.stringify(expected)
      yield* until(Effect.map(self, (answer) => isSo(answer) || performance.now() - since > 1100))
    }
    assert.deepStrictEqual(yield* self, expected)
  })

describe("Deploy", () => {
  each("old code and new never read each other's values, and each sees the other's writes", (kind) =>
    Effect.gen(function* () {
      const [old, young, newest] = yield* startProcesses(kind)
      const runs = { old: 0, young: 0, newest: 0 }
      const asOld = Effect.sync(() => ({ id: 1, title: `old ${++runs.old}` })).pipe(
        Cacheme.memoize(new Old({ id: 1 }))
      )
      const asYoung = Effect.sync(() => ({ id: 1, title: `new ${++runs.young}`, pages: 2 })).pipe(
        Cacheme.memoize(new New({ id: 1 }))
      )
      const asNewest = Effect.sync(() => ({ id: 1, title: `newest ${++runs.newest}` })).pipe(
        Cacheme.memoize(new Newer({ id: 1 }))
      )
      const all = (n: number) =>
        Effect.gen(function* () {
          yield* sees(kind, old(asOld), { id: 1, title: `old ${n}` })
          yield* sees(kind, young(asYoung), { id: 1, title: `new ${n}`, pages: 2 })
          yield* sees(kind, newest(asNewest), { id: 1, title: `newest ${n}` })
        })
      yield* all(1)
      yield* all(1)
      let n = 1
      for (const write of [
        old(Cacheme.invalidate(new Old({ id: 1 }))),
        young(Cacheme.invalidate(new New({ id: 1 }))),
        newest(Cacheme.invalidate(Newer)),
        old(Cacheme.invalidate(new Author({ of: "lem" }))),
        young(Cacheme.invalidate({ pattern: "book:?" }))
      ]) {
        yield* write
        yield* all(++n)
      }
      // A value that one sets is none to the others, who look up anew.
      yield* young(Cacheme.set(new New({ id: 1 }), { id: 1, title: "set", pages: 1 }))
      yield* sees(kind, old(asOld), { id: 1, title: `old ${n + 1}` })
      yield* sees(kind, newest(asNewest), { id: 1, title: `newest ${n + 1}` })
      assert.deepStrictEqual(yield* young(asYoung), { id: 1, title: "set", pages: 1 })
      for (const process of [old, young, newest])
        assert.strictEqual((yield* statsOf(process)).missesBy.unreadable, 0)
      const names = yield* Effect.forEach(
        [
          old(Cacheme.explain(new Old({ id: 1 }))),
          young(Cacheme.explain(new New({ id: 1 }))),
          newest(Cacheme.explain(new Newer({ id: 1 })))
        ],
        (explained) => Effect.map(explained, ({ storedAs }) => storedAs)
      )
      assert.strictEqual(new Set(names).size, 3)
    })
  )

  each("lookups of old code and new do not wait for each other", (kind) =>
    Effect.gen(function* () {
      const [old, young] = yield* startProcesses(kind)
      const asYoung = Effect.succeed({ id: 1, title: "new", pages: 2 }).pipe(
        Cacheme.memoize(new New({ id: 1 }))
      )
      const asOld = young(asYoung).pipe(
        Effect.map(({ title }) => ({ id: 1, title })),
        Cacheme.memoize(new Old({ id: 1 }))
      )
      assert.strictEqual((yield* old(asOld)).title, "new")
    })
  )

  /** What somebody may have left under the name of an entry, given the entry that was there. */
  const spoilt: Record<string, (bytes: Buffer) => Buffer> = {
    nothing: () => Buffer.alloc(0),
    "another text": () => Buffer.from("what is this?"),
    "half an entry": (bytes) => bytes.subarray(0, bytes.length - 5),
    "another format": (bytes) => Buffer.from(bytes.toString().replace("[1,", "[2,")),
    "a payload that is no JSON": (bytes) => Buffer.from(bytes.toString().replace('"title"', '"title ')),
    "a payload that the schema refuses": (bytes) => Buffer.from(bytes.toString().replace('"abc"', "12345"))
  }
  for (const [what, spoil] of Object.entries(spoilt))
    each(`${what} under an entry's name is a miss that is counted, and looked up anew`, (kind) =>
      Effect.gen(function* () {
        const [a, b, c] = yield* startProcesses(kind)
        const redis = yield* rawClient
        const node = new Old({ id: 1 })
        const ask = (title: string) => Effect.succeed({ id: 1, title }).pipe(Cacheme.memoize(node))
        yield* a(ask("abc"))
        const { storedAs } = yield* a(Cacheme.explain(node))
        const bytes = yield* Effect.promise(() => redis.getBuffer(storedAs))
        const bad = spoil(bytes!)
        assert.isFalse(bad.equals(bytes!))
        yield* Effect.promise(() => redis.set(storedAs, bad))
        const { reason, answered, message } = yield* b(Cacheme.explain(node))
        assert.deepStrictEqual([reason._tag, answered], ["Unreadable", false], message)
        assert.isTrue(Option.isNone(yield* b(Cacheme.peek(node))))
        assert.strictEqual((yield* b(ask("good"))).title, "good")
        assert.deepInclude((yield* statsOf(b)).missesBy, { unreadable: 1, absent: 0 })
        for (const process of [b, c]) assert.strictEqual((yield* process(ask("other"))).title, "good")
      })
    )

  each("something that is no text under an entry's name is replaced", (kind) =>
    Effect.gen(function* () {
      const [a, b] = yield* startProcesses(kind)
      const redis = yield* rawClient
      const node = new Old({ id: 1 })
      const { storedAs } = yield* a(Cacheme.explain(node))
      yield* Effect.promise(() => redis.hset(storedAs, "a", "b"))
      const ask = (title: string) => Effect.succeed({ id: 1, title }).pipe(Cacheme.memoize(node))
      assert.strictEqual((yield* a(ask("x"))).title, "x")
      assert.strictEqual((yield* b(ask("y"))).title, "x")
    })
  )
})
