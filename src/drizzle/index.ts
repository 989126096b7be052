/** Drizzle on Postgres, whose writes tell the cache what they changed. */
export {
  type Answers,
  Db,
  type Database,
  type DatabaseClass,
  type MutateOptions,
  type QueryOptions,
  type Statements,
  type TransactionOptions
} from "./Db.ts"
export {
  Cancelled,
  ConnectionLost,
  ConstraintViolation,
  DbError,
  OutcomeUnknown,
  RolledBack,
  SerializationFailure,
  StatementFailed,
  UnknownReads,
  UnknownTables
} from "./DbError.ts"
export { DbLive } from "./DbLive.ts"
export * as Model from "./Model.ts"
