/**
 * Queries by chance. A number is a query: the same number is the same one on every database and in every state of it, so
 * a query can be asked again and again. All forms in which Drizzle reads are drawn, with values from so few that answers
 * change often.
 *
 * A query is made of draws, of which the number is the seed; a list of draws is a query too, which is how one that goes
 * wrong is made smaller: the lower a draw, the simpler what it stands for.
 */
import {
  and,
  asc,
  between,
  count,
  countDistinct,
  desc,
  eq,
  exists,
  gt,
  gte,
  inArray,
  isNotNull,
  isNull,
  like,
  lt,
  ne,
  not,
  notExists,
  notInArray,
  or,
  type SQL,
  sql,
  sum
} from "drizzle-orm"
import {
  alias,
  except,
  exceptAll,
  getTableConfig,
  intersect,
  intersectAll,
  type PgColumn,
  type PgTable,
  union,
  unionAll
} from "drizzle-orm/pg-core"
import { rowsOf } from "../../../src/drizzle/Connection.ts"
import type { AnyDatabase } from "../../../src/drizzle/Connection.ts"
import type { Statement } from "../../../src/drizzle/builders.ts"
import { type Chance, makeChance } from "../../checker/chance.ts"
import { columnsOf, keyOf, orderOf } from "./copy.ts"
import { callingQueries, rawQueries } from "./rawQueries.ts"
import { isOne, related } from "./relations.ts"
import * as schema from "./schema.ts"
import { type Draw, oneOf, orNull, type Subject, subjects, upTo } from "./statements.ts"

/** A query: the seed of its draws, or the draws. */
export type Query = number | ReadonlyArray<number>

/** A query that can be asked. */
export interface Built {
  /** What is read by which means. */
  readonly form: string
  readonly statement: Statement<any>
  /** True if its answer comes in one order only. */
  readonly isOrdered: boolean
  /** Values for its placeholders. */
  readonly values?: Readonly<Record<string, unknown>> | undefined
  /** Tables that are read beyond what it tells. */
  readonly reads?: ReadonlyArray<PgTable> | undefined
  readonly draws: ReadonlyArray<number>
}

/** Builds a query on a database; one form of all, if it is said which. */
export const build = (query: Query, db: AnyDatabase, only: ReadonlyArray<string> = []): Built => {
  called = 0
  const draws: Array<number> = []
  const chance = recorded(query, draws)
  const names = Object.keys(forms).filter((name) => only.length === 0 || only.includes(name))
  const form = chance.of(names)
  const { statement, isOrdered = false, values, reads } = forms[form]!(chance, db)
  return { form, statement, isOrdered, values, reads, draws }
}

const recorded = (query: Query, draws: Array<number>): Chance => {
  const { below } = makeChance(Math.imul(typeof query === "number" ? query : 0, 0x9e3779b1) + 7)
  const draw = (limit: number): number => {
    const drawn = typeof query === "number" ? below(limit) : (query[draws.length] ?? 0) % limit
    draws.push(drawn)
    return drawn
  }
  return { below: draw, of: (these) => these[draw(these.length)]! }
}

/** An answer as a text that is the same for the same answer. */
export const textOfAnswer = ({ isOrdered }: Pick<Built, "isOrdered">, answer: unknown): string => {
  const rows = isRawAnswer(answer) ? rowsOf(answer) : answer
  return JSON.stringify(isOrdered ? rows : sorted(rows))
}

const isRawAnswer = (answer: unknown): boolean =>
  typeof answer === "object" && answer !== null && "rows" in answer && "fields" in answer

const sorted = (value: unknown): unknown => {
  if (Array.isArray(value)) {
    const texts = value.map((item) => [JSON.stringify(sorted(item)), item] as const)
    return texts.toSorted(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)).map(([, item]) => sorted(item))
  }
  if (typeof value !== "object" || value === null || Object.getPrototypeOf(value) !== Object.prototype)
    return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, sorted(item)]))
}

type Column = PgColumn<any>

// ------------------------------------------------------------------------------------------------------- the tables

/** A table that is read, and the values that its columns are compared with. */
interface Place {
  readonly name: string
  readonly table: any
  readonly values: Readonly<Record<string, Draw>>
  /** Lists of columns by which rows are told apart. */
  readonly keys: ReadonlyArray<ReadonlyArray<string>>
}

/** Columns that are not assigned, and other spellings of equal values. */
const others: Readonly<Record<string, Readonly<Record<string, Draw>>>> = {
  films: {
    slug: oneOf("emma", "clueless", "alien", "Alien"),
    doubled: oneOf(0, 2, 4, 6)
  },
  actors: { initial: orNull(oneOf("A", "B", "C")) },
  inventory: { worn: oneOf(false, true) },
  "archive.reviews": { place: upTo(3) },
  customers: {
    discount: orNull(oneOf("1.5", "1.50", "01.500", "0.0", "10")),
    card: orNull(oneOf("ab", "ab  ", "ab ", "c")),
    token: orNull(oneOf(schema.token, schema.token.toUpperCase(), `{${schema.token}}`))
  }
}

const declaredKeys: Readonly<Record<string, ReadonlyArray<ReadonlyArray<string>>>> = {
  languages: [["name"]],
  categories: [["parentId"]],
  films: [
    ["languageId"],
    ["code"],
    ["originalLanguageId"],
    ["rating"],
    ["rate"],
    ["slug"],
    ["doubled"],
    ["languageId", "rating"]
  ],
  actors: [["initial"]],
  film_actor: [["filmId"], ["actorId"]],
  film_category: [["filmId"], ["categoryId"]],
  film_sequel: [["filmId"], ["sequelId"]],
  stores: [["managerId"]],
  staff: [["storeId"], ["reportsTo"]],
  customers: [["storeId"], ["email"], ["active"], ["discount"], ["card"], ["token"]],
  inventory: [["storeId"], ["filmId"], ["worn"]],
  holds: [["storeId", "copy"], ["customerId"]],
  rentals: [["storeId", "copy"], ["customerId"], ["staffId"]],
  payments: [["rentalId"], ["customerId"], ["month"]],
  payments_late: [["rentalId"], ["customerId"], ["month"]],
  "archive.reviews": [["filmId"], ["customerId"], ["place"]],
  audit: [["customerId"]]
}

const placeOf = ({ name, table, values }: Subject): Place => {
  const primary = keyOf(table)
  return {
    name,
    table,
    values: { ...values, ...others[name] },
    keys: [...(primary.length === 0 ? [] : [primary]), ...(declaredKeys[name] ?? [])]
  }
}

const places: ReadonlyArray<Place> = [...new Set(subjects)].map(placeOf)
const byName = new Map(places.map((place) => [place.name, place]))
const placeNamed = (name: string): Place => byName.get(name)!

/** Which columns of a table refer to which of another one. */
type Edge = readonly [from: string, to: string, on: Readonly<Record<string, string>>]

const foreignKeys: ReadonlyArray<Edge> = [
  ["films", "languages", { languageId: "id" }],
  ["films", "languages", { originalLanguageId: "id" }],
  ["film_actor", "films", { filmId: "id" }],
  ["film_actor", "actors", { actorId: "id" }],
  ["film_category", "films", { filmId: "id" }],
  ["film_category", "categories", { categoryId: "id" }],
  ["film_sequel", "films", { filmId: "id" }],
  ["film_sequel", "films", { sequelId: "id" }],
  ["categories", "categories", { parentId: "id" }],
  ["inventory", "stores", { storeId: "id" }],
  ["inventory", "films", { filmId: "id" }],
  ["staff", "stores", { storeId: "id" }],
  ["staff", "staff", { reportsTo: "id" }],
  ["stores", "staff", { managerId: "id" }],
  ["customers", "stores", { storeId: "id" }],
  ["holds", "inventory", { storeId: "storeId", copy: "copy" }],
  ["holds", "customers", { customerId: "id" }],
  ["rentals", "inventory", { storeId: "storeId", copy: "copy" }],
  ["rentals", "customers", { customerId: "id" }],
  ["rentals", "staff", { staffId: "id" }],
  ["payments", "rentals", { rentalId: "id" }],
  ["payments", "customers", { customerId: "id" }],
  ["payments_late", "rentals", { rentalId: "id" }],
  ["archive.reviews", "films", { filmId: "id" }],
  ["archive.reviews", "customers", { customerId: "id" }],
  ["notes", "films", { filmId: "id" }],
  // No constraint keeps these.
  ["audit", "customers", { customerId: "id" }],
  ["open_films", "languages", { languageId: "id" }],
  ["inventory", "open_films", { filmId: "id" }],
  ["teams", "stores", { storeId: "id" }],
  ["film_actor", "film_actor", { filmId: "filmId" }],
  ["films", "films", { rate: "rate" }]
]

