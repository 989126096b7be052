/**
 * Which tags does a write change?
 *
 * **By row**, where the server can tell: an insert, update or delete of Drizzle's, of a table with a model. Its own
 * RETURNING is extended by what tags need of the old row and the new one (`rowImages.ts` has how), and what was asked for
 * comes back unchanged. More rows than the limit are told by table.
 *
 * **By table** everywhere else: the statement is sent as it is, and `all` and `unknown` of every table found in it are
 * invalidated. So it is where RETURNING would change what the statement does (views, rules, row-level security, columns
 * that may not be read), where equal values have unlike texts, and where no model says what to ask for.
 *
 * What foreign keys and triggers change in other tables is told by table (`effects.ts`).
 */
import { is, type SQLWrapper, sql } from "drizzle-orm"
import type { PgTable } from "drizzle-orm/pg-core"
import { PgRaw } from "drizzle-orm/pg-core/query-builders/raw"
import * as Effect from "effect/Effect"
import { describe } from "../CachemeError.ts"
import {
  aliasOf,
  ask,
  assignedColumns,
  type Builder,
  builderOf,
  columnName,
  columnsOf,
  dialectOf,
  equalColumn,
  refOf,
  runWith,
  type Statement,
  textArray,
  textOf
} from "./builders.ts"
import { cascadesOf, questionsOf, takenAlong } from "./cascades.ts"
import type { Catalog, TableInfo } from "./catalog.ts"
import { type Connection, runNow } from "./Connection.ts"
import { DbError, UnknownTables } from "./DbError.ts"
import { anything, changedColumns, columnsOfUpdate, effectsOf, noTables, type Occurrence } from "./effects.ts"
import * as Model from "./Model.ts"
import { columnObstacle, type Groups, groupsByColumn, type Images, imagesOf, toTell } from "./rowImages.ts"
import { type Event, type TableRef, type TableWrite, writesOf } from "./statementTables.ts"

/** What a statement that has run answers, and the ids that it invalidates. */
export interface Written {
  readonly answer: unknown
  readonly ids: ReadonlyArray<string>
  /** Why the changed rows are told by table, if they are. */
  readonly byTable: string | undefined
}

/** A statement ready to run. */
export interface Plan {
  /** Runs it, `alone` in a transaction of its own if it needs one, or else in the one that is open. */
  readonly run: (where: "alone" | "inside") => PromiseLike<Written>
  /** What it could invalidate at most: for when its outcome is not known. */
  readonly atMost: ReadonlyArray<string>
  /** The tables that it names, as they are called in tags. */
  readonly tables: ReadonlyArray<string>
  /** True when it changes tables themselves. */
  readonly isDefinition: boolean
  /** True when it is more than one statement. */
  readonly needsTransaction: boolean
}

/** How changes are told. */
export interface PlanOptions {
  /** Tables that are written beyond what the statement tells. */
  readonly tables?: ReadonlyArray<PgTable> | undefined
  /** More changed rows than these are told by table. */
  readonly rowLimit: number
}

