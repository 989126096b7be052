/**
 * What the server says of a table, as far as it decides which rows a write changes, or what a query reads: Drizzle's
 * schema does not tell about views, rules, row-level security, collations, triggers, partitions, or what foreign keys do.
 * What a trigger writes is read from the text of its function.
 *
 * An answer is kept for a minute, and forgotten when a statement changes tables or meets a missing table or column.
 */
import { type SQL, sql } from "drizzle-orm"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { type Connection, rowsOf, settle } from "./Connection.ts"
import { type DbError, fromDriver } from "./DbError.ts"
import { quoted } from "./builders.ts"
import { tableName } from "./Model.ts"
import { type Event, type TableRef, type TableWrite, writesOf } from "./statementTables.ts"

/** A column, as the server knows it. */
interface ServerColumn {
  readonly type: string
  readonly isReadable: boolean
  /** False when unlike texts can be equal. */
  readonly isDeterministic: boolean
  readonly isGenerated: boolean
}

/** A trigger that is not the server's own. */
interface Trigger {
  readonly name: string
  readonly events: ReadonlySet<Event>
  /** True when it may change the row before it is written. */
  readonly changesRow: boolean
  /** What it, and the functions it may call, write by their text. */
  readonly writes: ReadonlyArray<TableWrite>
  /** True when more cannot be told: it runs text made at run time, or is of a language that is not read. */
  readonly isOpaque: boolean
}

/** What a foreign key does to the rows that refer to a changed one. */
type Action = "nothing" | "cascade" | "set null" | "set default"

/** A foreign key that refers to a table. The table is the one that has the key. */
export interface Reference extends Named {
  readonly columns: ReadonlyArray<string>
  readonly referenced: ReadonlyArray<string>
  readonly onDelete: Action
  readonly onUpdate: Action
  /** The columns that "set null" and "set default" of a delete set. */
  readonly set: ReadonlyArray<string>
}

/** A foreign key of a table that holds for all its rows. */
interface ForeignKey extends Named {
  readonly columns: ReadonlyArray<string>
  readonly referenced: ReadonlyArray<string>
}

/** What the server says of a table. */
export interface TableInfo {
  /** Where it is, with its schema. */
  readonly table: TableRef
  /** What it may be called in tags. */
  readonly names: ReadonlyArray<string>
  /** True for what the server keeps of itself. */
  readonly isSystem: boolean
  /** True for rows that are on another server. */
  readonly isForeign: boolean
  readonly isSequence: boolean
  /** The query of a view, as text. */
  readonly view: string | undefined
  /** True when policies decide which of its rows are seen, whether or not by the role that asks: a view has its owner's. */
  readonly hasRowSecurity: boolean
  /** What these policies let be read, as texts of conditions. */
  readonly policies: ReadonlyArray<string>
  /** Sets of columns of which no two rows have equal values; nulls aside. */
  readonly uniques: ReadonlyArray<ReadonlyArray<string>>
  readonly foreignKeys: ReadonlyArray<ForeignKey>
  /** Tables whose rows these are too: itself, partitions, and what they are partitions of. */
  readonly relatives: ReadonlyArray<string>
  /** False for views and for tables whose rules or policies make a statement do other than it says. */
  readonly isPlain: boolean
  readonly isPartitioned: boolean
  /** True when tables inherit from it that are no partitions: a primary key does not tell their rows apart. */
  readonly hasHeirs: boolean
  /** Whether its rows may be locked. */
  readonly isLockable: boolean
  /** Whether all of a row may be read, with the columns of the system's. */
  readonly isReadable: boolean
  /** In order. */
  readonly columns: ReadonlyMap<string, ServerColumn>
  readonly primaryKey: ReadonlyArray<string>
  readonly triggers: ReadonlyArray<Trigger>
  readonly references: ReadonlyArray<Reference>
  /** Tables that its rules name: those that a view shows, and those that a rule writes instead, or too. */
  readonly ruled: ReadonlyArray<Named>
}

/** A table, and its names in tags. */
export interface Named {
  readonly table: TableRef
  readonly names: ReadonlyArray<string>
}

/** How long an answer is kept, in milliseconds. */
const keptFor = 60_000

/** An answer about a table or the functions of a name, and when it came. */
interface Told<A> {
  readonly info: A
  readonly at: number
}