const reversed = (on: Readonly<Record<string, string>>): Readonly<Record<string, string>> =>
  Object.fromEntries(Object.entries(on).map(([own, other]) => [other, own]))

/** From each table to each that refers to it, or that it refers to. */
const edges: ReadonlyArray<Edge> = [
  ...foreignKeys,
  ...foreignKeys.map(([from, to, on]): Edge => [to, from, reversed(on)])
]
const edgesOf = (name: string): ReadonlyArray<Edge> => edges.filter(([from]) => from === name)

// ------------------------------------------------------------------------------------------------------------ scopes

/** A table as it is called in a query. */
interface Named extends Place {
  readonly as: any
}

/** What can be named at one level of a query. */
type Scope = ReadonlyArray<Named>

let called = 0

const named = (chance: Chance, place: Place, taken: Scope): Named => {
  const isTaken = taken.some(({ name }) => name === place.name)
  const as = isTaken || chance.below(4) === 3 ? alias(place.table as PgTable, `x${called++}`) : place.table
  return { ...place, as }
}

/** Always by another name than the real one. */
const aliased = (place: Place): Named => ({ ...place, as: alias(place.table as PgTable, `x${called++}`) })

const propertiesOf = ({ table }: Place): ReadonlyArray<string> =>
  columnsOf(table).map(([property]) => property)

const someValue = (chance: Chance, { values }: Place, property: string): unknown => {
  const value = values[property]!(chance)
  return value === null ? values[property]!(chance) : value
}

const typeOf = (column: { readonly getSQLType: () => string }): string => column.getSQLType()
const isInteger = (column: Column): boolean =>
  typeOf(column) === "integer" && column.columnType !== "PgCustomColumn"
const isText = (column: Column): boolean => typeOf(column) === "text"

// -------------------------------------------------------------------------------------------------------- conditions

const literal = (column: Column, value: unknown): SQL => {
  const sent = column.mapToDriverValue(value)
  return sql.raw(typeof sent === "string" ? `'${sent}'` : String(sent))
}

/** That a column has a value, in one of the ways in which it can be said. */
const equals = (chance: Chance, column: Column, value: unknown, other: () => unknown): SQL => {
  if (value === null) return isNull(column)
  const param = (value: unknown) => sql.param(value, column)
  switch (chance.below(14)) {
    case 5:
      return sql`${param(value)} = ${column}`
    case 6:
    case 7:
      return inArray(column, [value, ...[other(), other()].filter((value) => value !== null)])
    case 8: {
      const second = other()
      return sql`${column} in (${param(value)}, ${param(second === null ? value : second)})`
    }
    case 9:
      return sql`${column} = ${literal(column, value)}`
    case 10:
      return isInteger(column)
        ? sql`${column} = any(array[${param(value)}, ${param(other())}]::int[])`
        : eq(column, value)
    case 11:
      return typeof value === "number" ? sql`${column} = ${`${value}`}::int` : eq(column, value)
    case 12:
      return sql`${column} is not distinct from ${param(value)}`
    case 13:
      return typeof value === "number" ? sql`${column}::text = ${`${value}`}` : eq(column, value)
    default:
      return eq(column, value)
  }
}

/** That a key has certain values; of a key of several columns, seldom that only some have. */
const pin = (chance: Chance, place: Named): SQL => {
  const kind = chance.below(8)
  const columns =
    place.keys.length === 0 || kind === 7
      ? [chance.of(Object.keys(place.values))]
      : kind < 4
        ? place.keys[0]!
        : chance.of(place.keys)
  const some = columns.length > 1 && chance.below(6) === 5 ? columns.slice(0, 1) : columns
  const drawn = some.map((property) => [property, place.values[property]!(chance)] as const)
  if (some.length === 2 && drawn.every(([, value]) => value !== null) && chance.below(6) === 5) {
    const row = sql.join(
      drawn.map(([property]) => sql`${place.as[property]}`),
      sql`, `
    )
    const list = () =>
      sql.join(
        drawn.map(([property, value]) =>
          sql.param(someValue(chance, place, property) ?? value, place.as[property])
        ),
        sql`, `
      )
    return chance.below(2) === 0 ? sql`(${row}) = (${list()})` : sql`(${row}) in ((${list()}), (${list()}))`
  }
  return and(
    ...drawn.map(([property, value]) =>
      equals(chance, place.as[property], value, () => someValue(chance, place, property))
    )
  )!
}

/** A condition that no key decides. */
const loose = (chance: Chance, place: Named): SQL => {
  const property = chance.of(Object.keys(place.values))
  const column: Column = place.as[property]
  const [a, b] = [someValue(chance, place, property), someValue(chance, place, property)]
  switch (chance.below(11)) {
    case 0:
      return isNotNull(column)
    case 1:
      return a === null ? isNull(column) : ne(column, a)
    case 2:
      return typeof a === "number" ? gt(column, a) : isNotNull(column)
    case 3:
      return typeof a === "number" ? lt(column, a) : isNull(column)
    case 4:
      return typeof a === "number" && typeof b === "number"
        ? between(column, Math.min(a, b), Math.max(a, b))
        : isNull(column)
    case 5:
      return isText(column) ? like(column, `${String(a).slice(0, 1)}%`) : isNotNull(column)
    case 6:
      return a === null ? isNotNull(column) : not(eq(column, a))
    case 7:
      return isInteger(column) ? sql`${column} + 1 > ${a}` : isNull(column)
    case 8:
      return isText(column) ? sql`lower(${column}) = ${String(a).toLowerCase()}` : isNotNull(column)
    case 9:
      return a === null ? isNotNull(column) : notInArray(column, [a])
    default:
      return sql`coalesce(${column}::text, '') <> ${String(a)}`
  }
}

const condition = (chance: Chance, db: AnyDatabase, scope: Scope, depth = 2): SQL => {
  const place = chance.of(scope)
  const again = () => condition(chance, db, scope, depth - 1)
  const kind = chance.below(depth > 0 ? 24 : 8)
  switch (kind) {
    case 6:
    case 7:
      return loose(chance, place)
    case 8:
    case 9:
    case 10:
      return and(again(), again())!
    case 11:
    case 12:
      return or(pin(chance, place), pin(chance, chance.of(scope)))!
    case 13:
      return or(again(), again())!
    case 14:
      return and(sql`${loose(chance, place)} or ${loose(chance, chance.of(scope))}`, pin(chance, place))!
    case 15:
      return not(again())
    case 16:
      return exists(subquery(chance, db, scope, depth - 1).query)
    case 17:
      return notExists(subquery(chance, db, scope, depth - 1).query)
    case 18:
    case 19: {
      const { outer, query } = subquery(chance, db, scope, depth - 1, false)
      if (outer === undefined) return again()
      return kind === 18 || chance.below(3) > 0 ? inArray(outer, query) : notInArray(outer, query)
    }
    case 20: {
      const property = chance.of(Object.keys(place.values))
      const none = inArray(place.as[property], [])
      return chance.below(2) === 0 ? none : or(none, pin(chance, place))!
    }
    case 21:
      return isNull(place.as[chance.of(propertiesOf(place))])
    case 22: {
      const other = chance.of(scope)
      const column: Column = place.as[chance.of(Object.keys(place.values))]
      const fitting = columnsOf(other.as).filter(([, candidate]) => typeOf(candidate) === typeOf(column))
      return fitting.length === 0 ? again() : eq(column, chance.of(fitting)[1])
    }
    case 23: {
      const { query } = subquery(chance, db, scope, depth - 1)
      return sql`(select count(*) from ${query.as(`n${called++}`)}) >= ${chance.below(3)}`
    }
    default:
      return pin(chance, place)
  }
}

