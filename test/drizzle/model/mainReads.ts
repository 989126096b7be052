/**
 * `npm run checker:reads`: checks by chance that what `Db` notes of a query is enough: random queries, memoized without a
 * tag by hand, of which none may be stale after any write through `Db`.
 *
 * | option | default | is |
 * |---|---|---|
 * | `--steps` | `10000` | how many statements at least, on each database |
 * | `--database` | `all` | `pglite`, `postgres15`, `postgres18`, `all`, or the url of a server, where two databases are made |
 * | `--seed` | by chance | the same seed is the same statements and queries |
 * | `--queries` | `60` | how many queries are cached at a time |
 * | `--forms` | | draws only queries of these forms, separated by commas |
 * | `--row-limit` | `1000` | more changed rows are told by table |
 * | `--failures` | `1` | after how many failures it ends |
 * | `--mutant` | | takes a rule out of the library, which must make it fail: names, separated by commas, or `all` |
 * | `--mix` | `random` | `realistic`: a rental as programs have it, and how often its pages are looked up again |
 *
 * Ends with 1 when an answer was stale or anything else was wrong, or a mutant was not caught.
 */
import { SingleBar } from "cli-progress"
import Table from "cli-table3"
import { parseArgs } from "node:util"
import { checkReads, type ReadFailure, type ReadFindings } from "./checkReads.ts"
import { mutantOf, mutants, seek } from "./mutants.ts"
import { formNames } from "./queries.ts"
import { type FormReads, type ReadPrecision, sumOf } from "./readTally.ts"
import { type PageTally, runMix } from "./realisticMix.ts"
import { filmSchema } from "./relations.ts"
import { type Server, serversOf, start } from "./servers.ts"
import { helpIfAsked } from "../../support/help.ts"

helpIfAsked(import.meta.filename)

const { values } = parseArgs({
  options: {
    steps: { type: "string", default: "10000" },
    database: { type: "string", default: "all" },
    seed: { type: "string" },
    queries: { type: "string", default: "60" },
    forms: { type: "string", default: "" },
    "row-limit": { type: "string", default: "1000" },
    failures: { type: "string", default: "1" },
    mutant: { type: "string" },
    mix: { type: "string", default: "random" }
  }
})

const number = (option: string, text: string): number => {
  const found = Number(text)
  if (!Number.isInteger(found) || found < 0)
    throw new Error(`--${option} is ${text}: expected a whole number`)
  return found
}

const formsOf = (text: string): ReadonlyArray<string> => {
  const forms = text === "" ? [] : text.split(",")
  const wrong = forms.find((form) => !formNames.includes(form))
  if (wrong !== undefined) throw new Error(`--forms has ${wrong}: expected some of ${formNames.join(", ")}`)
  return forms
}

const main = async (): Promise<boolean> => {
  const seed = values.seed === undefined ? Math.floor(Math.random() * 1_000_000) : number("seed", values.seed)
  const options = {
    seed,
    steps: number("steps", values.steps),
    queries: number("queries", values.queries),
    forms: formsOf(values.forms),
    rowLimit: number("row-limit", values["row-limit"]),
    failures: number("failures", values.failures)
  }
  const { mutant = "" } = values
  const names = mutant === "all" ? mutants.map(({ name }) => name) : mutant.split(",").filter(Boolean)
  for (const name of names) mutantOf(name)
  const isRealistic = values.mix === "realistic"
  if (!isRealistic && values.mix !== "random")
    throw new Error(`--mix is ${values.mix}: expected random or realistic`)
  console.log(`seed ${seed}`)
  let isRight = true
  for (const database of serversOf(values.database)) {
    for (const name of names)
      isRight = (await tellMutant(name, database, options, names.length === 1)) && isRight
    if (names.length > 0) continue
    const server = await start(database, filmSchema)
    try {
      isRight = (await (isRealistic ? mixOn : checkOn)(server, options)) && isRight
    } finally {
      await server.stop()
    }
  }
  return isRight
}

type Options = Omit<Parameters<typeof checkReads>[0], "server" | "onProgress">

const checkOn = async (server: Server, options: Options): Promise<boolean> => {
  const bar = new SingleBar({
    format: `${server.name} {bar} {value} of {total} statements, {duration_formatted}`,
    noTTYOutput: false
  })
  bar.start(options.steps, 0)
  const findings = await checkReads({ server, ...options, onProgress: (done) => bar.update(done) })
  bar.stop()
  tell(server.name, findings)
  return findings.failures.length === 0
}

