import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit } from "effect"
import { inject } from "vitest"
import type { Declared, DeclaredTable } from "../../../src/Declared.ts"
import * as FarSettings from "../../../src/store/redis/farSettings.ts"
import * as FarStore from "../../../src/store/redis/FarStore.ts"
import * as Names from "../../../src/store/redis/names.ts"
import { checksOf, declarationsOf, declaredFor, versionsOf } from "../../../src/store/redis/versions.ts"
import { rawClient } from "../../support/processes.ts"
import { ownPrefix } from "../../support/shared.ts"
import { invalidation, row } from "../StoreSuite.ts"

const declaredOf = (tables: Readonly<Record<string, Partial<DeclaredTable>>>): Declared => ({
  count: 1,
  tables: new Map(
    Object.entries(tables).map(([name, table]) => [
      name,
      { row: "id integer", keys: new Map<string, string>(), groups: "", ...table }
    ])
  )
})
const byAuthor = declaredOf({ books: { keys: new Map([["author_id=", "author_id integer"]]) } })
const plain = declaredOf({ books: {} })

/** A process that declares these tables. */
const start = (prefix: string, declared: Declared) =>
  Effect.gen(function* () {
    const settings = yield* FarSettings.make({ url: inject("redisUrl"), prefix, deadline: "5 seconds" })
    const store = yield* FarStore.make({ ...settings, declared })
    return {
      begin: store.begin(row(1), ["row:1", "row:*"]),
      invalidate: (...tags: ReadonlyArray<string>) => store.invalidate(invalidation({ tags }))
    }
  })
const entry = { exit: Exit.succeed(1), tags: ["@books:author_id=3", "@books:?"], timeToLive: 600_000 }
const written = ["@books:*", "@books:id=1"] as const

describe("an entry that rests on what its process declares", () => {
  it.live("is not stored if that was not known when a write was told", () =>
    Effect.gen(function* () {
      const prefix = ownPrefix()
      const [reader, writer] = [yield* start(prefix, byAuthor), yield* start(prefix, plain)]
      const fill = yield* reader.begin
      // Nobody has told the cell of the key yet.
      yield* writer.invalidate(...written)
      assert.strictEqual(yield* fill.store(entry), "overtaken")
      const next = yield* reader.begin
      const later = yield* reader.begin
      assert.strictEqual(yield* next.store(entry), "stored")
      yield* writer.invalidate(...written)
      assert.strictEqual(yield* later.store(entry), "overtaken")
    }).pipe(Effect.scoped)
  )

  it.live("is told of any write by who tells rows otherwise", () =>
    Effect.gen(function* () {
      const prefix = ownPrefix()
      const other = declaredOf({ books: { row: "isbn text" } })
      const [reader, writer] = [yield* start(prefix, plain), yield* start(prefix, other)]
      const ofRow = { ...entry, tags: ["@books:id=1", "@books:?"] }
      assert.strictEqual(yield* Effect.flatMap(reader.begin, (fill) => fill.store(ofRow)), "stored")
      const later = yield* reader.begin
      yield* writer.invalidate("@books:*", "@books:isbn=9")
      assert.strictEqual(yield* later.store(ofRow), "overtaken")
      const alike = yield* reader.begin
      yield* reader.invalidate("@books:*", "@books:id=2")
      assert.strictEqual(
        yield* alike.store(ofRow),
        "stored",
        "nobody else has stored what rests on the table"
      )
    }).pipe(Effect.scoped)
  )

  it.live("is declared anew once that is long ago, or the cell has begun anew", () =>
    Effect.gen(function* () {
      const prefix = ownPrefix()
      const redis = yield* rawClient
      const names = Names.make(prefix)
      const reader = yield* start(prefix, byAuthor)
      const declarations = Effect.promise(() => redis.hget(names.state(0), "@books"))
      assert.strictEqual(yield* Effect.flatMap(reader.begin, (fill) => fill.store(entry)), "stored")
      const first = yield* declarations
      assert.match(first!, /^(?:[rk][\w-]{8}=\d+,){2}$/)
      // The log has come far since.
      const far = Number(yield* Effect.promise(() => redis.hget(names.state(0), "sequence"))) + declaredFor
      yield* Effect.promise(() => redis.hset(names.state(0), "sequence", String(far)))
      assert.strictEqual(yield* Effect.flatMap(reader.begin, (fill) => fill.store(entry)), "stored")
      assert.strictEqual(yield* declarations, first!.replaceAll(/=\d+/g, `=${far}`))
      yield* Effect.promise(() => redis.del(names.state(0), names.log(0), names.position(0)))
      assert.strictEqual(yield* Effect.flatMap(reader.begin, (fill) => fill.store(entry)), "stored")
      assert.isNotNull(yield* declarations)
    }).pipe(Effect.scoped)
  )

  it.live(
    "what was declared is kept for a day longer than any entry, and for good where one lives for ever",
    () =>
      Effect.gen(function* () {
        for (const [timeToLive, isKept] of [
          [600_000, false],
          [Infinity, true]
        ] as const) {
          const prefix = ownPrefix()
          const redis = yield* rawClient
          const names = Names.make(prefix)
          const [reader, writer] = [yield* start(prefix, byAuthor), yield* start(prefix, plain)]
          yield* Effect.flatMap(reader.begin, (fill) => fill.store({ ...entry, timeToLive }))
          const key = versionsOf(entry.tags, byAuthor)[0]!
          const tell = Effect.gen(function* () {
            yield* writer.invalidate(...written)
            const at = yield* Effect.promise(() => redis.zscore(names.log(0), `:${key}`))
            return at === (yield* Effect.promise(() => redis.hget(names.state(0), "sequence")))
          })
          const goOn = (by: number) =>
            Effect.promise(async () => {
              const at = Number(await redis.hget(names.state(0), "sequence"))
              await redis.hset(names.state(0), "sequence", String(at + by))
            })
          assert.isTrue(yield* tell)
          yield* goOn(2 * declaredFor)
          assert.isTrue(yield* tell)
          yield* goOn(600_000_000)
          assert.strictEqual(yield* tell, isKept)
        }
      }).pipe(Effect.scoped)
  )
})