/** A query inside another one, of a table that is related to one of that. */
const subquery = (chance: Chance, db: AnyDatabase, scope: Scope, depth: number, mayCorrelate = true) => {
  const from = chance.of(scope)
  const fitting = edgesOf(from.name)
  if (fitting.length === 0) {
    const inner = aliased(placeNamed("films"))
    return {
      outer: undefined,
      query: db.select({ one: inner.as.id }).from(inner.as).where(pin(chance, inner)) as any
    }
  }
  const [, to, on] = chance.of(fitting)
  const inner = chance.below(3) === 0 ? named(chance, placeNamed(to), scope) : aliased(placeNamed(to))
  const [own, other] = Object.entries(on)[0]!
  const linked = and(...Object.entries(on).map(([own, other]) => eq(inner.as[other], from.as[own])))
  const where =
    chance.below(4) === 3
      ? condition(chance, db, mayCorrelate ? [inner, inner, ...scope] : [inner], Math.min(depth, 1))
      : pin(chance, inner)
  const isLinked = mayCorrelate ? chance.below(4) < 3 : chance.below(6) === 5
  const isFiltered = chance.below(4) < 3
  return {
    outer: from.as[own] as Column,
    query: db
      .select({ value: inner.as[other] })
      .from(inner.as)
      .where(and(isLinked ? linked : undefined, isFiltered || !isLinked ? where : undefined)) as any
  }
}

// ------------------------------------------------------------------------------------------------------------- joins

const joins = ["leftJoin", "innerJoin", "rightJoin", "fullJoin"] as const

interface Join {
  readonly how: (typeof joins)[number] | "crossJoin"
  readonly place: Named
  readonly on: SQL | undefined
}

/** Tables that are joined along their references. */
interface Source {
  readonly scope: Scope
  readonly from: Named
  readonly joins: ReadonlyArray<Join>
}

const often = ["films", "film_actor", "rentals", "inventory", "customers", "payments", "staff", "categories"]

const somePlace = (chance: Chance): Place =>
  chance.below(3) === 0 ? chance.of(places) : placeNamed(chance.of(often))

const onEdge = (place: Named, from: Named, on: Edge[2]): SQL =>
  and(...Object.entries(on).map(([own, other]) => eq(place.as[other], from.as[own])))!

const source = (
  chance: Chance,
  db: AnyDatabase,
  { size, how = joins, first }: { size: number; how?: ReadonlyArray<Join["how"]>; first?: Place }
): Source => {
  const from = named(chance, first ?? somePlace(chance), [])
  const scope = [from]
  const joined: Array<Join> = []
  while (joined.length < size - 1) {
    const base = chance.of(scope)
    const fitting = edgesOf(base.name)
    if (fitting.length === 0) break
    const [, to, on] = chance.of(fitting)
    const place = named(chance, placeNamed(to), scope)
    const kind = chance.of(how)
    const linked = onEdge(place, base, on)
    const both = [place, ...scope]
    const extra = chance.below(12)
    const on_ =
      extra < 7
        ? linked
        : extra === 7
          ? and(linked, pin(chance, place))
          : extra === 8
            ? and(linked, pin(chance, base))
            : extra === 9
              ? and(linked, loose(chance, chance.of(both)))
              : extra === 10
                ? and(pin(chance, place), pin(chance, base))
                : and(linked, condition(chance, db, both, 1))
    // Postgres joins in full only where both sides can be merged or hashed.
    joined.push({ how: kind, place, on: kind === "fullJoin" ? linked : on_ })
    scope.push(place)
  }
  return { scope, from, joins: joined }
}

const withJoin = (builder: any, how: Join["how"], table: unknown, on: SQL | undefined): any =>
  builder[how](table, on)

const joinedTo = (builder: any, joins: ReadonlyArray<Join>): any =>
  joins.reduce(
    (builder, { how, place, on }) =>
      how === "crossJoin" ? builder.crossJoin(place.as) : builder[how](place.as, on),
    builder
  )

// -------------------------------------------------------------------------------------------------------- selections

const someColumn = (chance: Chance, scope: Scope): Column => {
  const place = chance.of(scope)
  return place.as[chance.of(propertiesOf(place))]
}

/** What is selected; all columns if it is not said. */
const selection = (chance: Chance, db: AnyDatabase, scope: Scope): Record<string, any> | undefined => {
  const kind = chance.below(10)
  if (kind < 2) return undefined
  if (kind < 7) {
    const list = Array.from({ length: 1 + chance.below(4) }, () => someColumn(chance, scope))
    return Object.fromEntries(list.map((column, i) => [`c${i}`, column]))
  }
  if (kind === 7) return Object.fromEntries(scope.map((place, i) => [`t${i}`, place.as]))
  const column = someColumn(chance, scope)
  if (kind === 8) {
    const { query } = subquery(chance, db, scope, 1)
    return {
      c0: column,
      n: sql`(select count(*)::int from ${query.as(`n${called++}`)})`,
      e: sql`exists ${subquery(chance, db, scope, 1).query}`
    }
  }
  // By the keys of what is joined: what is shown tells which rows were met.
  return Object.fromEntries(
    scope.flatMap(({ as, keys }, i) => (keys[0] ?? []).map((property) => [`k${i}${property}`, as[property]]))
  )
}

const select = (db: AnyDatabase, fields: Record<string, any> | undefined): any =>
  fields === undefined ? db.select() : db.select(fields)

/** Columns by whose order there is one only. */
const totalOrder = (scope: Scope): ReadonlyArray<SQL> =>
  scope.flatMap(({ as, table }) => orderOf(table).map(({ name }) => asc(columnNamed(as, name))))

const columnNamed = (as: PgTable, name: string): Column =>
  columnsOf(as).find(([, column]) => column.name === name)![1] as Column

const order = (chance: Chance, scope: Scope): ReadonlyArray<SQL> => {
  const column = someColumn(chance, scope)
  return [chance.below(2) === 0 ? asc(column) : desc(column), ...totalOrder(scope)]
}

/** The end of a select: in no order, in one, or only a part of what there is. */
const ended = (chance: Chance, builder: any, scope: Scope): Drawn => {
  const kind = chance.below(6)
  if (kind < 3) return { statement: builder }
  const ordered = builder.orderBy(...order(chance, scope))
  if (kind === 3) return { statement: ordered, isOrdered: true }
  const limited = ordered.limit(1 + chance.below(3))
  return { statement: kind === 4 ? limited : limited.offset(1), isOrdered: true }
}

// ------------------------------------------------------------------------------------------------------------- forms

interface Drawn {
  readonly statement: Statement<any>
  readonly isOrdered?: boolean
  readonly values?: Readonly<Record<string, unknown>>
  readonly reads?: ReadonlyArray<PgTable>
}

type Form = (chance: Chance, db: AnyDatabase) => Drawn

const selected = (
  chance: Chance,
  db: AnyDatabase,
  { scope, from, joins }: Source,
  where: SQL | undefined
): Drawn =>
  ended(chance, joinedTo(select(db, selection(chance, db, scope)).from(from.as), joins).where(where), scope)

/** A select of one table, by one condition. */
const single =
  (where: (chance: Chance, db: AnyDatabase, place: Named) => SQL | undefined): Form =>
  (chance, db) => {
    const made = source(chance, db, { size: 1 })
    return selected(chance, db, made, where(chance, db, made.from))
  }

/** Tables joined in some ways, by a condition on any. */
const joinedBy =
  (how: ReadonlyArray<Join["how"]>, size = 2): Form =>
  (chance, db) => {
    const made = source(chance, db, { size, how })
    const kind = chance.below(8)
    const where =
      kind < 4
        ? pin(chance, made.from)
        : kind === 4
          ? and(pin(chance, made.from), loose(chance, chance.of(made.scope)))
          : kind < 7
            ? condition(chance, db, made.scope)
            : undefined
    return selected(chance, db, made, where)
  }