const tell = (name: string, { tally, seconds, failures }: ReadFindings): void => {
  const { statements, steps, committed, reads, hits, compared, inside } = tally
  console.log(
    `\n${name}: ${statements} statements in ${steps} steps, of which ${committed} were committed; ` +
      `${Math.round(statements / seconds)} a second`
  )
  console.log(
    `  answers     ${reads} asked for, ${hits} from the cache, ${compared} of these looked up beside it, ` +
      `${inside} inside a transaction; ${failures.length} wrong`
  )
  const columns = ["changed", "invalidated", "by table", "× changed", "of by table"]
  const table = new Table({
    head: ["form", "queries", ...columns, ...columns.map((column) => `${column}, by row`)],
    wordWrap: true,
    colWidths: [24, 9, ...columns.flatMap(() => [13, 13])]
  })
  const cells = ({ changed, invalidated, byTable }: ReadPrecision) => [
    changed,
    invalidated,
    byTable,
    times(invalidated, changed),
    percent(invalidated, byTable)
  ]
  const row = (form: string, { queries, all, byRow }: FormReads) =>
    table.push([form, queries, ...cells(all), ...cells(byRow)])
  for (const form of formNames) if (tally.forms[form] !== undefined) row(form, tally.forms[form])
  row("all", sumOf(tally))
  console.log(table.toString())
  for (const failure of failures) tellFailure(failure)
}

const mixOn = async (server: Server, { steps, seed }: Options): Promise<boolean> => {
  const { reads, writes, pages, compared, stale } = await runMix({ server, steps, seed })
  const sum: PageTally = { reads: 0, changed: 0, lookedUp: 0, needless: 0, byTable: 0, needlessByTable: 0 }
  for (const page of Object.values(pages))
    for (const key of Object.keys(sum) as ReadonlyArray<keyof PageTally>) sum[key] += page[key]
  console.log(
    `\n${server.name}: ${reads} pages read and ${writes} writes; ${compared} answers from the cache looked up beside it, ` +
      `${stale === undefined ? 0 : 1} stale`
  )
  console.log(
    `  looked up again without need: ${sum.needless}, by table ${sum.needlessByTable}: ` +
      `${times(sum.needlessByTable, sum.needless)} times as often`
  )
  console.log(
    `  looked up again: ${sum.lookedUp}, for ${sum.changed} answers that had changed: ${times(sum.lookedUp, sum.changed)} times`
  )
  const table = new Table({
    head: ["page", "read again", "changed", "looked up", "without need", "by table", "without need"]
  })
  const row = (name: string, page: PageTally) =>
    table.push([
      name,
      page.reads,
      page.changed,
      page.lookedUp,
      page.needless,
      page.byTable,
      page.needlessByTable
    ])
  for (const [name, page] of Object.entries(pages).toSorted(([, a], [, b]) => b.needless - a.needless))
    row(name, page)
  row("all", sum)
  console.log(table.toString())
  if (stale !== undefined) console.log(`\nSTALE ANSWER\n${stale}`)
  return stale === undefined
}

const times = (part: number, whole: number): string => (whole === 0 ? "" : (part / whole).toFixed(1))
const percent = (part: number, whole: number): string =>
  whole === 0 ? "" : `${Math.round((100 * part) / whole)} %`

const tellFailure = ({ kind, story, history, seed }: ReadFailure): void => {
  console.log(`\n${kind.toUpperCase()} (in the round with seed ${seed})`)
  console.log(history.map((line) => `  ${line}`).join("\n"))
  console.log(story)
}

/** Takes a rule out; true when that was caught. */
const tellMutant = async (
  name: string,
  database: string,
  { steps, seed }: Options,
  isAlone: boolean
): Promise<boolean> => {
  const attempts = isAlone ? 300 : 0
  const { failure, statements } = await seek({ name, database, steps, seed, attempts })
  const isCaught = failure?.kind === "stale answer"
  console.log(
    `${database}: ${isCaught ? "caught    " : "NOT CAUGHT"} after ${statements} statements: ${name}, ${mutantOf(name).is}`
  )
  if (failure !== undefined && (isAlone || !isCaught)) tellFailure(failure)
  return isCaught
}

// Its servers end with it.
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(1))

process.exitCode = (await main()) ? 0 : 1
