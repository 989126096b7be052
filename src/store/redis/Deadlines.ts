/**
 * Deadlines are kept by one timer, whatever the number of commands: all of them have the same time, so they are due in
 * the order in which they were sent, and nearly always are answered in it.
 *
 * A timer for each would cost more than sending the command.
 */

/** Something that is waited for until it is due. */
export interface Due {
  /** By `performance.now()`. */
  readonly at: number
  /** True once it need not be waited for. */
  isOver: boolean
  readonly onLate: () => void
  next: Due | undefined
}

/** The deadlines of a connection's commands. */
export class Deadlines {
  readonly #milliseconds: number
  #first: Due | undefined
  #last: Due | undefined
  #isTimed = false

  /** Each is so many milliseconds after it began. */
  constructor(milliseconds: number) {
    this.#milliseconds = milliseconds
  }

  /** Calls back when it takes too long, unless it is over by then. */
  begin(onLate: () => void): Due {
    const due: Due = { at: performance.now() + this.#milliseconds, isOver: false, onLate, next: undefined }
    if (this.#last === undefined) this.#first = due
    else this.#last.next = due
    this.#last = due
    if (!this.#isTimed) this.#time(this.#milliseconds)
    return due
  }

  /** It need not be waited for any more. */
  end(due: Due): void {
    due.isOver = true
    while (this.#first?.isOver === true) this.#first = this.#first.next
    if (this.#first === undefined) this.#last = undefined
  }

  #time(milliseconds: number): void {
    this.#isTimed = true
    // The connection keeps the process from ending, not this.
    setTimeout(() => this.#look(), Math.max(1, milliseconds)).unref()
  }

  #look(): void {
    this.#isTimed = false
    // Timers count whole milliseconds.
    const now = performance.now() + 1
    while (this.#first !== undefined && this.#first.at <= now) {
      const due = this.#first
      this.end(due)
      due.onLate()
    }
    if (this.#first !== undefined && !this.#isTimed) this.#time(this.#first.at - now)
  }
}
