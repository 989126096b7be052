/**
 * The mirror: what this process knows of a cell's log, so that an entry is judged in memory.
 *
 * The log in Redis says when each tag was last invalidated. A process that has all of it up to some point (`cursor`)
 * can tell by itself whether an entry is fresh, once Redis has told it in the same reply that the log has not moved
 * beyond that point. So a read is one native command and no script, and what it costs does not depend on how many tags
 * the entry carries.
 *
 * **The rule.** An entry is fresh if it is of this incarnation, began at or above the floor, and none of its tags, nor a
 * pattern that matches its key or another key it rests on, was invalidated after it began.
 *
 * **Why it may be believed.** Rows are noted, then the floor, then the cursor, in one step that nothing can come between.
 * Noting a row early is always right: it only makes entries stale that are. Moving the cursor is right only when every
 * row up to there has been noted: by a complete delta, or by a message that begins exactly where the cursor is. A delta
 * that was cut tells where to ask on, and no more: what was invalidated before the cut and again after it is not in it.
 *
 * Everything here is synchronous. Who asks Redis, and when, is told in `Cell.ts`.
 */
import * as Node from "../../Node.ts"
import * as Pattern from "../../Pattern.ts"

/** A point in the order of a cell's invalidations. */
export interface Point {
  readonly incarnation: string
  readonly sequence: number
}

/** What a mirror needs to know of an entry to judge it. */
export interface Judged {
  readonly incarnation: string
  /** The sequence that had been reached when its lookup began. */
  readonly startedAt: number
  /** The ids it rests on, without its own key. */
  readonly tags: ReadonlyArray<string>
}

/** What a sync has asked for, and what Redis has answered. */
export interface Delta extends Point {
  readonly floor: number
  /** Members of the log and their sequences in turn, ascending: `:` before an id, `~` before a pattern. */
  readonly rows: ReadonlyArray<string>
  /** The server's time when it answered, in microseconds since the epoch. */
  readonly time: number
  /** What the sync knew when it was sent, and the most rows that it allowed. */
  readonly sent: Asking
}

/** What is known when a delta is asked for, and the most rows that it may have. */
export interface Asking {
  readonly incarnation: string | undefined
  /** Rows beyond it are asked for. */
  readonly from: number
  readonly limit: number
  /** How often everything had been forgotten. */
  readonly age: number
}

/** Told of what a mirror learns, before it is believed. */
export interface Listener {
  /** These were invalidated. */
  readonly onRows: (ids: ReadonlyArray<string>, globs: ReadonlyArray<string>) => void
  /** Anything may have been: an incarnation has ended, or rows were forgotten before they could be learnt. */
  readonly onGap: () => void
}

/** A pattern that was invalidated. */
interface Row {
  readonly pattern: Pattern.Pattern
  readonly at: number
  /** When it was before; 0 if that is not known. */
  readonly before: number
}

/** Beyond so many, the earliest boundaries and repetitions are forgotten, which makes estimates more careful. */
const historyLimit = 10_000

/** What one process knows of one cell. */
export class Mirror {
  incarnation: string | undefined = undefined
  floor = 0
  /** Every invalidation up to here is known, but for those at or below the floor. */
  cursor = 0
  /** Where a delta that was cut ended, or the cursor. */
  #read = 0
  #age = 0
  /** The last invalidation that is known of anything. */
  newest = 0
  readonly #tags = new Map<string, number>()
  /** By their globs. */
  readonly #patterns = new Map<string, Row>()
  /** The cursors at which deltas began: what lies between two of them was learnt at once. */
  #boundaries: Array<number> = []
  /** For a tag that was invalidated again: when it was before. */
  readonly #before = new Map<string, number>()
  /** The last of those that have been forgotten. */
  #forgotten = 0
  readonly #listener: Listener

  constructor(listener: Listener) {
    this.#listener = listener
  }

  /** How many tags and patterns it remembers. */
  get size(): number {
    return this.#tags.size + this.#patterns.size
  }

  /** True when everything up to a point is known. */
  covers(point: Point): boolean {
    return point.incarnation === this.incarnation && this.cursor >= point.sequence
  }