describe("what a writer declares", () => {
  const stats = declaredOf({ books: { groups: "stats: views integer" }, films: {} })

  it("is sent for tables that are told by row", () => {
    assert.deepStrictEqual(checksOf([":#fact", ":row:1", "~row:*"], byAuthor), [0])
    assert.deepStrictEqual(checksOf([":@books:*", ":@books:?"], byAuthor), [0])
    const [count, name, keys, groups, members, ...others] = checksOf([":@books:*", ":@books:id=1"], byAuthor)
    assert.deepStrictEqual([count, name, groups, members, others], [1, "books", "", 0, []])
    assert.match(String(keys), /^,[\w-]{8},[\w-]{8},$/)
    // Of a table that is not declared here nothing is known.
    assert.deepStrictEqual(checksOf([":@films:id=1"], byAuthor), [1, "films", ",", "", 0])
  })

  it("goes with what stands for a group where it is not one", () => {
    const [, name, , groups, count, ...members] = checksOf(
      [":@books~stats:*", ":@books~stats:id=1", ":@films:*"],
      stats
    )
    assert.deepStrictEqual([name, count], ["books", 2])
    assert.deepStrictEqual(members.slice(0, 2), [":@books:*", ":@books:id=1"])
    assert.include(declarationsOf(stats)[1], `~books:${String(groups)}~`)
    assert.strictEqual(declarationsOf(plain)[1], "~")
  })

  it("a version is carried for a declared key, once, and for nothing else", () => {
    const ids = ["row:1", "#fact", "@books:*", "@books:?", "@books:id=1", "@films:author_id=3"]
    assert.deepStrictEqual(versionsOf(ids, byAuthor), [])
    const [version, ...others] = versionsOf(
      [...ids, "@books:author_id=3", "@books~stats:author_id=4"],
      byAuthor
    )
    assert.match(version!, /^@books![\w-]{8}$/)
    assert.deepStrictEqual(others, [])
    assert.deepStrictEqual(versionsOf(["@books:author_id=3", version!], byAuthor), [])
  })
})
