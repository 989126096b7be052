/**
 * The model check of reads: random queries, each memoized with no tag by hand, while random statements write through `Db`.
 * After every step, and inside transactions, every cached answer is compared with the right one; one that differs is
 * stale: what `Db` has noted of that query was too little.
 *
 * A check has rounds, each a history on the same rows and with an empty cache, so that one that goes wrong is short enough
 * to be made minimal: the history, and the query.
 */
import { type Chance, makeChance } from "../../checker/chance.ts"
import { tell, withoutSome, withSmaller } from "./minimal.ts"
import type { Query } from "./queries.ts"
import { noReadTally, type ReadTally } from "./readTally.ts"
import { type ReadKind, ReadWorld, type WrongRead } from "./ReadWorld.ts"
import type { Server } from "./servers.ts"
import type { Drawn } from "./statements.ts"
import { drawSteps, smaller, type Step } from "./steps.ts"

/** What is checked. */
export interface ReadOptions {
  readonly server: Server
  /** How many statements at least. */
  readonly steps: number
  readonly seed: number
  /** Draws only queries of these forms. */
  readonly forms?: ReadonlyArray<string> | undefined
  /** How many queries are cached at a time; default 60. */
  readonly queries?: number | undefined
  /** How many statements in a round; default 200. */
  readonly round?: number | undefined
  /** More changed rows than these are told by table; default the library's. */
  readonly rowLimit?: number | undefined
  /** After how many failures it ends; default 1. What comes after one is another round. */
  readonly failures?: number | undefined
  /** How many histories are tried to make a failure minimal; default 600. */
  readonly attempts?: number | undefined
  /** Told how many statements have run. */
  readonly onProgress?: ((statements: number) => void) | undefined
}

/** What has gone wrong, and what leads to it. */
export interface ReadFailure {
  readonly kind: ReadKind
  readonly story: string
  /** The statements that lead to it, and where among them the query was asked; the last step last. */
  readonly history: ReadonlyArray<string>
  /** The round's seed. */
  readonly seed: number
}

/** What a check has found. */
export interface ReadFindings {
  readonly tally: ReadTally
  readonly seconds: number
  readonly failures: ReadonlyArray<ReadFailure>
}

/** Runs a check, until it has done what it was asked for, or something goes wrong. */
export const checkReads = async (options: ReadOptions): Promise<ReadFindings> => {
  const { server, steps, seed, forms, queries = 60, round = 200, onProgress } = options
  const world = new ReadWorld(server, options.rowLimit)
  const tally = noReadTally()
  const failures: Array<ReadFailure> = []
  let seconds = 0
  try {
    for (let i = 0; tally.statements < steps && failures.length < (options.failures ?? 1); i++) {
      const history = drawSteps(
        seed + i,
        Math.min(round, steps - tally.statements),
        seldomByTable(makeChance(seed + i))
      )
      const startedAt = performance.now()
      const wrong = await world.live(history, {
        tally,
        queries: { seed: seed + i, size: queries },
        forms,
        onStep: () => onProgress?.(tally.statements)
      })
      seconds += (performance.now() - startedAt) / 1000
      if (wrong !== undefined)
        failures.push(await makeMinimal(world, server, history, wrong, { ...options, seed: seed + i }))
    }
  } finally {
    await world.close()
  }
  return { tally, seconds, failures }
}

/** Leaves out most of the statements that nearly always tell whole tables: after these, every reader looks up again. */
const seldomByTable =
  ({ below }: Chance) =>
  ({ form }: Drawn): boolean =>
    /^raw|function|^with \(|^delete|primary key|join$/.test(form) && below(4) > 0

/** A query, and what happens before it is asked and afterwards. */
interface Story {
  readonly query: Query
  readonly before: ReadonlyArray<Step>
  readonly after: ReadonlyArray<Step>
}

/** Makes a failure of the last step of a history minimal. */
const makeMinimal = async (
  world: ReadWorld,
  server: Server,
  history: ReadonlyArray<Step>,
  wrong: WrongRead,
  { seed, forms, attempts = 600 }: ReadOptions
): Promise<ReadFailure> => {
  let left = attempts
  let found = wrong
  let shortest = storyAt(history, wrong, wrong.askedAt)
  /** True if a story goes wrong in the same way. Then it is the shortest. */
  const goesWrong = async (tried: Story): Promise<boolean> => {
    if (left-- <= 0) return false
    const again = await world.live([...tried.before, ...tried.after], {
      tally: noReadTally(),
      queries: [tried.query],
      forms,
      from: tried.before.length
    })
    if (again?.kind !== wrong.kind) return false
    ;[found, shortest] = [again, tried]
    return true
  }
  // Mostly it is enough to ask just before the last step.
  if ((await goesWrong(storyAt(history, wrong, wrong.at))) || (await goesWrong(shortest))) {
    await withoutSome(shortest.before, (before) => goesWrong({ ...shortest, before }))
    const last = shortest.after.at(-1)!
    await withoutSome(shortest.after.slice(0, -1), (after) =>
      goesWrong({ ...shortest, after: [...after, last] })
    )
    await withSmaller(shortest.before, smaller, (before) => goesWrong({ ...shortest, before }))
    await withSmaller(shortest.after, smaller, (after) => goesWrong({ ...shortest, after }))
    const draws = world.drawsOf(shortest.query)
    // The first draw is the form.
    const rest = await withoutEnd(draws.slice(1), (tried) =>
      goesWrong({ ...shortest, query: [draws[0]!, ...tried] })
    )
    await withSmaller(rest, lower, (tried) => goesWrong({ ...shortest, query: [draws[0]!, ...tried] }))
  }
  const { query, before, after } = shortest
  const lines = (steps: ReadonlyArray<Step>) => steps.flatMap((step) => tell(server, step, ""))
  return {
    kind: found.kind,
    story: found.story,
    seed,
    history: [...lines(before), `asked: ${world.tell(query)}`, ...lines(after)]
  }
}

const storyAt = (history: ReadonlyArray<Step>, { query, at }: WrongRead, askedAt: number): Story => ({
  query,
  before: history.slice(0, askedAt),
  after: history.slice(askedAt, at + 1)
})

/** Leaves draws out at the end: what is not drawn is 0. */
const withoutEnd = async (
  draws: ReadonlyArray<number>,
  goesWrong: (tried: ReadonlyArray<number>) => Promise<boolean>
): Promise<ReadonlyArray<number>> => {
  let left = draws
  for (let size = draws.length; size >= 1; size = Math.floor(size / 2)) {
    while (left.length > 0 && (await goesWrong(left.slice(0, -size)))) left = left.slice(0, -size)
  }
  return left
}

const lower = (draw: number): ReadonlyArray<number> =>
  draw === 0 ? [] : [...new Set([0, Math.floor(draw / 2), draw - 1])]
