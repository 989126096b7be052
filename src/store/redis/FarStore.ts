/**
 * The store over Redis, with memory in front of it or without.
 *
 * | what | how |
 * |---|---|
 * | a read | memory, if its mode allows; then entries and position in one command, judged by the mirror (`Cell.ts`) |
 * | a lookup | begins with a lease, or waits for whoever holds it; its answer carries the point at which it began |
 * | an invalidation | memory and mirror first; acknowledged by every cell, or kept until it is (`Undelivered.ts`) |
 *
 * **Memory in front.** It holds decoded answers that the mirror has judged fresh in the step in which they were put
 * there, and is told of every row the mirror learns, before the mirror's cursor moves. So what it holds is fresh as of
 * that cursor. `validated` asks whether the cursor is still the position, `bounded` believes it for a while.
 *
 * **Redis away.** Everything computes. What could not be invalidated is kept, and nothing is served from Redis until all
 * of it has been delivered: the link is not up before, and an invalidation that failed while it was up closes the store
 * in the same step.
 *
 * **Times.** An entry's time to live is written by the clock of this process, corrected by what the server's differs from
 * it if that is more than a second. Redis drops it by its own clock in any case.
 */
import * as EffectCause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { randomBytes } from "node:crypto"
import { bounded } from "../../Attribution.ts"
import type { CachemeError } from "../../CachemeError.ts"
import type { Declared } from "../../Declared.ts"
import * as Codec from "../../Codec.ts"
import { absence, type Entry, type Miss, type Reason, type Stale } from "../../Entry.ts"
import { freeze } from "../../freeze.ts"
import * as Freshness from "../../Freshness.ts"
import { Cause, Invalidation, type Request, type Targets } from "../../Invalidation.ts"
import * as Node from "../../Node.ts"
import * as Pattern from "../../Pattern.ts"
import * as TagIds from "../../tagIds.ts"
import type {
  Acquired,
  Applied,
  Fill,
  Found,
  Held,
  Log,
  Looked,
  Now,
  Shared,
  Status,
  Stored
} from "../../Store.ts"
import { type Position, Store, valueOf, type Wanted } from "../../Store.ts"
import type { Memory } from "../MemoryStore.ts"
import { type Answer, Cell, type Lease } from "./Cell.ts"
import type { Compression } from "./compression.ts"
import * as EntryBytes from "./entryBytes.ts"
import { Away, Link, type Send } from "./Link.ts"
import type { Point } from "./Mirror.ts"
import type { Names } from "./names.ts"
import type { RedisSettings } from "./redisSettings.ts"
import { isTooLong, moment } from "./rounds.ts"
import * as scripts from "./scripts.ts"
import { Undelivered } from "./Undelivered.ts"
import { versionsOf } from "./versions.ts"

/** How memory in front of Redis is set up. */
export interface NearSettings {
  readonly memory: Memory
  readonly mode: Node.Near
  /** For how many milliseconds another process's write may go unseen where the mode is `bounded`. */
  readonly bound: number
  /** How long memory keeps an answer at most, in milliseconds. */
  readonly timeToLive: number
}

/** How the store is set up. */
export interface FarSettings {
  readonly redis: RedisSettings
  readonly names: Names
  /** What this process declares of tables. */
  readonly declared: Declared
  /** How long a lease is good without being renewed, in milliseconds. */
  readonly lease: number
  /** How many distinct tags the log of a cell remembers. */
  readonly logCapacity: number
  readonly compression: Compression
  /** How many names a step of a sweep looks at. */
  readonly scanCount: number
  /** True to freeze what is read. */
  readonly freeze: boolean
  readonly near: NearSettings | undefined
}

/** How undelivered invalidations are tried again. */
const retries = Schedule.min([Schedule.exponential("20 millis"), Schedule.spaced("1 second")])

/** From so much of the log on, it is warned about. */
const nearlyFull = 0.8

const hour = 3_600_000

/** So often a round is made whose cells answer too far apart; after that it waits with what cannot be delivered. */
const roundTries = 3

/** What each of the memoized answers rests on that a lookup has used, its own key first. */
type Answers = ReadonlyArray<ReadonlyArray<string>>

/** An entry as it was read. */
interface Read {
  readonly header: EntryBytes.ReadHeader
  decoded: Effect.Effect<Exit.Exit<unknown, unknown>, Codec.Unreadable> | undefined
}

/** The answer in an entry. */
type Decoded = Exit.Exit<Exit.Exit<unknown, unknown>, Codec.Unreadable>

/** Takes what was looked at, for one of several places. */
type Settle = (looked: Looked | Effect.Effect<Looked>, place: number) => void

/** What is known of an entry. */
interface Judged {
  readonly miss: Miss | undefined
  /** The id whose invalidation ended it; empty when it cannot be told. */
  readonly endedBy?: string | undefined
  readonly read?: Read | undefined
  readonly bytes?: Buffer | undefined
}

/** Opens a store over Redis; it closes with the scope. Fails as `Link.make` does. */
export const make = (settings: FarSettings): Effect.Effect<Store["Service"], CachemeError, Scope.Scope> =>
  Effect.gen(function* () {
    const context = yield* Effect.context<Scope.Scope>()
    // The link may be up before the store is there: nothing can be undelivered then.
    let store: FarStore | undefined
    const link = yield* Link.make(settings.redis, {
      prepare: scripts.define,
      recover: async (send) => store?.recover(send),
      onUp: () => store?.onUp(),
      onDown: () => {},
      onSubscribed: () => {}
    })
    const made = (store = new FarStore(settings, link, yield* Clock.Clock, Effect.runForkWith(context)))
    // Before the link closes.
    yield* Effect.addFinalizer(() => Effect.promise(() => made.close()))
    if (link.isUp) yield* Effect.promise(() => made.start())
    const background = [made.deliveries, made.renewals, ...(settings.near ? [made.validations] : [])]
    for (const fiber of background)
      yield* Effect.forkScoped(Effect.provideService(fiber, Clock.Clock, realClock))
    return Store.of(made)
  })

