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

/** How the entries of one form fared, in the steps that committed something. */
export interface FormReads {
  /** Queries of this form that were drawn. */
  queries: number
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
export const noFormReads = (): FormReads => ({ queries: 0, byTable: 0, invalidated: 0, changed: 0 })

/** All forms together. */
export const sumOf = ({ forms }: Pick<ReadTally, "forms">): FormReads => {
  const sum = noFormReads()
  for (const form of Object.values(forms))
    for (const key of Object.keys(sum) as ReadonlyArray<keyof FormReads>) sum[key] += form[key]
  return sum
}
