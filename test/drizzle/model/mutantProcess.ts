/** A process in which the library is loaded with one rule taken out (mutants.ts), and the model check of reads is run. */
import { readFileSync } from "node:fs"
import { once } from "node:events"
import { registerHooks } from "node:module"
import { type Mutant, type MutantNews, mutantOf, type MutantOrder } from "./mutants.ts"

const load = ({ name, changes }: Mutant): void => {
  const sources = new Map<string, string>()
  for (const { file, find, replace } of changes) {
    const url = new URL(`../../../src/${file}`, import.meta.url)
    const parts = (sources.get(url.href) ?? readFileSync(url, "utf8")).split(find)
    if (parts.length !== 2)
      throw new Error(`mutant "${name}": src/${file} has this ${parts.length - 1} times, not once: ${find}`)
    sources.set(url.href, parts.join(replace))
  }
  registerHooks({
    load: (url, context, next) => {
      const source = sources.get(url)
      return source === undefined
        ? next(url, context)
        : { format: "module-typescript", source, shortCircuit: true }
    }
  })
}

const [order] = (await once(process, "message")) as [MutantOrder]
const mutant = mutantOf(order.name)
load(mutant)
const { checkReads } = await import("./checkReads.ts")
const { filmSchema } = await import("./relations.ts")
const { start } = await import("./servers.ts")
const server = await start(order.database, filmSchema)
try {
  const { failures, tally } = await checkReads({
    ...order,
    server,
    forms: mutant.forms
  })
  const news: MutantNews = { failure: failures[0], statements: tally.statements }
  await new Promise((sent) => process.send!(news, sent))
} finally {
  await server.stop()
  process.disconnect()
}
