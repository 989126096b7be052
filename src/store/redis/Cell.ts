/**
 * A cell is what this process has to do with one slot of Redis: it reads entries and judges them, takes leases, stores
 * answers, invalidates.
 *
 * **A read** is one native `MGET` of entries and of the cell's position, whose reply is believed if the connection is
 * still the one it was asked over, and the mirror knows everything up to that position. Otherwise the mirror is brought
 * up to date first, and that by a sync that was sent after the reply had come, or one whose result covers it. So a read
 * sees every invalidation that was acknowledged before it began.
 *
 * **One tick, one command.** Everything that is asked for in one turn of the event loop travels together: the entries
 * of a thousand readers in a few commands, with one position for each; a thousand readers of the near tier share one
 * reply; leases, answers and invalidations likewise. Nothing waits for a timer.
 *
 * **Once a second** at least a script is run, which would notice that another server answers under the same address.
 */
import { randomInt } from "node:crypto"
import { performance } from "node:perf_hooks"
import type { Declared } from "../../Declared.ts"
import { Away, type Link } from "./Link.ts"
import { type Listener, Mirror, type Point } from "./Mirror.ts"
import { type Moment, moment, Settled } from "./rounds.ts"
import * as scripts from "./scripts.ts"
import { checksOf, declarationsOf, declaredFor, renewedAfter } from "./versions.ts"

/** What was read under a name: bytes, nothing, or that Redis could not be asked. */
export type Answer = Buffer | null | "away"

/** Told what was read, and, where Redis has judged it, which entry is fresh: its incarnation and start. */
export type Reader = (answer: Answer, fresh: Point | undefined) => void

/** What became of an answer that was to be stored. */
export type Verdict = "stored" | "overtaken" | "away"

/** A lease, and the token of who holds it. */
export interface Lease {
  readonly lease: string
  readonly token: string
  /** True when its lookup has ended with what is not to be stored: another one may end so, too. */
  readonly isVain?: boolean | undefined
}

/** A lease that is asked for, and the entry that it is for. */
export interface Acquiring extends Lease {
  readonly entry: string
  readonly key: string
  /** The ids that the answer will rest on, as far as they are known. */
  readonly known: ReadonlyArray<string>
}

/** A lease that was asked for, the point at which a lookup begins now, and what was stored after that. */
export interface Acquired {
  readonly point: Point
  readonly isHeld: boolean
  readonly answer: Answer
  readonly fresh: Point | undefined
}

/** An answer to be stored. */
export interface Storing extends Lease {
  readonly entry: string
  readonly key: string
  readonly point: Point
  readonly tags: ReadonlyArray<string>
  readonly bytes: string | Buffer
  /** How many milliseconds Redis keeps it; `Infinity` for ever. */
  readonly keep: number
}

/** Members of the log to invalidate, and what to tell the other processes. */
export interface Invalidating {
  readonly members: ReadonlyArray<string>
  readonly message: unknown
}

/** What an invalidation came to. */
export interface Acknowledged {
  readonly point: Point
  /** How many rows the log has. */
  readonly rows: number
}

/** How a cell is set up. */
export interface CellOptions extends scripts.CellKeys {
  readonly events: string
  /** How long a lease is good, in milliseconds. */
  readonly lease: number
  /** How many rows the log may have. */
  readonly logCapacity: number
  /** How long a read waits at most for the mirror, in milliseconds. */
  readonly patience: number
  /** What this process declares of tables. */
  readonly declared: Declared
  /** True where there are other cells, whose answers may be used for those of this one. */
  readonly hasOthers: boolean
}

/** A script is run at least so often, in milliseconds. */
const verifyEvery = 1000

/** A delta is asked for behind the reads of a tick when so many of the last positions were ahead of the mirror. */
const oftenAhead = 0.2

/** Beyond so many milliseconds, a thousand years, an entry is kept for ever: Redis counts no further than it can. */
const longestKept = 31_536_000_000_000

/** So many leases at most are given back later: others end by themselves. */
const leasesKept = 10_000

const readsAtOnce = 50
const storesAtOnce = 20
const membersAtOnce = 4000
const rowsAtOnce = 1000