/** Decides how a statement is run so that its changes can be told. Fails with `UnknownTables` if they cannot be. */
export const plan = (
  catalog: Catalog,
  connection: Connection,
  statement: Statement,
  options: PlanOptions
): Effect.Effect<Plan, DbError> =>
  Effect.gen(function* () {
    const builder = builderOf(statement)
    if (builder === undefined) return yield* planText(catalog, connection, statement, options)
    const ref = refOf(builder.config.table)
    const table = Model.tableName(ref.schema, ref.name)
    const info = yield* catalog.describe(connection, ref)
    // What changes whatever this statement itself changes, and what changes with its rows.
    const always = noTables(connection)
    const besides = noTables(connection)
    const inCommonTables = commonTableWrites(builder)
    for (const written of [...inCommonTables, ...named(options)])
      always.addAll(yield* reachOf(catalog, connection, written, written))
    const changed = info && changedColumns(info, assignedColumns(builder))
    const model = Model.find(table)
    const obstacle = obstacleOf(builder, info, model)
    const cascades =
      info === undefined || obstacle !== undefined
        ? undefined
        : yield* cascadesOf(catalog, connection, builder, info, options.rowLimit)
    if (info !== undefined) {
      const occurrence = { events: eventsOf(builder), assigned: changed }
      // Triggers for a whole statement fire also when no row was changed.
      const those = info.triggers.some(({ writes }) => writes.length > 0) ? always : besides
      those.addAll(yield* effectsOf(catalog, connection, info, occurrence, cascades?.told))
      for (const name of info.relatives) if (name !== table) besides.add(name)
    }
    const groups = changedGroups(builder, model, changed)
    const [beside, alwaysBeside] = [besides.ids, always.ids]
    const atMost = [
      ...new Set([
        ...toTell(groups).flatMap((group) => Model.unknownChangeIds(table, group)),
        ...beside,
        ...alwaysBeside,
        ...(cascades?.tables.ids ?? [])
      ])
    ]
    const images =
      obstacle ??
      ([always, besides, cascades?.tables].some((names) => names?.has(table))
        ? "it, or what it sets off, writes the table once more"
        : imagesOf(builder, connection, info!, model!, changed, groups))
    const byTable = (reason: string, answer: unknown): Written => ({ answer, ids: atMost, byTable: reason })
    const common = { atMost, tables: [table], isDefinition: false }
    if (typeof images === "string") {
      return { ...common, needsTransaction: false, run: async () => byTable(images, await runNow(statement)) }
    }
    const key: Readonly<Record<string, string>> =
      cascades === undefined ? {} : { key: textArray(aliasOf(builder.config.table)!, info!.primaryKey) }
    const additions = {
      ...images.additions,
      fields: { ...images.additions.fields, ...key },
      // A common table expression that writes may only stand at the top.
      atMost:
        isFewRows(builder, options.rowLimit) || inCommonTables.length > 0 ? undefined : options.rowLimit + 1
    }
    return {
      ...common,
      needsTransaction: cascades !== undefined,
      run: async (where) => {
        const isAlone = where === "alone" && cascades !== undefined
        // All are sent in this step, one after the other: they take the time of one. A failure is that of the first that
        // failed; what comes after it does nothing, and COMMIT rolls back.
        const begun = isAlone ? [ask(builder, sql`begin`)] : []
        const questions = (cascades === undefined ? [] : questionsOf(cascades)).map((question) =>
          ask(builder, question)
        )
        const statementItself = runWith(builder, additions)
        const ended = isAlone ? [ask(builder, sql`commit`)] : []
        // Without it the rest is no transaction: what has run, has run.
        const beginning = begun.map((answer) =>
          answer.catch((error: unknown) => {
            throw new Error(`BEGIN failed: ${describe(error)}`)
          })
        )
        await inOrder([...beginning, ...questions, statementItself, ...ended])
        const answers = await Promise.all(questions)
        const { answer, rows, count } = await statementItself
        if (count === 0) return { answer, ids: alwaysBeside, byTable: undefined }
        if (count > options.rowLimit) {
          return byTable(`it changed ${count} rows, which is more than ${options.rowLimit}`, answer)
        }
        const ids = new Set<string>()
        for (const row of rows) {
          if (!addIds(ids, images, model!, row))
            return byTable("a row was changed whose old values were not told", answer)
        }
        const effects = ids.size > 0 ? [...beside, ...alwaysBeside] : alwaysBeside
        const along =
          cascades === undefined
            ? []
            : (takenAlong(
                cascades,
                answers.map((found) => found.map((row) => String(row["__cm"]))),
                rows.map((row) => row["key"]!),
                options.rowLimit
              ) ?? cascades.tables.ids)
        return { answer, ids: [...ids, ...effects, ...along], byTable: undefined }
      }
    }
  })

/** True for what writes: a query is not to. Only raw SQL and common table expressions need to be read for that. */
export const isWrite = (connection: Connection, statement: Statement): boolean => {
  if (builderOf(statement) !== undefined) return true
  const { config } = statement as { readonly config?: { readonly withList?: ReadonlyArray<unknown> } }
  const mayWrite = is(statement, PgRaw) || (config?.withList ?? []).length > 0
  return mayWrite && writesOf(textOf(dialectOf(connection), statement)).tables.length > 0
}

// ------------------------------------------------------------------------------------------------------- by table

