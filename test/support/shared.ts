/** Stores over the Redis that the tests share, each test with names of its own. */
import { Effect, Layer } from "effect"
import type { ChainableCommander, Redis } from "ioredis"
import { inject } from "vitest"
import { RedisStore, TieredStore } from "../../src/index.ts"

let number = 0

/** A prefix that nobody else has. */
export const ownPrefix = (): string => `t${process.pid}.${++number}.${Math.random().toString(36).slice(2)}:`

/** The kinds of stores that processes share. */
export const sharedStores = ["redis", "validated", "bounded"] as const
export type SharedStore = (typeof sharedStores)[number]

/** A store of a kind, in the Redis of the tests unless another is given. */
export const layerOf = (
  kind: SharedStore,
  options: Partial<TieredStore.Options> = {}
): ReturnType<typeof RedisStore.layer> => {
  const all = { url: inject("redisUrl"), deadline: "2 seconds", ...options } as const
  return kind === "redis" ? RedisStore.layer(all) : TieredStore.layer({ ...all, near: kind })
}

/** The same, under a prefix of its own each time it is built. */
export const freshLayerOf = (kind: SharedStore, options: Partial<TieredStore.Options> = {}) =>
  Layer.unwrap(Effect.sync(() => layerOf(kind, { prefix: ownPrefix(), ...options })))

/**
 * Puts something else under a key, in one step: a process that looks at its position in the background would write to
 * a place that is empty for a moment.
 */
export const replaceKey = async (
  redis: Redis,
  key: string,
  write: (commands: ChainableCommander) => ChainableCommander
): Promise<void> => {
  for (const [error] of (await write(redis.multi().del(key)).exec()) ?? []) if (error !== null) throw error
}