/** Joins whose own condition says more than how rows belong together, and of which little is asked outside. */
const byOn: Form = (chance, db) => {
  const from = named(chance, somePlace(chance), [])
  const scope = [from]
  const joined: Array<Join> = []
  const size = 1 + chance.below(2)
  while (joined.length < size) {
    const base = chance.of(scope)
    const fitting = edgesOf(base.name)
    if (fitting.length === 0) break
    const [, to, on] = chance.of(fitting)
    const place = named(chance, placeNamed(to), scope)
    const linked = onEdge(place, base, on)
    const kind = chance.below(6)
    const all =
      kind < 2
        ? and(linked, pin(chance, place))
        : kind === 2
          ? and(linked, pin(chance, base))
          : kind === 3
            ? and(linked, or(pin(chance, place), pin(chance, base)))
            : kind === 4
              ? and(linked, or(pin(chance, place), pin(chance, place)))
              : and(linked, pin(chance, place), pin(chance, base))
    joined.push({ how: chance.of(joins), place, on: all })
    scope.push(place)
  }
  const kind = chance.below(8)
  const where =
    kind < 4
      ? undefined
      : kind < 6
        ? pin(chance, chance.of(scope))
        : kind === 6
          ? loose(chance, from)
          : isNull(from.as[chance.of(propertiesOf(from))])
  return selected(chance, db, { scope, from, joins: joined }, where)
}

/** One table joined to itself along its references. */
const selfJoin: Form = (chance, db) => {
  const [name, on] = chance.of<readonly [string, Edge[2]]>([
    ["categories", { parentId: "id" }],
    ["categories", { id: "parentId" }],
    ["staff", { reportsTo: "id" }],
    ["staff", { id: "reportsTo" }],
    ["film_actor", { filmId: "filmId" }],
    ["film_actor", { actorId: "actorId" }],
    ["films", { languageId: "originalLanguageId" }]
  ])
  const size = 2 + chance.below(2)
  const scope = Array.from({ length: size }, () => aliased(placeNamed(name)))
  const joined = scope
    .slice(1)
    .map((place, i): Join => ({ how: chance.of(joins), place, on: onEdge(place, scope[i]!, on) }))
  const where = chance.below(5) < 4 ? pin(chance, chance.of(scope)) : condition(chance, db, scope)
  return selected(chance, db, { scope, from: scope[0]!, joins: joined }, where)
}

/** Rows to which none of another table belongs. */
const antiJoin: Form = (chance, db) => {
  const made = source(chance, db, { size: 2, how: ["leftJoin"] })
  const [joined] = made.joins
  if (joined === undefined) return selected(chance, db, made, pin(chance, made.from))
  const { keys, as, name } = joined.place
  const absent = isNull(as[keys[0]?.[0] ?? "customerId"] ?? as[name])
  const where = chance.below(3) === 0 ? absent : and(absent, pin(chance, made.from))
  return selected(chance, db, made, where)
}

/**
 * A film or the like with what it refers to, or what refers to it, as programs have it: the columns by which they belong
 * together are selected, or are not.
 */
const withRelated: Form = (chance, db) => {
  const [from, to, on] = chance.of(edges)
  const base = named(chance, placeNamed(from), [])
  const joined = named(chance, placeNamed(to), [base])
  const how = chance.of(["leftJoin", "innerJoin"] as const)
  const kind = chance.below(5)
  const own = Object.fromEntries(Object.keys(on).map((property, i) => [`own${i}`, base.as[property]]))
  const other = Object.fromEntries(Object.values(on).map((property, i) => [`other${i}`, joined.as[property]]))
  const shown = {
    a: base.as[chance.of(propertiesOf(base))],
    b: joined.as[chance.of(propertiesOf(joined))]
  }
  const fields =
    kind === 0
      ? undefined
      : kind === 1
        ? { ...own, ...shown }
        : kind === 2
          ? { ...other, ...shown }
          : kind === 3
            ? shown
            : { ...own, ...other, ...shown }
  const extra = chance.below(8)
  const linked = onEdge(joined, base, on)
  const isOn = extra === 6 ? and(linked, loose(chance, joined)) : linked
  // Not only by what pins both.
  const condition = chance.below(4)
  const where = and(
    condition < 2 ? pin(chance, base) : condition === 2 ? compareKey(chance, base) : loose(chance, base),
    extra === 7 ? loose(chance, joined) : undefined
  )
  return ended(chance, select(db, fields).from(base.as)[how](joined.as, isOn).where(where), [base, joined])
}

/** What is shown with the column that refers to what it is joined with, of which only some rows are wanted. */
const withSomeRelated: Form = (chance, db) => {
  const [from, to, on] = chance.of(foreignKeys)
  const base = named(chance, placeNamed(from), [])
  const joined = aliased(placeNamed(to))
  const own = Object.fromEntries(Object.keys(on).map((property, i) => [`own${i}`, base.as[property]]))
  const property = chance.of(Object.keys(joined.values))
  const value = joined.values[property]!(chance)
  const some =
    value === null
      ? isNull(joined.as[property])
      : chance.below(2) === 0
        ? eq(joined.as[property], value)
        : ne(joined.as[property], value)
  const linked = onEdge(joined, base, on)
  const isInOn = chance.below(2) === 0
  const key = chance.below(2) === 0 ? base.keys[0] : chance.of(base.keys)
  const where = and(
    ...(key ?? ["customerId"]).map((property) => {
      const drawn = base.values[property]!(chance)
      return drawn === null ? isNull(base.as[property]) : eq(base.as[property], drawn)
    }),
    isInOn ? undefined : some
  )
  const how = chance.below(3) < 2 ? "innerJoin" : "leftJoin"
  const fields = { ...own, a: joined.as[chance.of(propertiesOf(joined))] }
  const selecting = db.select(fields).from(base.as)
  const statement = withJoin(selecting, how, joined.as, isInOn ? and(linked, some) : linked).where(where)
  return { statement }
}

/** What refers to something that is as it is wanted. Whatever does not is hidden by the ON of an inner join. */
const referringToSome: Form = (chance, db) => {
  const [from, to, on] = chance.of(foreignKeys.filter(([from, to]) => from !== to))
  const [base, joined] = [named(chance, placeNamed(from), []), aliased(placeNamed(to))]
  const where = chance.below(2) === 0 ? undefined : pin(chance, base)
  const isOn = and(onEdge(joined, base, on), isOneOfTwo(chance, joined))
  return {
    statement: db
      .select(columnsIn(base, Object.keys(on)))
      .from(base.as)
      .innerJoin(joined.as, isOn)
      .where(where) as any
  }
}

/** Rows with the null of a unique column, which many may have, or with one of a list of its values, and what refers to them. */
const notOneRow: Form = (chance, db) => {
  const [name, unique] = chance.of([
    ["films", "code"],
    ["customers", "email"]
  ] as const)
  const [, to, on] = chance.of(edgesOf(name).filter(([, to, on]) => to !== name && "id" in on))
  const [base, joined] = [named(chance, placeNamed(name), []), aliased(placeNamed(to))]
  const linked = onEdge(joined, base, on)
  const list = [1, 2, 3].map(() => String(someValue(chance, base, unique))).join()
  const where =
    chance.below(2) === 0 ? isNull(base.as[unique]) : sql`${base.as[unique]} = any(${`{${list}}`}::text[])`
  return {
    statement: db
      .select(columnsIn(base, Object.keys(on)))
      .from(base.as)
      .innerJoin(joined.as, chance.below(2) === 0 ? linked : and(linked, isOneOfTwo(chance, joined)))
      .where(where) as any
  }
}

/** What one row refers to, beside all that this row may belong to: it is shown where it does, if it is not hidden there. */
const byWayOfOne: Form = (chance, db) => {
  const [middle, last, on] = chance.of(
    besideKeys.filter(([from, to]) => edgesOf(from).some(([, other]) => other !== to))
  )
  const [, first, back] = chance.of(edgesOf(middle).filter(([, to]) => to !== last))
  const base = named(chance, placeNamed(first), [])
  const [between, joined] = [aliased(placeNamed(middle)), aliased(placeNamed(last))]
  const isHidden = chance.below(2) === 0
  const statement: any = (db.select(columnsIn(between, Object.keys(on))).from(base.as) as any)
    .leftJoin(between.as, and(onEdge(between, base, reversed(back)), isOneRow(chance, between)))
    .leftJoin(joined.as, onEdge(joined, between, on))
    .where(isHidden ? not(isOneOfTwo(chance, joined)) : undefined)
  if (isHidden) return { statement }
  const by = chance.of([asc, desc])(sql`coalesce(${someColumn(chance, [joined])}::text, 'C')`)
  const all = [base, between, joined]
  return { statement: statement.orderBy(by, ...totalOrder(all)).limit(1), isOrdered: true }
}

