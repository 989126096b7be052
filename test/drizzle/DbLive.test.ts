import { assert, describe, it } from "@effect/vitest"
import { sql } from "drizzle-orm"
import { Cause, ConfigProvider, Effect, Exit, Layer, Logger } from "effect"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { inject } from "vitest"
import { CachemeError, CachemeLive } from "../../src/index.ts"
import { Db, DbError, DbLive } from "../../src/drizzle/index.ts"

const start = (env: Record<string, string>) => {
  const lines: Array<string> = []
  const logger = Logger.make(({ message }) => void lines.push(String(message)))
  const layer = DbLive.pipe(
    Layer.provideMerge(CachemeLive),
    Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnv({ env }))),
    Layer.provide(Logger.layer([logger]))
  )
  return { layer, lines }
}
const version = Db.query((db) => db.execute(sql`select version() as version`))

describe("DbLive", () => {
  it.effect("is PGlite in memory where nothing is said, and says so in one line", () =>
    Effect.gen(function* () {
      const { layer, lines } = start({})
      yield* Effect.provide(version, layer)
      assert.deepStrictEqual(lines, ["cacheme: memory (10000 entries)", lines[1]])
      assert.match(lines[1]!, /^cacheme: cacheme\/Db: PGlite \(PostgreSQL 18\.\d+\), in memory$/)
    })
  )

  it.effect("is PGlite in a directory that is named", () =>
    Effect.gen(function* () {
      const directory = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "cacheme-pglite-"))),
        (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true }))
      )
      const { layer, lines } = start({ CACHEME_PGLITE_DIR: join(directory, "data") })
      const made = Db.mutate((db) => db.execute(sql`create table kept (id int)`))
      yield* Effect.provide(made, layer)
      const seen = Db.query((db) => db.execute(sql`select count(*)::int as n from kept`))
      assert.deepInclude(yield* Effect.provide(seen, layer), { rows: [{ n: 0 }] })
      assert.include(lines.at(-1), directory)
    })
  )

  it.effect("is postgres.js where DATABASE_URL is set", () =>
    Effect.gen(function* () {
      const { layer, lines } = start({ DATABASE_URL: inject("postgres15"), DATABASE_MAX_CONNECTIONS: "2" })
      yield* Effect.provide(version, layer)
      assert.match(lines.at(-1)!, /PostgreSQL 15\.\d+ by postgres\.js, up to 2 connections/)
      assert.notInclude(lines.join(), "127.0.0.1")
    })
  )

  it.effect("names a variable that is not allowed, its value and what is allowed", () =>
    Effect.gen(function* () {
      for (const [env, setting, value] of [
        [{ DATABASE_URL: "mysql://user:secret@host/db" }, "DATABASE_URL", `"another text"`],
        [{ DATABASE_MAX_CONNECTIONS: "0" }, "DATABASE_MAX_CONNECTIONS", `"0"`],
        [{ DATABASE_MAX_CONNECTIONS: "many" }, "DATABASE_MAX_CONNECTIONS", `"many"`],
        [{ CACHEME_EMBEDDED: "perhaps" }, "CACHEME_EMBEDDED", `"perhaps"`],
        [{ NODE_ENV: "production" }, "DATABASE_URL", "undefined"],
        [{ NODE_ENV: "production", CACHEME_EMBEDDED: "false" }, "DATABASE_URL", "undefined"]
      ] as const) {
        const exit = yield* Effect.exit(Effect.provide(version, start(env).layer))
        assert(Exit.isFailure(exit), `${JSON.stringify(env)} was accepted`)
        const error = Cause.squash(exit.cause)
        assert(error instanceof CachemeError && error.reason._tag === "InvalidSetting", String(error))
        assert.deepInclude(error.reason, { setting, value })
        assert.notInclude(error.message, "secret")
      }
      const away = yield* Effect.flip(
        Effect.provide(version, start({ DATABASE_URL: "postgres://a@127.0.0.1:1/b" }).layer)
      )
      assert.instanceOf(away, DbError)
    })
  )

  it.effect("embeds the database in production when that is asked for", () =>
    Effect.provide(version, start({ NODE_ENV: "production", CACHEME_EMBEDDED: "true" }).layer)
  )
})
