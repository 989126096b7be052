/** A process in which the library is loaded with one rule taken out (mutants.ts), and the model check of reads is run. */
import { once } from "node:events"
import { registerHooks } from "node:module"
import { type MutantNews, mutantOf, type MutantOrder, sourcesOf } from "./mutants.ts"

const [order] = (await once(process, "message")) as [MutantOrder]
const mutant = mutantOf(order.name)
const sources = sourcesOf(mutant)
registerHooks({
  load: (url, context, next) => {
    const source = sources.get(url)
    return source === undefined
      ? next(url, context)
      : { format: "module-typescript", source, shortCircuit: true }
  }
})
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
