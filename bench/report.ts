/** What was measured, in the terminal and in docs/performance.md: ratios first. */
import Table from "cli-table3"
import { execFileSync } from "node:child_process"
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as vega from "vega"
import { compile } from "vega-lite"
import type { Measured } from "./harness.ts"
import type { Table as Results, Workload } from "./workloads.ts"

const results = join(import.meta.dirname, "results")
const docs = join(import.meta.dirname, "../docs")

const short = (value: number): string =>
  value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2).replace(/\.?0+$/, "")

/** The rows of a table as text: ratio to the base, median, the middle half. */
const rowsOf = ({ base, rows }: Results): ReadonlyArray<ReadonlyArray<string>> => {
  const one = rows.find(({ name }) => name === base)?.median
  return rows.map(({ name, median, low, high }) => [
    name,
    one === undefined ? "" : `${short(median / one)} ×`,
    short(median),
    low === high ? "" : `${short(low)} to ${short(high)}`
  ])
}

const head = ({ unit, base }: Results) => ["", base === undefined ? "" : `to ${base}`, unit, "middle half"]

/** Shows tables in the terminal. */
export const print = (workload: Workload, tables: ReadonlyArray<Results>): void => {
  console.log(`\n${workload.name}. ${workload.about}`)
  for (const table of tables) {
    const drawn = new Table({
      head: head(table),
      style: { head: [] },
      colAligns: ["left", "right", "right", "right"]
    })
    drawn.push(...rowsOf(table).map((row) => [...row]))
    console.log(`\n${table.title}\n${drawn.toString()}`)
  }
}

/** Keeps what was measured, and writes the page anew from all that is kept. */
export const write = async (
  workload: Workload,
  tables: ReadonlyArray<Results>,
  environment: Record<string, unknown>
): Promise<void> => {
  mkdirSync(results, { recursive: true })
  mkdirSync(join(docs, "performance"), { recursive: true })
  const { name, about } = workload
  const kept = { name, about, environment, tables }
  writeFileSync(join(results, `${name}.json`), `${JSON.stringify(kept, undefined, 2)}\n`)
  for (const [i, table] of tables.entries()) {
    const file = join(docs, "performance", `${name}-${i + 1}.svg`)
    const spec = compile(plot(table)).spec
    writeFileSync(file, `${await new vega.View(vega.parse(spec), { renderer: "none" }).toSVG()}\n`)
  }
  writeFileSync(join(docs, "performance.md"), page())
  // In the house's format, which `npm run check` asks for.
  execFileSync(join(docs, "../node_modules/.bin/oxfmt"), [join(docs, "performance.md"), results])
}

const plot = ({ title, unit, rows }: Results) => ({
  $schema: "https://vega.github.io/schema/vega-lite/v6.json",
  title: title.replaceAll("`", ""),
  width: 480,
  background: "white",
  data: { values: rows.map((row: Measured) => ({ ...row })) },
  encoding: { y: { field: "name", type: "nominal" as const, sort: null, title: null } },
  layer: [
    {
      mark: { type: "bar" as const, color: "#4c78a8" },
      encoding: {
        x: {
          field: "median",
          type: "quantitative" as const,
          title: unit,
          scale: rows.some(({ median }) => median <= 0) ? {} : { type: "log" as const }
        }
      }
    },
    {
      mark: { type: "rule" as const, strokeWidth: 2 },
      encoding: { x: { field: "low", type: "quantitative" as const }, x2: { field: "high" } }
    }
  ]
})

const page = (): string => {
  const files = existsSync(results) ? readdirSync(results).filter((file) => file.endsWith(".json")) : []
  const all = files
    .toSorted((a, b) => a.localeCompare(b, "en", { numeric: true }))
    .map((file) => JSON.parse(readFileSync(join(results, file), "utf8")) as Kept)
    .map(({ name, about, environment, tables }) => {
      const where = Object.entries(environment)
        .map(([what, value]) => `${what} ${String(value)}`)
        .join(", ")
      const sections = tables.map((table, i) => {
        const rows = [head(table), ["---", "---:", "---:", "---:"], ...rowsOf(table)]
        const text = rows.map((row) => `| ${row.join(" | ")} |`).join("\n")
        return `### ${table.title}\n\n${text}\n\n![${table.title}](performance/${name}-${i + 1}.svg)\n`
      })
      return `## ${name}\n\n${about}\n\nMeasured on ${where}.\n\n${sections.join("\n")}`
    })
  return `# Performance

What a read costs, beside other caches in the same run. Times belong to a machine; ratios much less so. This page is written by \`npm run bench\`, which measures the subjects of a table in turns, and shows the median of the rounds and the middle half of them.

${all.join("\n")}`
}

interface Kept {
  readonly name: string
  readonly about: string
  readonly environment: Record<string, unknown>
  readonly tables: ReadonlyArray<Results>
}