/** Gathers what is asked for in one turn of the event loop. */
class Gathering<A> {
  #items: Array<A> = []
  readonly #flush: (items: ReadonlyArray<A>) => void
  constructor(flush: (items: ReadonlyArray<A>) => void) {
    this.#flush = flush
  }
  add(item: A): void {
    if (this.#items.push(item) > 1) return
    queueMicrotask(() => {
      const items = this.#items
      this.#items = []
      this.#flush(items)
    })
  }
}

/** Something asked for, and who waits for it. */
interface Waiting<A, B> {
  readonly item: A
  readonly resolve: (outcome: B) => void
  readonly reject: (error: unknown) => void
}

/** An answer that is to be stored, and the sequence up to which it was matched with patterns here. */
interface StoreWaiting extends Waiting<Storing, string> {
  readonly seen: number
}

/** An entry by its name, and the key that it is of. */
interface Entry {
  readonly entry: string
  readonly key: string
}

/** An entry to be read, and who waits for it. */
interface Reading extends Entry {
  readonly readers: Array<Reader>
}

/** What was read under several names, and, last of them, the position. */
type Values = ReadonlyArray<Buffer | null>

/** A question for values: over which connection and when it was asked, and the delta that was asked for behind it. */
interface Asked {
  readonly epoch: number
  readonly at: Moment
  readonly values: Promise<Values>
  readonly delta: Promise<unknown> | undefined
}

/** A new incarnation: 48 random bits, so that no two cells that began apart can be taken for one. */
const newIncarnation = (): string => String(randomInt(1, 2 ** 48))

/** What one process has to do with one cell. */
export class Cell {
  readonly mirror: Mirror
  /** What was seen of its position, where there are other cells: see `rounds.ts`. */
  readonly settled: Settled | undefined
  /** The server's clock less this machine's, in milliseconds; 0 while they differ by less than a second. */
  skew = 0
  /** When the mirror was last known to lack nothing, counted from before that was asked. */
  #coveredAt: Moment = { monotonic: -Infinity, wall: -Infinity }
  readonly link: Link
  readonly options: CellOptions
  /** The connection under which the mirror was last verified, and when that was asked for. */
  #epoch = -1
  #verifiedAt = -Infinity
  #syncing: Promise<void> | undefined
  /** Which part of the last positions was ahead of the mirror. */
  #ahead = 0
  /** The position that was seen last, as it is written, and read. */
  #seen: { readonly text: string; readonly point: Point | undefined } = { text: "", point: undefined }
  readonly #reads = new Map<string, Reading>()
  readonly #validations = new Gathering<(isCovered: boolean) => void>((all) => this.#validate(all))
  readonly #acquiring = new Gathering<Waiting<Acquiring, Acquired>>((all) => void this.#acquireAll(all))
  readonly #storing = new Gathering<StoreWaiting>((all) => this.#storeAll(all))
  /** How much this process has declared, and the sequences since which that is known, and at which it was declared last. */
  #declaration:
    | {
        readonly count: number
        readonly incarnation: string
        readonly since: number
        readonly renewed: number
      }
    | undefined
  #declaring: Promise<void> | undefined
  /** Leases that could not be given back. */
  readonly #unreleased: Array<Lease> = []
  readonly #releasing = new Gathering<Lease>((all) => void this.#releaseAll(all))
  readonly #removing = new Gathering<string>((names) => void this.#removeAll(names))
  readonly #invalidating = new Gathering<Waiting<Invalidating, Acknowledged>>((all) =>
    this.#invalidateAll(all)
  )

  constructor(link: Link, options: CellOptions, listener: Listener) {
    this.link = link
    this.options = options
    this.mirror = new Mirror(listener)
    this.settled = options.hasOthers ? new Settled() : undefined
  }

  /** True when the mirror was known to lack nothing so many milliseconds ago or less, over this connection. */
  isCoveredWithin(milliseconds: number): boolean {
    // A machine that sleeps stops its monotonic clock; the other one may be set.
    const { monotonic, wall } = this.#coveredAt
    return performance.now() - monotonic < milliseconds && Date.now() - wall < milliseconds
  }

