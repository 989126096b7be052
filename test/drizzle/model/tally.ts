/** What is counted in a check. */

/** Counts of a check. */
export interface Tally {
  steps: number
  statements: number
  committed: number
  rolledBack: number
  /** Statements that the database refused, by SQLSTATE. */
  readonly refused: Record<string, number>
  /** Answers that were compared, and those of them that came from the cache. */
  reads: number
  hits: number
  /** Of the steps that committed something. */
  readonly all: Precision
  /** Of those in which all changed rows were told by row. */
  readonly byRow: Precision
  /** How the statements that ran by themselves were told, by form. */
  readonly forms: Record<string, FormTally>
}

/** How many entries were invalidated. */
export interface Precision {
  steps: number
  invalidated: number
  /** Those of them whose answer had changed. */
  needed: number
  /** What each table that has really changed would have invalidated, had it ended all that reads it. */
  byTable: number
}

/** How the statements of one form were told. */
interface FormTally {
  /** Nothing was changed, so nothing was told. */
  nothing: number
  byRow: number
  byTable: number
  /** Of these, how many told other tables too: what follows from a statement is told by table. */
  others: number
  /** Entries that were invalidated though their answer had not changed. */
  needless: number
}

/** Nothing, so far. */
export const noTally = (): Tally => ({
  steps: 0,
  statements: 0,
  committed: 0,
  rolledBack: 0,
  refused: {},
  reads: 0,
  hits: 0,
  all: noPrecision(),
  byRow: noPrecision(),
  forms: {}
})

const noPrecision = (): Precision => ({ steps: 0, invalidated: 0, needed: 0, byTable: 0 })
