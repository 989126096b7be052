/**
 * What the server says of a table, as far as it decides which rows a write changes: Drizzle's schema does not tell
 * about rules, row-level security, collations, triggers, partitions, or what foreign keys do.
 *
 * An answer is kept for a minute, and forgotten when a statement changes tables or meets a missing table or column.
 */
import { sql } from "drizzle-orm"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { type Connection, rowsOf, settle } from "./Connection.ts"
import { type DbError, fromDriver } from "./DbError.ts"
import { tableName } from "./Model.ts"

/** A table as it is written in a statement. */
export interface TableRef {
  readonly schema: string | undefined
  readonly name: string
}

/** A column, as the server knows it. */
interface ServerColumn {
  readonly type: string
  readonly isReadable: boolean
  /** False when unlike texts can be equal. */
  readonly isDeterministic: boolean
  readonly isGenerated: boolean
}

/** Tables that change when a row of this one is deleted, or when these columns of it are assigned. */
interface Cascade {
  readonly onDelete: boolean
  readonly onUpdate: boolean
  readonly columns: ReadonlyArray<string>
  /** Names of the tables, in tags. */
  readonly tables: ReadonlyArray<string>
}

/** What the server says of a table. */
export interface TableInfo {
  /** Tables whose rows these are too: partitions, and what they are partitions of. */
  readonly relatives: ReadonlyArray<string>
  /** False for views and for tables whose rules or policies make a statement do other than it says. */
  readonly isPlain: boolean
  readonly columns: ReadonlyMap<string, ServerColumn>
  readonly triggers: ReadonlyArray<string>
  readonly cascades: ReadonlyArray<Cascade>
}

/** How long an answer is kept, in milliseconds. */
const keptFor = 60_000

/** What the server says of its tables. */
export class Catalog {
  readonly #known = new Map<string, { readonly info: TableInfo; readonly at: number }>()
  readonly #warned = new Set<string>()

  /** Forgets everything. */
  forget(): void {
    this.#known.clear()
  }

  /** Asks about a table; `undefined` if there is none of this name. */
  describe(connection: Connection, table: TableRef): Effect.Effect<TableInfo | undefined, DbError> {
    return Effect.gen({ self: this }, function* () {
      const name = tableName(table.schema, table.name)
      const now = yield* Clock.currentTimeMillis
      const known = this.#known.get(name)
      if (known !== undefined && now - known.at < keptFor) return known.info
      const regclass = [table.schema, table.name]
        .filter((part) => part !== undefined)
        .map((part) => `"${part.replaceAll('"', '""')}"`)
        .join(".")
      const { exit } = yield* settle(
        () =>
          connection.start((db) =>
            db.execute(sql`${sql.raw(question)} where c.oid = to_regclass(${regclass})`)
          ),
        (effect) => effect
      )
      if (Exit.isFailure(exit))
        return yield* Effect.mapError(exit, (error) => fromDriver(error, "uncommitted"))
      const [row] = rowsOf(exit.value)
      if (row === undefined) return undefined
      const info = read(JSON.parse(String(row["info"])))
      this.#known.set(name, { info, at: now })
      if (info.triggers.length > 0 && !this.#warned.has(name)) {
        this.#warned.add(name)
        yield* Effect.logWarning(
          `cacheme: table "${name}" has triggers (${info.triggers.join(", ")}): what they write to other tables is not ` +
            `invalidated; name these tables: Db.mutate(f, { tables })`
        )
      }
      return info
    })
  }
}

type NameParts = readonly [schema: string, name: string, isVisible: boolean]

interface Answer {
  readonly kind: string
  readonly rls: boolean
  readonly rules: boolean
  readonly relatives: ReadonlyArray<NameParts> | null
  readonly columns: ReadonlyArray<readonly [string, string, boolean, boolean, boolean]>
  readonly triggers: ReadonlyArray<string> | null
  readonly cascades: ReadonlyArray<
    readonly [boolean, boolean, ReadonlyArray<string>, ReadonlyArray<NameParts>]
  > | null
}

const read = (answer: Answer): TableInfo => ({
  relatives: (answer.relatives ?? []).flatMap(namesOf),
  isPlain: (answer.kind === "r" || answer.kind === "p") && !answer.rls && !answer.rules,
  columns: new Map(
    answer.columns.map(([name, type, isReadable, isDeterministic, isGenerated]) => [
      name,
      { type, isReadable, isDeterministic, isGenerated }
    ])
  ),
  triggers: answer.triggers ?? [],
  cascades: (answer.cascades ?? []).map(([onDelete, onUpdate, columns, tables]) => ({
    onDelete,
    onUpdate,
    columns,
    tables: tables.flatMap(namesOf)
  }))
})

/** A table that the search path finds may be declared with its schema, or without. */
const namesOf = ([schema, name, isVisible]: NameParts): ReadonlyArray<string> =>
  isVisible && schema !== "public"
    ? [tableName(schema, name), tableName(undefined, name)]
    : [tableName(schema, name)]

const nameParts = "json_build_array(n.nspname, t.relname, pg_table_is_visible(t.oid))"

const acts = "(k.contype = 'f' and (k.confdeltype in ('c', 'n', 'd') or k.confupdtype in ('c', 'n', 'd')))"

const question = `
select json_build_object(
  'kind', c.relkind,
  'rls', row_security_active(c.oid),
  'rules', exists (select 1 from pg_rewrite w where w.ev_class = c.oid and w.rulename <> '_RETURN'),
  'relatives', (
    with recursive up(oid) as (
      select i.inhparent from pg_inherits i where i.inhrelid = c.oid
      union select i.inhparent from pg_inherits i join up on i.inhrelid = up.oid
    ), down(oid) as (
      select i.inhrelid from pg_inherits i where i.inhparent = c.oid
      union select i.inhrelid from pg_inherits i join down on i.inhparent = down.oid
    )
    select json_agg(${nameParts}) from (select oid from up union select oid from down) r
    join pg_class t on t.oid = r.oid join pg_namespace n on n.oid = t.relnamespace
  ),
  'columns', (
    select coalesce(json_agg(json_build_array(
      a.attname,
      case when y.typtype = 'e' then 'enum' else format_type(a.atttypid, null) end,
      has_column_privilege(c.oid, a.attnum, 'select'),
      coalesce(l.collisdeterministic, true),
      a.attgenerated <> ''
    )), '[]')
    from pg_attribute a join pg_type y on y.oid = a.atttypid left join pg_collation l on l.oid = a.attcollation
    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
  ),
  'triggers', (
    select json_agg(g.tgname order by g.tgname) from pg_trigger g
    where g.tgrelid = c.oid and not g.tgisinternal and g.tgenabled <> 'D'
  ),
  'cascades', (
    with recursive step(root, rel) as (
      select k.oid, k.conrelid from pg_constraint k where k.confrelid = c.oid and ${acts}
      union select s.root, k.conrelid from step s join pg_constraint k on k.confrelid = s.rel and ${acts}
    )
    select json_agg(json_build_array(
      k.confdeltype in ('c', 'n', 'd'),
      k.confupdtype in ('c', 'n', 'd'),
      (select json_agg(a.attname) from pg_attribute a where a.attrelid = c.oid and a.attnum = any(k.confkey)),
      (
        select json_agg(${nameParts}) from step s
        join pg_class t on t.oid = s.rel join pg_namespace n on n.oid = t.relnamespace where s.root = k.oid
      )
    ))
    from pg_constraint k where k.confrelid = c.oid and ${acts}
  )
)::text as info
from pg_class c`
