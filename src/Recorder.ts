/**
 * A recorder notes what a running lookup rests on beside what its node declares: what it has read of the database, the
 * tags of memoized answers used inside it, and those given to `Cacheme.dependOn`. It is open while the lookup runs; what
 * outlives the lookup (a forked fiber) is not noted any more, but counted and told.
 */
import * as Context from "effect/Context"
import type { Fallback } from "./Entry.ts"

export type { Fallback }

/** Something that a lookup has read. Ids may be there more than once. */
export interface Read {
  /** The statement, as it was sent. */
  readonly source: string
  /** The ids of the tags that the answer rests on. */
  readonly ids: ReadonlyArray<string>
  /**
   * Ids that belong to one value each of a list of values that was asked for, by the value's text: where these are the
   * keys of a batch, each key rests on its own.
   */
  readonly idsByValue: ReadonlyMap<string, ReadonlyArray<string>>
  readonly fallbacks: ReadonlyArray<Fallback>
  /** What the answer depends on that no write tells of: the time, chance, the session. */
  readonly untold: ReadonlyArray<string>
}

/** What was noted of a lookup. */
export interface Recording {
  /** Ids that were noted one by one. */
  readonly ids: ReadonlySet<string>
  /** For each memoized answer that was used, what it rests on, its own key first: `ids` has them too. */
  readonly answers: ReadonlyArray<ReadonlyArray<string>>
  /** When the first of the answers that were used ages out, in milliseconds since the epoch; `Infinity` for never. */
  readonly expiresAt: number
  readonly reads: ReadonlyArray<Read>
  /**
   * The first of the reads, if it came before everything else: the values that were asked for in it cannot have come
   * out of the database, or of another answer.
   */
  readonly opening: Read | undefined
  /** False when something was used whose tags could not be told: the answer cannot be stored. */
  readonly isComplete: boolean
}

/** The recording of one running lookup. */
export class Recorder {
  readonly #ids = new Set<string>()
  readonly #reads: Array<Read> = []
  #opening: Read | undefined
  readonly #answers: Array<ReadonlyArray<string>> = []
  #expiresAt = Infinity
  #isOpen = true
  #isComplete = true
  /** How much came after the lookup had ended. */
  late = 0
  /** False when the node gives all its tags by hand: what is read of the database is not noted. */
  readonly notesReads: boolean
  readonly #tellLate: () => void

  /** `tellLate` is called for whatever comes after the lookup has ended. */
  constructor(notesReads = true, tellLate: () => void = () => {}) {
    this.notesReads = notesReads
    this.#tellLate = tellLate
  }

  /** Notes ids of tags, while the lookup runs. */
  add(ids: Iterable<string>): void {
    if (!this.#isOpen) this.#comesLate()
    else for (const id of ids) this.#ids.add(id)
  }

  /** Notes a memoized answer that was used: what it rests on, its own key first, and when it ages out. */
  addAnswer(ids: ReadonlyArray<string>, expiresAt: number): void {
    this.add(ids)
    this.addExpiry(expiresAt)
    if (this.#isOpen) this.#answers.push(ids)
  }

  /** Notes when something that was used ages out, in milliseconds since the epoch. */
  addExpiry(expiresAt: number): void {
    if (this.#isOpen && expiresAt < this.#expiresAt) this.#expiresAt = expiresAt
  }

  /** Notes what was read, while the lookup runs. */
  addRead(read: Read): void {
    if (!this.#isOpen) return this.#comesLate()
    if (this.#reads.length === 0 && this.#ids.size === 0) this.#opening = read
    this.#reads.push(read)
  }

  /** Notes that something was used whose tags could not be told. */
  addUnknown(): void {
    if (!this.#isOpen) this.#comesLate()
    else this.#isComplete = false
  }

  #comesLate(): void {
    this.late++
    this.#tellLate()
  }

  /** Ends the recording and tells what was noted. */
  close(): Recording {
    this.#isOpen = false
    return {
      ids: this.#ids,
      answers: this.#answers,
      expiresAt: this.#expiresAt,
      reads: this.#reads,
      opening: this.#opening,
      isComplete: this.#isComplete
    }
  }
}

/** The recorder of the lookup that the current fiber works for, if any. */
export const CurrentRecorder: Context.Reference<Recorder | undefined> = Context.Reference<
  Recorder | undefined
>("cacheme/Recorder", { defaultValue: () => undefined })
