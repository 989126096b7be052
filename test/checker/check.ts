/**
 * A check: several processes read and write through the library while things go wrong, and every answer is compared
 * with what had been acknowledged when it was asked for.
 *
 * It has phases: nothing goes wrong, each fault alone, all of them together. In the first, herds are counted too: many
 * readers of one cold key in every process make one lookup.
 */
import { type ChildProcess, fork } from "node:child_process"
import { once } from "node:events"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { Redis } from "ioredis"
import { type RunningProxy, startProxy } from "../support/proxy.ts"
import { startRedis } from "../support/redis.ts"
import { makeChance } from "./chance.ts"
import { type Fault, faults, type Scene, type Victim, wreak } from "./chaos.ts"
import {
  addTally,
  type Mode,
  type News,
  noTally,
  type Order,
  type Tally,
  type WorkerOptions
} from "./messages.ts"
import { connectTruth, Truth } from "./Truth.ts"

/** What is checked, and for how long. */
export interface CheckOptions {
  /** These run side by side in every process, each with entries and registers of its own. */
  readonly modes: ReadonlyArray<Mode>
  readonly processes: number
  /** How many reads there are at least, in all modes and phases together. */
  readonly reads: number
  /** How long it takes at least, in seconds. */
  readonly seconds?: number | undefined
  /** What goes wrong in each phase. */
  readonly phases: ReadonlyArray<ReadonlyArray<Fault>>
  /** How often each fault of a phase happens at least. */
  readonly faults?: number | undefined
  readonly seed: number
  /** Breaks the library in this way; the check ends with the first violation. */
  readonly sabotage?: string | undefined
  /** Told when a phase begins. */
  readonly onPhase?: ((these: ReadonlyArray<Fault>) => void) | undefined
}

/** One after the other, then all together; nothing goes wrong in the first. */
export const everyPhase: CheckOptions["phases"] = [[], ...faults.map((fault) => [fault]), faults]

/** What a check has found. */
export interface Findings {
  readonly modes: Readonly<Record<string, Tally>>
  readonly faults: Readonly<Record<Fault, number>>
  /** What went on in each phase: the longest read of each mode is the process's own, in milliseconds. */
  readonly phases: ReadonlyArray<Phase>
  readonly herds: ReadonlyArray<Herd>
  /** Why it was ended early. */
  readonly broken: ReadonlyArray<string>
}

/** What went on in a phase. */
interface Phase {
  readonly faults: ReadonlyArray<Fault>
  seconds: number
  readonly tallies: Readonly<Record<string, Tally>>
}

/** The lookups that a herd has made in a mode: one, and one more after it was dispersed. */
interface Herd {
  readonly mode: Mode
  readonly lookups: number
  readonly expected: number
}

/** In milliseconds. */
const lease = 500
const bound = 300

/** A read that waits longer than this never ends. */
const patience = 15_000

/** How many readers a herd has in each process. */
const herdOf = 25

/** How many readers each mode has in each process. */
const readers = 3

/** Runs a check. */
export const check = async (options: CheckOptions): Promise<Findings> => {
  const [redis, truthServer] = await Promise.all([startRedis(), startRedis()])
  const admin = new Redis(redis.url, { retryStrategy: () => 20 }).on("error", () => {})
  const truth = connectTruth(truthServer.url)
  const chance = makeChance(options.seed)
  const phases: Array<Phase> = []
  const counts = Object.fromEntries(faults.map((fault) => [fault, 0])) as Record<Fault, number>
  const broken: Array<string> = []
  const herds: Array<Herd> = []
  const onNews = (news: News): void => {
    if (news.news === "broken") broken.push(news.reason)
    if (news.news !== "tally") return
    const phase = phases.at(-1)
    if (phase === undefined) return
    const stories = news.tally.stories.map((story) => `(${nameOf(phase.faults)}) ${story}`)
    addTally(phase.tallies[news.mode]!, { ...news.tally, stories })
    if (news.tally.waiting > patience)
      broken.push(`a read in mode ${news.mode} has waited ${news.tally.waiting} ms`)
  }
  const workers = await Promise.all(
    Array.from({ length: options.processes }, async (_, i) => {
      const proxy = await startProxy(redis.port)
      return new Worker(proxy, onNews, {
        name: `worker ${i}`,
        modes: options.modes,
        url: proxy.url,
        truthUrl: truthServer.url,
        seed: options.seed * 1000 + i,
        lease,
        bound,
        readers,
        writeGap: 100,
        sabotage: options.sabotage
      })
    })
  )
  try {
    await Promise.all(workers.map((worker) => worker.ready))
    const scene: Scene = { redis, admin, workers, chance, lease }
    for (const these of options.phases) {
      options.onPhase?.(these)
      const startedAt = performance.now()
      const phase: Phase = {
        faults: these,
        seconds: 0,
        tallies: Object.fromEntries(options.modes.map((mode) => [mode, noTally()]))
      }
      phases.push(phase)
      const before = { ...counts }
      const isOver = () =>
        sum(phase, "reads") >= options.reads / options.phases.length &&
        performance.now() - startedAt >= ((options.seconds ?? 0) * 1000) / options.phases.length &&
        these.every((fault) => counts[fault] - before[fault] >= (options.faults ?? 1))
      const isEnded = () =>
        broken.length > 0 || (options.sabotage !== undefined && sum(phase, "violations") > 0)
      const chaos = wreak(scene, these, (fault) => counts[fault]++)
      const herding =
        these.length === 0 ? countHerds(workers, truth, options.modes, herds, isEnded) : undefined
      while (!isOver() && !isEnded()) await sleep(20)
      await Promise.all([chaos.stop(), herding])
      phase.seconds = (performance.now() - startedAt) / 1000
      if (isEnded()) break
    }
    await Promise.all(workers.map((worker) => worker.stop()))
  } catch (error) {
    broken.push(error instanceof Error ? error.message : String(error))
  } finally {
    for (const worker of workers) worker.end()
    admin.disconnect()
    truth.disconnect()
    await Promise.all([redis.stop(), truthServer.stop(), ...workers.map(({ proxy }) => proxy.stop())])
  }
  const totals: Record<string, Tally> = {}
  for (const { tallies } of phases)
    for (const [mode, tally] of Object.entries(tallies)) addTally((totals[mode] ??= noTally()), tally)
  return { modes: totals, faults: counts, phases, herds, broken }
}

