/** How often a text is looked into. */
import { assert, describe, it } from "@effect/vitest"
import { sql } from "drizzle-orm"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { Catalog } from "../../src/drizzle/catalog.ts"
import type { Connection } from "../../src/drizzle/Connection.ts"
import { load } from "../../src/drizzle/parser.ts"
import * as pgliteDriver from "../../src/drizzle/pgliteDriver.ts"
import { Recordings } from "../../src/drizzle/recording.ts"
import { Recorder } from "../../src/Recorder.ts"

interface World {
  /** Notes a text as if it had run, and tells how many texts were looked into for that. */
  readonly note: (text: string) => Effect.Effect<number, unknown>
  readonly run: (text: string) => Effect.Effect<unknown>
  /** How many questions the server was asked since this was last asked. */
  readonly questions: () => number
}

const withTable = <E>(test: (world: World) => Effect.Effect<void, E>) =>
  Effect.scoped(
    Effect.gen(function* () {
      const parse = yield* load
      const driver = yield* pgliteDriver.make({}, {})
      yield* driver.use((connection) => {
        let parsed = 0
        let questions = 0
        const counted: Connection = {
          ...connection,
          db: connection.db,
          start: (...args) => (questions++, connection.start(...args))
        }
        const recordings = new Recordings((text) => (parsed++, parse(text)))
        const catalog = new Catalog()
        const run = (text: string) =>
          Effect.promise(async () => connection.start((db) => db.execute(sql.raw(text))).answer)
        const note = (text: string) =>
          Effect.suspend(() => {
            const before = parsed
            const sent = { text, parameters: [], rows: [] }
            return Effect.clockWith((clock) =>
              Effect.map(
                recordings.note(
                  new Recorder(),
                  catalog,
                  counted,
                  sent,
                  undefined,
                  clock.currentTimeMillisUnsafe()
                ),
                () => parsed - before
              )
            )
          })
        const asked = () => {
          const count = questions
          questions = 0
          return count
        }
        return Effect.andThen(
          run("create table things (id int primary key, name text)"),
          test({ note, run, questions: asked })
        )
      })
    })
  )

describe("a text", () => {
  it.effect("is looked into again only when what the server says has changed", () =>
    withTable(({ note, run, questions }) =>
      Effect.gen(function* () {
        const text = "select lower(a.name) from things a, pg_catalog.pg_class c where a.id = 1"
        assert.strictEqual(yield* note(text), 1)
        // All tables in one, all functions in another.
        assert.strictEqual(questions(), 2)
        yield* TestClock.adjust("2 minutes")
        assert.strictEqual(yield* note(text), 0)
        assert.strictEqual(questions(), 2)
        assert.strictEqual(yield* note(text), 0)
        assert.strictEqual(questions(), 0)
        yield* run("alter table things add size int")
        yield* TestClock.adjust("2 minutes")
        assert.strictEqual(yield* note(text), 1)
        yield* run("create function lower(things) returns int language sql immutable as 'select 1'")
        yield* TestClock.adjust("2 minutes")
        assert.strictEqual(yield* note(text), 1)
      })
    )
  )

  it.effect("is remembered however long it is, and while it is wanted", () =>
    withTable(({ note }) =>
      Effect.gen(function* () {
        const long = (i: number) => `select ${i} from things where name = '${"x".repeat(1_000_000)}'`
        assert.deepStrictEqual(yield* Effect.forEach([0, 0], (i) => note(long(i))), [1, 0])
        const wanted = "select 1 from things where id = 1"
        const unwanted = "select 1 from things where id = 2"
        yield* Effect.forEach([wanted, unwanted], note)
        assert.strictEqual(yield* note(wanted), 0)
        // Eight of these are too much.
        for (let i = 1; i <= 8; i++) assert.strictEqual(yield* note(long(i)), 1)
        assert.strictEqual(yield* note(long(8)), 0)
        assert.strictEqual(yield* note(long(1)), 1)
        assert.strictEqual(yield* note(wanted), 0)
        assert.strictEqual(yield* note(unwanted), 1)
      })
    )
  )

  it.effect("is forgotten when a thousand others came, unless it was wanted meanwhile", () =>
    withTable(({ note }) =>
      Effect.gen(function* () {
        const text = (i: number) => `select ${i} from things where id = 1`
        yield* note(text(-1))
        yield* note(text(-2))
        assert.strictEqual(yield* note(text(-2)), 0)
        for (let i = 0; i < 1000; i++) yield* note(text(i))
        assert.strictEqual(yield* note(text(-2)), 0)
        assert.strictEqual(yield* note(text(-1)), 1)
      })
    )
  )
})
