/** What a step does by plain Drizzle, on the twin of the database: what `Db` must answer, keep and refuse just so. */
import { is, Placeholder, sql } from "drizzle-orm"
import { Data } from "effect"
import type { Statement } from "../../../src/drizzle/builders.ts"
import type { AnyDatabase } from "../../../src/drizzle/Connection.ts"
import { draw } from "./statements.ts"
import type { Step, Transaction } from "./steps.ts"

/** What came of each write of a step, in order: its answer, or why it was refused. */
export type Trace = Array<string>

/** A step that was given up, and why: an SQLSTATE, or a word. */
export class GivenUp extends Data.TaggedError("GivenUp")<{ readonly message: string }> {}

/** Does a step. Throws `GivenUp` if it is not kept. */
export const doPlainly = async (db: AnyDatabase, step: Step, trace: Trace, depth = 0): Promise<void> => {
  if (step.does === "transaction") return transact(db, step, trace, depth)
  const statements = step.statements.map((statement) => draw(statement).build(db))
  const isAlone = statements.length === 1
  const needsTransaction = !isAlone && depth === 0
  try {
    if (needsTransaction) await db.execute(sql`begin`)
    const answers: Array<unknown> = []
    for (const statement of statements) answers.push(await statement)
    if (needsTransaction) await db.execute(sql`commit`)
    trace.push(isAlone ? written(answers[0]) : answers.map(written).join(" and "))
  } catch (error) {
    // Also without a transaction: after rows that were followed by an error, postgres.js would count the next ones from there.
    if (depth === 0) await db.execute(sql`rollback`)
    throw givenUp(trace, codeOf(error))
  }
}

const transact = async (db: AnyDatabase, { parts, fails }: Transaction, trace: Trace, depth: number) => {
  const name = sql.raw(`model_${depth}`)
  const [start, undo, keep] =
    depth === 0
      ? [sql`begin`, sql`rollback`, sql`commit`]
      : [sql`savepoint ${name}`, sql`rollback to savepoint ${name}`, sql`release savepoint ${name}`]
  try {
    await db.execute(start)
  } catch (error) {
    throw new GivenUp({ message: codeOf(error) })
  }
  try {
    for (const { step, isCaught } of parts) {
      try {
        await doPlainly(db, step, trace, depth + 1)
      } catch (error) {
        if (!isCaught) throw error
      }
    }
    if (fails) throw new GivenUp({ message: "it fails by itself" })
    await db.execute(keep)
  } catch (error) {
    await db.execute(undo)
    throw error instanceof GivenUp ? error : new GivenUp({ message: codeOf(error) })
  }
}

/** Notes a refusal. */
export const givenUp = (trace: Trace, code: string): GivenUp => {
  trace.push(`refused: ${code}`)
  return new GivenUp({ message: code })
}

/** The SQLSTATE of an error, wherever it is. */
export const codeOf = (error: unknown): string => {
  for (let at = error; typeof at === "object" && at !== null; at = (at as { cause?: unknown }).cause) {
    const { code } = at as { readonly code?: unknown }
    if (typeof code === "string" && /^[0-9A-Z]{5}$/.test(code)) return code
  }
  return String(error)
}

/**
 * An answer as a text. Rows may come in any order; without a RETURNING, it is what the driver tells: how many rows were
 * changed.
 */
export const written = (answer: unknown): string => {
  const rows = (these: ReadonlyArray<unknown>) => these.map((row) => JSON.stringify(row)).toSorted()
  if (Array.isArray(answer)) {
    const { command, count } = answer as { readonly command?: string; readonly count?: number }
    return JSON.stringify([rows(answer), command, count])
  }
  const {
    rows: list,
    affectedRows,
    fields
  } = answer as {
    readonly rows: ReadonlyArray<unknown>
    readonly affectedRows?: number
    readonly fields: ReadonlyArray<{ readonly name: string }>
  }
  return JSON.stringify([rows(list), affectedRows, fields.map(({ name }) => name)])
}

/** The text of a statement with its values, as it is sent. */
export const textOf = (db: AnyDatabase, statement: Statement): string => {
  const { dialect } = db as unknown as {
    readonly dialect: {
      readonly sqlToQuery: (query: unknown) => { readonly sql: string; readonly params: Array<unknown> }
    }
  }
  const query = dialect.sqlToQuery((statement as { readonly getSQL: () => unknown }).getSQL())
  return query.sql
    .replaceAll(/\s+/g, " ")
    .replaceAll(/\$(\d+)/g, (_, number) => literal(query.params[Number(number) - 1]))
}

const literal = (value: unknown): string =>
  typeof value === "string"
    ? `'${value.replaceAll("'", "''")}'`
    : is(value, Placeholder)
      ? `:${value.name}`
      : String(value)