/** A statement that only its text tells about: raw SQL. */
const planText = (
  catalog: Catalog,
  connection: Connection,
  statement: Statement,
  options: PlanOptions
): Effect.Effect<Plan, DbError> =>
  Effect.gen(function* () {
    const text = textOf(dialectOf(connection), statement)
    const { tables, isDefinition, truncatesReferences } = writesOf(text)
    const refs = [...tables, ...named(options)]
    if (refs.length === 0 && !isDefinition) {
      return yield* new DbError({ reason: new UnknownTables({ statement: text.slice(0, 200) }) })
    }
    const reached = noTables(connection)
    for (const ref of refs)
      reached.addAll(yield* reachOf(catalog, connection, ref, { ...ref, truncatesReferences }))
    const { ids } = reached
    return {
      run: async () => ({
        answer: await runNow(statement),
        ids,
        byTable: "it is no insert, update or delete of Drizzle's"
      }),
      atMost: ids,
      tables: refs.map(({ schema, name }) => Model.tableName(schema, name)),
      isDefinition,
      needsTransaction: false
    }
  })

/** Waits for all of them, also when one fails, and then fails as the first one did. */
const inOrder = async (all: ReadonlyArray<Promise<unknown>>): Promise<void> => {
  const settled = await Promise.allSettled(all)
  const failed = settled.find((outcome) => outcome.status === "rejected")
  if (failed !== undefined) throw failed.reason
}

/** Tables that the caller names: what happens to them is not told. */
const named = ({ tables = [] }: PlanOptions): ReadonlyArray<TableWrite> =>
  tables.map((table) => ({ ...refOf(table), ...anything }))

/** A table, and all that changes with it. */
const reachOf = (catalog: Catalog, connection: Connection, ref: TableRef, occurrence: Occurrence) =>
  Effect.gen(function* () {
    const info = yield* catalog.describe(connection, ref)
    const tables = noTables(connection)
    const columns = columnsOfUpdate(info, occurrence)
    for (const name of [Model.tableName(ref.schema, ref.name), ...(info?.relatives ?? [])])
      tables.add(name, columns)
    if (info !== undefined) tables.addAll(yield* effectsOf(catalog, connection, info, occurrence))
    return tables
  })

/** The tables that a builder's common table expressions write. */
const commonTableWrites = (builder: Builder): ReadonlyArray<TableWrite> =>
  (builder.config.withList ?? []).flatMap((common) => {
    const { sql } = (common as { readonly _: { readonly sql: SQLWrapper } })._
    return writesOf(builder.dialect.sqlToQuery(sql).sql).tables
  })

const eventsOf = (builder: Builder): ReadonlySet<Event> =>
  new Set(builder.isUpsert ? ["insert", "update"] : [builder.kind])

// --------------------------------------------------------------------------------------------------------- by row

/** The groups of columns that a statement can change. */
const changedGroups = (
  builder: Builder,
  model: Model.ModelDefinition | undefined,
  changed: ReadonlySet<string> | undefined
): Groups => {
  if (model === undefined || builder.kind === "delete") return [undefined]
  if (changed === undefined) return [undefined, ...model.volatile.keys()]
  const groupOf = groupsByColumn(builder.dialect, model)
  const groups = new Set([...changed].map((column) => groupOf.get(column)))
  // A row that comes or goes changes everything.
  return [...(builder.kind === "insert" ? groups.add(undefined) : groups)]
}

/** Why the rows of a write cannot be told, if so. */
const obstacleOf = (
  builder: Builder,
  info: TableInfo | undefined,
  model: Model.ModelDefinition | undefined
): string | undefined => {
  if (model === undefined) return "it has no model here"
  if (info === undefined) return "the server does not know the table"
  if (!info.isPlain) return "it is a view, or has rules or row-level security"
  return columnObstacle(info, model, (column) => columnName(builder.dialect, column))
}

/** True when it cannot change more rows than are told one by one: they need not be counted by the server. */
const isFewRows = (builder: Builder, rowLimit: number): boolean => {
  const { values, select, where } = builder.config
  if (builder.kind === "insert") return select !== true && values.length <= rowLimit
  const column = equalColumn(where)
  return (
    column?.primary === true &&
    columnsOf(builder).has(columnName(builder.dialect, column)) &&
    builder.config.from === undefined
  )
}

/** Adds what one changed row invalidates; false if its old values are not known. */
const addIds = (
  ids: Set<string>,
  images: Images,
  model: Model.ModelDefinition,
  row: Readonly<Record<string, string | null>>
): boolean => {
  const change = images.read(row)
  if (change === undefined) return false
  for (const group of change.groups) {
    for (const image of [change.old, change.now]) {
      if (image !== undefined) for (const id of Model.changedIds(model, image, group)) ids.add(id)
    }
  }
  return true
}
