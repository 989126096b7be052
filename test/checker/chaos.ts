/**
 * What goes wrong while the checker reads and writes: the store loses keys, all of them, or goes back in time; processes
 * are held and killed; connections are lost, refused, silent and late.
 */
import type { Redis } from "ioredis"
import { setTimeout as sleep } from "node:timers/promises"
import type { RunningProxy } from "../support/proxy.ts"
import type { RunningRedis } from "../support/redis.ts"
import type { Chance } from "./chance.ts"

/** What there is to harm. */
export interface Scene {
  readonly redis: RunningRedis
  /** A client of that Redis for the one who harms it. */
  readonly admin: Redis
  readonly workers: ReadonlyArray<Victim>
  readonly chance: Chance
  /** Of a lease, in milliseconds. */
  readonly lease: number
}

/** A worker process. */
export interface Victim {
  readonly proxy: RunningProxy
  readonly signal: (signal: "SIGSTOP" | "SIGCONT") => void
  /** `kill -9`, as soon as it is within a lookup; another one takes its place. */
  readonly killInLookup: () => Promise<void>
}

/** One way in which things go wrong. */
interface Harm {
  /** Milliseconds between two of these: half of it at least, one and a half at most. */
  readonly every: number
  readonly inflict: (scene: Scene) => Promise<void>
}

const harms = {
  /** A key is evicted: any, or every other time one of the book-keeping. */
  evict: {
    every: 60,
    inflict: async ({ admin, chance }) => {
      const keys = await admin.keys("check-*")
      const entries = chance.below(2) === 0 ? keys : keys.filter((key) => !/:(entry|lease):/.test(key))
      if (entries.length > 0) await admin.del(chance.of(entries))
    }
  },
  flush: { every: 250, inflict: async ({ admin }) => void (await admin.flushall()) },
  /** It crashes, and comes back with what it had some time before. */
  restart: {
    every: 500,
    inflict: async ({ redis, admin, workers, chance }) => {
      await admin.save()
      if (chance.below(2) === 0) {
        await sleep(chance.below(400))
        return redis.restart()
      }
      // One process does not hear of what will be forgotten, and is the first to come back.
      const { proxy } = chance.of(workers)
      const others = workers.filter((worker) => worker.proxy !== proxy)
      proxy.holdReplies()
      await sleep(50 + chance.below(200))
      await Promise.all(others.map((other) => other.proxy.refuse()))
      await redis.restart()
      proxy.cut()
      proxy.releaseReplies()
      await sleep(150)
      await Promise.all(others.map((other) => other.proxy.accept()))
    }
  },
  /** A process is held for longer than its leases, and its connections, last. */
  pause: {
    every: 500,
    inflict: async ({ workers, chance, lease }) => {
      const victim = chance.of(workers)
      victim.signal("SIGSTOP")
      await sleep(lease + 100 + chance.below(lease))
      victim.signal("SIGCONT")
    }
  },
  kill: { every: 700, inflict: ({ workers, chance }) => chance.of(workers).killInLookup() },
  late: {
    every: 200,
    inflict: async ({ workers, chance }) => {
      const { proxy } = chance.of(workers)
      if (chance.below(2) === 0) {
        proxy.holdReplies()
        await sleep(20 + chance.below(300))
        proxy.releaseReplies()
      } else {
        proxy.delayReplies(1 + chance.below(60))
        await sleep(200)
        proxy.delayReplies(0)
      }
    }
  },
  /** A connection is lost, sometimes with the replies of what was done. */
  cut: {
    every: 150,
    inflict: async ({ workers, chance }) => {
      const { proxy } = chance.of(workers)
      if (chance.below(2) === 0) {
        proxy.holdReplies()
        await sleep(chance.below(20))
      }
      proxy.cut()
      proxy.releaseReplies()
    }
  },
  refuse: {
    every: 500,
    inflict: async ({ workers, chance }) => {
      const { proxy } = chance.of(workers)
      await proxy.refuse()
      await sleep(chance.below(500))
      await proxy.accept()
    }
  },
  stall: {
    every: 500,
    inflict: async ({ workers, chance }) => {
      const { proxy } = chance.of(workers)
      proxy.stall()
      await sleep(20 + chance.below(800))
      proxy.resume()
    }
  }
} satisfies Record<string, Harm>

/** The ways in which things go wrong, by name. */
export type Fault = keyof typeof harms
export const faults = Object.keys(harms) as ReadonlyArray<Fault>

/**
 * Lets things go wrong in these ways, side by side, until it is told to stop. Whoever stops it waits until nothing is
 * wrong any more.
 */
export const wreak = (
  scene: Scene,
  these: ReadonlyArray<Fault>,
  count: (fault: Fault) => void
): { readonly stop: () => Promise<void> } => {
  const stopped = new AbortController()
  const { signal } = stopped
  const loops = these.map(async (fault) => {
    const { every, inflict }: Harm = harms[fault]
    while (!signal.aborted) {
      await sleep(every / 2 + scene.chance.below(every), undefined, { signal }).catch(() => {})
      if (signal.aborted) return
      await inflict(scene)
      count(fault)
    }
  })
  const ended = Promise.all(loops)
  return {
    stop: async () => {
      stopped.abort()
      await ended
    }
  }
}
