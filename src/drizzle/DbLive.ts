/**
 * The database, ready to run, set up by the environment:
 *
 * | variable | default | means |
 * |---|---|---|
 * | `DATABASE_URL` | none | a Postgres server, by postgres.js; without it PGlite, inside the process |
 * | `DATABASE_MAX_CONNECTIONS` | `10` | connections at most: an integer from 1 to 10000 |
 * | `CACHEME_ROW_LIMIT` | `1000` | a statement that changes more rows than these is told by table: an integer of at least 0 |
 * | `CACHEME_PGLITE_DIR` | none | a directory for PGlite; without it the database is in memory |
 * | `CACHEME_EMBEDDED` | `false` | `true` allows PGlite where `NODE_ENV` is `production` |
 */
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type { Cacheme } from "../Cacheme.ts"
import type { CachemeError } from "../CachemeError.ts"
import * as Settings from "../Settings.ts"
import { Db } from "./Db.ts"
import type { DbError } from "./DbError.ts"

/**
 * The database from Config. A value that is not allowed keeps the program from starting, with an error that names the
 * variable, the value and what is allowed.
 *
 * **Example** (Providing the database and the cache)
 *
 * ```ts
 * import { CachemeLive } from "cacheme"
 * import { DbLive } from "cacheme/drizzle"
 * import { Layer } from "effect"
 *
 * const AppLive = DbLive.pipe(Layer.provideMerge(CachemeLive))
 * ```
 */
export const DbLive: Layer.Layer<Db, DbError | CachemeError | Config.ConfigError, Cacheme> = Layer.unwrap(
  Effect.gen(function* () {
    const url = Option.getOrUndefined(yield* Config.option(Config.Redacted("DATABASE_URL")))
    const maxConnections = yield* Settings.variable(
      "DATABASE_MAX_CONNECTIONS",
      "an integer from 1 to 10000",
      (text) =>
        /^\d{1,5}$/.test(text) && Number(text) >= 1 && Number(text) <= 10_000 ? Number(text) : undefined
    )
    const rowLimit = yield* Settings.variable("CACHEME_ROW_LIMIT", "an integer of at least 0", (text) =>
      /^\d{1,15}$/.test(text) ? Number(text) : undefined
    )
    if (url !== undefined) {
      if (!/^postgres(ql)?:\/\//.test(Redacted.value(url)) || !URL.canParse(Redacted.value(url))) {
        // Not shown: it may hold a password.
        return yield* Settings.invalid(
          "DATABASE_URL",
          "another text",
          "postgres://user:password@host:5432/database"
        )
      }
      return Db.layerPostgres({ url, maxConnections, rowLimit })
    }
    const environment = yield* Config.option(Config.String("NODE_ENV"))
    const isAllowed = yield* Settings.flag("CACHEME_EMBEDDED")
    if (Option.contains(environment, "production") && isAllowed !== true) {
      return yield* Settings.invalid(
        "DATABASE_URL",
        undefined,
        "a Postgres server's URL, because NODE_ENV is production; CACHEME_EMBEDDED=true allows a database in the process"
      )
    }
    const dataDir = Option.getOrUndefined(yield* Config.option(Config.String("CACHEME_PGLITE_DIR")))
    return Db.layerPglite({ dataDir, rowLimit })
  })
)