  // ------------------------------------------------------------------------------------------------------- reading

  /** Reads the entry of a key; the callback is called when the mirror can judge it, in that step, or it has been. */
  read(entry: string, key: string, reader: Reader): void {
    if (!this.link.isUp) return reader("away", undefined)
    const waiting = this.#reads.get(entry)
    if (waiting !== undefined) return void waiting.readers.push(reader)
    this.#reads.set(entry, { entry, key, readers: [reader] })
    if (this.#reads.size === 1) queueMicrotask(() => this.#flushReads())
  }

  #flushReads(): void {
    const reads = [...this.#reads.values()]
    this.#reads.clear()
    for (let i = 0; i < reads.length; i += readsAtOnce) this.#readSome(reads.slice(i, i + readsAtOnce))
  }

  #readSome(reads: ReadonlyArray<Reading>): void {
    if (this.#epoch !== this.link.epoch) return void this.#readMeanwhile(reads)
    this.#readCovered(reads)
  }

  #readCovered(reads: ReadonlyArray<Reading>): void {
    this.#covered(namesOf(reads), (values) =>
      reads.forEach(({ readers }, i) => {
        const answer = values === undefined ? "away" : values[i]!
        if (answer !== null || readers.length === 1) return readers.forEach((read) => read(answer, undefined))
        // Where a herd finds nothing, its first goes ahead: what it asks for is sent before the others take their time.
        readers[0]!(answer, undefined)
        queueMicrotask(() => readers.slice(1).forEach((read) => read(answer, undefined)))
      })
    )
  }

  /**
   * Reads while the log is still being read: Redis judges, so that a new process begins with a full cache. What it cannot
   * judge, or does not find fresh, waits for the log.
   */
  async #readMeanwhile(reads: ReadonlyArray<Reading>): Promise<void> {
    const judged = await this.#judgedThere(reads)
    reads.forEach(({ readers }, i) => {
      const one = judged[i]
      if (one !== undefined) for (const reader of readers) reader(...one)
    })
    const left = reads.filter((_, i) => judged[i] === undefined)
    if (left.length > 0) this.#readCovered(left)
  }

  async #judgedThere(entries: ReadonlyArray<Entry>): Promise<ReadonlyArray<Parameters<Reader> | undefined>> {
    this.sync().catch(() => {})
    const { epoch } = this.link
    const names = entries.map(({ entry }) => entry)
    const members = entries.map(({ key }) => `:${key}`)
    const judging = this.#run<Array<string>>("judge", names, [newIncarnation(), ...members])
    const reading = this.link.run((redis) => redis.mgetBuffer(...names))
    const [points, values] = await Promise.all([judging, reading]).catch(() => [[], []])
    return entries.map((_, i) => {
      const fresh = this.link.epoch === epoch ? pointOf(points[i]) : undefined
      return fresh && [values[i]!, fresh]
    })
  }

  /** What is stored for entries now; nothing waits for the log. */
  async #answers(entries: ReadonlyArray<Entry>): Promise<ReadonlyArray<Parameters<Reader>>> {
    if (this.#epoch !== this.link.epoch)
      return (await this.#judgedThere(entries)).map((one) => one ?? ["away", undefined])
    const values = await new Promise<Values | undefined>((resolve) =>
      this.#covered(namesOf(entries), resolve)
    )
    return entries.map((_, i) => [values === undefined ? "away" : values[i]!, undefined])
  }

  /** Makes sure that the mirror lacks nothing that was acknowledged before now; shared by all who ask in this turn. */
  validate(callback: (isCovered: boolean) => void): void {
    if (!this.link.isUp) return callback(false)
    this.#validations.add(callback)
  }

  #validate(callbacks: ReadonlyArray<(isCovered: boolean) => void>): void {
    this.#covered([], (values) => {
      for (const callback of callbacks) callback(values !== undefined)
    })
  }

  /**
   * Asks for what is stored under names until the mirror covers the position that came with it, and tells it; `undefined`
   * when that can't be had. Where the first reply is covered, as nearly all are, it is told in the step in which it came.
   */
  #covered(names: ReadonlyArray<string>, tell: (values: Values | undefined) => void): void {
    const startedAt = performance.now()
    const asked = this.#ask(names)
    asked.values.then(
      (values) => {
        const point = this.#positionOf(values)
        if (this.#isCovered(asked, point)) tell(values)
        else void this.#coveredLater(names, asked, values, point, startedAt).then(tell)
      },
      (error: unknown) => {
        this.#doubt(error)
        tell(undefined)
      }
    )
  }

  /** Goes on once a reply was not covered. */
  async #coveredLater(
    names: ReadonlyArray<string>,
    asked: Asked,
    values: Values,
    point: Point | undefined,
    startedAt: number
  ): Promise<Values | undefined> {
    try {
      for (let attempt = 1; ; attempt++) {
        if (asked.delta !== undefined) {
          await asked.delta
          if (this.#isCovered(asked, point)) return values
        }
        if (await this.#cover(point, asked.epoch, startedAt)) {
          this.#noteCovered(asked.at)
          return values
        }
        if (attempt === 6 || performance.now() - startedAt > this.options.patience) return undefined
        asked = this.#ask(names)
        values = await asked.values
        point = this.#positionOf(values)
        if (this.#isCovered(asked, point)) return values
      }
    } catch (error) {
      this.#doubt(error)
      return undefined
    }
  }

  #ask(names: ReadonlyArray<string>): Asked {
    const { epoch } = this.link
    const at = moment()
    const keys = [...names, this.options.position]
    const values = this.link.run((redis) => redis.mgetBuffer(keys).then(checkedUnsafe))
    // Behind the reads, so that its reply covers their position.
    const delta = this.#ahead > oftenAhead ? this.#syncOnce(rowsAtOnce) : undefined
    delta?.catch(() => {})
    return { epoch, at, values, delta }
  }

  /** The position in a reply: read once while it stays the same, and every reply's own. */
  #positionOf(values: Values): Point | undefined {
    const text = values.at(-1)?.toString("latin1") ?? ""
    if (text !== this.#seen.text) this.#seen = { text, point: pointOf(text) }
    const point = this.#seen.point && { ...this.#seen.point }
    this.#noteAhead(point)
    if (point !== undefined) this.settled?.note(point)
    return point
  }

  #isCovered({ epoch, at }: Asked, point: Point | undefined): boolean {
    if (!this.isCurrent(point, epoch)) return false
    this.#noteCovered(at)
    return true
  }

  #doubt(error: unknown): void {
    if (!(error instanceof Away)) this.link.suspect(error)
  }

  #noteAhead(point: Point | undefined): void {
    const isAhead =
      point !== undefined &&
      point.incarnation === this.mirror.incarnation &&
      point.sequence > this.mirror.cursor
    this.#ahead = this.#ahead * 0.95 + (isAhead ? 0.05 : 0)
  }

  /** True when a position that came over the connection of an epoch is one that the mirror covers. */
  isCurrent(point: Point | undefined, epoch: number): boolean {
    return (
      epoch === this.link.epoch &&
      epoch === this.#epoch &&
      point !== undefined &&
      this.mirror.covers(point) &&
      performance.now() - this.#verifiedAt < verifyEvery
    )
  }

  /** Brings the mirror up to a position that has been seen. */
  async #cover(point: Point | undefined, epoch: number, startedAt: number): Promise<boolean> {
    if (this.#syncing !== undefined) {
      await this.#patiently(this.#syncing, startedAt)
      if (this.isCurrent(point, epoch)) return true
    }
    if (this.link.epoch !== epoch) return false
    // Sent after the position was seen, so it is right whatever the position was.
    await this.#patiently(this.sync(), startedAt)
    return this.link.epoch === epoch && this.#epoch === epoch
  }

  /** Waits for a sync, but not for longer than a read may take. */
  async #patiently(sync: Promise<void>, startedAt: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined
    const { patience } = this.options
    const timeout = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () => reject(new Away("the log is being read")),
        Math.max(0, startedAt + patience - performance.now())
      )
    })
    try {
      await Promise.race([sync, timeout])
    } finally {
      clearTimeout(timer)
    }
  }

  // ------------------------------------------------------------------------------------------------------- the log

  /** Brings the mirror up to date; joins a sync in flight. */
  sync(): Promise<void> {
    return (this.#syncing ??= this.#syncAll().finally(() => {
      this.#syncing = undefined
    }))
  }

  async #syncAll(): Promise<void> {
    let limit = rowsAtOnce
    for (let refused = 0; refused < 6;) {
      const { from } = this.mirror.asking(limit)
      const outcome = await this.#syncOnce(limit)
      if (outcome === "complete") return
      if (outcome === "refused") refused++
      // One invalidation of more tags than were asked for.
      else if (this.mirror.asking(limit).from <= from) limit *= 2
    }
    throw new Away("the log does not settle")
  }

  async #syncOnce(limit: number): Promise<"complete" | "more" | "refused"> {
    const { epoch } = this.link
    const sentAt = moment()
    const sent = this.mirror.asking(limit)
    const [incarnation, sequence, floor, time, rows] = await this.#run<
      [string, string, string, string, Array<string>]
    >("sync", [], [newIncarnation(), sent.incarnation ?? "", sent.from, limit])
    if (this.link.epoch !== epoch) return "refused"
    const point = { incarnation, sequence: Number(sequence) }
    this.settled?.note(point)
    const outcome = this.mirror.apply({
      ...point,
      floor: Number(floor),
      rows,
      time: Number(time),
      sent
    })
    if (outcome === "complete") {
      this.#epoch = epoch
      this.#verifiedAt = Math.max(this.#verifiedAt, sentAt.monotonic)
      this.#noteCovered(sentAt)
      this.#compareClocks(Number(time) / 1000)
    }
    return outcome
  }

  #noteCovered(since: Moment): void {
    if (since.monotonic > this.#coveredAt.monotonic) this.#coveredAt = since
  }

  #compareClocks(serverTime: number): void {
    const difference = Math.round(serverTime - Date.now())
    this.skew = Math.abs(difference) < 1000 ? 0 : difference
  }

  /** What a message says was invalidated by somebody else. False when something between is missing. */
  hear(point: Point, previous: number, members: ReadonlyArray<string>): boolean {
    if (this.#epoch !== this.link.epoch) return false
    const isApplied = this.mirror.applyNext(point, previous, members)
    this.#shed()
    return isApplied
  }

  /** The log in numbers: the server's time, rows, floor, and the oldest row's sequence. */
  async measure(): Promise<readonly [time: number, rows: number, floor: number, oldest: number]> {
    const found = await this.#run<Array<string | number>>("measure", [], [newIncarnation()])
    const [time, rows, floor, oldest] = found.map(Number)
    return [time!, rows!, floor!, oldest!]
  }

  /** Begins the cell anew: everything stored in it is a miss. `send` may go before others may. */
  async reset(send: Link["run"] = (ask) => this.link.run(ask)): Promise<void> {
    await send((redis) => scripts.run(redis, "reset", this.options, [], [newIncarnation()]))
    this.mirror.forget()
  }

  // ------------------------------------------------------------------------------------------------------- filling

  /** Takes a lease unless somebody holds it, and the point at which a lookup may begin. Rejects with `Away`. */
  acquire(item: Acquiring): Promise<Acquired> {
    return new Promise((resolve, reject) => this.#acquiring.add({ item, resolve, reject }))
  }

  async #acquireAll(all: ReadonlyArray<Waiting<Acquiring, Acquired>>): Promise<void> {
    await inParts(all, readsAtOnce, async (part) => {
      const acquiring = this.#run<Array<string | number>>(
        "acquire",
        part.map(({ item }) => item.lease),
        [
          newIncarnation(),
          this.options.lease,
          ...part.flatMap(({ item: { token, known } }) => [
            token,
            known.length,
            ...known.map((id) => `:${id}`)
          ])
        ]
      )
      // Right behind: what somebody has stored before the lease was had is seen, and nobody looks it up again.
      const reading = this.#answers(part.map(({ item }) => item))
      const [[incarnation, sequence, ...held], answers] = await Promise.all([acquiring, reading])
      const point = { incarnation: String(incarnation), sequence: Number(sequence) }
      part.forEach(({ resolve }, i) => {
        const [answer, fresh] = answers[i]!
        resolve({ point, isHeld: held[i] === 1, answer, fresh })
      })
    })
  }

  /** The point that has been reached. */
  async position(): Promise<Point> {
    const [incarnation, sequence] = await this.#run<Array<string>>("acquire", [], [newIncarnation(), 0])
    return { incarnation: incarnation!, sequence: Number(sequence) }
  }

  /** Keeps leases that are held. */
  async renew(held: ReadonlyArray<Lease>): Promise<void> {
    for (let i = 0; i < held.length; i += readsAtOnce) {
      const part = held.slice(i, i + readsAtOnce)
      await this.#run(
        "renew",
        part.map(({ lease }) => lease),
        [this.options.lease, ...part.map(({ token }) => token)]
      )
    }
  }

  /** Gives a lease back, as soon as that can be. */
  release(held: Lease): void {
    if (this.link.isUp) this.#releasing.add(held)
    else if (this.#unreleased.length < leasesKept) this.#unreleased.push(held)
  }

  /** Gives back what could not be while the link was down. */
  releaseAll(): void {
    for (const held of this.#unreleased.splice(0)) this.release(held)
  }

  async #releaseAll(all: ReadonlyArray<Lease>): Promise<void> {
    for (let i = 0; i < all.length; i += readsAtOnce) {
      const part = all.slice(i, i + readsAtOnce)
      const keys = part.map(({ lease }) => lease)
      const args = part.flatMap(({ token, isVain }) => [token, isVain === true ? "unstored" : "released"])
      await this.#run("release", keys, [this.options.events, ...args]).catch(() =>
        this.#unreleased.push(...part.slice(0, leasesKept - this.#unreleased.length))
      )
    }
  }

  /**
   * True when what this process declares of tables was known in the cell at a point: other processes have told of their
   * writes since as it needs. Otherwise it is made known, for who begins later.
   */
  async hasDeclared({ incarnation, sequence }: Point): Promise<boolean> {
    if (!this.#isDeclared(incarnation, sequence)) await this.#declare().catch(() => {})
    else if (sequence - this.#declaration!.renewed > renewedAfter) this.#declare().catch(() => {})
    return this.#isDeclared(incarnation, sequence) && this.#declaration!.since <= sequence
  }

  #isDeclared(incarnation: string, sequence: number): boolean {
    const known = this.#declaration
    return (
      known !== undefined &&
      known.incarnation === incarnation &&
      known.count === this.options.declared.count &&
      sequence - known.renewed < declaredFor
    )
  }

  /** Makes known what this process declares of tables; all who wait for it share it. */
  #declare(): Promise<void> {
    return (this.#declaring ??= this.#declareNow().finally(() => {
      this.#declaring = undefined
    }))
  }

  async #declareNow(): Promise<void> {
    const { declared } = this.options
    const { count } = declared
    const args = [newIncarnation(), ...declarationsOf(declared)]
    const [incarnation, reached] = await this.#run<[string, string]>("declare", [], args)
    const renewed = Number(reached)
    const known = this.#declaration
    // Where it was known all the time it is so from its first point on.
    const isRenewal = known?.count === count && this.#isDeclared(incarnation, renewed)
    this.#declaration = { count, incarnation, renewed, since: isRenewal ? known.since : renewed }
  }

  /** Stores an answer unless something it rests on was invalidated since its point. */
  async store(item: Storing): Promise<Verdict> {
    const { key, point, tags } = item
    // Redis gives the lease back with a verdict of its own.
    const giveBack = (verdict: Verdict): Verdict => {
      if (item.token !== "") this.release(item)
      return verdict
    }
    try {
      for (let seen = 0; ;) {
        const verdict = await new Promise<string>((resolve, reject) =>
          this.#storing.add({ item, seen, resolve, reject })
        )
        if (!verdict.startsWith("patterns:")) return verdict as Verdict
        // Patterns are matched here: Redis only knows that there is one that it cannot judge.
        seen = Number(verdict.slice("patterns:".length))
        const seenAt = { ...point, sequence: seen }
        // The first sync may have been in flight before the verdict.
        for (let i = 0; i < 2 && !this.mirror.covers(seenAt); i++) await this.sync()
        if (!this.mirror.covers(seenAt)) return giveBack("overtaken")
        if (this.mirror.invalidatedSince(point.sequence, key, tags) !== undefined)
          return giveBack("overtaken")
      }
    } catch {
      return giveBack("away")
    }
  }

  /** Gives up what is stored under a name. If that gets lost, it ends by itself. */
  remove(entry: string): void {
    if (this.link.isUp) this.#removing.add(entry)
  }

  async #removeAll(names: ReadonlyArray<string>): Promise<void> {
    for (let i = 0; i < names.length; i += readsAtOnce)
      await this.link.run((redis) => redis.unlink(...names.slice(i, i + readsAtOnce))).catch(() => {})
  }

  #storeAll(all: ReadonlyArray<StoreWaiting>): void {
    void inParts(all, storesAtOnce, async (part) => {
      const args = part.flatMap(({ item: { point, token, keep, bytes, key, tags }, seen }) => [
        point.incarnation,
        point.sequence,
        token,
        keep > longestKept ? 0 : Math.max(1, Math.ceil(keep)),
        seen,
        bytes,
        tags.length + 1,
        `:${key}`,
        ...tags.map((tag) => `:${tag}`)
      ])
      const verdicts = await this.#run<Array<string>>(
        "store",
        part.flatMap(({ item }) => [item.lease, item.entry]),
        [newIncarnation(), this.options.events, ...args]
      )
      part.forEach(({ resolve }, i) => resolve(verdicts[i]!))
    })
  }

  // -------------------------------------------------------------------------------------------------- invalidating

  /** Invalidates members; resolves once that is acknowledged. Rejects with `Away` when it may not have been. */
  invalidate(item: Invalidating): Promise<Acknowledged> {
    return new Promise((resolve, reject) => this.#invalidating.add({ item, resolve, reject }))
  }

  #invalidateAll(all: ReadonlyArray<Waiting<Invalidating, Acknowledged>>): void {
    void inParts(all, all.length, async (part) => {
      const members = new Set(part.flatMap(({ item }) => item.members))
      const messages = part.map(({ item }) => item.message)
      // Who hears a message takes it for all that was invalidated at once.
      const isTold = !messages.includes(undefined)
      const acknowledged = await this.deliver([...members], isTold ? messages : [])
      for (const { resolve } of part) resolve(acknowledged)
    })
  }

  /** Invalidates in as few steps as Redis allows. `send` may go before others may. */
  async deliver(
    members: ReadonlyArray<string>,
    messages: ReadonlyArray<unknown>,
    send: Link["run"] = (ask) => this.link.run(ask)
  ): Promise<Acknowledged> {
    const told = messages.length === 0 ? "" : JSON.stringify(messages)
    let acknowledged: Acknowledged | undefined
    for (let i = 0; i < members.length || acknowledged === undefined; i += membersAtOnce) {
      const part = members.slice(i, i + membersAtOnce)
      acknowledged = await this.#invalidatePart(part, i === 0 ? told : "", send)
    }
    return acknowledged
  }

  async #invalidatePart(
    members: ReadonlyArray<string>,
    told: string,
    send: Link["run"]
  ): Promise<Acknowledged> {
    const { epoch } = this.link
    const { logCapacity, events, declared } = this.options
    const args = [newIncarnation(), logCapacity, events, told, "", 0, 0]
    const [incarnation, previous, sequence, rows, , others] = await send((redis) =>
      scripts.run<Invalidated>(
        redis,
        "invalidate",
        this.options,
        [],
        [...args, ...checksOf(members, declared), ...members]
      )
    ).catch((error: unknown) => this.#giveUpLog(error, told, send))
    const point = { incarnation, sequence: Number(sequence) }
    if (this.link.epoch === epoch) this.#noteOwn(point, Number(previous), [...members, ...others])
    return { point, rows }
  }

  /** An acknowledgement: unlike a message it comes after every answer that was given before it, in this order. */
  #noteOwn(point: Point, previous: number, members: ReadonlyArray<string>): void {
    if (point.incarnation === this.mirror.incarnation) this.mirror.applyNext(point, previous, members)
    // The cell has begun anew, and what memory holds is of before.
    else this.mirror.forget()
    this.#shed()
  }

  /** The floor, below which rows are forgotten, comes with a sync. Who does not read must ask for it. */
  #shed(): void {
    const isOld = performance.now() - this.#verifiedAt > verifyEvery
    if (isOld && this.mirror.size > this.options.logCapacity) this.sync().catch(() => {})
  }

  /** Where Redis has no room for the log, deleting it is allowed, and says the same of more. */
  async #giveUpLog(error: unknown, told: string, send: Link["run"]): Promise<Invalidated> {
    // Redis 6 puts it amid what a script has failed with.
    if (!(error instanceof Error) || !/(^|-)OOM /.test(error.message)) throw error
    const { state, log, position, events } = this.options
    await send((redis) => redis.del(state, log, position))
    this.mirror.forget()
    if (told !== "")
      await send((redis) => redis.publish(events, `invalidated\n0\n0\n0\n${told}`)).catch(() => {})
    return ["0", "0", "0", 0, 0, []]
  }

  /**
   * Invalidates members, and tells whether, just before, nothing of what an answer rests on had been invalidated since a
   * point.
   */
  async replace(
    { members, message }: Invalidating,
    point: Point,
    restsOn: ReadonlyArray<string>
  ): Promise<Acknowledged & { readonly isSound: boolean }> {
    const { epoch } = this.link
    const { logCapacity, events, declared } = this.options
    const told = message === undefined ? "" : JSON.stringify([message])
    const args = [newIncarnation(), logCapacity, events, told, point.incarnation, point.sequence]
    const looked = [restsOn.length, ...restsOn.map((id) => `:${id}`)]
    const [incarnation, previous, sequence, rows, isOvertaken, others] = await this.#run<Invalidated>(
      "invalidate",
      [],
      [...args, ...looked, ...checksOf(members, declared), ...members]
    )
    const reached = { incarnation, sequence: Number(sequence) }
    if (this.link.epoch === epoch) this.#noteOwn(reached, Number(previous), [...members, ...others])
    return { point: reached, rows, isSound: isOvertaken !== 1 }
  }

  #run<A>(
    name: scripts.Name,
    keys: ReadonlyArray<string>,
    args: ReadonlyArray<string | number | Buffer>
  ): Promise<A> {
    return this.link.run((redis) => scripts.run<A>(redis, name, this.options, keys, args))
  }
}