/** What is told by way of a row that is shown where it belongs: that nothing is joined to it, an order, how many rows are skipped. */
const roundabout: Form = (chance, db) => {
  const [from, to, on] = chance.of(foreignKeys)
  const [, other, further] = chance.of(edgesOf(to))
  const base = named(chance, placeNamed(from), [])
  const [between, last] = [aliased(placeNamed(to)), aliased(placeNamed(other))]
  const statement: any = (db.select(columnsIn(base, Object.keys(on))).from(base.as) as any)
    .leftJoin(between.as, onEdge(between, base, on))
    .leftJoin(last.as, onEdge(last, between, further))
  const kind = chance.below(3)
  if (kind === 0) return { statement: statement.where(isNull(last.as[Object.values(further)[0]!])) }
  const by =
    kind === 1
      ? [chance.of([asc, desc])(sql`coalesce(${someColumn(chance, [last])}::text, 'C')`)]
      : order(chance, [base])
  const ordered = statement.orderBy(...by, ...totalOrder([base, between, last])).limit(1 + chance.below(2))
  return { statement: kind === 1 ? ordered : ordered.offset(1 + chance.below(2)), isOrdered: true }
}

/** Some of what there is, in its own order, before which is skipped what as many rows are as others are joined to it. */
const skipping: Form = (chance, db) => {
  const [from, to, on] = chance.of(edges)
  const [base, joined] = [named(chance, placeNamed(from), []), aliased(placeNamed(to))]
  const linked = onEdge(joined, base, on)
  const selecting: any = db.select(columnsIn(base, Object.keys(on))).from(base.as)
  const each: any = db.select({ one: sql`1`.as("one") }).from(joined.as)
  const statement =
    chance.below(3) < 2
      ? selecting.leftJoin(joined.as, linked)
      : selecting.leftJoinLateral(each.where(linked).limit(2).as("each"), sql`true`)
  return {
    statement: statement
      .where(chance.below(2) === 0 ? undefined : loose(chance, base))
      .orderBy(...order(chance, [base]))
      .limit(1 + chance.below(2))
      .offset(1 + chance.below(2)),
    isOrdered: true
  }
}

/** References by columns that are no part of a primary key. */
const besideKeys = foreignKeys.filter(([from, , on]) => {
  const [primary = []] = placeNamed(from).keys
  return primary.length > 0 && !Object.keys(on).some((property) => primary.includes(property))
})

const isOneRow = (chance: Chance, place: Named): SQL =>
  and(...(place.keys[0] ?? []).map((property) => eq(place.as[property], someValue(chance, place, property))))!

/** That a column is one of two values, said so that no key decides it, and of a row that may not be there. */
const isOneOfTwo = (chance: Chance, place: Named): SQL => {
  const property = chance.of(Object.keys(place.values))
  const column: Column = place.as[property]
  const values = [1, 2].map(() => String(column.mapToDriverValue(someValue(chance, place, property))))
  return inArray(sql`coalesce(${column}::text, 'C')`, values)
}

/** Columns of a table, and by which its rows are told. */
const columnsIn = ({ as, keys }: Named, properties: ReadonlyArray<string>): Record<string, Column> =>
  Object.fromEntries([...properties, ...(keys[0] ?? [])].map((property) => [property, as[property]]))

/** That some other key than the first has a value, or is null. */
const compareKey = (chance: Chance, place: Named): SQL => {
  const key = chance.of(place.keys.length > 1 ? place.keys.slice(1) : [Object.keys(place.values)])
  const [property] = key as [string]
  const value = chance.below(2) === 0 ? null : place.values[property]!(chance)
  return value === null ? isNull(place.as[property]) : eq(place.as[property], value)
}

const distinct: Form = (chance, db) => {
  const made = source(chance, db, { size: 1 + chance.below(2) })
  const where = chance.below(2) === 0 ? pin(chance, made.from) : condition(chance, db, made.scope)
  const [a, b] = [someColumn(chance, made.scope), someColumn(chance, made.scope)]
  if (chance.below(2) === 0) {
    const builder = joinedTo(db.selectDistinct({ a, b }).from(made.from.as), made.joins).where(where)
    return chance.below(2) === 0
      ? { statement: builder }
      : { statement: builder.orderBy(asc(a), asc(b)).limit(2), isOrdered: true }
  }
  const fields = { a, b, c: someColumn(chance, made.scope) }
  const builder = joinedTo(db.selectDistinctOn([a], fields).from(made.from.as), made.joins)
  return { statement: builder.where(where).orderBy(asc(a), ...totalOrder(made.scope)), isOrdered: true }
}

const integersOf = ({ as }: Named): ReadonlyArray<Column> =>
  columnsOf(as)
    .map(([, column]) => column as Column)
    .filter(isInteger)

const aggregate: Form = (chance, db) => {
  const made = source(chance, db, { size: 1 + chance.below(2) })
  const of = chance.of(made.scope)
  const integer = chance.of([...integersOf(of), ...integersOf(made.from)]) as Column | undefined
  const group = someColumn(chance, made.scope)
  const kind = chance.below(4)
  const values = {
    n: count(),
    ...(kind === 0 ? {} : { d: countDistinct(someColumn(chance, made.scope)) }),
    ...(kind < 2 || integer === undefined
      ? {}
      : { s: sum(integer), m: sql`max(${integer})`, f: sql`count(*) filter (where ${loose(chance, of)})` })
  }
  const where =
    chance.below(3) === 0
      ? condition(chance, db, made.scope)
      : chance.below(4) === 3
        ? undefined
        : pin(chance, made.from)
  if (chance.below(3) === 0)
    return { statement: joinedTo(db.select(values).from(made.from.as), made.joins).where(where) }
  const grouped = joinedTo(db.select({ group, ...values }).from(made.from.as), made.joins)
    .where(where)
    .groupBy(group)
  const having = chance.below(3) === 0 ? grouped.having(gte(count(), 1 + chance.below(2))) : grouped
  return chance.below(2) === 0
    ? { statement: having }
    : { statement: having.orderBy(desc(count()), asc(group)).limit(2), isOrdered: true }
}

/** Groups by the column that belongs to what is joined, of which those with few rows are left out. */
const groupsOfRelated: Form = (chance, db) => {
  const [from, to, on] = chance.of(edges)
  const [base, joined] = [named(chance, placeNamed(from), []), aliased(placeNamed(to))]
  const group = base.as[Object.keys(on)[0]!]
  const n = count(joined.as[joined.keys[0]?.[0] ?? "customerId"])
  const how = chance.of(["leftJoin", "innerJoin"] as const)
  const statement = withJoin(db.select({ group, n }).from(base.as), how, joined.as, onEdge(joined, base, on))
    .where(chance.below(3) < 2 ? pin(chance, base) : loose(chance, base))
    .groupBy(group)
    .having(gte(n, 1 + chance.below(2)))
  return { statement }
}

/** How many there are of what one row refers to, and in all, which is told where there is none, too. */
const rolledUp: Form = (chance, db) => {
  const [from, to, on] = chance.of(besideKeys)
  const [base, joined] = [named(chance, placeNamed(from), []), aliased(placeNamed(to))]
  const group = base.as[Object.keys(on)[0]!]
  return {
    statement: db
      .select({ group, n: count() })
      .from(base.as)
      .innerJoin(joined.as, and(onEdge(joined, base, on), isOneOfTwo(chance, joined)))
      .where(isOneRow(chance, base))
      .groupBy(sql`rollup (${group})`) as any
  }
}

