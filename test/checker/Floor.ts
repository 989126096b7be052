/**
 * What a read that starts now must see, at least, by what this process knows: what it has written itself, and what it
 * has seen to be acknowledged, at once or, where a mode promises less, since a time. All by this process's own clock.
 */
import { type Register, registers, type Versions } from "./Truth.ts"

export class Floor {
  readonly #bound: number
  readonly #versions: Array<number> = Array.from({ length: registers }, () => 0)
  /** What was seen to be acknowledged, and is not yet binding. */
  readonly #seen: Array<{ readonly versions: Versions; readonly at: number }> = []

  /** `bound`: for how many milliseconds a read may miss what others have written. */
  constructor(bound: number) {
    this.#bound = bound
  }

  /** This process has written, and its invalidation has returned. */
  noteOwn(register: Register, version: number): void {
    this.#raise(register, version)
  }

  /** These were acknowledged when somebody looked just now. */
  noteAcknowledged(versions: Versions): void {
    if (this.#bound === 0) versions.forEach((version, register) => this.#raise(register, version))
    else this.#seen.push({ versions, at: performance.now() })
  }

  /** The least that a read which starts now must see. */
  now(): Versions {
    const binding = performance.now() - this.#bound
    while (this.#seen.length > 0 && this.#seen[0]!.at <= binding)
      this.#seen.shift()!.versions.forEach((version, register) => this.#raise(register, version))
    return [...this.#versions]
  }

  #raise(register: Register, version: number): void {
    if (version > this.#versions[register]!) this.#versions[register] = version
  }
}
