/** Makes a history that goes wrong as short as it can be: whatever it goes wrong without is left out. */
import type { Server } from "./servers.ts"
import { draw } from "./statements.ts"
import { smaller, type Step } from "./steps.ts"
import { noTally } from "./tally.ts"
import { textOf } from "./twin.ts"
import type { Kind, WriteWorld, Wrong } from "./WriteWorld.ts"

/** What has gone wrong, and what leads to it. */
export interface Failure {
  readonly kind: Kind
  readonly story: string
  /** The statements that lead to it, the last step last. */
  readonly history: ReadonlyArray<string>
  /** The round's seed. */
  readonly seed: number
}

/** Makes a failure of the last step of a history minimal. */
export const makeMinimal = async (
  world: WriteWorld,
  server: Server,
  history: ReadonlyArray<Step>,
  wrong: Wrong,
  seed: number,
  attempts = 300
): Promise<Failure> => {
  let left = attempts
  let [found, shortest] = [wrong, history]
  /** True if a history goes wrong in its last step, in the same way. Then it is the shortest. */
  const goesWrong = async (tried: ReadonlyArray<Step>): Promise<boolean> => {
    if (left-- <= 0) return false
    const again = await world.live(tried, { tally: noTally(), from: tried.length - 1 })
    if (again?.kind !== wrong.kind) return false
    ;[found, shortest] = [again, tried]
    return true
  }
  if (await goesWrong(history)) {
    await withoutSome(shortest.slice(0, -1), (tried) => goesWrong([...tried, shortest.at(-1)!]))
    await withSmaller(shortest, smaller, goesWrong)
  }
  const { kind, story } = found
  return { kind, story, seed, history: shortest.flatMap((step) => tell(server, step, "")) }
}

/** Leaves items out, as long as what is left goes wrong: more of them at first. Answers what is left. */
export const withoutSome = async <A>(
  items: ReadonlyArray<A>,
  goesWrong: (tried: ReadonlyArray<A>) => Promise<boolean>
): Promise<ReadonlyArray<A>> => {
  let left = items
  for (let size = items.length; size >= 1; size = Math.floor(size / 2)) {
    for (let at = 0; at < left.length;) {
      const tried = [...left.slice(0, at), ...left.slice(at + size)]
      if (await goesWrong(tried)) left = tried
      else at += size
    }
  }
  return left
}

/** Puts smaller items in the place of some, as long as that goes wrong. Answers what there is then. */
export const withSmaller = async <A>(
  items: ReadonlyArray<A>,
  smaller: (item: A) => ReadonlyArray<A>,
  goesWrong: (tried: ReadonlyArray<A>) => Promise<boolean>
): Promise<ReadonlyArray<A>> => {
  let smallest = items
  for (let at = items.length - 1; at >= 0; at--) {
    for (let left = [...smaller(smallest[at]!)]; left.length > 0;) {
      const item = left.shift()!
      const tried = smallest.map((other, i) => (i === at ? item : other))
      if (!(await goesWrong(tried))) continue
      smallest = tried
      left = [...smaller(item)]
    }
  }
  return smallest
}

/** A step, line by line. */
export const tell = (server: Server, step: Step, indent: string): ReadonlyArray<string> => {
  if (step.does === "write") {
    const texts = step.statements.map((statement) => {
      const { form, build } = draw(statement)
      return `${textOf(server.twin.db, build(server.twin.db))}   -- ${form}`
    })
    return texts.length === 1
      ? [`${indent}${texts[0]}`]
      : [`${indent}in one call:`, ...texts.map((text) => `${indent}  ${text}`)]
  }
  return [
    `${indent}transaction:`,
    ...step.parts.flatMap(({ step, isCaught, asks }) => [
      ...tell(server, step, `${indent}  `),
      ...(isCaught ? [`${indent}  (a failure of it is ignored)`] : []),
      ...(asks ? [`${indent}  everything is asked`] : [])
    ]),
    `${indent}${step.fails ? "fails by itself" : "ends"}`
  ]
}