/** The first rows in the order of what is joined, at times by way of a row that may not be there. */
const orderedByJoined: Form = (chance, db) => {
  const [middle, last, on] = chance.of(foreignKeys)
  const joined = aliased(placeNamed(last))
  const column = joined.as[chance.of(Object.keys(joined.values))]
  // Nulls would always be at one end.
  const by = chance.below(3) === 0 ? sql`${column}` : sql`coalesce(${column}::text, 'C')`
  const direction = chance.below(2) === 0 ? asc(by) : desc(by)
  const limit = 1 + chance.below(2)
  if (chance.below(3) < 2) {
    const base = named(chance, placeNamed(middle), [])
    const refers = base.as[Object.keys(on)[0]!]
    const kind = chance.below(3)
    const where = kind === 0 ? undefined : kind === 1 ? loose(chance, base) : compareKey(chance, base)
    const statement = withJoin(
      db.select({ refers }).from(base.as),
      chance.of(["leftJoin", "innerJoin"] as const),
      joined.as,
      onEdge(joined, base, on)
    )
      .where(where)
      .orderBy(direction, ...totalOrder([base, joined]))
      .limit(limit)
    return { statement, isOrdered: true }
  }
  const [, from, back] = chance.of(edgesOf(middle))
  const base = named(chance, placeNamed(from), [])
  const between = aliased(placeNamed(middle))
  const key = between.keys[0]?.[0] ?? "customerId"
  const pinned = and(
    onEdge(between, base, reversed(back)),
    eq(between.as[key], someValue(chance, between, key))
  )
  const refers = between.as[Object.keys(on)[0]!]
  const statement: any = (db.select({ refers, a: base.as[propertiesOf(base)[0]!] }).from(base.as) as any)
    .leftJoin(between.as, pinned)
    .leftJoin(joined.as, onEdge(joined, between, on))
    .orderBy(direction, ...totalOrder([base, between, joined]))
    .limit(limit)
  return { statement, isOrdered: true }
}

/** How many there are, by `$count`: by itself, or for each row. */
const counted: Form = (chance, db) => {
  const place = named(chance, somePlace(chance), [])
  if (chance.below(2) === 0) {
    const plain = placeNamed(place.name)
    const of = { ...plain, as: plain.table }
    const where =
      chance.below(4) === 3 ? undefined : chance.below(3) === 0 ? loose(chance, of) : pin(chance, of)
    return { statement: db.$count(plain.table, where) as any }
  }
  const fitting = edgesOf(place.name).filter(([, to]) => to !== place.name)
  if (fitting.length === 0) return single((chance, _, place) => pin(chance, place))(chance, db)
  const [, to, on] = chance.of(fitting)
  const inner = { ...placeNamed(to), as: placeNamed(to).table }
  const n = db.$count(
    inner.table,
    and(onEdge(inner, place, on), chance.below(3) === 0 ? pin(chance, inner) : undefined)
  )
  return ended(
    chance,
    db
      .select({ a: someColumn(chance, [place]), n: n as any })
      .from(place.as)
      .where(pin(chance, place)),
    [place]
  )
}

/** A subquery among what is selected, by builder or as text. */
const scalar: Form = (chance, db) => {
  const place = named(chance, somePlace(chance), [])
  const where = pin(chance, place)
  const { query } = subquery(chance, db, [place], 1)
  const films = placeNamed("films")
  const kind = chance.below(5)
  if (kind < 2)
    return ended(
      chance,
      db
        .select({ a: someColumn(chance, [place]), n: sql`(select count(*)::int from ${query.as("n")})` })
        .from(place.as)
        .where(where),
      [place]
    )
  if (kind === 2) {
    const film: Named = { ...films, as: films.table }
    return ended(
      chance,
      db
        .select({
          a: someColumn(chance, [film]),
          n: sql`(select count(*)::int from archive.reviews r where r.film_id = ${film.as.id})`
        })
        .from(film.as)
        .innerJoin(schema.languages, eq(schema.languages.id, film.as.languageId))
        .where(pin(chance, film)),
      [film]
    )
  }
  const film: Named = { ...films, as: alias(schema.films, "film") }
  const stars = sql`(select sum(${schema.reviews.stars})::int from ${schema.reviews} where ${schema.reviews.filmId} = film.id)`
  const language = sql`(select l.name from languages l where l.id = film.language_id)`
  return ended(
    chance,
    db
      .select({ a: someColumn(chance, [film]), s: kind === 3 ? stars : language })
      .from(film.as)
      .where(pin(chance, film)),
    [film]
  )
}

/** What is selected makes more rows of one, or none, or depends on other rows. */
const setsAndWindows: Form = (chance, db) => {
  const film = alias(schema.films, "f")
  const [link, actor] = [alias(schema.filmActor, "fa"), alias(schema.actors, "a")]
  const kind = chance.below(4)
  if (kind === 0)
    return {
      statement: db
        .select({
          id: film.id,
          actor: sql`unnest(array(select x.actor_id from film_actor x where x.film_id = f.id))`
        })
        .from(film) as any
    }
  if (kind === 1) {
    const n = sql`sum((select count(*) from film_actor x where x.film_id = f.id)) over ()`
    return {
      statement: db.select({ id: film.id, n }).from(film).orderBy(asc(film.id)).limit(2) as any,
      isOrdered: true
    }
  }
  const n =
    kind === 2 ? sql`generate_series(1, length(a.last_name) - 4)` : sql`rank() over (order by a.last_name)`
  return {
    statement: db
      .select({ id: link.actorId, n })
      .from(link)
      .leftJoin(actor, eq(actor.id, link.actorId))
      .where(eq(link.filmId, 1 + chance.below(6))) as any
  }
}

const setOperators = [union, unionAll, intersect, except, intersectAll, exceptAll] as ReadonlyArray<any>

/** A select of one integer, so that any two fit each other. */
const integers = (chance: Chance, db: AnyDatabase): any => {
  const made = source(chance, db, { size: 1 + (chance.below(3) === 2 ? 1 : 0) })
  const value = chance.of(integersOf(made.from))
  const where = chance.below(3) < 2 ? pin(chance, made.from) : condition(chance, db, made.scope)
  return joinedTo(db.select({ value }).from(made.from.as), made.joins).where(where)
}

const combined: Form = (chance, db) => {
  const first = chance.of(setOperators)(integers(chance, db), integers(chance, db))
  const kind = chance.below(5)
  if (kind < 3) return { statement: first }
  if (kind === 3) return { statement: chance.of(setOperators)(integers(chance, db), first) }
  return { statement: first.orderBy(sql`1`).limit(2), isOrdered: true }
}

/** Rows that are limited, numbered or made distinct inside, of which some are asked for outside. */
const filteredOutside: Form = (chance, db) => {
  const inner = aliased(somePlace(chance))
  const own = inner.as[inner.keys[0]?.[0] ?? "customerId"]
  const other = inner.as[chance.of(propertiesOf(inner))]
  const where = chance.below(3) === 0 ? loose(chance, inner) : undefined
  const kind = chance.below(3)
  const keys = sql.join([...totalOrder([inner])], sql`, `)
  const base: any =
    kind === 0
      ? db
          .select({ own, n: sql`${other}`.as("n") })
          .from(inner.as)
          .where(where)
          .orderBy(...totalOrder([inner]))
          .limit(1 + chance.below(3))
      : kind === 1
        ? db
            .select({ own, n: sql`row_number() over (order by ${keys})`.as("n") })
            .from(inner.as)
            .where(where)
        : db
            .selectDistinctOn([other], { own, n: sql`${other}`.as("n") })
            .from(inner.as)
            .where(where)
            .orderBy(asc(other), ...totalOrder([inner]))
  const value = 1 + chance.below(5)
  if (chance.below(3) === 0) {
    const sub: any = db.$with("sub").as(base)
    return { statement: db.with(sub).select().from(sub).where(eq(sub.own, value)) as any }
  }
  const sub = base.as("sub")
  return { statement: db.select().from(sub).where(eq(sub.own, value)) as any }
}

