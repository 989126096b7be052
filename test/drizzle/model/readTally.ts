/** What is counted in a check of reads. */

/** Counts of a check. */
export interface ReadTally {
  steps: number
  statements: number
  committed: number
  /** Answers that were asked for, and those of them that came from the cache. */
  reads: number
  hits: number
  /** Answers from the cache that were looked up beside it and compared. */
  compared: number
  /** Answers that were compared inside a transaction. */
  inside: number
  readonly forms: Record<string, FormReads>
}

/** How the entries of one form fared. */
export interface FormReads {
  /** Queries of this form that were drawn. */
  queries: number
  readonly all: ReadPrecision
  /** In the steps that could tell all that they changed by row. */
  readonly byRow: ReadPrecision
}

/** How many entries were invalidated. */
export interface ReadPrecision {
  /** Entries whose tables have really changed: what a cache by table would have invalidated. */
  byTable: number
  invalidated: number
  /** Entries whose answer has changed: what had to be invalidated. */
  changed: number
}

/** Nothing, so far. */
export const noReadTally = (): ReadTally => ({
  steps: 0,
  statements: 0,
  committed: 0,
  reads: 0,
  hits: 0,
  compared: 0,
  inside: 0,
  forms: {}
})

/** Nothing of a form, so far. */
export const noFormReads = (): FormReads => ({ queries: 0, all: noPrecision(), byRow: noPrecision() })

const noPrecision = (): ReadPrecision => ({ byTable: 0, invalidated: 0, changed: 0 })

/** All forms together. */
export const sumOf = ({ forms }: Pick<ReadTally, "forms">): FormReads => {
  const sum = noFormReads()
  for (const { queries, all, byRow } of Object.values(forms)) {
    sum.queries += queries
    add(sum.all, all)
    add(sum.byRow, byRow)
  }
  return sum
}

const add = (sum: ReadPrecision, { byTable, invalidated, changed }: ReadPrecision): void => {
  sum.byTable += byTable
  sum.invalidated += invalidated
  sum.changed += changed
}
