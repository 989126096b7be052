/** Reads of a database by hand: what `Db.query` notes of a statement. */
import { Effect } from "effect"
import { CurrentRecorder, type Read } from "../../src/Recorder.ts"

/** Notes a read in the lookup that runs, as far as its node wants reads noted. */
export const reading = (read: Partial<Read>): Effect.Effect<void> =>
  Effect.withFiber((fiber) => {
    const recorder = fiber.getRef(CurrentRecorder)
    if (recorder?.notesReads === true)
      recorder.addRead({
        source: "select",
        ids: [],
        idsByValue: new Map(),
        fallbacks: [],
        untold: [],
        ...read
      })
    return Effect.void
  })

/** The ids that `Db.query` notes of rows with these ids: theirs, and that of rows that nobody can name. */
export const rowIds = (table: string, ...ids: ReadonlyArray<number | string>): ReadonlyArray<string> => [
  ...ids.map((id) => `@${table}:id=${id}`),
  `@${table}:?`
]

/** The same by the value that each belongs to. */
export const rowsByValue = (table: string, ids: ReadonlyArray<number | string>): Read["idsByValue"] =>
  new Map(ids.map((id) => [String(id), rowIds(table, id)]))