/** The last answers of a kind, as texts: while the text is the same, so is the object that it was read into. */
class Last<A> {
  readonly #byName = new Map<string, { readonly text: string; readonly info: A }>()

  of(name: string, text: string, read: () => A): A {
    const last = this.#byName.get(name)
    if (last?.text === text) return last.info
    const info = read()
    this.#byName.set(name, { text, info })
    return info
  }
}

/** What the server says of its tables. */
export class Catalog {
  readonly #known = new Map<string, Told<TableInfo | undefined>>()
  readonly #functions = new Map<string, Told<ReadonlyArray<FunctionInfo>>>()
  #lastTables = new Last<TableInfo>()
  #lastFunctions = new Last<ReadonlyArray<FunctionInfo>>()
  #warned = new Set<string>()

  /** One that knows nothing yet: another role may be told otherwise. */
  anew(): Catalog {
    const catalog = new Catalog()
    catalog.#lastTables = this.#lastTables
    catalog.#lastFunctions = this.#lastFunctions
    catalog.#warned = this.#warned
    return catalog
  }

  /** Forgets everything. */
  forget(): void {
    this.#known.clear()
    this.#functions.clear()
  }

  /** What is known of a table without asking; `info` is `undefined` if there is none of this name. */
  peek(table: TableRef, now: number): { readonly info: TableInfo | undefined } | undefined {
    const known = this.#known.get(writtenName(table))
    return known !== undefined && now - known.at < keptFor ? known : undefined
  }

  /** The functions of a name that are known without asking. */
  peekFunctions(name: string, now: number): ReadonlyArray<FunctionInfo> | undefined {
    const known = this.#functions.get(name)
    return known !== undefined && now - known.at < keptFor ? known.info : undefined
  }

  /** Asks about the functions of these names. */
  describeFunctions(connection: Connection, names: ReadonlyArray<string>): Effect.Effect<void, DbError> {
    return Effect.gen({ self: this }, function* () {
      if (names.length === 0) return
      const now = yield* Clock.currentTimeMillis
      const list = sql.join(
        names.map((name) => sql`${name}`),
        sql`, `
      )
      const rows = yield* this.#ask(
        connection,
        sql`select p.proname as name, json_agg(json_build_array(
            n.nspname, p.provolatile, p.proretset, p.prokind, l.lanname in ('c', 'internal'),
            exists (
              select 1 from pg_depend d
              where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
            )
          ) order by p.oid)::text as info
          from pg_proc p join pg_namespace n on n.oid = p.pronamespace join pg_language l on l.oid = p.prolang
          where p.proname in (${list}) group by p.proname`
      )
      const texts = new Map(rows.map((row) => [String(row["name"]), String(row["info"])]))
      for (const name of names) {
        const text = texts.get(name) ?? "[]"
        const info = this.#lastFunctions.of(name, text, () => JSON.parse(text).map(readFunction))
        this.#functions.set(name, { info, at: now })
      }
    })
  }

  #ask(connection: Connection, query: SQL): Effect.Effect<ReadonlyArray<Record<string, unknown>>, DbError> {
    return Effect.flatMap(
      settle(
        () => connection.start((db) => db.execute(query)),
        (effect) => effect
      ),
      ({ exit }) =>
        Exit.isFailure(exit)
          ? Effect.mapError(exit, (error) => fromDriver(error, "uncommitted"))
          : Effect.succeed(rowsOf(exit.value))
    )
  }

  /** What is known of a table, or else asks about it; `undefined` if there is none of this name. */
  describe(connection: Connection, table: TableRef): Effect.Effect<TableInfo | undefined, DbError> {
    return Effect.gen({ self: this }, function* () {
      const now = yield* Clock.currentTimeMillis
      const known = this.peek(table, now)
      if (known !== undefined) return known.info
      yield* this.describeTables(connection, [table])
      return this.#known.get(writtenName(table))?.info
    })
  }

  /** Asks about these tables, whatever is known of them. */
  describeTables(connection: Connection, refs: ReadonlyArray<TableRef>): Effect.Effect<void, DbError> {
    return Effect.gen({ self: this }, function* () {
      if (refs.length === 0) return
      const now = yield* Clock.currentTimeMillis
      const tables = [...new Map(refs.map((ref) => [writtenName(ref), ref])).values()]
      // By its name: a schema that may not be used, which a trigger may write to, would be an error otherwise.
      const places = tables.map(({ schema, name }, i) =>
        schema === undefined
          ? sql`(${sql.raw(String(i))}, to_regclass(${quoted(name)})::oid)`
          : sql`(${sql.raw(String(i))}, (
              select oid from pg_class
              where relname = ${name} and relnamespace = (select oid from pg_namespace where nspname = ${schema})
            ))`
      )
      const rows = yield* this.#ask(
        connection,
        sql`${sql.raw(question)} join (values ${sql.join(places, sql`, `)}) asked(number, oid) on asked.oid = c.oid`
      )
      const texts = new Map(rows.map((row) => [Number(row["number"]), String(row["info"])]))
      for (const [i, table] of tables.entries()) {
        const text = texts.get(i)
        const name = writtenName(table)
        const info =
          text === undefined ? undefined : this.#lastTables.of(name, text, () => read(JSON.parse(text)))
        this.#known.set(name, { info, at: now })
        if (info !== undefined) yield* this.#warn(tableName(table.schema, table.name), info)
      }
    })
  }

  #warn(name: string, { triggers }: TableInfo): Effect.Effect<void> {
    const opaque = triggers.filter(({ isOpaque }) => isOpaque)
    if (opaque.length === 0 || this.#warned.has(name)) return Effect.void
    this.#warned.add(name)
    return Effect.logWarning(
      `cacheme: table "${name}" has triggers whose writes cannot be read from their text ` +
        `(${opaque.map((trigger) => trigger.name).join(", ")}): what they write to other tables is not invalidated; ` +
        `name these tables: Db.mutate(f, { tables })`
    )
  }
}

