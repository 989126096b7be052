/**
 * What holds between cells, where there are several. A position is an order within one cell, so what is known of one says
 * nothing of another; what an answer has used of another cell is judged by time instead, and with care.
 *
 * **The gap.** An invalidation reaches the cells one after the other: a round. A lookup begins when its own cell has been
 * told, uses an old answer of a cell that has not, and is stored; once that cell has been told too, and the invalidation
 * is acknowledged, nothing ends what was stored.
 *
 * **How it is closed.** A round that took longer than {@link longestRound} is not acknowledged: all cells are told once
 * more. And an answer whose lookup has used others is stored only if nothing that these rest on was invalidated in its
 * cell after a position that had been seen {@link settledAfter} before the lookup began.
 *
 * **Why that is enough.** Let an acknowledged invalidation reach a tag that an entry has from an answer it used; it took
 * effect in the entry's cell at `s`. If the lookup's position is below `s`, the rule of the cell ends the entry. If not,
 * the entry was stored because `s` is not above a position that had been seen `settledAfter` before the lookup began. So
 * the round had begun by then, and was over, in all cells, when the lookup began. What the lookup used was looked up
 * after that, or was fresh in its own cell after that; then that cell had been told before it was looked up, and by
 * induction it holds no answer from before: it was stored by the same rule.
 *
 * Each side measures a length of time by itself, by two clocks, and the writer's is the shorter one by a fifth: clocks
 * that run alike within that are all that is asked for. No instant is compared with another machine's.
 */
import { performance } from "node:perf_hooks"
import type { Point } from "./Mirror.ts"

/** How long an invalidation may take from before the first cell is told until all have answered, in milliseconds. */
export const longestRound = 400

/** How long before a lookup a position must have been seen, in milliseconds. */
export const settledAfter = 500

/** Now, by both clocks, in milliseconds: a machine that sleeps stops its monotonic clock, and the other may be set. */
export interface Moment {
  readonly monotonic: number
  readonly wall: number
}

export const moment = (): Moment => ({ monotonic: performance.now(), wall: Date.now() })

/** True when what began at a moment has taken longer than a round may. */
export const isTooLong = (since: Moment): boolean => {
  const { monotonic, wall } = moment()
  return Math.max(monotonic - since.monotonic, wall - since.wall) > longestRound
}

/** A position, and when it was seen. */
interface Seen {
  readonly point: Point
  readonly at: Moment
}

/** The positions of one cell that were seen lately: two of them, so that one is old enough soon. */
export class Settled {
  #older: Seen | undefined
  #newer: Seen | undefined

  /** Notes a position that a reply has brought. */
  note(point: Point): void {
    const at = moment()
    const newer = this.#newer
    if (newer?.point.incarnation !== point.incarnation || at.wall < newer.at.wall) this.#older = undefined
    else if (!isSettled(newer, at)) return
    else this.#older = newer
    this.#newer = { point, at }
  }

  /** A position that was seen long enough ago for what was invalidated up to it to be so in all cells. */
  get point(): Point | undefined {
    const now = moment()
    return [this.#newer, this.#older].find((seen) => seen !== undefined && isSettled(seen, now))?.point
  }
}

const isSettled = ({ at }: Seen, now: Moment): boolean =>
  Math.min(now.monotonic - at.monotonic, now.wall - at.wall) >= settledAfter
