/**
 * The store in memory: entries of this process, bounded in number and bytes, fresh by the one rule.
 *
 * **How freshness is told.** `sequence` counts invalidations. Each tag that something carries is one `Cell`, and the
 * time between two invalidations of it is one `Era`. An entry points to the eras in which it was stored, and is fresh
 * while none of them is over. So invalidating a tag ends one era, whatever the number of entries, and nothing is
 * searched. An entry that was looked at since the last invalidation of anything skips its eras altogether
 * (`checkedAt`).
 *
 * **Lookups in flight.** A lookup's answer is refused when a tag it carries was invalidated after the lookup began:
 * each cell holds the sequence of its last invalidation. A tag may be invalidated while nothing carries it but a lookup
 * is running whose answer will. While any fill is open, the cell of such a tag is therefore remembered (`recent`), as
 * patterns are, until every fill that began before has ended. What is not remembered raises `floor`: fills that began
 * below it are refused. So the memory is bounded, and a position from elsewhere is never believed.
 *
 * **What stays behind.** An entry that has aged out or was invalidated keeps its place in the order of eviction (a hot
 * key is still hot). It keeps answer and tags only as long as its windows say (`Entry.keep`), and gives them back once
 * it has been noticed that they have passed: by the next look at it, at its eviction, or, in a store of up to 1,024
 * entries, by the next invalidation, which is also what makes the report's count exact there. A cell that nothing
 * carries is given back.
 */
import * as ByteSize from "effect/ByteSize"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Hash from "effect/Hash"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type { CachemeError } from "../CachemeError.ts"
import type { Entry, Miss, Reason, Stale, Windows } from "../Entry.ts"
import * as Freshness from "../Freshness.ts"
import { Invalidation, type Request, type Targets } from "../Invalidation.ts"
import type { Raw } from "../Key.ts"
import * as Node from "../Node.ts"
import * as Pattern from "../Pattern.ts"
import * as Settings from "../Settings.ts"
import {
  type Applied,
  type Fill,
  type Found,
  type Held,
  noValue,
  type Now,
  type Position,
  Store,
  type Stored,
  valueOf
} from "../Store.ts"
import { bytesOf } from "./bytesOf.ts"
import { Eviction, Item } from "./Eviction.ts"

/** Options of the store in memory. */
export interface Options {
  /** How many entries it holds at most. An integer of at least 1; default 10,000. */
  readonly capacity?: number | undefined
  /**
   * How many bytes its entries take at most, such as "64 MiB"; default unlimited. An estimate: the walk over each value
   * counts 16 bytes and 2 per character for a text, 8 for a number, 24 for an object or array and 8 for each of its
   * places (32 in a Map or Set), and the bytes of a buffer; 256 are added for the entry, and 8 for each of its tags. A
   * value shared by several entries is counted for each. An answer larger than all this is not stored.
   */
  readonly bytes?: ByteSize.Input | undefined
}

/** The default capacity, in entries. */
export const defaultCapacity = 10_000

/** Up to this many entries an invalidation looks at each, for an exact count. */
const exactUpTo = 1024

/** So many invalidations of tags that nothing carries are remembered for the lookups in flight. */
const recentLimit = 10_000

/**
 * A `Store` in the memory of this process.
 *
 * **Details**
 *
 * Bounded by entries, and by estimated bytes if asked; which one goes is decided by S3-FIFO. Every operation takes
 * constant time, except patterns, which look at every key, and the estimate, which looks at the whole value. The layer
 * fails with `CachemeError` (`InvalidSetting`) for a capacity that is not an integer of at least 1, or no size.
 *
 * **Example** (A cache of a hundred entries)
 *
 * ```ts
 * import { Cacheme, MemoryStore } from "cacheme"
 * import { Layer } from "effect"
 *
 * const SmallCache = Cacheme.layer().pipe(Layer.provide(MemoryStore.layer({ capacity: 100 })))
 * ```
 */
export const layer = (options?: Options): Layer.Layer<Store, CachemeError> =>
  Layer.effect(Store, make(options))

/** Makes a `Store` in memory: see {@link layer}. */
export const make = (options?: Options): Effect.Effect<Store["Service"], CachemeError> =>
  Effect.map(makeMemory(options), (memory) => Store.of(memory))

