/** A short run of the model check of reads, and whether it finds what it is there for. `npm run checker:reads` is longer. */
import { assert, describe, inject, it } from "@effect/vitest"
import { checkReads, type ReadFindings } from "./checkReads.ts"
import { mutants, seek, sourcesOf } from "./mutants.ts"
import { sumOf } from "./readTally.ts"
import { runMix } from "./realisticMix.ts"
import { filmSchema } from "./relations.ts"
import { inProcess, onServer, type Server } from "./servers.ts"

const isFull = inject("isFull")
const timeout = isFull ? 900_000 : 120_000
const seed = Date.now() % 1_000_000

const onPostgres = (name: "postgres15" | "postgres18") => () => onServer(inject(name), filmSchema)
const servers = [
  { name: "PGlite", open: () => inProcess(filmSchema), steps: 40 },
  { name: "Postgres 18", open: onPostgres("postgres18"), steps: 150 },
  { name: "Postgres 15", open: onPostgres("postgres15"), steps: 60 }
]

const using = async <A>(open: () => Promise<Server>, run: (server: Server) => Promise<A>): Promise<A> => {
  const server = await open()
  try {
    return await run(server)
  } finally {
    await server.stop()
  }
}

const told = ({ failures }: ReadFindings): string =>
  failures
    .map(({ kind, history, story, seed }) => [`${kind}, seed ${seed}`, ...history, story].join("\n"))
    .join("\n\n")

describe("the model check of reads", () => {
  for (const { name, open, steps } of servers) {
    it(
      `finds no stale answer of any query, on ${name}`,
      async () => {
        const findings = await using(open, (server) =>
          checkReads({ server, steps: isFull ? 3000 : steps, seed })
        )
        assert.strictEqual(told(findings), "", `seed ${seed}`)
        const { compared, inside, forms } = findings.tally
        assert.isAbove(compared, 0)
        // What a short run does is too much by chance to say how precise it is.
        if (!isFull) return
        assert.isAbove(inside, 0)
        const { byRow } = sumOf({ forms })
        assert.isAtMost(byRow.invalidated, byRow.byTable, "it is not better than a cache by table")
      },
      timeout
    )
  }

  it(
    "looks pages up again much seldomer than a cache by table",
    async () => {
      const { pages, compared, stale } = await using(onPostgres("postgres18"), (server) =>
        runMix({ server, steps: isFull ? 20_000 : 1500, seed })
      )
      assert.isUndefined(stale, `seed ${seed}`)
      assert.isAbove(compared, 100)
      const sum = (of: "needless" | "needlessByTable") =>
        Object.values(pages).reduce((sum, page) => sum + page[of], 0)
      assert.isAbove(sum("needlessByTable"), 3 * sum("needless"), `seed ${seed}`)
    },
    timeout
  )

  it("has mutants whose rules are there", () => {
    for (const mutant of mutants) assert.isAbove(sourcesOf(mutant).size, 0)
  })

  const few = ["first alternative", "ON of both sides"]
  for (const { name, is } of mutants.filter(({ name }) => isFull || few.includes(name))) {
    it(
      `catches that ${is}`,
      async () => {
        const order = { name, database: inject("postgres18"), steps: 4000, seed, attempts: 0 }
        const { failure, statements } = await seek(order)
        assert.strictEqual(
          failure?.kind,
          "stale answer",
          `${name}, seed ${seed}, after ${statements} statements: ${failure?.story}`
        )
      },
      timeout
    )
  }
})
