/**
 * `npm run checker`: checks by chance, for as long as you like, that nobody is given an answer from before an
 * acknowledged invalidation, whatever goes wrong.
 *
 * | option | default | is |
 * |---|---|---|
 * | `--reads` | `200000` | how many reads at least, in all modes together; a long run has 10,000,000 |
 * | `--seconds` | `0` | how long at least |
 * | `--mode` | `all` | `far`, `validated`, `bounded`, `memory` (in one process), `all`: the first three |
 * | `--processes` | `4` | how many processes |
 * | `--faults` | all, in turn and together | which faults, separated by commas, together; `none` |
 * | `--sabotage` | | breaks the library in a way that must be caught: a name, or `all`, one after the other |
 * | `--seed` | by chance | what is drawn by chance is the same for the same seed |
 *
 * Ends with 1 when there was a violation, a read that failed or did not end, or a sabotage that was not caught.
 */
import { parseArgs } from "node:util"
import { type Fault, faults } from "./chaos.ts"
import { check, type CheckOptions, everyPhase, type Findings, nameOf } from "./check.ts"
import { type Mode, modes } from "./messages.ts"
import { sabotageOf, sabotages } from "./sabotage.ts"
import { helpIfAsked } from "../support/help.ts"

helpIfAsked(import.meta.filename)

const { values } = parseArgs({
  options: {
    reads: { type: "string", default: "200000" },
    seconds: { type: "string", default: "0" },
    mode: { type: "string", default: "all" },
    processes: { type: "string", default: "4" },
    faults: { type: "string" },
    sabotage: { type: "string" },
    seed: { type: "string" }
  }
})

const main = async (): Promise<boolean> => {
  const seed = values.seed === undefined ? Math.floor(Math.random() * 1_000_000) : number("seed", values.seed)
  const asked = modesOf(values.mode)
  const isAlone = asked.includes("memory")
  const options: CheckOptions = {
    modes: asked,
    processes: isAlone ? 1 : number("processes", values.processes),
    reads: number("reads", values.reads),
    seconds: number("seconds", values.seconds),
    phases: isAlone ? [[]] : values.faults === undefined ? everyPhase : [faultsOf(values.faults)],
    faults: 2,
    seed
  }
  console.log(`seed ${seed}`)
  if (values.sabotage === undefined) {
    const findings = await check({ ...options, onPhase: tellPhase })
    tell(findings)
    return isRight(findings)
  }
  const names =
    values.sabotage === "all"
      ? Object.keys(sabotages).filter((name) => sabotageOf(name).isDirected !== true)
      : [values.sabotage]
  let allCaught = true
  for (const name of names) allCaught = (await tellSabotage(name, options)) && allCaught
  return allCaught
}

const number = (option: string, text: string): number => {
  const found = Number(text)
  if (!Number.isFinite(found) || found < 0) throw new Error(`--${option} is ${text}: expected a number`)
  return found
}

const modesOf = (text: string): ReadonlyArray<Mode> => {
  if (text === "all") return ["far", "validated", "bounded"]
  const found = modes.find((mode) => mode === text)
  if (found === undefined) throw new Error(`--mode is ${text}: expected all, ${modes.join(", ")}`)
  return [found]
}

const faultsOf = (text: string): ReadonlyArray<Fault> => {
  if (text === "none") return []
  return text.split(",").map((name) => {
    const found = faults.find((fault) => fault === name)
    if (found === undefined) throw new Error(`--faults has ${name}: expected none, ${faults.join(", ")}`)
    return found
  })
}

const tellPhase = (these: ReadonlyArray<Fault>): void => console.log(nameOf(these))

const tell = ({ modes, faults, phases, herds, broken }: Findings): void => {
  console.log("\nlongest read, in milliseconds")
  for (const phase of phases) {
    const longest = Object.entries(phase.tallies).map(
      ([mode, tally]) => `${mode} ${Math.round(tally.longest)}`
    )
    console.log(
      `  ${nameOf(phase.faults).padEnd(10)} ${phase.seconds.toFixed(1).padStart(6)} s   ${longest.join(", ")}`
    )
  }
  const happened = Object.entries(faults).filter(([, count]) => count > 0)
  if (happened.length > 0) console.log(`\nfaults  ${happened.map(([name, n]) => `${name} ${n}`).join(", ")}`)
  if (herds.length > 0) {
    const alone = herds.filter(({ lookups, expected }) => lookups === expected)
    console.log(`herds   ${herds.length}, of which ${alone.length} made one lookup each`)
  }
  console.log("")
  const columns = [
    "reads",
    "hits",
    "lookups",
    "writes",
    "pending",
    "undelivered",
    "violations",
    "failures"
  ] as const
  console.log(["mode".padEnd(10), ...columns.map((column) => column.padStart(12))].join(""))
  for (const [mode, tally] of Object.entries(modes))
    console.log([mode.padEnd(10), ...columns.map((column) => String(tally[column]).padStart(12))].join(""))
  for (const [mode, { stories }] of Object.entries(modes))
    for (const story of stories) console.log(`\n${mode}: ${story}`)
  for (const reason of broken) console.log(`\nbroken: ${reason}`)
}

const isRight = ({ modes, herds, broken }: Findings): boolean =>
  broken.length === 0 &&
  herds.every(({ lookups, expected }) => lookups === expected) &&
  Object.values(modes).every(({ violations, failures }) => violations === 0 && failures === 0)

/** Breaks the library in one way; true when that was caught. */
const tellSabotage = async (name: string, options: CheckOptions): Promise<boolean> => {
  const { is, faults = [], modes } = sabotageOf(name)
  const startedAt = performance.now()
  const findings = await check({
    ...options,
    modes: modes ?? options.modes,
    phases: [faults],
    // It ends when it is caught.
    seconds: 40,
    sabotage: name
  })
  const violations = Object.values(findings.modes).reduce((sum, { violations }) => sum + violations, 0)
  const seconds = ((performance.now() - startedAt) / 1000).toFixed(1)
  console.log(`${violations > 0 ? "caught    " : "NOT CAUGHT"} after ${seconds} s: ${name}, ${is}`)
  for (const reason of findings.broken) console.log(`  ${reason}`)
  return violations > 0
}

// Its servers end with it.
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(1))

process.exitCode = (await main()) ? 0 : 1