/** A query with a join in place of a table, of which something is asked outside. */
const derivedJoin: Form = (chance, db) => {
  const made = source(chance, db, { size: 2 })
  const [joined] = made.joins
  if (joined === undefined) return single((chance, _, place) => pin(chance, place))(chance, db)
  const columns = [made.from, joined.place].map(({ as, keys }) => as[keys[0]?.[0] ?? "customerId"])
  const sub = joinedTo(
    db
      .select({ own: sql`${columns[0]}`.as("own"), other: sql`${columns[1]}`.as("other") })
      .from(made.from.as),
    made.joins
  )
    .where(chance.below(3) === 0 ? pin(chance, made.from) : undefined)
    .as("sub")
  const value = 1 + chance.below(5)
  const where = chance.of([
    sql`${sub.other} is null`,
    sql`${sub.other}::text = ${String(value)}`,
    sql`${sub.own} is null`,
    sql`${sub.own} = ${value} and ${sub.other} is null`,
    sql`${sub.own} = ${value}`,
    sql`${sub.other} = ${value}`
  ])
  return { statement: db.select().from(sub).where(where) as any }
}

/** A query in place of a table. */
const derived: Form = (chance, db) => {
  const inner = aliased(somePlace(chance))
  const [own, others] = [inner.keys[0]?.[0] ?? "customerId", chance.of(propertiesOf(inner))]
  const isGrouped = chance.below(3) === 0
  const where = chance.below(2) === 0 ? pin(chance, inner) : loose(chance, inner)
  const base = db
    .select(
      isGrouped
        ? { own: inner.as[own], n: sql`count(*)::int`.as("n") }
        : { own: inner.as[own], n: sql`${inner.as[others]}`.as("n") }
    )
    .from(inner.as)
    .where(chance.below(4) === 3 ? undefined : where) as any
  const grouped = isGrouped ? base.groupBy(inner.as[own]) : base
  const limited =
    chance.below(5) === 4 && !isGrouped ? grouped.orderBy(...totalOrder([inner])).limit(2) : grouped
  const sub = limited.as("sub")
  const kind = chance.below(3)
  if (kind === 0)
    return {
      statement: db
        .select()
        .from(sub)
        .where(eq(sub.own, 1 + chance.below(5))) as any
    }
  const fitting = edgesOf(inner.name).filter(([, , on]) => Object.keys(on)[0] === own)
  if (fitting.length === 0) return { statement: db.select().from(sub) as any }
  const [, to, on] = chance.of(fitting)
  const outer = named(chance, placeNamed(to), [])
  const column = outer.as[on[own]!]
  const fields = { a: someColumn(chance, [outer]), n: sub.n, own: sub.own }
  const statement: any =
    kind === 1
      ? db.select(fields).from(outer.as)[chance.of(joins)](sub, eq(sub.own, column))
      : db.select(fields).from(sub)[chance.of(joins)](outer.as, eq(sub.own, column))
  return { statement: chance.below(4) === 3 ? statement : statement.where(pin(chance, outer)) }
}

/** Queries named before: one, one that reads the other, one in the other. */
const withNamed: Form = (chance, db) => {
  const inner = aliased(somePlace(chance))
  const own = inner.keys[0]?.[0] ?? "customerId"
  const where = chance.below(3) < 2 ? pin(chance, inner) : loose(chance, inner)
  const first: any = db
    .$with("first")
    .as(db.select({ own: inner.as[own] }).from(inner.as).where(where) as any)
  const kind = chance.below(5)
  if (kind === 0) return { statement: db.with(first).select().from(first) as any }
  const fitting = edgesOf(inner.name).filter(([, , on]) => Object.keys(on)[0] === own)
  const [, to, on] = fitting.length === 0 ? edges[0]! : chance.of(fitting)
  const outer = named(chance, placeNamed(to), [])
  const column = outer.as[fitting.length === 0 ? "id" : on[own]!]
  const fields = { a: someColumn(chance, [outer]), b: someColumn(chance, [outer]) }
  const end = (statement: any): Drawn => ({
    statement: chance.below(3) === 0 ? statement.where(pin(chance, outer)) : statement
  })
  if (kind === 1)
    return end(
      withJoin(
        db
          .with(first)
          .select({ ...fields, own: first.own })
          .from(outer.as),
        chance.of(joins),
        first,
        eq(first.own, column)
      )
    )
  if (kind === 2)
    return {
      statement: db
        .with(first)
        .select(fields)
        .from(outer.as)
        .where(
          and(pin(chance, outer), inArray(column, db.select({ own: first.own }).from(first) as any))
        ) as any
    }
  const second: any = db.$with("second").as(
    kind === 3
      ? (db
          .select({ own: first.own, n: sql`count(*)::int`.as("n") })
          .from(first)
          .groupBy(first.own) as any)
      : (db
          .with(first)
          .select({ own: first.own, n: sql`1`.as("n") })
          .from(first) as any)
  )
  const base = kind === 3 ? db.with(first, second) : db.with(second)
  return end(
    base
      .select({ ...fields, n: second.n })
      .from(outer.as)
      .leftJoin(second, eq(second.own, column)) as any
  )
}

/** A subquery that sees the row it is joined to. */
const lateral: Form = (chance, db) => {
  const from = named(chance, somePlace(chance), [])
  const fitting = edgesOf(from.name)
  if (fitting.length === 0) return single((chance, _, place) => pin(chance, place))(chance, db)
  const [, to, on] = chance.of(fitting)
  const inner = aliased(placeNamed(to))
  const where = and(onEdge(inner, from, on), chance.below(3) === 0 ? loose(chance, inner) : undefined)
  const value = sql`${inner.as[chance.of(propertiesOf(inner))]}`.as("value")
  const sub: any = (
    db
      .select({ value })
      .from(inner.as)
      .where(where)
      .orderBy(...totalOrder([inner])) as any
  )
    .limit(1 + chance.below(2))
    .as("lateral")
  const base: any = db.select({ a: someColumn(chance, [from]), value: sub.value }).from(from.as)
  const kind = chance.below(3)
  const joined =
    kind === 0
      ? base.leftJoinLateral(sub, sql`true`)
      : kind === 1
        ? base.innerJoinLateral(sub, sql`true`)
        : base.crossJoinLateral(sub)
  return { statement: chance.below(4) === 3 ? joined : joined.where(pin(chance, from)) }
}

const upToSome = (size: number): ReadonlyArray<number> => Array.from({ length: size }, (_, i) => i + 1)

/** Lists of keys, some of them long; some so long that not every combination can be told. */
const byList: Form = (chance, db) => {
  if (chance.below(12) === 11) {
    const [name, a, b] = chance.of([
      ["film_actor", "filmId", "actorId"],
      ["archive.reviews", "filmId", "customerId"],
      ["payments", "id", "month"]
    ] as const)
    const place = named(chance, placeNamed(name), [])
    const where = and(
      inArray(place.as[a], [...upToSome(chance.below(2) * 70 + 3)]),
      inArray(place.as[b], [...upToSome(75)])
    )
    return selected(chance, db, { scope: [place], from: place, joins: [] }, where)
  }
  const place = named(chance, somePlace(chance), [])
  const property = place.keys[0]?.[0] ?? "customerId"
  const column: Column = place.as[property]
  const isLong = isInteger(column) && chance.below(4) === 3
  const list = isLong
    ? Array.from({ length: 70 }, (_, i) => i + 1 + chance.below(2))
    : Array.from({ length: 1 + chance.below(4) }, () => someValue(chance, place, property))
  const where = chance.below(6) === 5 ? notInArray(column, list) : inArray(column, list)
  return selected(chance, db, { scope: [place], from: place, joins: [] }, where)
}

/** Values that are given beside the statement. */
const placeholders: Form = (chance, db) => {
  const place = named(chance, somePlace(chance), [])
  const property = chance.of(Object.keys(place.values))
  const value = someValue(chance, place, property) ?? place.values[property]!(chance)
  if (value === null) return single((chance, _, place) => pin(chance, place))(chance, db)
  return {
    statement: select(db, selection(chance, db, [place]))
      .from(place.as)
      .where(eq(place.as[property], sql.placeholder("value"))),
    // Drizzle does not map it as it would map a value.
    values: { value: (place.table[property] as Column).mapToDriverValue(value) }
  }
}

/** Text in place of a table. */
const fromText: Form = (chance, db) => {
  const id = 1 + chance.below(6)
  const kind = chance.below(4)
  const text = [
    sql`films f left join languages l on l.id = f.language_id`,
    sql`films f, languages l`,
    sql`${schema.films} f join languages l on l.id = f.language_id`,
    sql`(select * from films) f cross join (select name from languages where id = ${1 + chance.below(4)}) l`
  ][kind]!
  return {
    statement: db
      .select({ title: sql`f.title`, name: sql`l.name` })
      .from(text)
      .where(sql`f.id = ${id}`) as any
  }
}

