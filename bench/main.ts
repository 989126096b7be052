/**
 * `npm run bench`: measures, and writes docs/performance.md, its pictures, and the numbers.
 *
 * `--only W1,W5` runs some of the workloads; `--rounds 5` fewer rounds of them (15 unless it is said); `--quick` does
 * less, for a look, and writes nothing.
 */
import { SingleBar } from "cli-progress"
import { parseArgs } from "node:util"
import { environment } from "./harness.ts"
import { print, write } from "./report.ts"
import { workloads } from "./workloads.ts"

const { values } = parseArgs({
  options: {
    only: { type: "string" },
    quick: { type: "boolean", default: false },
    rounds: { type: "string" }
  }
})
const rounds = Number(values.rounds ?? 15)
if (!Number.isInteger(rounds) || rounds < 5) {
  console.error(`--rounds is a whole number of at least 5, not ${values.rounds}`)
  process.exit(1)
}
const wanted = values.only?.split(",")
const chosen = workloads.filter(({ name }) => wanted === undefined || wanted.includes(name))
const unknown = wanted?.filter((name) => !workloads.some((workload) => workload.name === name)) ?? []
if (unknown.length > 0) {
  console.error(
    `no workload ${unknown.join(", ")}: there are ${workloads.map(({ name }) => name).join(", ")}`
  )
  process.exit(1)
}

const size = values.quick ? { rounds: 3, reads: 40_000 } : { rounds, reads: 200_000 }
for (const workload of chosen) {
  const bar = new SingleBar({ format: `${workload.name} {bar} {value} measurements, {duration_formatted}` })
  bar.start(1, 0)
  let done = 0
  const tables = await workload.run(size, () => {
    done++
    bar.setTotal(Math.max(done + 1, bar.getTotal()))
    bar.update(done)
  })
  bar.setTotal(done)
  bar.stop()
  print(workload, tables)
  if (!values.quick) await write(workload, tables, environment())
}
// Some of the peers keep timers.
process.exit(0)
