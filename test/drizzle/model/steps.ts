/**
 * What a history is made of: writes, and transactions of writes, with savepoints, that commit or roll back. A step is
 * data, so that one that goes wrong can be told, made smaller, and run again.
 */
import { type Chance, makeChance } from "../../checker/chance.ts"
import { type Drawn, draw } from "./statements.ts"

/** One call of `Db.mutate`, of one statement or of several. */
interface Write {
  readonly does: "write"
  /** Each number is a statement. */
  readonly statements: ReadonlyArray<number>
}

/** A transaction, or a savepoint in one. */
export interface Transaction {
  readonly does: "transaction"
  readonly parts: ReadonlyArray<Part>
  /** True when it fails by itself at the end. */
  readonly fails: boolean
}

/** A step in a transaction. */
interface Part {
  readonly step: Step
  /** True when its failure is ignored. */
  readonly isCaught: boolean
  /** True when all questions are asked in the transaction afterwards. */
  readonly asks: boolean
}

export type Step = Write | Transaction

/** How many statements there are in a step. */
export const sizeOf = (step: Step): number =>
  step.does === "write" ? step.statements.length : step.parts.reduce((sum, { step }) => sum + sizeOf(step), 0)

interface StepChance extends Chance {
  /** A statement. */
  readonly statement: () => number
}

/** Draws a step. */
const drawStep = (chance: StepChance): Step => {
  const kind = chance.below(20)
  if (kind === 0) return { does: "write", statements: [chance.statement(), chance.statement()] }
  return kind < 4 ? drawTransaction(chance, 1) : { does: "write", statements: [chance.statement()] }
}

const drawTransaction = (chance: StepChance, depth: number): Transaction => ({
  does: "transaction",
  parts: Array.from({ length: 1 + chance.below(3) }, () => ({
    step:
      depth < 3 && chance.below(3) === 0
        ? drawTransaction(chance, depth + 1)
        : {
            does: "write",
            statements:
              chance.below(8) === 0 ? [chance.statement(), chance.statement()] : [chance.statement()]
          },
    isCaught: chance.below(3) === 0,
    asks: chance.below(3) === 0
  })),
  fails: chance.below(4) === 0
})

/** The steps of a history, without some statements. */
export const drawSteps = (
  seed: number,
  statements: number,
  isLeftOut: (drawn: Drawn) => boolean = () => false
): ReadonlyArray<Step> => {
  const { below, of } = makeChance(Math.imul(seed, 0x85ebca6b) + 1)
  const statement = (): number => {
    const drawn = below(2 ** 31)
    return isLeftOut(draw(drawn)) ? statement() : drawn
  }
  const chance = { below, of, statement }
  const steps: Array<Step> = []
  for (let drawn = 0; drawn < statements; drawn += sizeOf(steps.at(-1)!)) steps.push(drawStep(chance))
  return steps
}

/** The same step with something left out, in each way in which one thing can be. */
export const smaller = (step: Step): ReadonlyArray<Step> => {
  if (step.does === "write") {
    if (step.statements.length === 1) return []
    return step.statements.map((_, left) => ({
      ...step,
      statements: step.statements.filter((_, i) => i !== left)
    }))
  }
  const { parts } = step
  const withParts = (parts: ReadonlyArray<Part>): Transaction => ({ ...step, parts })
  return [
    ...parts.map(({ step }) => step),
    ...(parts.length > 1 ? parts.map((_, left) => withParts(parts.filter((_, i) => i !== left))) : []),
    ...parts.flatMap((part, at) =>
      smaller(part.step).map((step) =>
        withParts(parts.map((other, i) => (i === at ? { ...part, step } : other)))
      )
    ),
    ...parts.flatMap((part, at) =>
      part.asks ? [withParts(parts.map((other, i) => (i === at ? { ...part, asks: false } : other)))] : []
    )
  ]
}
