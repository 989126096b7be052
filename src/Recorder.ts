/**
 * A recorder notes what a running lookup rests on beside what its node declares: the tags of memoized answers used
 * inside it, and those given to `Cacheme.dependOn`. It is open while the lookup runs; what outlives the lookup (a
 * forked fiber) is not noted any more.
 */
import * as Context from "effect/Context"

/** The tags noted for one running lookup. */
export class Recorder {
  readonly #ids = new Set<string>()
  #isOpen = true
  /** False when something was used whose tags could not be told: the answer cannot be stored. */
  isComplete = true

  /** Notes ids of tags, while the lookup runs. */
  add(ids: Iterable<string>): void {
    if (this.#isOpen) for (const id of ids) this.#ids.add(id)
  }

  /** Notes that something was used whose tags could not be told. */
  addUnknown(): void {
    if (this.#isOpen) this.isComplete = false
  }

  /** Ends the recording and tells what was noted. */
  close(): ReadonlySet<string> {
    this.#isOpen = false
    return this.#ids
  }
}

/** The recorder of the lookup that the current fiber works for, if any. */
export const CurrentRecorder: Context.Reference<Recorder | undefined> = Context.Reference<
  Recorder | undefined
>("cacheme/Recorder", { defaultValue: () => undefined })