/** What concerns the network goes by real time, whatever clock the program has. */
const realClock = Context.get(Context.empty(), Clock.Clock)

class FarFill implements Fill {
  readonly #store: FarStore
  readonly #node: Node.Any
  readonly #known: ReadonlyArray<string>
  readonly #point: Point | undefined
  readonly #settled: Point | undefined
  #lease: Lease | undefined
  #isVain = false
  readonly #invalidations: number

  /** `settled` is a position that every cell had been told of before the lookup began, where there are several. */
  constructor(
    store: FarStore,
    node: Node.Any,
    known: ReadonlyArray<string>,
    point: Point | undefined,
    settled: Point | undefined,
    lease: Lease | undefined
  ) {
    this.#store = store
    this.#node = node
    this.#known = known
    this.#point = point
    this.#settled = settled
    this.#lease = lease
    this.#invalidations = store.invalidations
  }

  /** Others may have invalidated something, so it asks. */
  isQuiet(answers: Answers): Effect.Effect<boolean> {
    const point = this.#point
    if (point === undefined) return Effect.succeed(false)
    const cell = this.#store.cellOf(this.#known[0]!)
    return Effect.callback((resume) =>
      cell.validate((isCovered) => {
        const { incarnation, newest } = cell.mirror
        const isQuiet = incarnation === point.incarnation && newest <= point.sequence
        const isSound = this.#store.isSound(cell, answers, point, this.#settled)
        resume(Effect.succeed(isCovered && this.#store.isOpen && isQuiet && isSound))
      })
    )
  }

  isOvertaken(): boolean {
    // What this process has invalidated, and Redis has not heard of yet, the mirror cannot tell.
    if (this.#point === undefined || !this.#store.isOpen)
      return this.#store.invalidations !== this.#invalidations
    const [key, ...tags] = this.#known
    const { mirror } = this.#store.cellOf(key!)
    return (
      mirror.incarnation === this.#point.incarnation &&
      mirror.invalidatedSince(this.#point.sequence, key!, tags) !== undefined
    )
  }

  store(entry: Entry): Effect.Effect<Stored> {
    if (this.#point === undefined) return Effect.succeed("failed")
    const lease = this.#lease
    this.#lease = undefined
    return this.#store.store(this.#node, entry, this.#point, lease, this.#settled)
  }

  replace(request: Request, entry: Entry): Effect.Effect<Applied, CachemeError> {
    return this.#store.replace(this.#node, request, entry, this.#point)
  }

  get discard(): Effect.Effect<void> {
    return this.#store.discard(this.#node)
  }

  noteUnstored(): void {
    this.#isVain = true
  }

  get end(): Effect.Effect<void> {
    return Effect.sync(() => {
      if (this.#lease !== undefined) this.#store.giveBack({ ...this.#lease, isVain: this.#isVain })
      this.#lease = undefined
    })
  }
}

/** Waits until a lease is given back, also if that was before it began to wait. */
class Sleeper {
  readonly forget: () => void
  #wasVain: boolean | undefined
  #tell: ((wasVain: boolean) => void) | undefined

  constructor(forget: () => void) {
    this.forget = forget
  }

  /** Tells whether the lookup came to nothing that is stored. */
  wake(wasVain: boolean): void {
    this.#wasVain = wasVain
    this.#tell?.(wasVain)
  }

  /** Ends once it is woken, with what it was told. */
  get woken(): Effect.Effect<boolean> {
    const woken = Effect.callback<boolean>((resume) => {
      if (this.#wasVain !== undefined) return resume(Effect.succeed(this.#wasVain))
      this.#tell = (wasVain) => resume(Effect.succeed(wasVain))
    })
    return Effect.ensuring(woken, Effect.sync(this.forget))
  }
}

class FarStore implements Shared {
  readonly label: string
  readonly shared: Shared = this
  readonly lease: number
  /** How many invalidations this process has begun. */
  invalidations = 0
  readonly #settings: FarSettings
  readonly #link: Link
  readonly #names: Names
  readonly #cells: ReadonlyArray<Cell>
  readonly #near: Memory | undefined
  readonly #clock: Clock.Clock
  readonly #runFork: <A, E>(effect: Effect.Effect<A, E>) => unknown
  /** Names this process in messages and tokens. */
  readonly #origin = randomBytes(9).toString("base64url")
  #tokens = 0
  /** False until what had to be made good at the start has been. */
  #isSettled = false
  readonly #leases = new Map<string, string>()
  readonly #undelivered = new Undelivered()
  readonly #toDeliver = Latch.makeUnsafe(false)
  readonly #listeners = new Set<(invalidation: Invalidation) => void>()
  /** Those who wait for a lease to be given back, by its name. */
  readonly #sleepers = new Map<string, ReadonlyArray<Sleeper>>()
  /** What was read last, for all who have asked for it at once. A WeakMap of what was read costs every collection. */
  #lastBytes: Buffer | undefined
  #lastRead: Read | null = null
  #warnedAt = -Infinity
  readonly #warned = new Set<string>()

  constructor(
    settings: FarSettings,
    link: Link,
    clock: Clock.Clock,
    runFork: <A, E>(effect: Effect.Effect<A, E>) => unknown
  ) {
    const { names, near, redis } = settings
    this.#settings = settings
    this.lease = settings.lease
    this.#link = link
    this.#names = names
    this.#near = near?.memory
    this.#clock = clock
    this.#runFork = runFork
    this.label = near === undefined ? redis.name : `${redis.name}, ${near.mode} ${near.memory.label} in front`
    const listener = {
      onRows: (ids: ReadonlyArray<string>, patterns: ReadonlyArray<string>) =>
        this.#near?.end(targetsOf(ids, patterns), this.#clock.currentTimeMillisUnsafe()),
      onGap: () => this.#near?.clear()
    }
    this.#cells = Array.from({ length: names.cells }, (_, i) => {
      const options = {
        state: names.state(i),
        log: names.log(i),
        position: names.position(i),
        events: names.events(i),
        lease: settings.lease,
        logCapacity: settings.logCapacity,
        patience: redis.deadline,
        declared: settings.declared,
        hasOthers: names.cells > 1
      }
      const cell = new Cell(link, options, listener)
      link.subscribe(options.events, (message) => this.#hear(cell, message))
      return cell
    })
  }

  /** The cell of a key. */
  cellOf(key: string): Cell {
    return this.#cells[this.#names.cellOf(key)]!
  }

  /** True while what Redis holds may be served. */
  get isOpen(): boolean {
    return this.#link.isUp && this.#isSettled && this.#undelivered.isEmpty
  }

  // ------------------------------------------------------------------------------------------------------- reading

  peek(node: Node.Any, now: Now): Found | undefined {
    const { near } = this.#settings
    if (near === undefined || (node[Node.TypeId].near ?? near.mode) !== "bounded") return undefined
    const found = near.memory.peek(node, now)
    return found !== undefined && this.#cellOfNode(node).isCoveredWithin(near.bound) ? found : undefined
  }

  held(): Held {
    return { miss: "absent", stale: undefined }
  }

  look(nodes: ReadonlyArray<Node.Any>, now: Now): Effect.Effect<ReadonlyArray<Looked>> {
    if (!this.isOpen) return Effect.succeed(nodes.map(() => away))
    if (nodes.length === 0) return Effect.succeed([])
    return Effect.callback((resume) => {
      const looked: Array<Looked | Effect.Effect<Looked>> = Array.from({ length: nodes.length })
      let missing = nodes.length
      let isPlain = true
      const settle: Settle = (one, place) => {
        looked[place] = one
        isPlain &&= !Effect.isEffect(one)
        if (--missing > 0) return
        resume(
          isPlain
            ? Effect.succeed(looked as ReadonlyArray<Looked>)
            : Effect.forEach(looked, (one) => (Effect.isEffect(one) ? one : Effect.succeed(one)))
        )
      }
      for (let place = 0; place < nodes.length; place++) this.#lookAt(nodes[place]!, now, settle, place)
    })
  }

  // A batch looks at a thousand keys: here and below a closure more for each is felt.
  #lookAt(node: Node.Any, now: Now, settle: Settle, place: number): void {
    const cell = this.#cellOfNode(node)
    const found = this.#near?.peek(node, now)
    if (found === undefined) this.#readFar(cell, node, now, settle, place)
    else this.#validate(cell, node, found, now, settle, place)
  }

  #validate(
    cell: Cell,
    node: Node.Any,
    found: NonNullable<ReturnType<Memory["peek"]>>,
    now: Now,
    settle: Settle,
    place: number
  ): void {
    cell.validate((isCovered) => {
      if (!isCovered) settle(away, place)
      // What the mirror has learnt meanwhile has ended what was found.
      else if (this.#near!.isFresh(found, now)) settle({ found: found.taken() }, place)
      else this.#readFar(cell, node, now, settle, place)
    })
  }

  #readFar(cell: Cell, node: Node.Any, now: Now, settle: Settle, place: number): void {
    const definition = node[Node.TypeId]
    const key = definition.id(node)
    cell.read(this.#names.entry(definition, key), key, (answer, fresh) =>
      settle(this.#looked(cell, node, key, answer, fresh, now), place)
    )
  }

  /** What an answer of Redis is worth: at once, unless the node's schema or a compression takes its time. */
  #looked(
    cell: Cell,
    node: Node.Any,
    key: string,
    answer: Answer,
    fresh: Point | undefined,
    now: Now
  ): Looked | Effect.Effect<Looked> {
    const judged = this.#judge(cell, key, answer, fresh, now)
    const { read, bytes, miss } = judged
    if (read === undefined || bytes === undefined) return { held: { miss: miss!, stale: undefined } }
    const stale = miss === undefined ? undefined : this.#staleOf(cell, key, judged, read, now)
    if (miss !== undefined && !(stale && Freshness.isWithin(stale, read.header.keep)))
      return { held: { miss, stale: undefined, by: judged.endedBy } }
    const decoded = (read.decoded ??= this.#decode(node, bytes, read))
    return isDone(decoded)
      ? this.#given(cell, node, key, read, decoded, judged, stale, now)
      : this.#givenLater(cell, node, key, read, decoded, judged, stale, now)
  }

  #given(
    cell: Cell,
    node: Node.Any,
    key: string,
    { header }: Read,
    decoded: Decoded,
    { miss, endedBy }: Judged,
    stale: Stale | undefined,
    now: Now
  ): Looked {
    if (Exit.isFailure(decoded)) {
      this.#warnUnreadable(node, decoded.cause)
      return { held: { miss: "unreadable", stale: undefined } }
    }
    return stale === undefined
      ? { found: this.#found(cell, node, key, decoded.value, header, now) }
      : { held: { miss: miss!, stale: { ...stale, exit: decoded.value }, by: endedBy } }
  }

  #givenLater(
    cell: Cell,
    node: Node.Any,
    key: string,
    read: Read,
    decoding: NonNullable<Read["decoded"]>,
    judged: Judged,
    stale: Stale | undefined,
    now: Now
  ): Effect.Effect<Looked> {
    return Effect.map(Effect.exit(decoding), (decoded) => {
      // The next reader need not wait for it again.
      read.decoded = decoded
      return this.#given(cell, node, key, read, decoded, judged, stale, now)
    })
  }

  #warnUnreadable(node: Node.Any, cause: EffectCause.Cause<Codec.Unreadable>): void {
    const why = Option.match(EffectCause.findErrorOption(cause), {
      onNone: () => EffectCause.pretty(cause),
      onSome: ({ why }) => why
    })
    this.#warnOnce(
      `an entry of node "${node[Node.TypeId].name}" cannot be read, and is looked up anew: ${why}`
    )
  }

  #judge(cell: Cell, key: string, answer: Answer, fresh: Point | undefined, now: Now): Judged {
    if (answer === "away") return { miss: "away" }
    if (answer === null) return { miss: "absent" }
    const read = this.#readOf(answer)
    if (read === null) {
      this.#warnOnce(`what lies under the name of ${key} is no entry`)
      return { miss: "unreadable" }
    }
    const { header } = read
    const isJudged = header.incarnation === fresh?.incarnation && header.startedAt === fresh.sequence
    const endedBy = isJudged ? undefined : cell.mirror.endedBy(header, key)
    // Without its book-keeping nothing can be said of it.
    if (endedBy === "") return { miss: "invalidated", endedBy }
    const isAged = now.currentTimeMillisUnsafe() + cell.skew >= header.expiresAt
    return {
      miss: endedBy !== undefined ? "invalidated" : isAged ? "expired" : undefined,
      endedBy,
      read,
      bytes: answer
    }
  }

  /** The header is read once for all who have read the same bytes. */
  #readOf(bytes: Buffer): Read | null {
    if (this.#lastBytes !== bytes) {
      const header = EntryBytes.readHeader(bytes)
      this.#lastBytes = bytes
      this.#lastRead = header === undefined ? null : { header, decoded: undefined }
    }
    return this.#lastRead
  }

