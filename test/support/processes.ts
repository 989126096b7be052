/**
 * Several processes of an application in one: caches over one prefix of a Redis, each with flights, memory, mirror and
 * connections of its own.
 */
import { Effect, Layer, Scope } from "effect"
import { Redis } from "ioredis"
import { inject } from "vitest"
import { Cacheme, type TieredStore } from "../../src/index.ts"
import type { Options as Settings } from "../../src/Settings.ts"
import { layerOf, ownPrefix, type SharedStore } from "./shared.ts"

/** Runs an effect as one of the processes. */
export type Process = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, Exclude<R, Cacheme>>

/** Options of a process: those of its store, and of its cache. */
export interface ProcessOptions extends Partial<TieredStore.Options> {
  readonly cache?: Settings | undefined
}

/** Starts a process, which ends with the scope. */
export const startProcess = (
  kind: SharedStore,
  { cache, ...store }: ProcessOptions
): Effect.Effect<Process, never, Scope.Scope> =>
  Effect.map(
    Layer.build(Cacheme.layer({ ...cache, prefix: store.prefix }).pipe(Layer.provide(layerOf(kind, store)))),
    (context): Process =>
      (self) =>
        Effect.provideContext(self, context)
  ).pipe(Effect.orDie)

/**
 * Starts four processes under a prefix that nobody else has, and waits until they hear each other; who needs fewer takes
 * fewer.
 */
export const startProcesses = (
  kind: SharedStore,
  options: ProcessOptions = {}
): Effect.Effect<readonly [Process, Process, Process, Process], never, Scope.Scope> =>
  Effect.gen(function* () {
    const prefix = ownPrefix()
    const redis = yield* rawClient
    const start = startProcess(kind, { prefix, ...options })
    const processes = yield* Effect.all([start, start, start, start], { concurrency: "unbounded" })
    const events = `${prefix}1:{0}:events`
    yield* until(Effect.promise(async () => (await redis.pubsub("NUMSUB", events))[1] === processes.length))
    return processes
  })

/** A client of the Redis of the tests, beside the caches. */
export const rawClient: Effect.Effect<Redis, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => new Redis(inject("redisUrl"))),
  (redis) => Effect.sync(() => redis.disconnect())
)

/** Waits, in real time, until something is so. */
export const until = <E, R>(isSo: Effect.Effect<boolean, E, R>): Effect.Effect<void, E, R> =>
  Effect.gen(function* () {
    while (!(yield* isSo)) yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 1)))
  })
