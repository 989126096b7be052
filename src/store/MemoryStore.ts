/**
 * The store in memory: entries of this process, bounded in number, fresh by the one rule.
 *
 * **How freshness is told.** `sequence` counts invalidations. Each tag that something carries is one `Cell`, which
 * holds the sequence of its last invalidation; an entry points to the cells of its tags and holds the sequence read
 * before its lookup began. It is fresh while no cell's number is greater than its own. So invalidating a tag writes
 * one number, whatever the number of entries, and nothing is searched. An entry that was looked at since the last
 * invalidation of anything skips its tags altogether (`checkedAt`).
 *
 * **Lookups in flight.** A tag may be invalidated while no entry carries it but a lookup is running whose answer will.
 * While any fill is open, a cell is therefore made for such a tag and remembered (`recent`), as patterns are, until
 * every fill that began before has ended. That memory is bounded too: when it grows too long, `floor` is raised, and
 * fills that began below the floor are refused.
 *
 * **What stays behind.** An invalidated entry keeps its place in the order of eviction (a hot key is still hot), but
 * not its answer nor its tags once that has been noticed: by the next look at it, at its eviction, or, in a store of
 * up to 1,024 entries, by the invalidation itself, which is also what makes the report's count exact there. A cell
 * that nothing carries is given back.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Hash from "effect/Hash"
import * as Layer from "effect/Layer"
import { CachemeError, describe, InvalidSetting } from "../CachemeError.ts"
import type { Entry, Reason } from "../Entry.ts"
import { Invalidation, type Report, type Request, type Targets } from "../Invalidation.ts"
import type { Raw } from "../Key.ts"
import * as Node from "../Node.ts"
import * as Pattern from "../Pattern.ts"
import { type Fill, type Found, Store } from "../Store.ts"
import { Eviction, type Item } from "./Eviction.ts"

/** Options of the store in memory. */
export interface Options {
  /** How many entries it holds at most. An integer of at least 1; default 10,000. */
  readonly capacity?: number | undefined
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
 * Bounded by entries; which one goes is decided by S3-FIFO. Every operation takes constant time, except patterns,
 * which look at every key. The layer fails with `CachemeError` (`InvalidSetting`) for a capacity that is not an
 * integer of at least 1.
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
  Effect.suspend(() => {
    const capacity = options?.capacity ?? defaultCapacity
    // A Map holds at most 2^24 entries.
    if (!Number.isInteger(capacity) || capacity < 1 || capacity > 2 ** 24) {
      return Effect.fail(
        new CachemeError({
          reason: new InvalidSetting({
            setting: "capacity",
            value: describe(capacity),
            expected: "an integer from 1 to 16777216"
          })
        })
      )
    }
    return Effect.succeed(Store.of(new Memory(capacity)))
  })

/** A tag that something carries, or that was invalidated while a lookup was running. */
class Cell {
  invalidatedAt = 0
  /** Slots that point here. */
  carriers = 0
  /** Slots that point here and were filled since `invalidatedAt`. */
  fresh = 0
  readonly id: string
  constructor(id: string) {
    this.id = id
  }
}

const noCells: ReadonlyArray<Cell> = []

/** A key's place: its entry, or what became of it. */
class Slot implements Item, Found {
  frequency = 0
  /** Undefined once the entry is known to be of no use. */
  exit!: Exit.Exit<any, any>
  expiresAt = 0
  startedAt = 0
  checkedAt = 0
  cells: ReadonlyArray<Cell> = noCells
  /** The id whose invalidation ended the entry, or "" if its time had passed. */
  endedBy: string | undefined = undefined
  queue: Item["queue"] = undefined
  previous: Item | undefined = undefined
  next: Item | undefined = undefined
  readonly shelf: Shelf
  readonly key: Raw
  constructor(shelf: Shelf, key: Raw) {
    this.shelf = shelf
    this.key = key
  }
  /** Worked out when it is asked for, which hits never do: most entries then cost no text of their own. */
  get id(): string {
    return this.shelf.definition.write(this.key)
  }
  get hash(): number {
    return Hash.string(this.id)
  }
  ids(): ReadonlyArray<string> {
    return [this.id, ...this.cells.map((cell) => cell.id)]
  }
}

/** The slots of one node, by raw key. */
class Shelf {
  readonly slots = new Map<Raw, Slot>()
  readonly definition: Node.NodeDefinition
  constructor(definition: Node.NodeDefinition) {
    this.definition = definition
  }
}

class MemoryFill implements Fill {
  readonly startedAt: number
  readonly #memory: Memory
  readonly #node: Node.Any
  readonly #known: ReadonlyArray<string>
  constructor(memory: Memory, node: Node.Any, known: ReadonlyArray<string>) {
    this.#memory = memory
    this.#node = node
    this.#known = known
    this.startedAt = memory.sequence
  }
  isQuiet = () => this.#memory.sequence === this.startedAt
  isOvertaken = () => !this.isQuiet() && this.#memory.isOvertaken(this.startedAt, this.#known)
  store = (entry: Entry) =>
    Effect.clockWith((clock) =>
      Effect.sync(() =>
        this.#memory.store(this.#node, this.startedAt, entry, clock.currentTimeMillisUnsafe())
      )
    )
  end = Effect.sync(() => this.#memory.endFill(this))
}

class Memory {
  readonly label: string
  sequence = 0
  #floor = 0
  readonly #shelves = new Map<string, Shelf>()
  readonly #cells = new Map<string, Cell>()
  readonly #fills = new Set<MemoryFill>()
  #recent: Array<Cell> = []
  #recentPatterns: Array<{ readonly pattern: Pattern.Pattern; readonly at: number }> = []
  readonly #eviction: Eviction<Slot>

