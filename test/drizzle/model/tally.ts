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
  /** Of the steps that committed something: entries that were invalidated. */
  invalidated: number
  /** Those of them whose answer had changed. */
  needed: number
  /** The same, if each table that has really changed had ended all that reads it. */
  invalidatedByTable: number
  /** How the statements that ran by themselves were told, by form. */
  readonly forms: Record<string, FormTally>
}

/** How the statements of one form were told. */
export interface FormTally {
  /** Nothing was changed, so nothing was told. */
  nothing: number
  byRow: number
  byTable: number
  /** Of these, how many told other tables too: what follows from a statement is told by table. */
  others: number
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
  invalidated: 0,
  needed: 0,
  invalidatedByTable: 0,
  forms: {}
})