/** A table as it is written: where another schema comes first, `books` is not the same as `public.books`. */
export const writtenName = ({ schema, name }: TableRef): string => `${schema ?? ""}\0${name}`

/** A function of some name. */
export interface FunctionInfo {
  readonly schema: string
  /** As the server writes it: "i" for one that is immutable, "s" stable, "v" volatile. */
  readonly volatility: string
  /** True when it may answer any number of rows. */
  readonly isSet: boolean
  /** True when it puts many rows together by functions of its own, which its volatility says nothing of. */
  readonly isAggregate: boolean
  /** True when it is no SQL, and no text of another language: compiled. */
  readonly isCompiled: boolean
  readonly isOfExtension: boolean
}

type ServerFunction = readonly [
  schema: string,
  volatility: string,
  isSet: boolean,
  kind: string,
  isCompiled: boolean,
  isOfExtension: boolean
]

const readFunction = ([
  schema,
  volatility,
  isSet,
  kind,
  isCompiled,
  isOfExtension
]: ServerFunction): FunctionInfo => ({
  schema,
  volatility,
  isSet,
  isAggregate: kind === "a",
  isCompiled,
  isOfExtension
})

type NameParts = readonly [schema: string, name: string, isVisible: boolean]

type ServerTrigger = readonly [
  name: string,
  type: number,
  functions: ReadonlyArray<readonly [text: string, isRead: boolean, path: string | null]>
]

interface Answer {
  readonly self: NameParts
  readonly kind: string
  readonly rls: boolean
  readonly secured: boolean
  readonly view: string | null
  readonly policies: ReadonlyArray<string | null> | null
  readonly uniques: ReadonlyArray<ReadonlyArray<string>> | null
  readonly foreignKeys: ReadonlyArray<
    readonly [NameParts, columns: ReadonlyArray<string>, referenced: ReadonlyArray<string>]
  > | null
  readonly rules: boolean
  readonly heirs: boolean
  readonly lockable: boolean
  readonly readable: boolean
  readonly relatives: ReadonlyArray<NameParts> | null
  readonly columns: ReadonlyArray<readonly [string, string, boolean, boolean, boolean]>
  readonly key: ReadonlyArray<string> | null
  readonly triggers: ReadonlyArray<ServerTrigger> | null
  readonly ruled: ReadonlyArray<NameParts> | null
  readonly references: ReadonlyArray<
    readonly [
      NameParts,
      columns: ReadonlyArray<string>,
      referenced: ReadonlyArray<string>,
      onDelete: string,
      onUpdate: string,
      set: ReadonlyArray<string> | null
    ]
  > | null
}