/** What an invalidating script answers. */
type Invalidated = readonly [
  incarnation: string,
  previous: string,
  sequence: string,
  rows: number,
  isOvertaken: number,
  others: ReadonlyArray<string>
]

const namesOf = (entries: ReadonlyArray<Entry>): ReadonlyArray<string> => entries.map(({ entry }) => entry)

/** Throws what is no answer to `MGET`: something else than Redis may be there. */
const checkedUnsafe = (values: unknown): Values => {
  if (Array.isArray(values) && values.every((value) => value === null || Buffer.isBuffer(value)))
    return values
  throw new Error("it does not answer MGET")
}

/** `incarnation:sequence`, as the scripts write it. */
const pointOf = (text: Buffer | string | null | undefined): Point | undefined => {
  const found = text && /^(\d+):(\d+)$/.exec(text.toString("latin1"))
  return found ? { incarnation: found[1]!, sequence: Number(found[2]) } : undefined
}

/** Does work part by part, all at once; a part that fails fails for those who wait for it. */
const inParts = async <A extends { readonly reject: (error: unknown) => void }>(
  all: ReadonlyArray<A>,
  size: number,
  work: (part: ReadonlyArray<A>) => Promise<void>
): Promise<void> => {
  const parts: Array<ReadonlyArray<A>> = []
  for (let i = 0; i < all.length; i += size) parts.push(all.slice(i, i + size))
  await Promise.all(
    parts.map((part) =>
      work(part).catch((error: unknown) => {
        for (const { reject } of part) reject(error)
      })
    )
  )
}
