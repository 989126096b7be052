/**
 * What can go wrong with a database, as one error with one tagged `reason`.
 *
 * Reasons are told apart by what a caller can do about them: correct the input, run the transaction again, connect
 * again, or find out what became of a write. The driver's own error is kept as `cause`.
 */
import * as Schema from "effect/Schema"

/** The database refused a row. Nothing of the statement was kept. */
export class ConstraintViolation extends Schema.TaggedError<ConstraintViolation>(
  "cacheme/ConstraintViolation"
)("ConstraintViolation", {
  kind: Schema.Literals(["unique", "foreign key", "not null", "check", "exclusion", "restrict"]),
  constraint: Schema.UndefinedOr(Schema.String),
  table: Schema.UndefinedOr(Schema.String),
  column: Schema.UndefinedOr(Schema.String)
}) {
  override get message(): string {
    const name = this.constraint ?? [this.table, this.column].filter((part) => part !== undefined).join(".")
    return `a ${this.kind} constraint was violated: ${name}`
  }
}

/** Another transaction was in the way (serialisation failure or deadlock). Rolled back; running it again may succeed. */
export class SerializationFailure extends Schema.TaggedError<SerializationFailure>(
  "cacheme/SerializationFailure"
)("SerializationFailure", { code: Schema.String }) {
  override get message(): string {
    return this.code === "40P01"
      ? "a deadlock was broken by the database"
      : "another transaction was in the way"
  }
}

/** There is no connection, or it was lost before anything could be kept. */
export class ConnectionLost extends Schema.TaggedError<ConnectionLost>("cacheme/ConnectionLost")(
  "ConnectionLost",
  {
    code: Schema.String
  }
) {
  override get message(): string {
    return `the connection was lost, or could not be made (${this.code}); nothing was kept`
  }
}

/** The connection was lost when a write may have been committed. What it could have changed has been invalidated. */
export class OutcomeUnknown extends Schema.TaggedError<OutcomeUnknown>("cacheme/OutcomeUnknown")(
  "OutcomeUnknown",
  {
    code: Schema.String
  }
) {
  override get message(): string {
    return `the connection was lost while committing (${this.code}): the write may or may not have been kept`
  }
}

/** The statement was cancelled by somebody else, or ran into a timeout of the server's. Nothing of it was kept. */
export class Cancelled extends Schema.TaggedError<Cancelled>("cacheme/Cancelled")("Cancelled", {}) {
  override get message(): string {
    return "the statement was cancelled"
  }
}

/** COMMIT answered ROLLBACK: a statement of the transaction had failed, and its failure had been ignored. */
export class RolledBack extends Schema.TaggedError<RolledBack>("cacheme/RolledBack")("RolledBack", {}) {
  override get message(): string {
    return "the transaction was rolled back instead of committed, because one of its statements had failed"
  }
}

/** It cannot be told which tables a statement writes, so it was not run. */
export class UnknownTables extends Schema.TaggedError<UnknownTables>("cacheme/UnknownTables")(
  "UnknownTables",
  {
    statement: Schema.String
  }
) {
  override get message(): string {
    return (
      `it cannot be told which tables this statement writes: ${this.statement}; ` +
      `name them: Db.mutate(f, { tables: [books] }). It was not run`
    )
  }
}

/** It cannot be told what a query reads in a lookup, whose answer could be stale without anybody noticing. */
export class UnknownReads extends Schema.TaggedError<UnknownReads>("cacheme/UnknownReads")("UnknownReads", {
  statement: Schema.String,
  because: Schema.String
}) {
  override get message(): string {
    return (
      `it cannot be told which tables this query reads (${this.because}): ${this.statement}; ` +
      `name them: Db.query(f, { reads: [books] }); or give all tags of the node by hand, with dependencies: "manual"`
    )
  }
}

/** The database refused the statement for another reason, told by its SQLSTATE. Nothing of it was kept. */
export class StatementFailed extends Schema.TaggedError<StatementFailed>("cacheme/StatementFailed")(
  "StatementFailed",
  { code: Schema.String, detail: Schema.String }
) {
  override get message(): string {
    return `the statement failed (${this.code}): ${this.detail}`
  }
}

const Reason = Schema.Union([
  ConstraintViolation,
  SerializationFailure,
  ConnectionLost,
  OutcomeUnknown,
  Cancelled,
  RolledBack,
  UnknownTables,
  UnknownReads,
  StatementFailed
])