  #decode(
    node: Node.Any,
    bytes: Buffer,
    { header }: Read
  ): Effect.Effect<Exit.Exit<unknown, unknown>, Codec.Unreadable> {
    const { kind } = header
    const decoded = Effect.flatMapEager(EntryBytes.readPayload(bytes, header), (json) =>
      Codec.decode(node[Node.TypeId], kind, json)
    )
    return this.#settings.freeze ? Effect.mapEager(decoded, frozen) : decoded
  }

  /** A fresh answer. Memory keeps it, if the mirror still says that it is fresh. */
  #found(
    cell: Cell,
    node: Node.Any,
    key: string,
    exit: Exit.Exit<any, any>,
    header: EntryBytes.ReadHeader,
    now: Now
  ): Found {
    const expiresAt = header.expiresAt - cell.skew
    if (this.#near !== undefined && cell.mirror.endedBy(header, key) === undefined) {
      const at = now.currentTimeMillisUnsafe()
      const { tags, took, keep } = header
      this.#keep(node, { exit, tags, timeToLive: expiresAt - at, took, keep }, at)
    }
    return { exit, value: valueOf(exit), ids: () => [key, ...header.tags], expiresAt, took: header.took }
  }

  #keep(node: Node.Any, entry: Entry, now: number): void {
    const { near } = this.#settings
    if (near === undefined || !this.isOpen) return
    const timeToLive = Math.min(entry.timeToLive, near.timeToLive)
    near.memory.store(node, { ...entry, timeToLive }, now)
  }

  #staleOf(cell: Cell, key: string, { endedBy }: Judged, { header }: Read, now: Now): Stale {
    // A sequence is the server's time in microseconds; compared with this machine's, whose difference is known.
    const since = () => Date.now() + cell.skew - cell.mirror.endedNotBefore(header, key) / 1000
    return {
      exit: absence,
      ids: () => [key, ...header.tags],
      agedFor: now.currentTimeMillisUnsafe() + cell.skew - header.expiresAt,
      invalidatedFor: endedBy === undefined ? -Infinity : Math.max(0, since())
    }
  }

  explain(node: Node.Any): Effect.Effect<Reason> {
    return Effect.clockWith((clock) => {
      if (!this.isOpen) return Effect.succeed<Reason>({ _tag: "Away" })
      return Effect.callback<Reason>((resume) => {
        const cell = this.#cellOfNode(node)
        const key = node[Node.TypeId].id(node)
        cell.read(this.nameOf(node), key, (answer, fresh) => {
          const { miss, endedBy, read } = this.#judge(cell, key, answer, fresh, clock)
          resume(Effect.succeed(reasonOf(miss, endedBy, read, clock.currentTimeMillisUnsafe() + cell.skew)))
        })
      })
    })
  }

  #cellOfNode(node: Node.Any): Cell {
    return this.#cells.length === 1 ? this.#cells[0]! : this.cellOf(node[Node.TypeId].id(node))
  }

  // ------------------------------------------------------------------------------------------------------- filling

  acquire(wanted: ReadonlyArray<Wanted>, now: Now): Effect.Effect<ReadonlyArray<Acquired>> {
    return Effect.promise(() => Promise.all(wanted.map((one) => this.#acquire(one, now))))
  }

  async #acquire({ node, known, isImpatient, accepts }: Wanted, now: Now): Promise<Acquired> {
    const fill = (point: Point | undefined, lease: Lease | undefined): Acquired => ({
      _tag: "Fill",
      fill: new FarFill(this, node, known, point, settled, lease)
    })
    const definition = node[Node.TypeId]
    const key = definition.id(node)
    const cell = this.cellOf(key)
    const settled = cell.settled?.point
    if (!this.isOpen) return fill(undefined, undefined)
    const entry = this.#names.entry(definition, key)
    const mine: Lease = { lease: this.#names.lease(definition, key), token: this.#newToken() }
    // Before it is asked for: it may be given back before the answer is here.
    const waking = this.#hearRelease(mine.lease)
    const acquired = await cell.acquire({ ...mine, entry, key, known }).catch(() => undefined)
    if (acquired === undefined || acquired.isHeld || isImpatient) waking.forget()
    if (acquired === undefined) {
      // Redis may have given it all the same.
      cell.release(mine)
      return fill(undefined, undefined)
    }
    const { point, isHeld, answer, fresh } = acquired
    if (isHeld) this.#leases.set(mine.lease, mine.token)
    const judged = this.#looked(cell, node, key, answer, fresh, now)
    const { found } = Effect.isEffect(judged) ? await Effect.runPromise(judged) : judged
    if (found !== undefined && accepts(found)) {
      if (isHeld) this.giveBack(mine)
      waking.forget()
      return { _tag: "Found", found }
    }
    if (isHeld || isImpatient) return fill(point, isHeld ? mine : undefined)
    return { _tag: "Elsewhere", woken: waking.woken }
  }

  #newToken(): string {
    return `${this.#origin}.${(++this.#tokens).toString(36)}`
  }

  /** Hears from now on that a lease is given back. */
  #hearRelease(lease: string): Sleeper {
    const sleeper = new Sleeper(() => {
      const others = this.#sleepers.get(lease)?.filter((other) => other !== sleeper)
      if (others?.length === 0) this.#sleepers.delete(lease)
      else if (others !== undefined) this.#sleepers.set(lease, others)
    })
    const others = this.#sleepers.get(lease)
    this.#sleepers.set(lease, others === undefined ? [sleeper] : [...others, sleeper])
    return sleeper
  }

  /** Gives back what it holds, and waits until Redis has heard of it. */
  async close(): Promise<void> {
    if (!this.#undelivered.isEmpty)
      this.#log(
        Effect.logError(
          `cacheme: closed with ${this.#undelivered.count} invalidations that Redis has not heard of: other processes may give older answers until their time to live`
        )
      )
    for (const [lease, token] of this.#leases) this.giveBack({ lease, token })
    // What is given back in one turn travels together, and before this.
    await Promise.resolve()
    await this.#link.run((redis) => redis.ping()).catch(() => {})
  }

  /** Gives a lease back that no answer came to. */
  giveBack(held: Lease): void {
    this.#forgetLease(held)
    this.#cellOfLease(held).release(held)
  }

  #forgetLease({ lease, token }: Lease): void {
    if (this.#leases.get(lease) === token) this.#leases.delete(lease)
  }

  #cellOfLease({ lease }: Lease): Cell {
    return this.#cells.find((_, i) => lease.startsWith(this.#names.state(i).slice(0, -"state".length)))!
  }

  begin(node: Node.Any, known: ReadonlyArray<string>, since?: Position): Effect.Effect<Fill> {
    return Effect.promise(async () => {
      const i = this.#names.cellOf(node[Node.TypeId].id(node))
      const point =
        since === undefined
          ? this.isOpen
            ? await this.#cells[i]!.position().catch(() => undefined)
            : undefined
          : pointOf(String(since).split(",")[i])
      return new FarFill(this, node, known, point, undefined, undefined)
    })
  }

  /** A position that is not known is one that nothing can be stored with. */
  get position(): Effect.Effect<Position> {
    return Effect.promise(async () => {
      const points = await Promise.all(this.#cells.map((cell) => cell.position().catch(() => undefined)))
      return points
        .map((point) => (point ? `${point.incarnation}:${point.sequence}` : ""))
        .join(",") as Position
    })
  }

  /** Stores an answer, in Redis and then in memory. */
  store(
    node: Node.Any,
    entry: Entry,
    point: Point,
    lease: Lease | undefined,
    settled?: Point
  ): Effect.Effect<Stored> {
    const definition = node[Node.TypeId]
    const key = definition.id(node)
    const cell = this.cellOf(key)
    const named: Lease = lease ?? { lease: this.#names.lease(definition, key), token: "" }
    const { exit, timeToLive, took = 0, keep = { aged: 0, invalidated: 0 }, answers = [] } = entry
    const tags = this.#withVersions(entry.tags)
    const stored = Effect.clockWith((clock) => {
      const now = clock.currentTimeMillisUnsafe()
      const header = {
        incarnation: point.incarnation,
        startedAt: point.sequence,
        expiresAt: now + timeToLive + cell.skew,
        took,
        keep,
        tags
      }
      const send = async (bytes: string | Buffer): Promise<Stored> => {
        if (!this.isOpen) {
          if (lease !== undefined) cell.release(lease)
          return "failed"
        }
        if (tags.some(TagIds.isOfTable) && !(await cell.hasDeclared(point))) {
          if (lease !== undefined) cell.release(lease)
          return "overtaken"
        }
        if (this.#mustSettle(answers) && !(await this.#isSoundLater(cell, answers, point, settled))) {
          if (lease !== undefined) cell.release(lease)
          return "overtaken"
        }
        const verdict = await cell.store({
          ...named,
          entry: this.#names.entry(definition, key),
          key,
          point,
          tags,
          bytes,
          keep: timeToLive + Math.max(keep.aged, keep.invalidated)
        })
        // Redis may have taken what an invalidation has ended that it has not heard of: nobody is given it from there.
        if (verdict === "away" || !this.isOpen) return "failed"
        // What the mirror has learnt meanwhile counts for memory, too.
        if (verdict === "stored" && this.#near !== undefined) {
          if (cell.mirror.endedBy(header, key) === undefined) this.#keep(node, { ...entry, tags }, now)
          else this.#near.discard(node)
        }
        return verdict
      }
      const written = Effect.flatMapEager(Codec.encode(definition, exit), (encoded) =>
        EntryBytes.write(header, encoded, this.#settings.compression)
      )
      return Effect.matchEffect(written, {
        onSuccess: (bytes) => Effect.promise(() => send(bytes)),
        onFailure: ({ why }) => {
          this.#warnOnce(`an answer of node "${definition.name}" is not stored, it cannot be written: ${why}`)
          if (lease !== undefined) cell.release(lease)
          return Effect.succeed<Stored>("failed")
        }
      })
    })
    return Effect.ensuring(
      stored,
      Effect.sync(() => this.#forgetLease(named))
    )
  }

  /** Tags, and those because of which other processes' writes reach them: see `versions.ts`. */
  #withVersions(tags: ReadonlyArray<string>): ReadonlyArray<string> {
    const versions = versionsOf(tags, this.#settings.declared)
    return versions.length === 0 ? tags : [...tags, ...versions]
  }

  /** True when what a lookup has used may come of other cells: also by way of an answer that was looked up for it. */
  #mustSettle(answers: Answers): boolean {
    return this.#cells.length > 1 && answers.length > 0
  }

  /**
   * True unless what a lookup has used of other cells may be older than an invalidation that its own cell had been told
   * of when it began: see `rounds.ts`. Where the mirror does not cover that point, it cannot tell.
   */
  isSound(cell: Cell, answers: Answers, point: Point, settled: Point | undefined): boolean {
    if (!this.#mustSettle(answers)) return true
    const { mirror } = cell
    return (
      settled !== undefined &&
      settled.incarnation === point.incarnation &&
      settled.sequence >= mirror.floor &&
      mirror.covers(point) &&
      answers.every(
        ([key, ...tags]) =>
          mirror.invalidatedSince(settled.sequence, key!, this.#withVersions(tags)) === undefined
      )
    )
  }

  /** The same, once the mirror covers the point. */
  async #isSoundLater(
    cell: Cell,
    answers: Answers,
    point: Point,
    settled: Point | undefined
  ): Promise<boolean> {
    // The first sync may have been in flight before the point was reached.
    for (let i = 0; i < 2 && !cell.mirror.covers(point); i++) await cell.sync().catch(() => {})
    return this.isSound(cell, answers, point, settled)
  }

  /** Invalidates the key, and stores an answer if nothing it rests on had been invalidated since its point. */
  replace(
    node: Node.Any,
    request: Request,
    entry: Entry,
    point: Point | undefined
  ): Effect.Effect<Applied, CachemeError> {
    const key = node[Node.TypeId].id(node)
    const cell = this.cellOf(key)
    return Effect.gen({ self: this }, function* () {
      if (point === undefined || !this.isOpen)
        return { ...(yield* this.invalidate(request)), stored: point === undefined ? "overtaken" : "failed" }
      const now = yield* Clock.currentTimeMillis
      this.#begun(request, now)
      const item = { members: membersOf(request), message: this.#message([request], now) }
      const others = this.#cells.filter((other) => other !== cell)
      const replaced = yield* Effect.promise(() =>
        this.#inTime(
          () =>
            Promise.all([
              cell.replace(item, point, [key, ...entry.tags]),
              ...others.map((other) => other.invalidate(item))
            ]),
          () => Promise.all(this.#cells.map((other) => other.invalidate(item)))
        ).catch(() => undefined)
      )
      if (replaced === undefined) return { ...this.#undeliveredYet(request, now), stored: "failed" }
      const [{ point: reached, isSound }] = replaced
      const stored = isSound ? yield* this.store(node, entry, reached, undefined) : "overtaken"
      return { ...this.#applied(request, now, reached.sequence), stored }
    })
  }

  discard(node: Node.Any): Effect.Effect<void> {
    return Effect.sync(() => {
      this.#near?.discard(node)
      this.#cellOfNode(node).remove(this.nameOf(node))
    })
  }

  // -------------------------------------------------------------------------------------------------- invalidating

  invalidate(request: Request): Effect.Effect<Applied, CachemeError> {
    return Effect.flatMap(Clock.currentTimeMillis, (now) =>
      Effect.promise(async () => {
        this.#begun(request, now)
        if (!this.isOpen) return this.#undeliveredYet(request, now)
        const item = { members: membersOf(request), message: this.#message([request], now) }
        const round = () => Promise.all(this.#cells.map((cell) => cell.invalidate(item)))
        const acknowledged = await this.#inTime(round).catch(() => undefined)
        if (acknowledged === undefined) return this.#undeliveredYet(request, now)
        this.#noteRows(Math.max(...acknowledged.map(({ rows }) => rows)))
        return this.#applied(request, now, Math.max(...acknowledged.map(({ point }) => point.sequence)))
      })
    )
  }

  /** Tells all cells, and once more where that took longer than a round may: see `rounds.ts`. */
  async #inTime<A>(round: () => Promise<A>, again: () => Promise<unknown> = round): Promise<A> {
    if (this.#cells.length === 1) return round()
    let since = moment()
    const told = await round()
    for (let tries = 1; isTooLong(since); tries++) {
      if (tries === roundTries) throw new Away("its cells answer too far apart")
      since = moment()
      await again()
    }
    return told
  }

  /** This process sees its own writes at once. */
  #begun(request: Request, now: number): void {
    this.invalidations++
    this.#near?.end(request, now)
  }

  #message(requests: ReadonlyArray<Request>, instant: number): Message {
    return { origin: this.#origin, instant, requests }
  }

  #applied(request: Request, instant: number, reached: number | undefined): Applied {
    const position = positionOf(reached)
    const { patterns } = request
    return {
      report: { entries: undefined, position, pending: this.#undelivered.count, deferred: false },
      invalidation: new Invalidation({ ...request, position, instant }),
      swept: patterns.length === 0 || position === undefined ? undefined : this.#sweep(patterns)
    }
  }

  #undeliveredYet(request: Request, now: number): Applied {
    const isFirst = this.#undelivered.isEmpty
    this.#undelivered.add(request)
    // What was put there since it began, and could be told to be fresh only because Redis had not heard of it.
    this.#near?.end(request, now)
    this.#toDeliver.openUnsafe()
    if (isFirst)
      this.#log(
        Effect.logWarning(
          "cacheme: an invalidation could not be delivered; it is kept, and this process serves nothing from Redis until it is"
        )
      )
    return this.#applied(request, now, undefined)
  }

  /** Delivers what waits, before anything is served again. */
  async recover(send: Send): Promise<void> {
    // A server that may not be asked who it is may be another one, or one that has gone back.
    if (!this.#link.canIdentify) for (const cell of this.#cells) await cell.reset(send)
    await this.#deliver(send)
    this.#isSettled = true
  }

  async #deliver(send: Send): Promise<void> {
    while (!this.#undelivered.isEmpty) {
      const { delivery, delivered } = this.#undelivered.all()
      const { count } = this.#undelivered
      const members = delivery.requests.flatMap(membersOf)
      const deliver = async (cell: Cell) => {
        if (delivery.isEverything) await cell.reset(send)
        await (delivery.isEverything
          ? cell.deliver(membersOf(everything), [this.#message([everything], Date.now())], send)
          : cell.deliver(members, [this.#message(delivery.requests, Date.now())], send))
      }
      await this.#inTime(() => Promise.all(this.#cells.map(deliver)))
      delivered()
      if (this.#undelivered.isEmpty)
        this.#log(Effect.logInfo(`cacheme: ${count} invalidations that had waited were delivered`))
    }
  }

  /** For a link that was up before the store was there. */
  async start(): Promise<void> {
    await this.recover((command) => this.#link.run(command)).catch(() => {})
    this.onUp()
  }

  onUp(): void {
    this.#toDeliver.openUnsafe()
    for (const cell of this.#cells) {
      cell.releaseAll()
      // Before anybody asks.
      cell.sync().catch(() => {})
    }
  }

  /** Delivers what could not be while the link was up. */
  get deliveries(): Effect.Effect<never> {
    const send: Send = (command) => this.#link.run(command)
    const attempt = Effect.tryPromise(() => (this.#isSettled ? this.#deliver(send) : this.recover(send)))
    return Effect.forever(
      Effect.gen({ self: this }, function* () {
        yield* this.#toDeliver.await
        this.#toDeliver.closeUnsafe()
        // While the link is down it is the link's recovery that delivers.
        yield* Effect.ignore(Effect.retry(attempt, { schedule: retries, while: () => this.#link.isUp }))
      })
    )
  }

  /** Gives the memory of what a pattern reaches back; tells how many entries there were. */
  #sweep(globs: ReadonlyArray<string>): Effect.Effect<number> {
    const patterns = globs.map(Pattern.makeUnsafe)
    const sweeping = Promise.all(
      globs.map(async (glob) => {
        let freed = 0
        for (let cursor = "0"; ;) {
          const [next, names] = await this.#link.run((redis) =>
            redis.scan(cursor, "MATCH", this.#names.entryPattern(glob), "COUNT", this.#settings.scanCount)
          )
          const reached = names.filter((name) => {
            const id = this.#names.idOf(name)
            return id !== undefined && patterns.some((pattern) => pattern.matches(id))
          })
          if (reached.length > 0) freed += await this.#link.run((redis) => redis.unlink(...reached))
          if (next === "0") return freed
          cursor = next
        }
      })
    )
    // Nobody may wait for it, and what it leaves behind expires by itself.
    const counted = sweeping.then(
      (freed) => freed.reduce((sum, n) => sum + n, 0),
      () => 0
    )
    return Effect.promise(() => counted)
  }

  #noteRows(rows: number): void {
    const { logCapacity } = this.#settings
    if (rows < logCapacity * nearlyFull || Date.now() - this.#warnedAt < hour) return
    this.#warnedAt = Date.now()
    this.#log(
      Effect.logWarning(
        `cacheme: the log of invalidations holds ${rows} of ${logCapacity} tags: entries that are older than the oldest of them become misses. Raise CACHEME_LOG_CAPACITY, or shorten times to live`
      )
    )
  }

  // ------------------------------------------------------------------------------------------------------- hearing

  nameOf(node: Node.Any): string {
    const definition = node[Node.TypeId]
    return this.#names.entry(definition, definition.id(node))
  }

  listen(tell: (invalidation: Invalidation) => void): () => void {
    this.#listeners.add(tell)
    return () => this.#listeners.delete(tell)
  }

  #hear(cell: Cell, bytes: Buffer): void {
    const [what, ...parts] = bytes.toString().split("\n")
    if (what === "released" || what === "unstored") {
      const lease = parts.join("\n")
      const sleepers = this.#sleepers.get(lease)
      this.#sleepers.delete(lease)
      for (const sleeper of sleepers ?? []) sleeper.wake(what === "unstored")
    } else if (what === "invalidated") this.#hearInvalidated(cell, parts)
  }

  #hearInvalidated(cell: Cell, [incarnation, previous, sequence, ...json]: ReadonlyArray<string>): void {
    const messages = messagesOf(json.join("\n"))
    const position = Number(sequence)
    if (messages === undefined || !Number.isSafeInteger(position)) return
    const members = messages.flatMap(({ requests }) => requests.flatMap(membersOf))
    cell.hear({ incarnation: incarnation!, sequence: position }, Number(previous), members)
    // One cell tells of it for all.
    if (cell !== this.#cells[0]) return
    for (const { origin, instant, requests } of messages) {
      if (origin === this.#origin) continue
      for (const request of requests) {
        const invalidation = new Invalidation({
          ...request,
          ...bounded(request),
          position: positionOf(position),
          instant
        })
        for (const tell of this.#listeners) tell(invalidation)
      }
    }
  }

  // -------------------------------------------------------------------------------------------------- in the background

  /** Keeps the leases of the lookups that are running. */
  get renewals(): Effect.Effect<unknown> {
    return Effect.repeat(
      Effect.promise(async () => {
        const held = Array.from(this.#leases, ([lease, token]) => ({ lease, token }))
        await Promise.all(
          this.#cells.map((cell) =>
            cell.renew(held.filter((one) => this.#cellOfLease(one) === cell)).catch(() => {})
          )
        )
      }),
      Schedule.spaced(this.#settings.lease / 3)
    )
  }

  /** Keeps what memory holds within its bound. */
  get validations(): Effect.Effect<unknown> {
    const { bound } = this.#settings.near!
    return Effect.repeat(
      Effect.sync(() => {
        for (const cell of this.#cells)
          if (this.isOpen && !cell.isCoveredWithin(bound / 3)) cell.validate(() => {})
      }),
      Schedule.spaced(bound / 3)
    )
  }

  // ------------------------------------------------------------------------------------------------------- numbers

  size(definition?: Node.NodeDefinition): number {
    return this.#near?.size(definition) ?? 0
  }

  evictions(definition: Node.NodeDefinition): number {
    return this.#near?.evictions(definition) ?? 0
  }

  tags(): number {
    return this.#cells.reduce((sum, { mirror }) => sum + mirror.size, 0)
  }

  get status(): Effect.Effect<Status> {
    return Effect.promise(async () => {
      const logs = await Promise.all(this.#cells.map((cell) => this.#measure(cell))).catch(() => undefined)
      const { state, since, why } = this.#link.stats()
      return {
        state,
        since,
        why,
        pending: this.#undelivered.count,
        log: logs?.reduce((a, b) => ({
          rows: a.rows + b.rows,
          capacity: a.capacity + b.capacity,
          floorAge: Math.min(a.floorAge, b.floorAge),
          effectiveTimeToLive: Math.min(a.effectiveTimeToLive, b.effectiveTimeToLive)
        })),
        mirror: this.tags()
      }
    })
  }

  async #measure(cell: Cell): Promise<Log> {
    const { logCapacity: capacity } = this.#settings
    const [time, rows, floor, oldest] = await cell.measure()
    const floorAge = (time - floor) / 1000
    const span = Math.max(1, time - oldest) / 1000
    // At the present rate the log is full after so long: what is older then is forgotten.
    return { rows, capacity, floorAge, effectiveTimeToLive: rows === 0 ? Infinity : (capacity / rows) * span }
  }

  #log(effect: Effect.Effect<void>): void {
    this.#runFork(effect)
  }

  #warnOnce(message: string): void {
    if (this.#warned.has(message) || this.#warned.size >= 1000) return
    this.#warned.add(message)
    this.#log(Effect.logWarning(`cacheme: ${message}`))
  }
}

/** Where the log was given up there is no position. */
const positionOf = (sequence: number | undefined): number | undefined =>
  sequence === 0 ? undefined : sequence

const isDone = <A, E>(effect: Effect.Effect<A, E>): effect is Exit.Exit<A, E> => Exit.isExit(effect)

/** What is told where there was too much to tell. */
const everything: Request = { keys: [], tags: [], patterns: ["*"], cause: "unknown outcome" }

const frozen = (exit: Exit.Exit<unknown, unknown>): Exit.Exit<unknown, unknown> => {
  if (Exit.isSuccess(exit)) freeze(exit.value)
  return exit
}

const away: Looked = { held: { miss: "away", stale: undefined } }

const membersOf = ({ keys, tags, patterns }: Targets): ReadonlyArray<string> => [
  ...[...keys, ...tags].map((id) => `:${id}`),
  ...patterns.map((glob) => `~${glob}`)
]

const targetsOf = (ids: ReadonlyArray<string>, patterns: ReadonlyArray<string>): Targets => ({
  keys: ids.filter(Node.isKeyId),
  tags: ids.filter((id) => !Node.isKeyId(id)),
  patterns
})

const pointOf = (text: string | undefined): Point | undefined => {
  const found = /^(\d+):(\d+)$/.exec(text ?? "")
  return found === null ? undefined : { incarnation: found[1]!, sequence: Number(found[2]) }
}

const reasonOf = (
  miss: Miss | undefined,
  endedBy: string | undefined,
  read: Read | undefined,
  now: number
): Reason => {
  switch (miss) {
    case undefined:
      return { _tag: "Fresh", expiresIn: read!.header.expiresAt - now, tags: read!.header.tags }
    case "invalidated":
      return {
        _tag: "Invalidated",
        by: endedBy === "" ? "the store's book-keeping, which was lost or forgotten," : endedBy!
      }
    case "expired":
      return { _tag: "Expired" }
    case "unreadable":
      return { _tag: "Unreadable" }
    case "away":
      return { _tag: "Away" }
    case "absent":
      return { _tag: "Absent" }
  }
}

/** What is told on the channel of a cell. */
const Message = Schema.Struct({
  origin: Schema.String,
  instant: Schema.Finite,
  requests: Schema.Array(
    Schema.Struct({
      keys: Schema.Array(Schema.String),
      tags: Schema.Array(Schema.String),
      patterns: Schema.Array(Schema.String.check(Schema.isMinLength(1), Schema.isMaxLength(256))),
      cause: Cause,
      actor: Schema.optional(Schema.String),
      reason: Schema.optional(Schema.String)
    })
  )
})
type Message = typeof Message.Type

/** What a message says; `undefined` for what is none. */
const messagesOf = (json: string): ReadonlyArray<Message> | undefined =>
  Option.getOrUndefined(decodeMessages(json))

const decodeMessages = Schema.decodeUnknownOption(Schema.fromJsonString(Schema.Array(Message)))