/** The entries themselves, for a store that puts others in front of its own. Fails as {@link layer} does. */
export const makeMemory = (options?: Options): Effect.Effect<Memory, CachemeError> =>
  Effect.suspend(() => {
    const capacity = options?.capacity ?? defaultCapacity
    if (!Number.isInteger(capacity) || capacity < 1 || capacity > 2 ** 24)
      return Settings.invalid("capacity", capacity, Settings.capacityExpected)
    const { bytes } = options ?? {}
    const limit = bytes === undefined ? Infinity : Option.getOrUndefined(ByteSize.fromInput(bytes))
    if (limit === undefined || Number(limit) < 1)
      return Settings.invalid("bytes", bytes, Settings.sizeExpected)
    return Effect.succeed(new Memory(capacity, Number(limit)))
  })

/** In the place of an answer that was given back. */
const noExit = Exit.die("cacheme: nothing is stored here")

/** The time of a tag from one invalidation to the next. */
class Era {
  /** Slots that were filled in it and point here. */
  carriers = 0
  /** When it ended, in milliseconds since the epoch. */
  endedAt: number | undefined = undefined
  readonly cell: Cell
  constructor(cell: Cell) {
    this.cell = cell
  }
}

/** A tag that something carries, or that was invalidated while a lookup was running. */
class Cell {
  /** The sequence of its last invalidation. */
  invalidatedAt = 0
  era: Era
  readonly id: string
  constructor(id: string) {
    this.id = id
    this.era = new Era(this)
  }
}

const noEras: ReadonlyArray<Era> = []
const nothingKept: Windows = { aged: 0, invalidated: 0 }

/** The id whose invalidation ended an entry, and when that was, in milliseconds since the epoch. */
interface End {
  readonly by: string
  readonly at: number
}

/**
 * A key's place: its entry, or what became of it. There are as many as entries, so every field counts: what is rare
 * lies elsewhere, and what is equal is shared. A hit reads the first three, so what it wants lies in one place: with many
 * entries, each look elsewhere is a wait for memory.
 */
class Slot extends Item implements Found {
  /** The sequence at which it was last seen that no era of it is over. */
  checkedAt = 0
  /**
   * When it ages out, in milliseconds since its shelf's epoch: 32 bits, which V8 keeps in place, unless that is more than
   * 24 days away. `undefined` where nothing is stored any more.
   */
  expiry: number | undefined = undefined
  value: unknown = noValue
  /** The answer, if it is a failure; `noExit` where nothing is stored any more. */
  failure: Exit.Exit<any, any> | undefined = noExit
  eras: ReadonlyArray<Era> = noEras
  /** What ended the entry, if an invalidation has; `checkedAt` lies before it. */
  end: End | undefined = undefined
  keep = nothingKept
  took = 0
  readonly shelf: Shelf
  readonly key: Raw
  constructor(shelf: Shelf, key: Raw) {
    super()
    this.shelf = shelf
    this.key = key
  }
  get exit(): Exit.Exit<any, any> {
    return this.failure ?? Exit.succeed(this.value)
  }
  get expiresAt(): number {
    return this.expiry === undefined ? -Infinity : this.shelf.epoch + this.expiry
  }
  /** Worked out when it is asked for, which hits never do: most entries then cost no text of their own. */
  get id(): string {
    return this.shelf.definition.write(this.key)
  }
  get hash(): number {
    return Hash.string(this.id)
  }
  /** What it holds now, for who will use it later: by then it may hold something else. */
  taken(): Found {
    const { exit, value, eras, expiresAt, took } = this
    const ids = () => [this.id, ...eras.map((era) => era.cell.id)]
    return { exit, value, ids, expiresAt, took }
  }
  ids(): ReadonlyArray<string> {
    return [this.id, ...this.eras.map((era) => era.cell.id)]
  }
}

/** The slots of one node, by raw key. */
class Shelf {
  readonly slots = new Map<Raw, Slot>()
  evictions = 0
  #last = noEras
  readonly definition: Node.NodeDefinition
  /** What its entries' times are counted from, in milliseconds since the epoch of the clock. */
  readonly epoch: number
  constructor(definition: Node.NodeDefinition, epoch: number) {
    this.definition = definition
    this.epoch = epoch
  }