/** What a phase is called. */
export const nameOf = (these: ReadonlyArray<Fault>): string =>
  these.length === 0 ? "calm" : these.length < faults.length ? these.join("+") : "together"

/** A sum over the modes of a phase. */
const sum = ({ tallies }: Phase, name: "reads" | "violations"): number =>
  Object.values(tallies).reduce((total, tally) => total + tally[name], 0)

/** How many herds are counted. */
const herdsCounted = 5

/** Sends herds, one after the other, and counts their lookups. */
const countHerds = async (
  workers: ReadonlyArray<Worker>,
  truth: Redis,
  modes: ReadonlyArray<Mode>,
  herds: Array<Herd>,
  isEnded: () => boolean
): Promise<void> => {
  for (let round = 0; round < herdsCounted && !isEnded(); round++) {
    let slow = false
    for (const expected of [1, 2]) {
      const done = await Promise.all(workers.map((worker) => worker.herd(round)))
      slow ||= done.includes(true)
      for (const mode of slow ? [] : modes)
        herds.push({ mode, expected, lookups: await new Truth(truth, mode).lookups(round) })
      if (expected === 1) await workers[0]!.disperse(round)
    }
  }
}

/** A process, and the one that takes its place when it is killed. */
class Worker implements Victim {
  readonly proxy: RunningProxy
  readonly #options: WorkerOptions
  readonly #onNews: (news: News) => void
  #process: ChildProcess
  #lives = 0
  /** Fulfilled when the process reads and writes. */
  ready: Promise<void>

  constructor(proxy: RunningProxy, onNews: (news: News) => void, options: WorkerOptions) {
    this.proxy = proxy
    this.#onNews = onNews
    this.#options = options
    this.#process = this.#start()
    this.ready = this.#hear((news) => news.news === "ready").then(() => {})
  }

  #start(): ChildProcess {
    const options = { ...this.#options, seed: this.#options.seed + 100 * this.#lives++ }
    const process = fork(join(import.meta.dirname, "worker.ts"), [JSON.stringify(options)], {
      execArgv: []
    })
    process.on("message", (news: News) => this.#onNews(news))
    process.once("exit", (code, signal) => {
      if (code !== 0 && signal !== "SIGKILL")
        this.#onNews({ news: "broken", reason: `${this.#options.name} ended with ${code ?? signal}` })
    })
    return process
  }

  /** The next news of a kind from the process as it is now. */
  #hear(isIt: (news: News) => boolean): Promise<News> {
    const process = this.#process
    return new Promise((resolve, reject) => {
      const ended = () => reject(new Error(`${this.#options.name} is gone`))
      const listen = (news: News) => {
        if (!isIt(news)) return
        process.off("message", listen)
        process.off("exit", ended)
        resolve(news)
      }
      process.on("message", listen)
      process.once("exit", ended)
    })
  }

  #order(order: Order): void {
    if (this.#process.connected) this.#process.send(order)
  }

  signal(signal: "SIGSTOP" | "SIGCONT"): void {
    this.#process.kill(signal)
  }

  async killInLookup(): Promise<void> {
    const heard = this.#hear(({ news }) => news === "lookup")
    this.#order({ order: "tellLookup" })
    await heard
    const ended = once(this.#process, "exit")
    this.#process.kill("SIGKILL")
    await ended
    this.#process = this.#start()
    this.ready = this.#hear(({ news }) => news === "ready").then(() => {})
    await this.ready
  }

  /** Sends a herd for a key; true when it took so long that it does not count. */
  herd(round: number): Promise<boolean> {
    this.#order({ order: "herd", round, callers: herdOf })
    return this.#done("herd", round)
  }

  disperse(round: number): Promise<boolean> {
    this.#order({ order: "disperse", round })
    return this.#done("disperse", round)
  }

  async #done(order: "herd" | "disperse", round: number): Promise<boolean> {
    const news = await this.#hear(
      (news) => news.news === "done" && news.order === order && news.round === round
    )
    return news.news === "done" && news.slow
  }

  /** Lets it come to an end. */
  async stop(): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return
    const ended = once(this.#process, "exit")
    this.#order({ order: "stop" })
    if ((await Promise.race([ended, sleep(patience, "late" as const, { ref: false })])) === "late")
      throw new Error(`${this.#options.name} does not stop`)
  }

  /** Ends it at once. */
  end(): void {
    this.#process.kill("SIGKILL")
  }
}
