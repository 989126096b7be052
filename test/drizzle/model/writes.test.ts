/** A short run of the model check of writes, and whether it finds what it is there for. `npm run checker:writes` is longer. */
import { assert, describe, inject, it } from "@effect/vitest"
import { check, type Findings } from "./checkWrites.ts"
import { type Sabotage, sabotages } from "./sabotage.ts"
import { inProcess, onServer, type Server } from "./servers.ts"

const isFull = inject("isFull")
const timeout = isFull ? 900_000 : 120_000
const seed = Date.now() % 1_000_000

const onPostgres = (name: "postgres15" | "postgres18") => () => onServer(inject(name))
const servers = [
  { name: "PGlite", open: inProcess, rowLimit: undefined },
  { name: "Postgres 18", open: onPostgres("postgres18"), rowLimit: undefined },
  { name: "Postgres 15", open: onPostgres("postgres15"), rowLimit: undefined },
  { name: "Postgres 18 where single rows are told by row only", open: onPostgres("postgres18"), rowLimit: 1 }
]

const using = async (open: () => Promise<Server>, run: (server: Server) => Promise<Findings>) => {
  const server = await open()
  try {
    return await run(server)
  } finally {
    await server.stop()
  }
}

const told = ({ failures }: Findings): string =>
  failures
    .map(({ kind, history, story, seed }) => [`${kind}, seed ${seed}`, ...history, story].join("\n"))
    .join("\n\n")

describe("the model check of writes", () => {
  for (const { name, open, rowLimit } of servers) {
    it(
      `finds no stale answer, and no answer or row unlike plain Drizzle's, on ${name}`,
      async () => {
        const findings = await using(open, (server) =>
          check({ server, statements: isFull ? 3000 : 200, seed, rowLimit })
        )
        assert.strictEqual(told(findings), "", `seed ${seed}`)
        const { tally } = findings
        assert.isAbove(tally.committed, 50)
        assert.isAbove(tally.rolledBack, 10)
        assert.isAbove(tally.refused["23505"] ?? 0, 0)
        assert.isAbove(tally.hits, 10_000)
        assert.isAbove(tally.all.needed, 100)
      },
      timeout
    )
  }

  const all: ReadonlyArray<readonly [string, Sabotage]> = Object.entries(sabotages)
  for (const [name, sabotage] of all) {
    it(
      `catches that ${sabotage.is}`,
      async () => {
        const { failures, tally } = await using(onPostgres("postgres18"), (server) =>
          check({ server, statements: 2000, seed, sabotage, attempts: 0 })
        )
        assert.deepStrictEqual(
          failures.map(({ kind }) => kind),
          [sabotage.caughtAs ?? "stale answer"],
          `${name}, seed ${seed}, after ${tally.statements} statements`
        )
      },
      timeout
    )
  }
})