  /** The same list for entries that are stored in the same eras one after the other. */
  shared(eras: ReadonlyArray<Era>): ReadonlyArray<Era> {
    const last = this.#last
    if (eras.length === last.length && eras.every((era, i) => era === last[i])) return last
    return (this.#last = eras)
  }
}

class MemoryFill implements Fill {
  readonly startedAt: number
  readonly #memory: Memory
  readonly #node: Node.Any
  readonly #known: ReadonlyArray<string>
  constructor(memory: Memory, node: Node.Any, known: ReadonlyArray<string>, since: number) {
    this.#memory = memory
    this.#node = node
    this.#known = known
    this.startedAt = since
  }
  isQuiet = () => Effect.sync(() => this.#isQuiet)
  isOvertaken = () => !this.#isQuiet && this.#memory.isOvertaken(this.startedAt, this.#known)
  store = (entry: Entry) =>
    Effect.map(Clock.currentTimeMillis, (now): Stored =>
      this.#accepts(entry) ? this.#memory.store(this.#node, entry, now) : "overtaken"
    )
  replace = (request: Request, entry: Entry) =>
    Effect.map(Clock.currentTimeMillis, (now): Applied => {
      // Judged first: its own invalidation of the key is no reason to refuse it.
      const isAccepted = this.#accepts(entry)
      const applied = this.#memory.apply(request, now)
      return { ...applied, stored: isAccepted ? this.#memory.store(this.#node, entry, now) : "overtaken" }
    })
  discard = Effect.sync(() => this.#memory.discard(this.#node))
  noteUnstored = () => {}
  get #isQuiet(): boolean {
    return this.#memory.sequence === this.startedAt
  }
  #accepts(entry: Entry): boolean {
    if (this.#isQuiet) return true
    return !this.#memory.isOvertaken(this.startedAt, [this.#node[Node.TypeId].id(this.#node), ...entry.tags])
  }
  end = Effect.sync(() => this.#memory.endFill(this))
}

/** The entries of this process. */
export class Memory {
  readonly label: string
  readonly shared = undefined
  sequence = 0
  #floor = 0
  readonly #shelves: Array<Shelf | undefined> = []
  readonly #cells = new Map<string, Cell>()
  readonly #fills = new Set<MemoryFill>()
  readonly #recent = new Set<Cell>()
  #recentPatterns: Array<{ readonly pattern: Pattern.Pattern; readonly at: number }> = []
  /** The earliest position that was told to somebody and can still be checked. */
  #toldPosition = Infinity
  readonly #eviction: Eviction<Slot>
  readonly #maxBytes: number
  #bytes = 0
  /** What the entries take, where that is bounded. */
  readonly #sizes = new Map<Slot, number>()

  constructor(capacity: number, maxBytes: number) {
    const size = maxBytes === Infinity ? "" : `, ${ByteSize.format(ByteSize.bytes(maxBytes))}`
    this.label = `memory (${capacity} entries${size})`
    this.#eviction = new Eviction(capacity)
    this.#maxBytes = maxBytes
  }

  // ------------------------------------------------------------------------------------------------------ reading

  peek(node: Node.Any, now: Now): Slot | undefined {
    const definition = Node.definitionOf(node)
    const shelf = this.#shelves[definition.number]
    if (shelf === undefined) return undefined
    const slot = shelf.slots.get(definition.raw(node))
    return slot !== undefined && this.isFresh(slot, now) ? slot : undefined
  }

  /** True while what was found holds a fresh answer: a second look, for who had to wait after the first. */
  isFresh(slot: Slot, now: Now): boolean {
    if (slot.checkedAt !== this.sequence && !this.#check(slot)) return false
    const { expiry } = slot
    if (expiry === undefined) return false
    if (expiry !== Infinity && now.currentTimeMillisUnsafe() - slot.shelf.epoch >= expiry) return false
    if (slot.frequency < 3) slot.frequency++
    return true
  }

  /** Looks whether an invalidation has ended an entry, and need not again until the next one. */
  #check(slot: Slot): boolean {
    if (slot.end !== undefined || overEra(slot) !== undefined) return false
    slot.checkedAt = this.sequence
    return true
  }

  held(node: Node.Any, now: Now): Held {
    const slot = this.#slotOf(node)
    if (slot === undefined) return { miss: "absent", stale: undefined }
    const at = now.currentTimeMillisUnsafe()
    const isKept = this.#review(slot, at)
    const miss: Miss = slot.end !== undefined ? "invalidated" : at >= slot.expiresAt ? "expired" : "absent"
    return {
      miss,
      stale: isKept && miss !== "absent" ? staleOf(slot, at) : undefined,
      by: slot.end?.by
    }
  }

  explain(node: Node.Any): Effect.Effect<Reason> {
    return Effect.clockWith((clock) =>
      Effect.sync((): Reason => {
        const now = clock.currentTimeMillisUnsafe()
        const slot = this.#slotOf(node)
        if (slot === undefined) return { _tag: "Absent" }
        const by = slot.end?.by ?? overEra(slot)?.cell.id
        if (by !== undefined) return { _tag: "Invalidated", by }
        if (now >= slot.expiresAt) return { _tag: "Expired" }
        return { _tag: "Fresh", expiresIn: slot.expiresAt - now, tags: slot.ids().slice(1) }
      })
    )
  }

  #slotOf(node: Node.Any): Slot | undefined {
    const definition = Node.definitionOf(node)
    return this.#shelves[definition.number]?.slots.get(definition.raw(node))
  }

  size(definition?: Node.NodeDefinition): number {
    return definition === undefined
      ? this.#eviction.size
      : (this.#shelves[definition.number]?.slots.size ?? 0)
  }

  evictions(definition: Node.NodeDefinition): number {
    return this.#shelves[definition.number]?.evictions ?? 0
  }

  tags(): number {
    return this.#cells.size
  }

  // ------------------------------------------------------------------------------------------------------ filling

  begin(node: Node.Any, known: ReadonlyArray<string>, since?: Position): Effect.Effect<Fill> {
    return Effect.sync(() => {
      // A position of another kind of store is compared with nothing: it is overtaken.
      const fill = new MemoryFill(this, node, known, since === undefined ? this.sequence : Number(since))
      this.#fills.add(fill)
      return fill
    })
  }

  position: Effect.Effect<Position> = Effect.sync(() => {
    this.#toldPosition = Math.min(this.#toldPosition, this.sequence)
    return this.sequence as Position
  })

  /** True when a fill that began then may not store an answer that rests on these. */
  isOvertaken(startedAt: number, ids: Iterable<string>): boolean {
    if (startedAt < this.#floor || !(startedAt <= this.sequence)) return true
    for (const id of ids) {
      if ((this.#cells.get(id)?.invalidatedAt ?? 0) > startedAt) return true
      if (
        Node.isKeyId(id) &&
        this.#recentPatterns.some(({ pattern, at }) => at > startedAt && pattern.matches(id))
      )
        return true
    }
    return false
  }

  /** Stores an answer that nothing has overtaken. */
  store(node: Node.Any, entry: Entry, now: number): Stored {
    const id = node[Node.TypeId].id(node)
    const bytes = this.#maxBytes === Infinity ? 0 : bytesOf(id, entry)
    if (bytes > this.#maxBytes) return "too large"
    const eras = entry.tags.map((tag) => this.#cell(tag).era)
    for (const era of eras) era.carriers++
    const slot = this.#slotFor(node, now)
    this.#letGo(slot)
    slot.value = valueOf(entry.exit)
    slot.failure = slot.value === noValue ? entry.exit : undefined
    slot.expiry = inPlace(now - slot.shelf.epoch + entry.timeToLive)
    slot.checkedAt = this.sequence
    slot.eras = slot.shelf.shared(eras)
    slot.end = undefined
    slot.keep = entry.keep ?? nothingKept
    slot.took = entry.took ?? 0
    if (bytes > 0) this.#sizes.set(slot, bytes)
    this.#bytes += bytes
    while (this.#bytes > this.#maxBytes) this.#remove(this.#eviction.evict(isDead))
    return "stored"
  }

  discard(node: Node.Any): void {
    const slot = this.#slotOf(node)
    if (slot !== undefined) this.#letGo(slot)
  }

  endFill(fill: MemoryFill): void {
    this.#fills.delete(fill)
    if (!this.#remembers() && (this.#recent.size > 0 || this.#recentPatterns.length > 0)) this.#forget()
  }

  #slotFor(node: Node.Any, now: number): Slot {
    const definition = node[Node.TypeId]
    let shelf = this.#shelves[definition.number]
    if (shelf === undefined) this.#shelves[definition.number] = shelf = new Shelf(definition, now)
    const key = definition.raw(node)
    const known = shelf.slots.get(key)
    if (known !== undefined) return known
    const slot = new Slot(shelf, key)
    this.#remove(this.#eviction.add(slot, isDead))
    shelf.slots.set(key, slot)
    return slot
  }

  #remove(evicted: Slot | undefined): void {
    if (evicted === undefined) return
    // What was of no use any more did not go for want of room.
    if (!isDead(evicted)) evicted.shelf.evictions++
    this.#letGo(evicted)
    evicted.shelf.slots.delete(evicted.key)
  }

  // ------------------------------------------------------------------------------------------------- invalidating

  invalidate(request: Request): Effect.Effect<Applied> {
    return Effect.map(Clock.currentTimeMillis, (now) => this.apply(request, now))
  }

  /** Ends what the targets reach, without counting. */
  end(targets: Targets, now: number): void {
    this.#end(targets, now, false)
  }

  /** Lets everything go. */
  clear(): void {
    this.sequence++
    for (const shelf of this.#shelves) for (const slot of shelf?.slots.values() ?? []) this.#letGo(slot)
  }

  /** Applies an invalidation, in one step. */
  apply(request: Request, instant: number): Applied {
    const entries = this.#end(request, instant, true)
    const position = this.sequence
    return {
      report: { entries, position, pending: 0, deferred: false },
      invalidation: new Invalidation({ ...request, position, instant })
    }
  }

  /** Ends what the targets reach; tells how many entries were fresh and no longer are, if that is to be counted. */
  #end(targets: Targets, now: number, isCounted: boolean): number {
    const at = ++this.sequence
    if (!this.#remembers()) this.#floor = at
    let entries = 0
    const patterns = targets.patterns.map(Pattern.makeUnsafe)
    const keys = new Set(targets.keys)
    if (patterns.length > 0) {
      for (const id of this.#keysMatching(patterns)) keys.add(id)
      if (this.#remembers()) this.#recentPatterns.push(...patterns.map((pattern) => ({ pattern, at })))
    }
    for (const id of new Set([...keys, ...targets.tags])) entries += this.#mark(id, at, now)
    for (const id of keys) entries += this.#drop(id, now)
    if (isCounted && this.size() <= exactUpTo) entries += this.#sweep(now)
    if (this.#recent.size + this.#recentPatterns.length > recentLimit) this.#forget()
    return entries
  }

  /** True while somebody may yet store an answer that was found before now. */
  #remembers(): boolean {
    return this.#fills.size > 0 || this.#toldPosition !== Infinity
  }

  /** Ends the era of a tag; returns how many entries that ended, unless they are going to be counted one by one. */
  #mark(id: string, at: number, now: number): number {
    let cell = this.#cells.get(id)
    if (cell === undefined) {
      if (!this.#remembers()) return 0
      this.#cells.set(id, (cell = new Cell(id)))
    }
    const { era } = cell
    cell.invalidatedAt = at
    if (era.carriers > 0) {
      era.endedAt = now
      cell.era = new Era(cell)
    }
    this.#release(cell)
    return this.size() <= exactUpTo ? 0 : era.carriers
  }

  /** Ends the entries of a key, which does not point to a cell of its own. */
  #drop(id: string, now: number): number {
    let entries = 0
    for (const shelf of this.#shelves) {
      if (shelf === undefined) continue
      const key = shelf.definition.parse(id)
      const slot = key === undefined ? undefined : shelf.slots.get(key)
      if (slot === undefined || slot.end !== undefined) continue
      const isCounted = this.size() > exactUpTo && overEra(slot) !== undefined
      if (now < slot.expiresAt && !isCounted) entries++
      slot.end = { by: id, at: Math.min(now, overEra(slot)?.endedAt ?? now) }
      this.#review(slot, now)
    }
    return entries
  }

  /** Looks at every entry; counts those that an invalidation has just ended. */
  #sweep(now: number): number {
    let entries = 0
    for (const shelf of this.#shelves) {
      if (shelf === undefined) continue
      for (const slot of shelf.slots.values()) {
        if (slot.end === undefined && now < slot.expiresAt && overEra(slot) !== undefined) entries++
        this.#review(slot, now)
      }
    }
    return entries
  }

  /** The keys that patterns reach: those held, and those that only key paths within them point to. */
  *#keysMatching(patterns: ReadonlyArray<Pattern.Pattern>): Iterable<string> {
    const reached = (id: string) => patterns.some((pattern) => pattern.matches(id))
    for (const shelf of this.#shelves)
      for (const slot of shelf?.slots.values() ?? []) if (reached(slot.id)) yield slot.id
    for (const id of this.#cells.keys()) if (Node.isKeyId(id) && reached(id)) yield id
  }

  // --------------------------------------------------------------------------------------------------- giving back

  /** Notes what has become of an entry, and takes its answer and tags if it is of no use. True if it keeps them. */
  #review(slot: Slot, now: number): boolean {
    if (slot.expiry === undefined) return false
    if (slot.end === undefined) {
      const over = overEra(slot)
      if (over !== undefined) slot.end = { by: over.cell.id, at: over.endedAt! }
    }
    if (Freshness.isWithin(staleOf(slot, now), slot.keep)) return true
    this.#letGo(slot)
    return false
  }

  /** Takes answer and tags from a slot. */
  #letGo(slot: Slot): void {
    for (const era of slot.eras)
      if (--era.carriers === 0 && era.endedAt === undefined) this.#release(era.cell)
    this.#bytes -= this.#sizes.get(slot) ?? 0
    this.#sizes.delete(slot)
    slot.eras = noEras
    slot.value = noValue
    slot.failure = noExit
    slot.expiry = undefined
  }

  /** Gives a cell back if nothing carries it: at once, or once no lookup can be overtaken by what it remembers. */
  #release(cell: Cell): void {
    if (cell.era.carriers > 0) return
    if (cell.invalidatedAt > 0 && this.#remembers()) this.#recent.add(cell)
    else this.#cells.delete(cell.id)
  }

  #cell(id: string): Cell {
    let cell = this.#cells.get(id)
    if (cell === undefined) this.#cells.set(id, (cell = new Cell(id)))
    return cell
  }

  /** Forgets the invalidations that came before every open fill; all of them, if they are still too many. */
  #forget(): void {
    let oldest = this.#toldPosition
    for (const fill of this.#fills) oldest = Math.min(oldest, fill.startedAt)
    if (this.#countSince(oldest) > recentLimit / 2) {
      oldest = this.#floor = this.sequence
      this.#toldPosition = Infinity
    }
    for (const cell of this.#recent) {
      if (cell.era.carriers === 0 && cell.invalidatedAt > oldest) continue
      this.#recent.delete(cell)
      if (cell.era.carriers === 0) this.#cells.delete(cell.id)
    }
    this.#recentPatterns = this.#recentPatterns.filter(({ at }) => at > oldest)
    if (oldest === Infinity) this.#floor = this.sequence
  }

  #countSince(oldest: number): number {
    let count = this.#recentPatterns.filter(({ at }) => at > oldest).length
    for (const cell of this.#recent) if (cell.era.carriers === 0 && cell.invalidatedAt > oldest) count++
    return count
  }
}

/** The same number, in the form that takes no place of its own if it is an integer of 32 bits. */
const inPlace = (milliseconds: number): number =>
  milliseconds === (milliseconds | 0) ? milliseconds | 0 : milliseconds

const isDead = (slot: Slot): boolean =>
  slot.expiry === undefined || (slot.keep.invalidated === 0 && (slot.end ?? overEra(slot)) !== undefined)

/** Of the eras an entry was stored in, the one that was over first, if any is. */
const overEra = (slot: Slot): Era | undefined => {
  let first: Era | undefined
  for (const era of slot.eras) {
    if (era.endedAt !== undefined && (first === undefined || era.endedAt < first.endedAt!)) first = era
  }
  return first
}

const staleOf = (slot: Slot, now: number): Stale => ({
  exit: slot.exit,
  ids: () => slot.ids(),
  agedFor: now - slot.expiresAt,
  invalidatedFor: slot.end === undefined ? -Infinity : now - slot.end.at
})
