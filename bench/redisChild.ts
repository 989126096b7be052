/**
 * The other processes of the workloads over Redis. The first argument says what this one is for, the second where Redis
 * is; everything else comes and goes by messages.
 */
import { Effect } from "effect"
import { Cacheme } from "../src/index.ts"
import { makeRuntime, Numbered, Versioned, VersionNode } from "./redisCaches.ts"
import { makeFarPeers, makeTieredPeers, type Source } from "./redisPeers.ts"

/** One of the processes that ask for a cold key. */
export interface HerdOrder {
  readonly subject: string
  readonly id: number
  readonly callers: number
  readonly lookupTakes: number
  /** When to begin, in milliseconds since the epoch. */
  readonly at: number
}

/** When it began and ended, in milliseconds since the epoch, and how often it looked the key up. */
export interface HerdReport {
  readonly began: number
  readonly ended: number
  readonly lookups: number
}

const [, , role, url = "", logCapacity = "200000"] = process.argv
const tell = (message: unknown): void => void process.send!(message)
const now = () => performance.timeOrigin + performance.now()
const until = (at: number) => new Promise((resolve) => setTimeout(resolve, Math.max(0, at - now())))

/** Asks for cold keys with the others. */
const herd = async (): Promise<void> => {
  let [lookups, takes] = [0, 0]
  const slow = async (key: string) => {
    lookups++
    await until(now() + takes)
    return { id: Number(key), version: 1 }
  }
  const source: Source = {
    lookUp: slow,
    tagsOf: () => ["all"],
    keyOf: ({ id }) => String(id),
    schema: Versioned
  }
  const runtime = makeRuntime(url, "far")
  await runtime.context()
  const ask = Cacheme.fn(VersionNode, ({ id }) => Effect.promise(() => slow(String(id))))
  const subjects = new Map<string, (id: number, callers: number) => Promise<unknown>>([
    [
      "cacheme",
      (id, callers) =>
        runtime.runPromise(
          Effect.all(
            Array.from({ length: callers }, () => ask({ id })),
            { concurrency: "unbounded" }
          )
        )
    ]
  ])
  for (const { name, get } of [...(await makeFarPeers(url, source)), ...(await makeTieredPeers(url, source))])
    subjects.set(name, (id, callers) => Promise.all(Array.from({ length: callers }, () => get(String(id)))))
  process.on("message", async (order: HerdOrder) => {
    lookups = 0
    takes = order.lookupTakes
    await until(order.at)
    const began = now()
    await subjects.get(order.subject)!(order.id, order.callers)
    tell({ began, ended: now(), lookups } satisfies HerdReport)
  })
  tell([...subjects.keys()])
}

/** Invalidates tags that nothing of the readers carries, so many times a second, as it is told. */
const writer = async (): Promise<void> => {
  const runtime = makeRuntime(url, "far")
  const context = await runtime.context()
  const runPromise = Effect.runPromiseWith(context)
  let [number, rate, began, done] = [0, 0, 0, 0]
  const invalidate = () =>
    runPromise(Cacheme.invalidate(new Numbered({ number: 1_000_000 + (number++ % 5000) })))
  setInterval(() => {
    const due = Math.floor(((now() - began) / 1000) * rate)
    for (; done < due; done++) void invalidate()
  }, 1)
  process.on("message", async (wanted: number) => {
    ;[rate, began, done] = [wanted, now(), 0]
    if (wanted > 0) await invalidate()
    tell("so be it")
  })
  tell("ready")
}

/** Takes the time until a new process has its first answer from Redis. */
const startup = async (): Promise<void> => {
  const began = now()
  const runtime = makeRuntime(url, "far", Number(logCapacity))
  const ask = Effect.fail("a miss").pipe(Cacheme.memoize(new VersionNode({ id: 1 })))
  // What cannot be answered by Redis yet is computed, which fails here.
  await runtime.runPromise(Effect.eventually(ask))
  tell(now() - began)
}

/** Weighs the mirror: the heap with it less the heap with that of an empty log. */
const mirror = async (): Promise<void> => {
  const used = () => {
    for (let i = 0; i < 4; i++) globalThis.gc!()
    return process.memoryUsage().heapUsed
  }
  const read = async (prefix: string) => {
    const runtime = makeRuntime(url, "far", Number(logCapacity), prefix)
    await runtime.runPromise(
      Effect.succeed({ id: 1, version: 2 }).pipe(Cacheme.memoize(new VersionNode({ id: 1 })))
    )
    // The first answers may come before the whole log is known.
    const isWhole = Effect.map(
      Cacheme.stats,
      ({ store: { shared, tags } }) => tags >= (shared?.log?.rows ?? Infinity)
    )
    while (!(await runtime.runPromise(isWhole))) await until(now() + 10)
  }
  await read("EMPTY:")
  const before = used()
  await read("CM:")
  tell(used() - before)
}

const roles: Record<string, () => Promise<void>> = { herd, writer, startup, mirror }
// It does not outlive who has started it.
process.on("disconnect", () => process.exit())
const play = roles[role ?? ""]
if (play !== undefined) await play()