const read = (answer: Answer): TableInfo => ({
  ...named(answer.self),
  isSystem: answer.self[0] === "pg_catalog" || answer.self[0] === "information_schema",
  isForeign: answer.kind === "f",
  isSequence: answer.kind === "S",
  view: answer.view ?? undefined,
  hasRowSecurity: answer.secured,
  policies: (answer.policies ?? []).filter((policy) => policy !== null),
  uniques: answer.uniques ?? [],
  foreignKeys: (answer.foreignKeys ?? []).map(([table, columns, referenced]) => ({
    ...named(table),
    columns,
    referenced
  })),
  relatives: [answer.self, ...(answer.relatives ?? [])].flatMap(namesOf),
  isPlain: (answer.kind === "r" || answer.kind === "p") && !answer.rls && !answer.rules,
  isPartitioned: answer.kind === "p",
  hasHeirs: answer.heirs && answer.kind !== "p",
  isLockable: answer.lockable,
  isReadable: answer.readable,
  columns: new Map(
    answer.columns.map(([name, type, isReadable, isDeterministic, isGenerated]) => [
      name,
      { type, isReadable, isDeterministic, isGenerated }
    ])
  ),
  primaryKey: answer.key ?? [],
  triggers: (answer.triggers ?? []).map(readTrigger),
  references: (answer.references ?? []).map(([table, columns, referenced, onDelete, onUpdate, set]) => ({
    ...named(table),
    columns,
    referenced,
    onDelete: actions[onDelete] ?? "nothing",
    onUpdate: actions[onUpdate] ?? "nothing",
    set: set ?? columns
  })),
  ruled: (answer.ruled ?? []).map(named)
})

const named = (parts: NameParts): Named => ({
  table: { schema: parts[0], name: parts[1] },
  names: namesOf(parts)
})

const actions: Readonly<Record<string, Action>> = { c: "cascade", n: "set null", d: "set default" }

/** The bits of a trigger's type, as the server keeps them. */
const bits = { row: 1, before: 2, insert: 4, delete: 8, update: 16, truncate: 32 } as const

const readTrigger = ([name, type, functions]: ServerTrigger): Trigger => ({
  name,
  events: new Set(
    (["insert", "update", "delete", "truncate"] as const).filter((event) => (type & bits[event]) !== 0)
  ),
  changesRow: (type & bits.before) !== 0 && (type & bits.row) !== 0,
  writes: functions.flatMap(([text, isRead, path]) =>
    isRead ? writesOf(text).tables.flatMap((table) => placesOf(table, path)) : []
  ),
  isOpaque: functions.some(([text, isRead]) => !isRead || /\bexecute\b/i.test(text))
})

/** A table without a schema is in one of those that the function looks in. */
const placesOf = (table: TableWrite, path: string | null): ReadonlyArray<TableWrite> => {
  if (table.schema !== undefined || path === null) return [table]
  const schemas = path.split(",").map((schema) => schema.trim().replace(/^"(.*)"$/, "$1"))
  return [table, ...schemas.filter((schema) => schema !== "").map((schema) => ({ ...table, schema }))]
}

/** A table that the search path finds may be declared with its schema, or without. */
const namesOf = ([schema, name, isVisible]: NameParts): ReadonlyArray<string> =>
  isVisible && schema !== "public"
    ? [tableName(schema, name), tableName(undefined, name)]
    : [tableName(schema, name)]

const nameParts = "json_build_array(n.nspname, t.relname, pg_table_is_visible(t.oid))"

/** A part of a table does what is declared for the part, and for the whole. */
const parts = `
  with recursive part(oid) as (
    select c.oid
    union select i.inhrelid from pg_inherits i join part on i.inhparent = part.oid
  )`

const columnNames = (table: string, numbers: string) => `(
  select json_agg(a.attname order by p.i) from unnest(${numbers}) with ordinality p(attnum, i)
  join pg_attribute a on a.attrelid = ${table} and a.attnum = p.attnum
)`

/**
 * The text of a trigger's function, and of each function of the database's own whose name occurs in it, and where each
 * looks for tables. Functions that come with the server change the row at most.
 */
