/** Processes that share a Redis, for tests that harm it: each has a cache of its own, and tells what it logs. */
import { assert } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Logger, Schema, Scope } from "effect"
import { Redis } from "ioredis"
import { createServer, type Socket } from "node:net"
import { Cacheme, type CachemeError, Node, RedisStore, Tag, TieredStore } from "../../src/index.ts"
import type { Store } from "../../src/Store.ts"
import { type RunningProxy, startProxy } from "./proxy.ts"
import { type RedisOptions, type RunningRedis, freePort, startRedis } from "./redis.ts"
import type { SharedStore } from "./shared.ts"

/** A server of the test's own. */
export const aRedis = (options?: RedisOptions): Effect.Effect<RunningRedis, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(() => startRedis(options)),
    (redis) => Effect.promise(redis.stop)
  )

/** A proxy in front of it. */
export const aProxy = ({ port }: RunningRedis): Effect.Effect<RunningProxy, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(() => startProxy(port)),
    (proxy) => Effect.promise(proxy.stop)
  )

/** A server that answers each command with the same bytes; its URL. */
export const aServerThatSays = (
  answer: (command: string) => string
): Effect.Effect<string, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.promise(async () => {
        const sockets = new Set<Socket>()
        const server = createServer((socket) => {
          sockets.add(socket)
          socket.on("error", () => {})
          socket.on("data", (data) => {
            for (const part of data
              .toString()
              .split(/^\*\d+\r\n/m)
              .slice(1))
              socket.write(answer(part.split("\r\n")[1]!.toLowerCase()))
          })
        })
        const port = await freePort()
        await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve))
        return { server, sockets, port }
      }),
      ({ server, sockets }) =>
        Effect.promise(() => {
          for (const socket of sockets) socket.destroy()
          return new Promise((resolve) => server.close(resolve))
        })
    ),
    ({ port }) => `redis://127.0.0.1:${port}`
  )

/** A connection for what a test looks at, or does by hand. */
export const aClient = (url: string): Effect.Effect<Redis, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const client = new Redis(url)
      client.on("error", () => {})
      return client
    }),
    (client) => Effect.sync(() => client.disconnect())
  )

/** A process that has a cache. */
export interface Process {
  /** Runs an effect with its cache. */
  readonly run: <A, E>(effect: Effect.Effect<A, E, Cacheme>) => Effect.Effect<A, E>
  /** What it has logged: `Warn: …`. */
  readonly logs: ReadonlyArray<string>
  /** Closes its cache. */
  readonly close: Effect.Effect<void>
}

/** Builds a cache, which is closed with the scope at the latest; `logs` tells what it says while it starts. */
export const processOf = <E>(
  layer: Layer.Layer<Cacheme, E>,
  logs: Array<string> = []
): Effect.Effect<Process, E, Scope.Scope> =>
  Effect.gen(function* () {
    const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
    const logger = Logger.make(({ logLevel, message }) => void logs.push(`${logLevel}: ${String(message)}`))
    const context: Context.Context<Cacheme> = yield* Layer.buildWithScope(
      Layer.provide(layer, Logger.layer([logger])),
      scope
    )
    return {
      run: (effect) => Effect.provide(Effect.provide(effect, context), Logger.layer([logger])),
      logs,
      close: Scope.close(scope, Exit.void)
    }
  })

/** A process whose store is of a kind. */
export const aProcess = (
  kind: SharedStore,
  options: TieredStore.Options,
  logs?: Array<string>
): Effect.Effect<Process, CachemeError, Scope.Scope> => {
  const store: Layer.Layer<Store, CachemeError> =
    kind === "redis" ? RedisStore.layer(options) : TieredStore.layer({ near: kind, ...options })
  return processOf(Layer.provide(Cacheme.layer(), store), logs)
}

/** Waits until something is so, for ten seconds at most. */
export const until = <A, E, R>(what: string, is: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.gen(function* () {
    const end = performance.now() + 10_000
    for (;;) {
      const found = yield* is
      if (found) return found
      if (performance.now() > end) return assert.fail(`in vain: ${what}`)
      yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 3)))
    }
  })

/** How a process's store is. */
export const statusOf = ({ run }: Process) => run(Effect.map(Cacheme.stats, ({ store }) => store.shared!))

/** Waits until the store of a process is up, and nothing waits for it any more. */
export const isUp = (process: Process) =>
  until(
    "the store is up",
    Effect.map(statusOf(process), ({ state, pending }) => state === "up" && pending === 0)
  )

/** Waits until the store of a process is down. */
export const isDown = (process: Process) =>
  until(
    "the store is down",
    Effect.map(statusOf(process), ({ state }) => state === "down")
  )

/** Reads an item until its answer comes from the cache. */
export const isHit = (truth: Truth, { run }: Process, id: number) =>
  until(
    "the answer comes from the cache",
    Effect.suspend(() => {
      const before = truth.lookups.get(id)
      return Effect.map(run(truth.read(id)), () => truth.lookups.get(id) === before)
    })
  )

/** A fact that every item of a shelf rests on. */
export class Shelf extends Tag.Class<Shelf>()("shelf", { id: Schema.Int }) {}

/** An item, which lies on a shelf, and how often it has been written. */
export class Item extends Node.Class<Item>()("item", {
  key: { id: Schema.Int },
  value: Schema.Struct({ id: Schema.Int, version: Schema.Int }),
  tags: ({ id }) => [new Shelf({ id: id % 3 })]
}) {}

/** What is true: a database of items, and how often each was looked up. */
export class Truth {
  readonly versions = new Map<number, number>()
  readonly lookups = new Map<number, number>()
  /** How many lookups run now, and how many did at most. */
  running = 0
  most = 0

  /** How often any item was looked up. */
  get count(): number {
    return [...this.lookups.values()].reduce((a, b) => a + b, 0)
  }

  /** A lookup, which has read what is true before `meanwhile` happens. */
  readonly lookup = (id: number, meanwhile: Effect.Effect<unknown> = Effect.void) =>
    Effect.suspend(() => {
      this.lookups.set(id, (this.lookups.get(id) ?? 0) + 1)
      this.most = Math.max(this.most, ++this.running)
      const version = this.versions.get(id) ?? 0
      return Effect.ensuring(
        Effect.as(meanwhile, { id, version }),
        Effect.sync(() => this.running--)
      )
    })

  /** The version of an item, by the cache. */
  readonly read = (id: number, meanwhile?: Effect.Effect<unknown>) =>
    this.lookup(id, meanwhile).pipe(
      Cacheme.memoize(new Item({ id })),
      Effect.map(({ version }) => version)
    )

  /** Writes an item, whose shelf is invalidated. */
  readonly write = (id: number) =>
    Effect.sync(() => void this.versions.set(id, (this.versions.get(id) ?? 0) + 1)).pipe(
      Effect.andThen(Cacheme.invalidate(new Shelf({ id: id % 3 })))
    )
}

/** How long an effect took, in milliseconds. */
export const timed = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<readonly [A, number], E, R> =>
  Effect.suspend(() => {
    const start = performance.now()
    return Effect.map(effect, (answer) => [answer, performance.now() - start] as const)
  })