/**
 * The one error of `Db`, told apart by its `reason`.
 *
 * **Example** (A name that is already taken)
 *
 * ```ts
 * import { Db } from "cacheme/drizzle"
 * import { Effect } from "effect"
 * import { pgTable, text } from "drizzle-orm/pg-core"
 *
 * const users = pgTable("users", { name: text().primaryKey() })
 *
 * const register = (name: string) =>
 *   Db.mutate((db) => db.insert(users).values({ name })).pipe(
 *     Effect.as("registered"),
 *     Effect.catchReason("DbError", "ConstraintViolation", ({ constraint }) =>
 *       Effect.succeed(`refused by ${constraint}`)
 *     )
 *   )
 * ```
 */
export class DbError extends Schema.TaggedError<DbError>("cacheme/DbError")("DbError", {
  reason: Reason,
  cause: Schema.optional(Schema.Defect())
}) {
  override get message(): string {
    return this.reason.message
  }
}

/** When a failure happened decides what a lost connection means. */
export type Moment =
  /** Nothing could have been committed: a read, a statement of a transaction, a connection that was not made. */
  | "uncommitted"
  /** A statement on its own, or COMMIT: it may have been done. */
  | "committing"

/** Reads the error of a driver (Drizzle's wrapper, postgres.js or PGlite). */
export const fromDriver = (error: unknown, moment: Moment): DbError => {
  if (error instanceof DbError) return error
  const cause = causeOf(error)
  return new DbError({ reason: reasonOf(cause, moment), cause: error })
}

/** True when the connection that the error came over is of no use any more. */
export const isFatal = (error: unknown): boolean => {
  const { severity, code } = causeOf(error)
  return severity === undefined
    ? typeof code === "string" && lostCodes.test(code)
    : /^(FATAL|PANIC)$/.test(severity)
}

/** True when a statement no longer fitted its tables as it had been prepared, or was gone. Nothing of it was kept. */
export const isStale = (error: DbError): boolean =>
  /^(RevalidateCachedQuery|FetchPreparedStatement)$/.test(causeOf(error.cause).routine ?? "")

/** What the drivers' errors have in common; their names for the rest differ. */
interface DriverError {
  readonly code?: string
  readonly severity?: string
  readonly message?: string
  readonly routine?: string
  readonly constraint_name?: string
  readonly constraint?: string
  readonly table_name?: string
  readonly table?: string
  readonly column_name?: string
  readonly column?: string
}

const causeOf = (error: unknown): DriverError => {
  const cause = (error as { cause?: unknown } | undefined)?.cause ?? error
  return typeof cause === "object" && cause !== null ? cause : { message: String(cause) }
}

/** Errors of sockets and of postgres.js about them. */
const lostCodes = /^(CONNECTION_|CONNECT_TIMEOUT|E[A-Z_]+$)/

/** Nothing was sent: the connection was known to be lost. */
export const goneCode = "CONNECTION_GONE"

/** Errors of a socket that never was a connection, or was known not to be one any more. */
const neverConnected =
  /^(CONNECTION_GONE|CONNECT_TIMEOUT|ECONNREFUSED|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH|57P03|53300|3D000|28...)$/

const constraints = {
  "23505": "unique",
  "23503": "foreign key",
  "23502": "not null",
  "23514": "check",
  "23P01": "exclusion",
  "23001": "restrict"
} as const

const reasonOf = (cause: DriverError, moment: Moment): (typeof Reason)["Type"] => {
  const code = cause.code ?? "unknown"
  if (isFatal(cause)) {
    return moment === "uncommitted" || neverConnected.test(code)
      ? new ConnectionLost({ code })
      : new OutcomeUnknown({ code })
  }
  if (Object.hasOwn(constraints, code)) {
    return new ConstraintViolation({
      kind: constraints[code as keyof typeof constraints],
      constraint: cause.constraint_name ?? cause.constraint,
      table: cause.table_name ?? cause.table,
      column: cause.column_name ?? cause.column
    })
  }
  if (code === "40001" || code === "40P01") return new SerializationFailure({ code })
  if (code === "57014") return new Cancelled()
  return new StatementFailed({ code, detail: cause.message ?? "no message" })
}