const triggerText = `(
  with recursive called(oid, text) as (
    select f.oid, coalesce(pg_get_function_sqlbody(f.oid), f.prosrc) from pg_proc f where f.oid = g.tgfoid
    union
    select f.oid, coalesce(pg_get_function_sqlbody(f.oid), f.prosrc) from called join pg_proc f
    on f.prokind in ('f', 'p') and f.pronamespace not in ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
    and strpos(lower(called.text), lower(f.proname)) > 0
  )
  select json_build_array(g.tgname, g.tgtype, json_agg(json_build_array(
    called.text,
    l.lanname in ('plpgsql', 'sql') or f.pronamespace = 'pg_catalog'::regnamespace,
    (select substr(s, 13) from unnest(f.proconfig) s where s like 'search_path=%')
  )))
  from called join pg_proc f on f.oid = called.oid join pg_language l on l.oid = f.prolang
)`

const question = `
select asked.number, json_build_object(
  'self', (
    select ${nameParts} from pg_class t join pg_namespace n on n.oid = t.relnamespace where t.oid = c.oid
  ),
  'kind', c.relkind,
  'view', case when c.relkind = 'v' then pg_get_viewdef(c.oid) end,
  'policies', (
    select json_agg(pg_get_expr(p.polqual, p.polrelid)) from pg_policy p
    where p.polrelid = c.oid and p.polcmd in ('r', '*') and c.relrowsecurity
  ),
  'uniques', (
    select json_agg(${columnNames("c.oid", "x.indkey::smallint[]")}) from pg_index x
    where x.indrelid = c.oid and x.indisunique and x.indisvalid and x.indpred is null and x.indexprs is null
      and x.indnkeyatts = x.indnatts
  ),
  'foreignKeys', (
    select json_agg(json_build_array(
      ${nameParts}, ${columnNames("k.conrelid", "k.conkey")}, ${columnNames("k.confrelid", "k.confkey")}
    ))
    from pg_constraint k join pg_class t on t.oid = k.confrelid join pg_namespace n on n.oid = t.relnamespace
    where k.contype = 'f' and k.conrelid = c.oid and k.convalidated
      -- Columns of Postgres 18: a key over periods of time, and one that nothing is held to.
      and coalesce(to_jsonb(k) ->> 'conperiod', 'false') = 'false'
      and coalesce(to_jsonb(k) ->> 'conenforced', 'true') = 'true'
  ),
  'rls', row_security_active(c.oid),
  'secured', c.relrowsecurity,
  'rules', exists (select 1 from pg_rewrite w where w.ev_class = c.oid and w.rulename <> '_RETURN'),
  'heirs', exists (select 1 from pg_inherits i where i.inhparent = c.oid),
  'lockable', has_any_column_privilege(c.oid, 'update') and has_schema_privilege(c.relnamespace, 'usage'),
  'readable', has_table_privilege(c.oid, 'select'),
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
    ) order by a.attnum), '[]')
    from pg_attribute a join pg_type y on y.oid = a.atttypid left join pg_collation l on l.oid = a.attcollation
    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
  ),
  'key', (
    select ${columnNames("c.oid", "x.indkey::smallint[]")}
    from pg_index x where x.indrelid = c.oid and x.indisprimary
  ),
  'triggers', (
    ${parts}
    select json_agg(${triggerText} order by g.tgname) from pg_trigger g
    where g.tgrelid in (select oid from part) and not g.tgisinternal and g.tgenabled <> 'D'
  ),
  'ruled', (
    select json_agg(${nameParts}) from (
      select distinct d.refobjid as oid from pg_rewrite w join pg_depend d
      on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid and d.refclassid = 'pg_class'::regclass
      where w.ev_class = c.oid and d.refobjid <> c.oid
    ) r
    join pg_class t on t.oid = r.oid and t.relkind in ('r', 'p', 'v', 'm', 'f') join pg_namespace n on n.oid = t.relnamespace
  ),
  'references', (
    ${parts}
    select json_agg(json_build_array(
      ${nameParts}, ${columnNames("k.conrelid", "k.conkey")}, ${columnNames("k.confrelid", "k.confkey")},
      k.confdeltype, k.confupdtype, ${columnNames("k.conrelid", "k.confdelsetcols")}
    ))
    from pg_constraint k join pg_class t on t.oid = k.conrelid join pg_namespace n on n.oid = t.relnamespace
    where k.contype = 'f' and k.confrelid in (select oid from part)
  )
)::text as info
from pg_class c`
