/**
 * The model check of writes: random statements through `Db.mutate`, while every question that has been asked stays in the
 * cache. After each commit and each rollback every cached answer is compared with the right one; one that differs is
 * stale. The same statements go to a twin of the database by plain Drizzle, which must answer, keep and refuse the same.
 *
 * A check has rounds, each a history on the same rows and with an empty cache, so that one that goes wrong is short enough
 * to be made minimal.
 */
import { type Failure, makeMinimal } from "./minimal.ts"
import type { Server } from "./servers.ts"
import type { Drawn } from "./statements.ts"
import { drawSteps } from "./steps.ts"
import { noTally, type Tally } from "./tally.ts"
import { WriteWorld, type WriteWorldOptions } from "./WriteWorld.ts"

/** What is checked. */
export interface Options extends WriteWorldOptions {
  readonly server: Server
  /** How many statements at least. */
  readonly statements: number
  readonly seed: number
  /** How many statements in a round; default 200. */
  readonly round?: number | undefined
  /** Leaves statements out whose form, or table, is called so. */
  readonly without?: ReadonlyArray<string> | undefined
  /** After how many failures it ends; default 1. What comes after one is another round. */
  readonly failures?: number | undefined
  /** How many histories are tried to make a failure minimal; default 300. */
  readonly attempts?: number | undefined
  /** Told how many statements have run. */
  readonly onProgress?: ((statements: number) => void) | undefined
}

/** What a check has found. */
export interface Findings {
  readonly tally: Tally
  readonly seconds: number
  readonly failures: ReadonlyArray<Failure>
}

/** Runs a check, until it has done what it was asked for, or something goes wrong. */
export const check = async (options: Options): Promise<Findings> => {
  const { server, statements, seed, round = 200, without = [], onProgress } = options
  const world = new WriteWorld(server, options)
  const tally = noTally()
  const failures: Array<Failure> = []
  const isLeftOut = ({ form, targets }: Drawn) =>
    without.some((name) => form === name || targets.includes(name))
  let seconds = 0
  try {
    for (let i = 0; tally.statements < statements && failures.length < (options.failures ?? 1); i++) {
      const steps = drawSteps(seed + i, Math.min(round, statements - tally.statements), isLeftOut)
      const startedAt = performance.now()
      const wrong = await world.live(steps, { tally, onStep: () => onProgress?.(tally.statements) })
      seconds += (performance.now() - startedAt) / 1000
      if (wrong === undefined) continue
      const history = steps.slice(0, wrong.at + 1)
      failures.push(await makeMinimal(world, server, history, wrong, seed + i, options.attempts))
    }
  } finally {
    await world.close()
  }
  return { tally, seconds, failures }
}
