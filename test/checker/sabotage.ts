/**
 * The library, broken on purpose: what the checker must catch. Each replaces a small part of a class or of a script in
 * the process that applies it, before anything is made of them, so that the library itself has no switches.
 */
import { setTimeout as sleep } from "node:timers/promises"
import { Effect } from "effect"
import { Flight } from "../../src/Flight.ts"
import { Cell } from "../../src/store/redis/Cell.ts"
import { Link } from "../../src/store/redis/Link.ts"
import { Mirror, type Point } from "../../src/store/redis/Mirror.ts"
import { type Name, sources } from "../../src/store/redis/scripts.ts"
import type { Fault } from "./chaos.ts"
import type { Mode } from "./messages.ts"
import { named } from "../support/sabotages.ts"

/** One way to break the library. */
export interface Sabotage {
  /** What is wrong. */
  readonly is: string
  /** What must go wrong beside it for somebody to suffer. */
  readonly faults?: ReadonlyArray<Fault> | undefined
  /** Where it shows; default everywhere. */
  readonly modes?: ReadonlyArray<Mode> | undefined
  /** True where chance meets it too seldom: its order of events is directed, in `interleavings.test.ts`. */
  readonly isDirected?: boolean | undefined
  /** Breaks it; the returned function mends it, for what is made from then on. */
  readonly apply: () => () => void
}

/** Replaces a method by one made of it. */
const replace = <T extends object, K extends keyof T>(
  of: T,
  name: K,
  by: (original: T[K]) => T[K]
): (() => void) => {
  const original = of[name]
  of[name] = by(original)
  return () => void (of[name] = original)
}

/** Replaces a part of a script. Throws if it is not there: then the sabotage must be written anew. */
const replaceIn = (script: Name, part: string, by: string): (() => void) => {
  const source = sources[script]
  if (!source.includes(part)) throw new Error(`the script ${script} has no ${part}`)
  sources[script] = source.replace(part, by)
  return () => void (sources[script] = source)
}

/** All of them, by name. */
export const sabotages = {
  "late start": {
    is: "the position is taken after the lookup instead of before it",
    apply: () =>
      replace(
        Cell.prototype,
        "acquire",
        (acquire) =>
          async function (this: Cell, item) {
            const { point, ...acquired } = await acquire.call(this, item)
            const { mirror } = this
            const late = {
              incarnation: point.incarnation,
              get sequence() {
                return mirror.incarnation === point.incarnation
                  ? Math.max(mirror.cursor, point.sequence)
                  : point.sequence
              }
            }
            return { ...acquired, point: late }
          }
      )
  },
  "cursor before rows": {
    is: "the mirror says that it knows rows before it has noted them",
    apply: () =>
      replace(
        Mirror.prototype,
        "noteRows",
        (noteRows) =>
          function (this: Mirror, rows) {
            setTimeout(() => noteRows.call(this, rows), 5)
          }
      )
  },
  "cut delta": {
    is: "a delta that was cut is taken for all of it",
    apply: () => replaceIn("sync", "'LIMIT', 0, ARGV[4]", "'LIMIT', 0, 1")
  },
  "early join": {
    is: "a sync that was sent before the position was seen is enough, whatever it says",
    isDirected: true,
    apply: () => {
      const seen = new WeakSet<Point>()
      return replace(
        Cell.prototype,
        "isCurrent",
        (isCurrent) =>
          function (this: Cell, point, epoch) {
            if (point !== undefined && seen.has(point)) return true
            if (point !== undefined) seen.add(point)
            return isCurrent.call(this, point, epoch)
          }
      )
    }
  },
  "hint over a gap": {
    is: "a message is applied although something before it is missing",
    apply: () =>
      replace(
        Mirror.prototype,
        "applyNext",
        (applyNext) =>
          function (this: Mirror, point, _, members) {
            return applyNext.call(this, point, this.cursor, members)
          }
      )
  },
  "refused fill": {
    is: "who joined a flight takes its answer although it could not be stored",
    apply: () =>
      replace(
        Flight.prototype,
        "land",
        (land) =>
          function (this: Flight, landing) {
            land.call(this, { ...landing, isSound: true })
          }
      )
  },
  "any server": {
    is: "a cell is believed whichever server wrote it",
    faults: ["restart"],
    apply: () => {
      const mend = (Object.keys(sources) as ReadonlyArray<Name>).map((name) =>
        replaceIn(name, "server = string.sub(info, last + 1, last + 40)", "server = 'any'")
      )
      return () => mend.forEach((one) => one())
    }
  },
  "any connection": {
    is: "a new connection is taken for the old one",
    isDirected: true,
    apply: () =>
      replace(
        Link,
        "make",
        (make) => (settings, hooks) =>
          Effect.map(make(settings, { ...hooks, onUp: () => {} }), (link) =>
            Object.defineProperty(link, "epoch", { get: () => 0, set: () => {} })
          )
      )
  },
  "no fence": {
    is: "an answer is stored although something it rests on was invalidated during its lookup",
    apply: () =>
      replaceIn("store", "elseif overtaken(startedAt, a + 7, a + 6 + count) then", "elseif false then")
  },
  "early acknowledgement": {
    is: "an invalidation is acknowledged before it is applied",
    apply: () =>
      replace(
        Cell.prototype,
        "invalidate",
        (invalidate) =>
          async function (this: Cell, item) {
            void sleep(10).then(() => invalidate.call(this, item).catch(() => {}))
            const { incarnation = "0", cursor } = this.mirror
            return { point: { incarnation, sequence: cursor }, rows: 0 }
          }
      )
  },
  "blind memory": {
    is: "an entry in memory is believed without asking whether anything was invalidated",
    modes: ["validated"],
    apply: () => replace(Cell.prototype, "validate", () => (callback) => queueMicrotask(() => callback(true)))
  },
  "no bound": {
    is: "an entry in memory is believed for ever",
    faults: ["late", "stall"],
    modes: ["bounded"],
    apply: () => replace(Cell.prototype, "isCoveredWithin", () => () => true)
  }
} satisfies Record<string, Sabotage>

/** The sabotage of a name. Throws for a name that there is not. */
export const sabotageOf = (name: string): Sabotage => named<Sabotage>(sabotages, name)
