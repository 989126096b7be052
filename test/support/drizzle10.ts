/**
 * What is run with Drizzle 1.0: all but what is missing there (docs/design.md); in the short run on PGlite only, and on
 * the servers what is done to statements where there are no old values to return.
 */
import { beforeEach, inject } from "vitest"

const missing = [
  // It has no option `casing`: the names are those of `snakeCase.table`.
  "uses the names that a casing gives columns",
  // They need the option `relations`, which 0.45 does not know.
  "placeholders of relational queries > are filled too",
  "is typed with a schema, for relational queries"
]

beforeEach(({ task, skip }) => {
  const isLong = /Postgres 1[58]/.test(task.fullTestName) && !task.file.name.endsWith("rowImages.test.ts")
  if ((isLong && !inject("isFull")) || missing.some((name) => task.fullTestName.includes(name))) skip()
})
