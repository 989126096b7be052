/**
 * `npm run checker:writes`: checks by chance that after a write through `Db` no cached answer is stale, and that `Db`
 * answers, keeps and refuses what plain Drizzle does.
 *
 * | option | default | is |
 * |---|---|---|
 * | `--statements` | `10000` | how many statements at least, on each database |
 * | `--database` | `all` | `pglite`, `postgres15`, `postgres18`, `all`, or the url of a server, where two databases are made |
 * | `--seed` | by chance | the same seed is the same statements |
 * | `--without` | | leaves out statements of these forms, or of these tables, separated by commas |
 * | `--row-limit` | `1000` | more changed rows are told by table |
 * | `--failures` | `1` | after how many failures it ends |
 * | `--sabotage` | | leaves out some of what is told, which must be caught: a name, or `all`, one after the other |
 *
 * Ends with 1 when an answer was stale or anything else was wrong, or a sabotage was not caught.
 */
import { SingleBar } from "cli-progress"
import Table from "cli-table3"
import { parseArgs } from "node:util"
import { check, type Findings } from "./checkWrites.ts"
import type { Failure } from "./minimal.ts"
import { sabotageOf, sabotages } from "./sabotage.ts"
import type { Precision } from "./tally.ts"
import { type Server, serversOf, start } from "./servers.ts"
import { helpIfAsked } from "../../support/help.ts"

helpIfAsked(import.meta.filename)

const { values } = parseArgs({
  options: {
    statements: { type: "string", default: "10000" },
    database: { type: "string", default: "all" },
    seed: { type: "string" },
    without: { type: "string" },
    "row-limit": { type: "string", default: "1000" },
    failures: { type: "string", default: "1" },
    sabotage: { type: "string" }
  }
})

const number = (option: string, text: string): number => {
  const found = Number(text)
  if (!Number.isInteger(found) || found < 0)
    throw new Error(`--${option} is ${text}: expected a whole number`)
  return found
}

const main = async (): Promise<boolean> => {
  const seed = values.seed === undefined ? Math.floor(Math.random() * 1_000_000) : number("seed", values.seed)
  const statements = number("statements", values.statements)
  const { sabotage } = values
  const names = sabotage === "all" ? Object.keys(sabotages) : sabotage === undefined ? [] : [sabotage]
  for (const name of names) sabotageOf(name)
  console.log(`seed ${seed}`)
  let isRight = true
  for (const database of serversOf(values.database)) {
    const server = await start(database)
    try {
      if (sabotage === undefined) isRight = (await checkOn(server, statements, seed)) && isRight
      for (const name of names) isRight = (await tellSabotage(server, name, statements, seed)) && isRight
    } finally {
      await server.stop()
    }
  }
  return isRight
}

const checkOn = async (server: Server, statements: number, seed: number): Promise<boolean> => {
  const bar = new SingleBar({
    format: `${server.name} {bar} {value} of {total} statements, {duration_formatted}`,
    noTTYOutput: false
  })
  bar.start(statements, 0)
  const findings = await check({
    server,
    statements,
    seed,
    failures: number("failures", values.failures),
    without: values.without?.split(","),
    rowLimit: number("row-limit", values["row-limit"]),
    onProgress: (done) => bar.update(done)
  })
  bar.stop()
  tell(server.name, findings)
  return findings.failures.length === 0
}

const tell = (name: string, { tally, seconds, failures }: Findings): void => {
  const { statements, steps, committed, rolledBack, reads, hits, refused } = tally
  const refusals = Object.values(refused).reduce((sum, count) => sum + count, 0)
  const constraints = Object.entries(refused).reduce(
    (sum, [code, n]) => sum + (code.startsWith("23") ? n : 0),
    0
  )
  console.log(
    `\n${name}: ${statements} statements in ${steps} steps, of which ${committed} were committed and ${rolledBack} rolled ` +
      `back; ${refusals} refused, ${constraints} of them by constraints; ${Math.round(statements / seconds)} a second`
  )
  console.log(
    `  refused     ${Object.entries(refused)
      .toSorted((a, b) => b[1] - a[1])
      .map(([code, count]) => `${code} ${count}`)
      .join(", ")}`
  )
  console.log(
    `  answers     ${reads} compared, ${hits} from the cache, ${failures.filter(({ kind }) => kind === "stale answer").length} stale`
  )
  tellPrecision("invalidated", tally.all)
  tellPrecision("of which by row", tally.byRow)
  const table = new Table({
    head: ["form", "by row", "by table", "nothing changed", "other tables by table", "without need"]
  })
  for (const [form, told] of Object.entries(tally.forms).toSorted(([a], [b]) => (a < b ? -1 : 1)))
    table.push([form, told.byRow, told.byTable, told.nothing, told.others, told.needless])
  console.log(table.toString())
  for (const failure of failures) tellFailure(failure)
}

const tellPrecision = (what: string, { steps, invalidated, needed, byTable }: Precision): void => {
  const needless = (all: number) =>
    `${all} entries, ${all - needed} of them without need (${percent(all - needed, all)})`
  console.log(`  ${what}: in ${steps} steps ${needless(invalidated)}`)
  console.log(`    if every table that changed had ended all that reads it: ${needless(byTable)}`)
}

const percent = (part: number, whole: number): string =>
  whole === 0 ? "0 %" : `${Math.round((100 * part) / whole)} %`

const tellFailure = ({ kind, story, history, seed }: Failure): void => {
  console.log(`\n${kind.toUpperCase()} (in the round with seed ${seed})`)
  console.log(history.map((line) => `  ${line}`).join("\n"))
  console.log(story)
}

/** Tells too little; true when that was caught. */
const tellSabotage = async (
  server: Server,
  name: string,
  statements: number,
  seed: number
): Promise<boolean> => {
  const sabotage = sabotageOf(name)
  const { failures, tally } = await check({ server, statements, seed, sabotage })
  const [failure] = failures
  const isCaught = failure?.kind === (sabotage.caughtAs ?? "stale answer")
  console.log(
    `${server.name}: ${isCaught ? "caught    " : "NOT CAUGHT"} after ${tally.statements} statements: ${name}, ${sabotage.is}`
  )
  if (failure !== undefined) tellFailure(failure)
  return isCaught
}

// Its servers end with it.
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(1))

process.exitCode = (await main()) ? 0 : 1