  constructor(capacity: number) {
    this.label = `memory (${capacity} entries)`
    this.#eviction = new Eviction(capacity)
  }

  // ------------------------------------------------------------------------------------------------------ reading

  peek(node: Node.Any, clock: Clock.Clock): Slot | undefined {
    const slot = this.#shelves.get(node[Node.TypeId].name)?.slots.get(Node.rawKey(node))
    if (slot === undefined || slot.endedBy !== undefined) return undefined
    if (slot.expiresAt !== Infinity && clock.currentTimeMillisUnsafe() >= slot.expiresAt)
      return this.#finish(slot, "")
    if (slot.checkedAt !== this.sequence) {
      const by = invalidatedBy(slot)
      if (by !== undefined) return this.#finish(slot, by)
      slot.checkedAt = this.sequence
    }
    if (slot.frequency < 3) slot.frequency++
    return slot
  }

  explain(node: Node.Any): Effect.Effect<Reason> {
    return Effect.clockWith((clock) =>
      Effect.sync((): Reason => {
        const now = clock.currentTimeMillisUnsafe()
        const slot = this.#shelves.get(node[Node.TypeId].name)?.slots.get(Node.rawKey(node))
        if (slot === undefined) return { _tag: "Absent" }
        if (slot.endedBy !== undefined)
          return slot.endedBy === "" ? { _tag: "Expired" } : { _tag: "Invalidated", by: slot.endedBy }
        const by = invalidatedBy(slot)
        if (by !== undefined) return { _tag: "Invalidated", by }
        if (now >= slot.expiresAt) return { _tag: "Expired" }
        return { _tag: "Fresh", expiresIn: slot.expiresAt - now, tags: slot.cells.map((cell) => cell.id) }
      })
    )
  }