  /** What ended an entry, by the rule; `undefined` while it is fresh. `""` when it cannot be told. */
  endedBy(entry: Judged, key: string): string | undefined {
    if (entry.incarnation !== this.incarnation || entry.startedAt < this.floor) return ""
    return this.newest <= entry.startedAt
      ? undefined
      : this.invalidatedSince(entry.startedAt, key, entry.tags)
  }

  /** The first of a key and tags that is known to have been invalidated after a sequence. */
  invalidatedSince(sequence: number, key: string, tags: ReadonlyArray<string>): string | undefined {
    if (this.#isAfter(key, sequence)) return key
    for (const tag of tags) if (this.#isAfter(tag, sequence)) return tag
    return this.#patternsSince(sequence, key, tags)[0]?.pattern.glob
  }

  /** The patterns invalidated after a sequence that match one of the keys among these. */
  #patternsSince(sequence: number, key: string, tags: ReadonlyArray<string>): ReadonlyArray<Row> {
    if (this.#patterns.size === 0) return []
    const keys = [key, ...tags.filter(Node.isKeyId)]
    return Array.from(this.#patterns.values()).filter(
      ({ pattern, at }) => at > sequence && keys.some(pattern.matches)
    )
  }

  #isAfter(id: string, sequence: number): boolean {
    const at = this.#tags.get(id)
    return at !== undefined && at > sequence
  }

  /**
   * A sequence before which nothing that an entry rests on was invalidated, as far as can be proved: the log keeps only
   * the last invalidation of each tag, and the first is what counts for a window. Never later than the first.
   */
  endedNotBefore(entry: Judged, key: string): number {
    const { startedAt } = entry
    let earliest = Infinity
    for (const id of [key, ...entry.tags]) {
      const at = this.#tags.get(id)
      if (at === undefined || at <= startedAt) continue
      if ((this.#before.get(id) ?? this.#forgotten) > startedAt) return startedAt
      earliest = Math.min(earliest, this.#learntFrom(at))
    }
    for (const { at, before } of this.#patternsSince(startedAt, key, entry.tags)) {
      if (before > startedAt) return startedAt
      earliest = Math.min(earliest, this.#learntFrom(at))
    }
    return Math.max(startedAt, earliest === Infinity ? startedAt : earliest)
  }

  /** The last boundary below a sequence: the row's own invalidation, or an earlier one of its tag, came after it. */
  #learntFrom(at: number): number {
    let [low, high] = [0, this.#boundaries.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.#boundaries[middle]! < at) low = middle + 1
      else high = middle
    }
    return low === 0 ? 0 : this.#boundaries[low - 1]!
  }

  // ------------------------------------------------------------------------------------------------------ learning

  /** What to ask for next. */
  asking(limit: number): Asking {
    return { incarnation: this.incarnation, from: this.#read, limit, age: this.#age }
  }

  /**
   * Applies a delta. Answers `complete` when everything up to its sequence is known, `more` when it was cut, and
   * `refused` when it does not go with what is known: what was asked was asked of another incarnation or before
   * everything was forgotten, or the cell has gone back.
   */
  apply(delta: Delta): "complete" | "more" | "refused" {
    const { incarnation, sequence, floor, rows, time, sent } = delta
    if (incarnation !== this.incarnation) {
      if (this.incarnation !== sent.incarnation) return "refused"
      this.#begin(incarnation, floor)
    } else if (sent.incarnation === incarnation) {
      if (sent.age !== this.#age) return "refused"
      if (sequence < sent.from) {
        this.forget()
        return "refused"
      }
    }
    if (this.#read < floor) this.#listener.onGap()
    this.#remember(this.cursor)
    this.noteRows(rows)
    this.#raiseFloor(floor)
    const isCut = rows.length / 2 >= sent.limit
    // One invalidation of many tags may have been cut in the middle: its sequence is asked for once more.
    if (isCut) this.#read = Math.max(this.#read, Number(rows.at(-1)) - 1)
    else {
      this.#moveCursor(sequence)
      // Nothing but that was invalidated until the server answered, whose clock may have been set back.
      this.#remember(Math.max(time, sequence))
    }
    return isCut ? "more" : "complete"
  }

  /** Applies one invalidation, told by a message: true when nothing between is missing. */
  applyNext(point: Point, previous: number, members: ReadonlyArray<string>): boolean {
    if (point.incarnation !== this.incarnation) return false
    if (this.cursor >= point.sequence) return true
    this.#note(members, point.sequence)
    if (this.cursor !== previous) return false
    // Nothing was invalidated between the two.
    this.#remember(point.sequence - 1)
    this.#moveCursor(point.sequence)
    return true
  }

  /** Knows nothing any more. */
  forget(): void {
    if (this.incarnation !== undefined) this.#begin(undefined, 0)
  }

  #begin(incarnation: string | undefined, floor: number): void {
    this.incarnation = incarnation
    this.#age++
    this.floor = floor
    this.cursor = floor
    this.#read = floor
    this.newest = 0
    this.#tags.clear()
    this.#before.clear()
    this.#forgotten = 0
    this.#patterns.clear()
    this.#boundaries = []
    this.#listener.onGap()
  }

  /** Notes rows of the log. */
  noteRows(rows: ReadonlyArray<string>): void {
    for (let i = 0; i < rows.length;) {
      const score = rows[i + 1]!
      const members: Array<string> = []
      for (; i < rows.length && rows[i + 1] === score; i += 2) members.push(rows[i]!)
      this.#note(members, Number(score))
    }
  }

  #note(members: ReadonlyArray<string>, at: number): void {
    const ids: Array<string> = []
    const globs: Array<string> = []
    for (const member of members) {
      const text = member.slice(1)
      if (member.startsWith("~")) {
        if (!this.#notePattern(text, at)) continue
        if (patternOf(text) === anyKey) this.#listener.onGap()
        else globs.push(text)
      } else if (this.#noteId(text, at)) ids.push(text)
    }
    if (ids.length === 0 && globs.length === 0) return
    if (at > this.newest) this.newest = at
    this.#listener.onRows(ids, globs)
  }

  /** True when it is news. */
  #noteId(id: string, at: number): boolean {
    const known = this.#tags.get(id)
    if (known !== undefined) {
      if (known === at) return false
      this.#noteBefore(id, Math.min(known, at))
      if (known > at) return false
      this.#tags.delete(id)
    }
    this.#tags.set(id, at)
    return true
  }

  #noteBefore(id: string, at: number): void {
    if ((this.#before.get(id) ?? 0) >= at) return
    this.#before.delete(id)
    this.#before.set(id, at)
    if (this.#before.size <= historyLimit) return
    const [first, forgotten] = this.#before.entries().next().value!
    this.#before.delete(first)
    this.#forgotten = Math.max(this.#forgotten, forgotten)
  }

  /** True when it is news. */
  #notePattern(glob: string, at: number): boolean {
    const known = this.#patterns.get(glob)
    if (known?.at === at) return false
    if (known !== undefined && known.at > at) {
      this.#patterns.set(glob, { ...known, before: Math.max(known.before, at) })
      return false
    }
    this.#patterns.delete(glob)
    this.#patterns.set(glob, {
      pattern: known?.pattern ?? patternOf(glob),
      at,
      before: known?.at ?? 0
    })
    return true
  }

  #remember(boundary: number): void {
    const last = this.#boundaries.at(-1)
    if (last !== undefined && last >= boundary) return
    this.#boundaries.push(boundary)
    if (this.#boundaries.length > historyLimit) this.#boundaries = this.#boundaries.slice(historyLimit / 2)
  }

  #moveCursor(to: number): void {
    if (to > this.cursor) this.cursor = to
    if (to > this.#read) this.#read = to
  }

  /** What lies at or below the floor decides nothing any more. Tags lie in the order of their sequences. */
  #raiseFloor(floor: number): void {
    if (floor <= this.floor) return
    this.floor = floor
    for (const [id, at] of this.#tags) {
      if (at > floor) break
      this.#tags.delete(id)
    }
    for (const [glob, { at }] of this.#patterns) if (at <= floor) this.#patterns.delete(glob)
  }
}

const anyKey: Pattern.Pattern = { glob: "*", matches: () => true }

/** What is no pattern may have been meant to reach anything. */
const patternOf = (glob: string): Pattern.Pattern => {
  try {
    return Pattern.makeUnsafe(glob)
  } catch {
    return anyKey
  }
}
