/**
 * Which other tables does a write change?
 *
 * Foreign keys delete and change the rows that refer to a changed one, triggers and rules write what they like, and who
 * writes to a view writes to the tables behind it; all of these may set off others. None shows in a statement, nor in
 * what it returns, so their tables are followed through the server's catalog and told by table.
 */
import * as Effect from "effect/Effect"
import { dialectOf } from "./builders.ts"
import { ChangedTables } from "./ChangedTables.ts"
import type { Catalog, Named, Reference, TableInfo } from "./catalog.ts"
import type { Connection } from "./Connection.ts"
import type { DbError } from "./DbError.ts"
import * as Model from "./Model.ts"
import type { Event } from "./statementTables.ts"

/** What happens to a table. */
export interface Occurrence {
  readonly events: ReadonlySet<Event>
  /** The columns that an update assigns; `undefined` if it could be any. */
  readonly assigned: ReadonlySet<string> | undefined
  /** True when every table that refers to it is emptied too. */
  readonly truncatesReferences?: boolean
}

/** Anything may happen. */
export const anything: Occurrence = {
  events: new Set(["insert", "update", "delete", "truncate"]),
  assigned: undefined
}

/**
 * The tables that change when something happens to a table, without the table itself, and the tables at the end of foreign
 * keys that are told in another way.
 */
export const effectsOf = (
  catalog: Catalog,
  connection: Connection,
  info: TableInfo,
  occurrence: Occurrence,
  toldElsewhere: ReadonlySet<Reference> = new Set()
): Effect.Effect<ChangedTables, DbError> =>
  Effect.gen(function* () {
    const tables = noTables(connection)
    const visited = new Set<string>()
    const waiting = consequencesOf(info, occurrence, toldElsewhere)
    for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
      const name = Model.tableName(next.table.schema, next.table.name)
      const { events, assigned, truncatesReferences } = next.occurrence
      const reached = yield* catalog.describe(connection, next.table)
      const columns = columnsOfUpdate(reached, next.occurrence)
      for (const known of [name, ...next.names, ...(reached?.relatives ?? [])]) tables.add(known, columns)
      const visit = JSON.stringify([name, [...events], assigned && [...assigned], truncatesReferences])
      if (visited.has(visit)) continue
      visited.add(visit)
      if (reached !== undefined) waiting.push(...consequencesOf(reached, next.occurrence))
    }
    return tables
  })

/** The columns that change, where nothing but some columns does; rows that come and go change everything. */
export const columnsOfUpdate = (
  info: TableInfo | undefined,
  { events, assigned }: Occurrence
): ReadonlySet<string> | undefined =>
  info !== undefined && events.size === 1 && events.has("update") ? changedColumns(info, assigned) : undefined

/** No tables of this database, yet. */
export const noTables = (connection: Connection): ChangedTables => new ChangedTables(dialectOf(connection))

interface Consequence extends Named {
  readonly occurrence: Occurrence
}

/** What follows at once from what happens to a table. */
const consequencesOf = (
  info: TableInfo,
  occurrence: Occurrence,
  except: ReadonlySet<Reference> = new Set()
): Array<Consequence> => {
  const { events, truncatesReferences } = occurrence
  const assigned = changedColumns(info, occurrence.assigned)
  const triggered = info.triggers
    .filter((trigger) => [...trigger.events].some((event) => firing(info, events).has(event)))
    .flatMap(({ writes }) => writes)
    .map((table): Consequence => ({ table, names: [], occurrence: table }))
  const referring = info.references.flatMap((reference): ReadonlyArray<Consequence> => {
    if (except.has(reference)) return []
    const { table, names, columns, referenced, onDelete, onUpdate } = reference
    if (truncatesReferences === true) {
      return [{ table, names, occurrence: { ...anything, truncatesReferences } }]
    }
    const changesKey =
      events.has("update") &&
      onUpdate !== "nothing" &&
      (assigned === undefined || referenced.some((column) => assigned.has(column)))
    const deletes = events.has("delete") && onDelete !== "nothing"
    if (!changesKey && !deletes) return []
    const follows = new Set<Event>()
    if (deletes && onDelete === "cascade") follows.add("delete")
    if (changesKey || onDelete !== "cascade") follows.add("update")
    return [{ table, names, occurrence: { events: follows, assigned: new Set(columns) } }]
  })
  const ruled = info.ruled.map((table): Consequence => ({ ...table, occurrence: anything }))
  return [...triggered, ...ruled, ...referring]
}

/** What triggers are told. An update that moves a row to another partition deletes it here and inserts it there. */
const firing = ({ isPartitioned }: TableInfo, events: ReadonlySet<Event>): ReadonlySet<Event> =>
  isPartitioned && events.has("update") ? new Set([...events, "insert", "delete"]) : events

/** All columns that change when some are assigned; `undefined` if it could be any. */
export const changedColumns = (
  info: TableInfo,
  assigned: ReadonlySet<string> | undefined
): ReadonlySet<string> | undefined => {
  const { columns, triggers } = info
  const fires = firing(info, new Set(["update"]))
  const mayChange = triggers.some(
    ({ changesRow, events }) => changesRow && [...events].some((event) => fires.has(event))
  )
  if (assigned === undefined || mayChange) return undefined
  const generated = [...columns].filter(([, { isGenerated }]) => isGenerated).map(([name]) => name)
  return new Set([...assigned, ...generated])
}
