/**
 * One way to measure for every subject: rounds that are interleaved, so that what disturbs the machine disturbs all of
 * them; medians and spread, and ratios to one of them, because times belong to a machine and ratios much less so.
 */
import { type ChildProcess, fork } from "node:child_process"
import { cpus } from "node:os"

/** One way of doing the same work. `run` does it once and says how many nanoseconds an operation took. */
export interface Subject {
  readonly name: string
  readonly run: () => Promise<number>
}

/** How many nanoseconds an operation took, of so many that were done. */
export const timed = async (operations: number, work: () => Promise<unknown>): Promise<number> => {
  const start = process.hrtime.bigint()
  await work()
  return Number(process.hrtime.bigint() - start) / operations
}

/** Processes of their own, each of which runs one subject when it is told to. */
export class Apart {
  readonly #file: string
  readonly #children = new Map<string, Promise<ChildProcess>>()

  /** The file is given the subject's name; it says when it is ready, and answers each task with a number. */
  constructor(file: string) {
    this.#file = file
  }

  subject(name: string, task: unknown): Subject {
    return {
      name,
      run: async () => {
        let starting = this.#children.get(name)
        if (starting === undefined) this.#children.set(name, (starting = this.#start(name)))
        const child = await starting
        const answer = answerOf(child, name)
        child.send(task as object)
        return (await answer) as number
      }
    }
  }

  async #start(name: string): Promise<ChildProcess> {
    const child = fork(this.#file, [name])
    await answerOf(child, name)
    return child
  }

  /** Ends all processes. */
  async end(): Promise<void> {
    for (const child of this.#children.values()) (await child).disconnect()
    this.#children.clear()
  }
}

const answerOf = (child: ChildProcess, name: string): Promise<unknown> =>
  new Promise((resolve, reject) => {
    const onExit = () => reject(new Error(`${name} has ended`))
    child.once("exit", onExit)
    child.once("message", (answer) => {
      child.off("exit", onExit)
      resolve(answer)
    })
  })

/** The median of what was measured, and the middle half. */
export interface Measured {
  readonly name: string
  readonly median: number
  readonly low: number
  readonly high: number
}

/** Sums measurements up. */
export const summarize = (name: string, measurements: ReadonlyArray<number>): Measured => {
  const sorted = measurements.toSorted((a, b) => a - b)
  const at = (q: number) => sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))]!
  return { name, median: at(0.5), low: at(0.25), high: at(0.75) }
}

/** Runs all subjects in each round, beginning with another one each time. The first round is thrown away. */
export const measure = async (
  subjects: ReadonlyArray<Subject>,
  rounds: number,
  tick: () => void
): Promise<ReadonlyArray<Measured>> => {
  const times = new Map(subjects.map(({ name }) => [name, [] as Array<number>]))
  for (let round = 0; round <= rounds; round++) {
    for (let i = 0; i < subjects.length; i++) {
      const { name, run } = subjects[(i + round) % subjects.length]!
      const nanoseconds = await run()
      if (round > 0) times.get(name)!.push(nanoseconds)
      tick()
    }
  }
  return subjects.map(({ name }) => summarize(name, times.get(name)!))
}

/** The same sequence of chances for every subject and every run. */
export const makeChance = (seed = 42): (() => number) => {
  let state = seed
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 2 ** 32
  }
}

/** So many keys out of a number of them, by Zipf's law with exponent 1. */
export const zipf = (length: number, distinct: number): ReadonlyArray<number> => {
  const chance = makeChance()
  const sums: Array<number> = []
  let sum = 0
  for (let rank = 1; rank <= distinct; rank++) sums.push((sum += 1 / rank))
  return Array.from({ length }, () => {
    const wanted = chance() * sum
    let [low, high] = [0, distinct - 1]
    while (low < high) {
      const middle = (low + high) >> 1
      if (sums[middle]! < wanted) low = middle + 1
      else high = middle
    }
    return low
  })
}

/** So many keys out of a number of them, each as likely. */
export const uniform = (length: number, distinct: number): ReadonlyArray<number> => {
  const chance = makeChance()
  return Array.from({ length }, () => Math.floor(chance() * distinct))
}

/** What it was measured on. */
export const environment = () => ({
  node: process.version,
  platform: `${process.platform} ${process.arch}`,
  processor: cpus()[0]?.model.trim() ?? "unknown",
  cores: cpus().length
})