  size(definition?: Node.NodeDefinition): number {
    return definition === undefined
      ? this.#eviction.size
      : (this.#shelves.get(definition.name)?.slots.size ?? 0)
  }

  tags(): number {
    return this.#cells.size
  }

  // ------------------------------------------------------------------------------------------------------ filling

  begin(node: Node.Any, known: ReadonlyArray<string>): Effect.Effect<Fill> {
    return Effect.sync(() => {
      const fill = new MemoryFill(this, node, known)
      this.#fills.add(fill)
      return fill
    })
  }

  /** True when a fill that began then may not store an answer that rests on these. */
  isOvertaken(startedAt: number, ids: Iterable<string>): boolean {
    if (startedAt < this.#floor) return true
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

  store(node: Node.Any, startedAt: number, entry: Entry, now: number): boolean {
    const definition = node[Node.TypeId]
    const id = definition.id(node)
    if (this.sequence !== startedAt && this.isOvertaken(startedAt, [id, ...entry.tags])) return false
    const cells = entry.tags.map((tag) => this.#cell(tag))
    for (const cell of cells) {
      cell.carriers++
      cell.fresh++
    }
    const slot = this.#slotFor(node)
    this.#letGo(slot)
    slot.exit = entry.exit
    slot.expiresAt = now + entry.timeToLive
    slot.startedAt = startedAt
    slot.checkedAt = this.sequence
    slot.cells = cells.length === 0 ? noCells : cells
    slot.endedBy = undefined
    return true
  }

  endFill(fill: MemoryFill): void {
    this.#fills.delete(fill)
    if (this.#fills.size === 0 && (this.#recent.length > 0 || this.#recentPatterns.length > 0)) this.#forget()
  }

  #slotFor(node: Node.Any): Slot {
    const definition = node[Node.TypeId]
    let shelf = this.#shelves.get(definition.name)
    if (shelf === undefined) this.#shelves.set(definition.name, (shelf = new Shelf(definition)))
    const key = Node.rawKey(node)
    const known = shelf.slots.get(key)
    if (known !== undefined) return known
    const slot = new Slot(shelf, key)
    const evicted = this.#eviction.add(slot, isDead)
    if (evicted !== undefined) {
      this.#letGo(evicted)
      evicted.shelf.slots.delete(evicted.key)
    }
    shelf.slots.set(key, slot)
    return slot
  }

  // ------------------------------------------------------------------------------------------------- invalidating

  invalidate(
    request: Request
  ): Effect.Effect<{ readonly report: Report; readonly invalidation: Invalidation }> {
    return Effect.map(Clock.currentTimeMillis, (instant) => {
      const entries = this.#apply(request, instant)
      const position = this.sequence
      return {
        report: { entries, position, pending: 0, deferred: false },
        invalidation: new Invalidation({
          keys: request.keys,
          tags: request.tags,
          patterns: request.patterns,
          cause: request.cause,
          position,
          instant
        })
      }
    })
  }

  #apply(targets: Targets, now: number): number {
    const at = ++this.sequence
    let entries = 0
    const patterns = targets.patterns.map(Pattern.makeUnsafe)
    const keys = new Set(targets.keys)
    if (patterns.length > 0) {
      for (const id of this.#keysMatching(patterns)) keys.add(id)
      if (this.#fills.size > 0) this.#recentPatterns.push(...patterns.map((pattern) => ({ pattern, at })))
    }
    for (const id of new Set([...keys, ...targets.tags])) entries += this.#mark(id, at)
    for (const id of keys) entries += this.#drop(id, now)
    if (this.size() <= exactUpTo) entries += this.#sweep(now)
    if (this.#recent.length + this.#recentPatterns.length > recentLimit) this.#forget()
    return entries
  }

  /** Marks a tag; returns how many entries that ended, unless they are going to be counted one by one. */
  #mark(id: string, at: number): number {
    let cell = this.#cells.get(id)
    if (cell === undefined) {
      if (this.#fills.size === 0) return 0
      this.#cells.set(id, (cell = new Cell(id)))
      this.#recent.push(cell)
    }
    const fresh = cell.fresh
    cell.invalidatedAt = at
    cell.fresh = 0
    return this.size() <= exactUpTo ? 0 : fresh
  }

  /** Ends the entries of a key, which does not point to a cell of its own. */
  #drop(id: string, now: number): number {
    let entries = 0
    for (const shelf of this.#shelves.values()) {
      const key = shelf.definition.parse(id)
      const slot = key === undefined ? undefined : shelf.slots.get(key)
      if (slot === undefined || slot.endedBy !== undefined) continue
      if (now < slot.expiresAt && (invalidatedBy(slot) === undefined || this.size() <= exactUpTo)) entries++
      this.#finish(slot, id)
    }
    return entries
  }

  /** Ends every entry that is not fresh any more; counts those that an invalidation ended. */
  #sweep(now: number): number {
    let entries = 0
    for (const shelf of this.#shelves.values()) {
      for (const slot of shelf.slots.values()) {
        if (slot.endedBy !== undefined) continue
        const by = now >= slot.expiresAt ? "" : invalidatedBy(slot)
        if (by === undefined) continue
        if (by !== "") entries++
        this.#finish(slot, by)
      }
    }
    return entries
  }

  /** The keys that patterns reach: those held, and those that only key paths within them point to. */
  *#keysMatching(patterns: ReadonlyArray<Pattern.Pattern>): Iterable<string> {
    const reached = (id: string) => patterns.some((pattern) => pattern.matches(id))
    for (const shelf of this.#shelves.values())
      for (const slot of shelf.slots.values()) if (reached(slot.id)) yield slot.id
    for (const id of this.#cells.keys()) if (Node.isKeyId(id) && reached(id)) yield id
  }

  // --------------------------------------------------------------------------------------------------- giving back

  #finish(slot: Slot, by: string): undefined {
    this.#letGo(slot)
    slot.endedBy = by
    return undefined
  }

  /** Takes answer and tags from a slot. */
  #letGo(slot: Slot): void {
    for (const cell of slot.cells) {
      cell.carriers--
      if (slot.startedAt >= cell.invalidatedAt) cell.fresh--
      if (cell.carriers === 0) this.#release(cell)
    }
    slot.cells = noCells
    slot.exit = noExit
  }

  #release(cell: Cell): void {
    if (cell.invalidatedAt > 0 && this.#fills.size > 0) this.#recent.push(cell)
    else this.#cells.delete(cell.id)
  }

  #cell(id: string): Cell {
    let cell = this.#cells.get(id)
    if (cell === undefined) this.#cells.set(id, (cell = new Cell(id)))
    return cell
  }

  /** Forgets the invalidations that began before every open fill; all of them, if they are still too many. */
  #forget(): void {
    let oldest = Infinity
    for (const fill of this.#fills) oldest = Math.min(oldest, fill.startedAt)
    let recent = this.#recent.filter((cell) => cell.carriers === 0 && cell.invalidatedAt > oldest)
    let patterns = this.#recentPatterns.filter(({ at }) => at > oldest)
    if (recent.length + patterns.length > recentLimit / 2) {
      this.#floor = this.sequence
      recent = []
      patterns = []
    }
    const kept = new Set(recent)
    for (const cell of this.#recent) if (cell.carriers === 0 && !kept.has(cell)) this.#cells.delete(cell.id)
    this.#recent = [...kept]
    this.#recentPatterns = patterns
  }
}

const noExit = Exit.void

const isDead = (slot: Slot): boolean => slot.endedBy !== undefined || invalidatedBy(slot) !== undefined

/** The first tag of an entry that was invalidated since its lookup began. */
const invalidatedBy = (slot: Slot): string | undefined => {
  for (const cell of slot.cells) if (cell.invalidatedAt > slot.startedAt) return cell.id
  return undefined
}