/** What is written wholly by hand. */
const raw: Form = (chance, db) => ({ statement: db.execute(chance.of(rawQueries)(chance)) as any })

/** What functions read, which has to be said. */
const calling: Form = (chance, db) => ({
  statement: db.execute(chance.of(callingQueries)(chance)) as any,
  reads: [schema.films]
})

// ------------------------------------------------------------------------------------------------ relational queries

const relationalNames = Object.keys(related)
const tableOf = (name: string): PgTable => (schema as unknown as Record<string, PgTable>)[name]!
const placeOfProperty = (name: string): Place => {
  const { schema: of, name: called } = getTableConfig(tableOf(name))
  return placeNamed(of === undefined ? called : `${of}.${called}`)
}

interface Level {
  readonly isOrdered: boolean
  readonly depth: number
  readonly isMany: boolean
}

/** What is asked at one level: all draws are made here, as Drizzle may call a function more than once. */
const level = (chance: Chance, name: string, { isOrdered, depth, isMany }: Level): any => {
  const place = placeOfProperty(name)
  const properties = propertiesOf(place)
  const config: Record<string, any> = {}
  const kind = chance.below(6)
  if (kind === 4) config["columns"] = { [chance.of(properties)]: true, [chance.of(properties)]: true }
  if (kind === 5) config["columns"] = { [chance.of(properties)]: false }
  const relations = related[name]!
  const count = depth === 0 ? 0 : chance.below(3)
  if (count > 0) {
    const drawn = Array.from({ length: count }, () => chance.of(Object.keys(relations)))
    config["with"] = Object.fromEntries(
      [...new Set(drawn)].map((relation) => [
        relation,
        chance.below(3) === 0 && !isOrdered
          ? true
          : level(chance, relations[relation]!, {
              isOrdered,
              depth: depth - 1,
              isMany: !isOne(relation)
            })
      ])
    )
  }
  if (chance.below(8) === 7) {
    const property = chance.of(properties)
    config["extras"] = (fields: any) => ({ extra: sql`coalesce(${fields[property]}::text, '?')`.as("extra") })
  }
  if (!isMany) return config
  if (isOrdered) {
    const property = chance.of(properties)
    const isDown = chance.below(2) === 1
    config["orderBy"] = (fields: any) => [
      isDown ? desc(fields[property]) : asc(fields[property]),
      ...orderOf(place.table).map(({ name }) => asc(columnNamed(fields, name)))
    ]
    if (chance.below(2) === 0) config["limit"] = 1 + chance.below(2)
  }
  return config
}

/** Where of one level: made anew, with the same draws, as often as Drizzle asks for it. */
const whereOf = (chance: Chance, place: Place, make: (chance: Chance, place: Named) => SQL) => {
  const seed = chance.below(2 ** 16)
  return (fields: any) => make(makeChance(seed), { ...place, as: fields })
}

const relational =
  (depth: number): Form =>
  (chance, db) => {
    const name = chance.of(relationalNames)
    const place = placeOfProperty(name)
    const isFirst = chance.below(3) === 2
    const isOrdered = isFirst || chance.below(2) === 1
    const config = level(chance, name, { isOrdered, depth, isMany: true })
    const kind = chance.below(8)
    const where =
      kind < 5
        ? whereOf(chance, place, pin)
        : kind === 5
          ? whereOf(chance, place, loose)
          : kind === 6
            ? whereOf(chance, place, (chance, named) => or(pin(chance, named), pin(chance, named))!)
            : undefined
    if (where !== undefined) config["where"] = where
    nestedWhere(chance, name, config)
    if (isFirst) delete config["limit"]
    if (isOrdered && chance.below(4) === 3) config["offset"] = 1
    const query = (db as any).query[name]
    return {
      statement: isFirst ? query.findFirst(config) : query.findMany(config),
      isOrdered
    }
  }

const nestedWhere = (chance: Chance, name: string, config: any): void => {
  for (const [relation, nested] of Object.entries<any>(config.with ?? {})) {
    if (nested === true) continue
    const to = related[name]![relation]!
    const place = placeOfProperty(to)
    if (!isOne(relation) && chance.below(3) === 0) {
      const kind = chance.below(4)
      nested.where =
        kind === 0
          ? whereOf(chance, place, pin)
          : kind === 3
            ? // Drizzle 0.45 does not put it in parentheses.
              whereOf(
                chance,
                place,
                (chance, named) => sql`${loose(chance, named)} or ${loose(chance, named)}`
              )
            : whereOf(chance, place, loose)
    }
    nestedWhere(chance, to, nested)
  }
}

// --------------------------------------------------------------------------------------------------------- all of them

const ofView =
  (name: string): Form =>
  (chance, db) => {
    const made = source(chance, db, { size: 1 + chance.below(2), first: placeNamed(name) })
    const where = chance.below(4) < 3 ? pin(chance, made.from) : condition(chance, db, made.scope)
    return selected(chance, db, made, where)
  }

const forms: Readonly<Record<string, Form>> = {
  "by key": single((chance, _, place) => pin(chance, place)),
  "by key and more": single((chance, _, place) => and(pin(chance, place), loose(chance, place))),
  "by list": byList,
  "or of keys": single((chance, _, place) => or(pin(chance, place), pin(chance, place))),
  "or of a key and more": single((chance, _, place) => or(pin(chance, place), loose(chance, place))),
  "many alternatives": single((chance, _, place) =>
    and(
      ...Array.from({ length: 2 + chance.below(2) }, () =>
        or(
          ...Array.from({ length: 3 + chance.below(3) }, () =>
            (chance.below(4) === 0 ? loose : pin)(chance, place)
          )
        )
      )
    )
  ),
  "or without parentheses": single((chance, _, place) =>
    and(sql`${loose(chance, place)} or ${loose(chance, place)}`, pin(chance, place))
  ),
  "no key": single((chance, _, place) => loose(chance, place)),
  whole: single(() => undefined),
  "any condition": single((chance, db, place) => condition(chance, db, [place])),
  placeholders,
  "left join": joinedBy(["leftJoin"]),
  "inner join": joinedBy(["innerJoin"]),
  "right join": joinedBy(["rightJoin"]),
  "full join": joinedBy(["fullJoin"]),
  "cross join": joinedBy(["crossJoin"]),
  "conditions in ON": byOn,
  "with related": withRelated,
  "with some related": withSomeRelated,
  "referring to some": referringToSome,
  "not one row": notOneRow,
  "by way of one": byWayOfOne,
  roundabout,
  skipping,
  "anti join": antiJoin,
  "self join": selfJoin,
  "three left joins": joinedBy(["leftJoin"], 3),
  "three inner joins": joinedBy(["innerJoin"], 3),
  "three joins": joinedBy(joins, 3),
  "four joins": joinedBy([...joins, "crossJoin"], 4),
  lateral,
  subqueries: single((chance, db, place) => {
    const inside = chance.below(3)
    const within =
      inside === 0
        ? exists(subquery(chance, db, [place], 1).query)
        : inside === 1
          ? notExists(subquery(chance, db, [place], 1).query)
          : condition(chance, db, [place], 2)
    return chance.below(3) < 2 ? and(pin(chance, place), within) : within
  }),
  scalar,
  "sets and windows": setsAndWindows,
  derived,
  "derived joins": derivedJoin,
  "filtered outside": filteredOutside,
  with: withNamed,
  "set operators": combined,
  aggregate,
  "groups of related": groupsOfRelated,
  "rolled up": rolledUp,
  "ordered by what is joined": orderedByJoined,
  distinct,
  $count: counted,
  "text for a table": fromText,
  raw,
  "raw with a function": calling,
  "view open_films": ofView("open_films"),
  "view teams": ofView("teams"),
  "a part of payments": ofView("payments_late"),
  "another schema": ofView("archive.reviews"),
  "find flat": relational(0),
  "find with": relational(1),
  "find deep": relational(3)
}

/** The names of all forms. */
export const formNames: ReadonlyArray<string> = Object.keys(forms)
