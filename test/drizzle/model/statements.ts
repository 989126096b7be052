/**
 * Statements by chance. A number is a statement: the same number is the same one on every database, so a history is a
 * list of numbers, and can be run again, on a twin, or with some left out.
 *
 * All forms in which Drizzle writes are drawn, with values from so few that rows collide and constraints are violated.
 */
import {
  and,
  between,
  type Column,
  eq,
  exists,
  gt,
  inArray,
  isNotNull,
  isNull,
  like,
  lt,
  ne,
  not,
  or,
  type SQL,
  sql
} from "drizzle-orm"
import { alias, type PgTable } from "drizzle-orm/pg-core"
import type { Statement } from "../../../src/drizzle/builders.ts"
import type { AnyDatabase } from "../../../src/drizzle/Connection.ts"
import { type Chance, makeChance } from "../../checker/chance.ts"
import { columnsOf, keyOf } from "./copy.ts"
import * as schema from "./schema.ts"

/** A statement. */
export interface Drawn {
  /** What is written by which means. */
  readonly form: string
  /** The tables that it names as written, as tags call them. */
  readonly targets: ReadonlyArray<string>
  readonly build: (db: AnyDatabase) => Statement<any>
  /** Tables that it writes and does not name. */
  readonly tables?: ReadonlyArray<PgTable>
}

/** Draws a statement. */
export const draw = (seed: number): Drawn => {
  const chance = makeChance(Math.imul(seed, 0x9e3779b1))
  return chance.of(forms)(chance)
}

// ------------------------------------------------------------------------------------------------------- the tables

export type Draw = (chance: Chance) => unknown

/** A table that is written, and what is written into it. */
export interface Subject {
  readonly name: string
  readonly table: any
  /** By property: what may be assigned. */
  readonly values: Readonly<Record<string, Draw>>
  /** What an insert must give. */
  readonly required: ReadonlyArray<string>
  /** Another unique column. */
  readonly unique?: string
}

export const upTo =
  (limit: number): Draw =>
  (chance) =>
    1 + chance.below(limit)
export const oneOf =
  (...these: ReadonlyArray<unknown>): Draw =>
  (chance) =>
    chance.of(these)
export const orNull =
  (draw: Draw): Draw =>
  (chance) =>
    chance.below(4) === 0 ? null : draw(chance)

const subject = (
  name: string,
  table: PgTable,
  required: Subject["required"],
  values: Subject["values"],
  unique?: string
): Subject => ({ name, table, required, values, ...(unique === undefined ? {} : { unique }) })

const film = upTo(6)
const rating = orNull(oneOf("G", "PG", "R"))
const price = oneOf("$0", "$1", "$2", "$3")
const title = oneOf("Emma", "Clueless", "Playtime", "Alien", "Aliens")

const filmsSubject = subject(
  "films",
  schema.films,
  ["id", "title"],
  {
    id: film,
    title,
    languageId: upTo(4),
    originalLanguageId: orNull(upTo(4)),
    rating,
    code: orNull(oneOf("A", "B", "C", "D", "E")),
    rate: price,
    views: upTo(3),
    likes: upTo(3)
  },
  "code"
)
const languagesSubject = subject(
  "languages",
  schema.languages,
  ["id", "name"],
  {
    id: upTo(4),
    name: oneOf("English", "French", "Thai", "Urdu")
  },
  "name"
)
const paymentValues = {
  id: upTo(6),
  month: oneOf(1, 2, 5, 9),
  rentalId: orNull(upTo(8)),
  customerId: orNull(upTo(5)),
  amount: upTo(5)
}
const paymentsSubject = subject("payments", schema.payments, ["id", "month"], paymentValues)
const lateSubject = subject("payments_late", schema.paymentsLate, ["id", "month"], {
  ...paymentValues,
  month: oneOf(5, 6, 5, 9)
})
const openFilmsSubject = subject(
  "open_films",
  schema.openFilms,
  ["id", "title", "languageId", "rate", "views"],
  {
    id: film,
    title,
    languageId: upTo(3),
    rating,
    code: orNull(oneOf("A", "B", "C", "D", "E")),
    rate: price,
    views: upTo(3)
  }
)
const filmActorSubject = subject("film_actor", schema.filmActor, ["filmId", "actorId"], {
  filmId: film,
  actorId: upTo(5),
  role: orNull(oneOf("Cher", "Emma"))
})
const filmCategorySubject = subject("film_category", schema.filmCategory, ["filmId", "categoryId"], {
  filmId: film,
  categoryId: upTo(4)
})
const filmSequelSubject = subject("film_sequel", schema.filmSequel, ["filmId", "sequelId"], {
  filmId: film,
  sequelId: film
})
const actorsSubject = subject("actors", schema.actors, ["id", "firstName"], {
  id: upTo(5),
  firstName: oneOf("Ann", "Bo", "Cy", "Nobody"),
  lastName: orNull(oneOf("Archer", "Abel", "Bell", "Cox"))
})
const categoriesSubject = subject("categories", schema.categories, ["id", "name"], {
  id: upTo(4),
  name: oneOf("Drama", "Comedy", "Farce"),
  parentId: orNull(upTo(4))
})
const storesSubject = subject("stores", schema.stores, ["id"], {
  id: upTo(4),
  city: orNull(oneOf("Bath", "Lyon")),
  managerId: orNull(upTo(5)),
  visits: upTo(3)
})
const staffSubject = subject("staff", schema.staff, ["id", "storeId", "name"], {
  id: upTo(5),
  storeId: upTo(4),
  name: oneOf("Mia", "Ned", "Oda"),
  reportsTo: orNull(upTo(5))
})
const customersSubject = subject(
  "customers",
  schema.customers,
  ["id"],
  {
    id: upTo(5),
    storeId: orNull(upTo(4)),
    email: orNull(oneOf("a@x", "b@x", "c@x", "d@x")),
    active: oneOf(true, false),
    discount: orNull(oneOf("1.50", "1.5", "0", "10")),
    card: orNull(oneOf("ab", "ab  ", "c")),
    token: orNull(oneOf(schema.token, schema.token.toUpperCase()))
  },
  "email"
)
const inventorySubject = subject("inventory", schema.inventory, ["storeId", "copy", "filmId"], {
  storeId: upTo(4),
  copy: upTo(3),
  filmId: film,
  wear: upTo(4)
})
const holdsSubject = subject("holds", schema.holds, ["id", "storeId"], {
  id: upTo(4),
  storeId: upTo(3),
  copy: orNull(upTo(2)),
  customerId: orNull(upTo(5))
})
const teamsSubject = subject("teams", schema.teams, ["id", "name", "storeId"], {
  id: upTo(5),
  name: oneOf("Mia", "Ned"),
  storeId: upTo(3),
  city: orNull(oneOf("Bath", "Lyon"))
})
const rentalsSubject = subject("rentals", schema.rentals, ["storeId", "copy"], {
  id: upTo(8),
  storeId: upTo(3),
  copy: upTo(3),
  customerId: orNull(upTo(5)),
  staffId: orNull(upTo(5)),
  returned: oneOf(true, false)
})
const reviewsSubject = subject("archive.reviews", schema.reviews, ["filmId", "customerId", "stars"], {
  filmId: film,
  customerId: upTo(5),
  stars: upTo(5)
})
const notesSubject = subject("notes", schema.notes, ["id"], {
  id: upTo(4),
  filmId: orNull(film),
  body: orNull(oneOf("lovely", "loud"))
})
const auditSubject = subject("audit", schema.audit, ["customerId"], {
  customerId: orNull(upTo(5)),
  event: oneOf("INSERT", "UPDATE", "call"),
  times: upTo(3)
})

/** All of them; more often, those of which more is to be seen. */
export const subjects: ReadonlyArray<Subject> = [
  filmsSubject,
  filmsSubject,
  filmsSubject,
  languagesSubject,
  paymentsSubject,
  paymentsSubject,
  lateSubject,
  openFilmsSubject,
  filmActorSubject,
  filmActorSubject,
  filmCategorySubject,
  filmSequelSubject,
  actorsSubject,
  categoriesSubject,
  storesSubject,
  staffSubject,
  customersSubject,
  customersSubject,
  inventorySubject,
  holdsSubject,
  teamsSubject,
  rentalsSubject,
  rentalsSubject,
  reviewsSubject,
  notesSubject,
  auditSubject
]

const isView = (subject: Subject): boolean => subject === openFilmsSubject || subject === teamsSubject

/** A table whose rows refer to those of another one. */
interface Relation {
  readonly child: Subject
  readonly parent: Subject
  readonly on: Readonly<Record<string, string>>
  /** A column of the child that may be given a value of the parent's. */
  readonly copies?: readonly [string, string]
  /** What the parent refers to in turn. */
  readonly beyond?: { readonly table: any; readonly on: Readonly<Record<string, string>> }
}

const relations: ReadonlyArray<Relation> = [
  {
    child: paymentsSubject,
    parent: rentalsSubject,
    on: { rentalId: "id" },
    copies: ["customerId", "customerId"],
    beyond: { table: schema.customers, on: { customerId: "id" } }
  },
  {
    child: filmsSubject,
    parent: languagesSubject,
    on: { languageId: "id" },
    copies: ["originalLanguageId", "id"]
  },
  {
    child: inventorySubject,
    parent: filmsSubject,
    on: { filmId: "id" },
    beyond: { table: schema.languages, on: { languageId: "id" } }
  },
  { child: filmActorSubject, parent: filmsSubject, on: { filmId: "id" }, copies: ["role", "title"] },
  { child: filmActorSubject, parent: actorsSubject, on: { actorId: "id" }, copies: ["role", "firstName"] },
  {
    child: rentalsSubject,
    parent: inventorySubject,
    on: { storeId: "storeId", copy: "copy" },
    copies: ["customerId", "filmId"],
    beyond: { table: schema.films, on: { filmId: "id" } }
  },
  {
    child: staffSubject,
    parent: storesSubject,
    on: { storeId: "id" },
    copies: ["reportsTo", "managerId"]
  },
  {
    child: customersSubject,
    parent: storesSubject,
    on: { storeId: "id" },
    copies: ["storeId", "managerId"]
  },
  {
    child: reviewsSubject,
    parent: customersSubject,
    on: { customerId: "id" },
    beyond: { table: schema.stores, on: { storeId: "id" } }
  }
]

// ------------------------------------------------------------------------------------------------------------ parts

/** A condition, made when the table is known by its name in the statement. */
type Condition = (db: AnyDatabase, table: any) => SQL | undefined

const drawValue = (chance: Chance, { values }: Subject, property: string): unknown => {
  const value = values[property]!(chance)
  return value === null ? values[property]!(chance) : value
}

const compare = (column: Column, value: unknown): SQL => (value === null ? isNull(column) : eq(column, value))

/** The rows with one primary key. */
const drawPinned = (chance: Chance, { table, values }: Subject): Condition => {
  const key = keyOf(table)
  const drawn = (key.length === 0 ? Object.keys(values).slice(0, 1) : key).map(
    (property) => [property, values[property]!(chance)] as const
  )
  return (_, table) => and(...drawn.map(([property, value]) => compare(table[property], value)))
}

const drawSimple = (chance: Chance, subject: Subject): Condition => {
  const properties = Object.keys(subject.values)
  const property = chance.of(properties)
  const [a, b, c] = [0, 1, 2].map(() => drawValue(chance, subject, property))
  const typeOf = (property: string): string => subject.table[property].getSQLType()
  const other = chance.of(properties.filter((other) => typeOf(other) === typeOf(property)))
  const kind = chance.below(11)
  return (_, table) => {
    const column: Column = table[property]
    switch (kind) {
      case 0:
        return inArray(
          column,
          [a, b, c].filter((value) => value !== null)
        )
      case 1:
        return isNull(column)
      case 2:
        return isNotNull(column)
      case 3:
        return ne(column, a)
      case 4:
        return typeof a === "number" ? gt(column, a) : eq(column, a)
      case 5:
        return typeof a === "number" ? lt(column, a) : eq(column, a)
      case 6:
        return typeof a === "number" && typeof b === "number"
          ? between(column, Math.min(a, b), Math.max(a, b))
          : eq(column, a)
      case 7:
        return column.dataType === "string" && column.columnType === "PgText"
          ? like(column, `${String(a).slice(0, 1)}%`)
          : eq(column, a)
      case 8:
        return sql`${column} is not distinct from ${table[other]}`
      default:
        return compare(column, a)
    }
  }
}

const drawCondition = (chance: Chance, subject: Subject): Condition => {
  const kind = chance.below(12)
  if (kind < 5) return drawPinned(chance, subject)
  if (kind < 8) return drawSimple(chance, subject)
  const first = drawSimple(chance, subject)
  const second = drawSimple(chance, subject)
  if (kind === 8) return (db, table) => and(first(db, table), second(db, table))
  if (kind === 9) return (db, table) => or(first(db, table), drawnNot(second(db, table)))
  if (kind === 10) return () => undefined
  return drawAmongRelated(chance, subject) ?? first
}

const drawnNot = (condition: SQL | undefined): SQL | undefined =>
  condition === undefined ? undefined : not(condition)

/** The rows that refer to certain others, or are referred to by them. */
const drawAmongRelated = (chance: Chance, subject: Subject): Condition | undefined => {
  const fitting = relations.filter(({ child, parent }) => child === subject || parent === subject)
  if (fitting.length === 0) return undefined
  const { child, parent, on } = chance.of(fitting)
  const isChild = child === subject
  const other = isChild ? parent : child
  const [own, others] = (isChild ? Object.entries(on)[0]! : Object.entries(on)[0]!.toReversed()) as [
    string,
    string
  ]
  const condition = drawSimple(chance, other)
  const isExists = chance.below(2) === 0
  const isNegative = chance.below(4) === 0
  return (db, table) => {
    const among = alias(other.table, "among") as any
    const where = condition(db, among)
    const found = isExists
      ? exists(
          db
            .select({ one: sql`1` })
            .from(among)
            .where(and(eq(among[others], table[own]), where))
        )
      : inArray(table[own], db.select({ value: among[others] }).from(among).where(where))
    return isNegative ? not(found) : found
  }
}

type Returning = (builder: any, table: any) => Statement<any>

const drawReturning = (chance: Chance, subject: Subject): Returning => {
  const kind = chance.below(7)
  if (kind < 3) return (builder) => builder
  if (kind < 5) return (builder) => builder.returning()
  const columns = columnsOf(subject.table).map(([property]) => property)
  const some = [chance.of(columns), chance.of(columns)]
  return (builder, table) =>
    builder.returning({
      ...Object.fromEntries(some.map((property) => [property, table[property]])),
      ...(kind === 6 ? { text: sql<string>`${table[some[0]!]}::text || '!'` } : {})
    })
}

/** What is assigned to some columns. */
type Assignments = (table: any) => Record<string, unknown>

const drawAssignment = (
  chance: Chance,
  subject: Subject,
  property: string,
  isUpsert: boolean
): Draw | ((table: any) => unknown) => {
  const kind = chance.below(10)
  const value = subject.values[property]!(chance)
  const other = drawValue(chance, subject, property)
  return (table: any) => {
    const column: Column = table[property]
    const isInteger = column.getSQLType() === "integer" && column.columnType === "PgInteger"
    if (kind < 2 && isUpsert) return sql.raw(`excluded."${column.name}"`)
    if (kind < 4 && isInteger) return sql`${column} + 1`
    if (kind === 4 && isInteger) return sql`greatest(${column} - 1, 1)`
    if (kind === 5) return sql`coalesce(${column}, ${sql.param(other, column)})`
    if (kind === 6 && !isUpsert) return sql`default`
    return value
  }
}

const drawAssignments = (chance: Chance, subject: Subject, isUpsert = false): Assignments => {
  const key = keyOf(subject.table)
  const all = Object.keys(subject.values)
  const plain = all.filter((property) => !key.includes(property))
  const from = plain.length === 0 || chance.below(6) === 0 ? all : plain
  const assigned = new Set([chance.of(from), ...(chance.below(3) === 0 ? [chance.of(from)] : [])])
  const drawn = [...assigned].map(
    (property) => [property, drawAssignment(chance, subject, property, isUpsert)] as const
  )
  return (table) => Object.fromEntries(drawn.map(([property, value]) => [property, value(table)]))
}

const drawRow = (chance: Chance, { values, required }: Subject): Record<string, unknown> => {
  const row: Record<string, unknown> = {}
  for (const [property, value] of Object.entries(values)) {
    const drawn = value(chance)
    if (required.includes(property) || chance.below(3) > 0) row[property] = drawn
    // A constraint is violated.
    if (chance.below(150) === 0) row[property] = null
  }
  return row
}

// ------------------------------------------------------------------------------------------------------------ forms

type FormOf = (chance: Chance) => Drawn

const named = (subject: Subject, by: string): Pick<Drawn, "form" | "targets"> => ({
  form: by,
  targets: [subject.name]
})

const drawConflict = (
  chance: Chance,
  subject: Subject,
  by: "nothing" | "update"
): ((builder: any) => any) => {
  const key = keyOf(subject.table)
  const target =
    subject.unique !== undefined && (key.length === 0 || chance.below(3) === 0) ? [subject.unique] : key
  if (by === "nothing") {
    const isTargeted = chance.below(2) === 0 && target.length > 0
    return (builder) =>
      builder.onConflictDoNothing(
        isTargeted ? { target: target.map((property) => subject.table[property]) } : undefined
      )
  }
  const set = drawAssignments(chance, subject, true)
  const setWhere = chance.below(4) === 0 ? drawSimple(chance, subject) : undefined
  return (builder) =>
    builder.onConflictDoUpdate({
      target: target.map((property) => subject.table[property]),
      set: set(subject.table),
      ...(setWhere === undefined ? {} : { setWhere: setWhere(undefined as never, subject.table) })
    })
}

const insert: FormOf = (chance) => {
  const subject = chance.of(subjects)
  const rows = Array.from({ length: chance.below(3) === 0 ? 2 + chance.below(2) : 1 }, () =>
    drawRow(chance, subject)
  )
  const canConflict = keyOf(subject.table).length > 0 && !isView(subject)
  const kind = canConflict ? chance.of(["", "nothing", "update", "update"] as const) : ""
  const conflict = kind === "" ? undefined : drawConflict(chance, subject, kind)
  const returning = drawReturning(chance, subject)
  return {
    ...named(subject, kind === "" ? "insert" : kind === "nothing" ? "insert, do nothing" : "upsert"),
    build: (db) => {
      const builder = db.insert(subject.table).values(rows)
      return returning(conflict === undefined ? builder : conflict(builder), subject.table)
    }
  }
}

/** Queries that give rows to insert. */
const sources: ReadonlyArray<{
  readonly into: Subject
  readonly from: (chance: Chance) => (db: AnyDatabase) => any
}> = [
  {
    into: filmCategorySubject,
    from: (chance) => {
      const [of, into] = [drawCondition(chance, filmsSubject), drawPinned(chance, categoriesSubject)]
      const { films, categories } = schema
      return (db) =>
        db
          .select({ filmId: films.id, categoryId: categories.id })
          .from(films)
          .innerJoin(categories, into(db, categories) ?? sql`true`)
          .where(of(db, films))
    }
  },
  {
    into: filmSequelSubject,
    from: (chance) => {
      const condition = drawSimple(chance, filmSequelSubject)
      const { filmSequel } = schema
      return (db) =>
        db
          .select({ filmId: filmSequel.sequelId, sequelId: filmSequel.filmId })
          .from(filmSequel)
          .where(condition(db, filmSequel))
    }
  },
  {
    into: paymentsSubject,
    from: (chance) => {
      const condition = drawCondition(chance, rentalsSubject)
      const month = Number(paymentsSubject.values["month"]!(chance))
      const { rentals } = schema
      return (db) =>
        db
          .select({
            id: rentals.id,
            month: sql<number>`${month}::int`.as("month"),
            rentalId: rentals.id,
            customerId: rentals.customerId,
            amount: sql<number>`1`.as("amount")
          })
          .from(rentals)
          .where(condition(db, rentals))
    }
  }
]

const insertSelect: FormOf = (chance) => {
  const { into, from } = chance.of(sources)
  const query = from(chance)
  const kind = chance.of(["", "nothing", "nothing", "update"] as const)
  const isUpdate = kind === "update" && into === paymentsSubject
  const conflict = kind === "" ? undefined : drawConflict(chance, into, isUpdate ? "update" : "nothing")
  const returning = drawReturning(chance, into)
  return {
    ...named(into, isUpdate ? "upsert … select" : "insert … select"),
    build: (db) => {
      const builder = db.insert(into.table).select(query(db))
      return returning(conflict === undefined ? builder : conflict(builder), into.table)
    }
  }
}

const update: FormOf = (chance) => {
  const subject = chance.of(subjects)
  const set = drawAssignments(chance, subject)
  const where = drawCondition(chance, subject)
  const returning = drawReturning(chance, subject)
  const isAlias = chance.below(8) === 0 && !isView(subject)
  return {
    ...named(subject, isAlias ? "update of an alias" : "update"),
    build: (db) => {
      const table: any = isAlias ? alias(subject.table, "same") : subject.table
      return returning(db.update(table).set(set(table)).where(where(db, table)), table)
    }
  }
}

/** Changes the primary key of rows that others refer to. */
const renumber: FormOf = (chance) => {
  const subject = chance.of([
    filmsSubject,
    languagesSubject,
    storesSubject,
    inventorySubject,
    staffSubject,
    customersSubject,
    rentalsSubject
  ])
  const property = chance.of(keyOf(subject.table))
  const value = subject.values[property]!(chance)
  const where = drawPinned(chance, subject)
  const returning = drawReturning(chance, subject)
  return {
    ...named(subject, "update of a primary key"),
    build: (db) =>
      returning(
        db
          .update(subject.table)
          .set({ [property]: value })
          .where(where(db, subject.table)),
        subject.table
      )
  }
}

const countUp: FormOf = (chance) => {
  const [subject, ...columns] = chance.of([
    [filmsSubject, "views"],
    [filmsSubject, "likes", "views"],
    [storesSubject, "visits"],
    [inventorySubject, "wear"]
  ] as const)
  const where = drawCondition(chance, subject)
  const returning = drawReturning(chance, subject)
  return {
    ...named(subject, "update of volatile columns"),
    build: (db) =>
      returning(
        db
          .update(subject.table)
          .set(Object.fromEntries(columns.map((column) => [column, sql`${subject.table[column]} + 1`])))
          .where(where(db, subject.table)),
        subject.table
      )
  }
}

/** A condition that writes, which has to be told. */
const writingCondition: FormOf = (chance) => {
  const subject = chance.of([categoriesSubject, actorsSubject, inventorySubject])
  const set = drawAssignments(chance, subject)
  const [where, id] = [drawPinned(chance, subject), 1 + chance.below(6)]
  return {
    form: "update where a function writes",
    targets: [subject.name, "films"],
    tables: [schema.films],
    build: (db) =>
      db
        .update(subject.table)
        .set(set(subject.table))
        .where(and(where(db, subject.table), sql`coalesce(see_film(${id}), 0) % 2 = 0`))
  }
}

const moveLinks: FormOf = (chance) => {
  const subject = chance.of([filmActorSubject, filmCategorySubject, filmSequelSubject])
  const sides = keyOf(subject.table)
  const [from, to] = [chance.of(sides), chance.of(sides)]
  const [old, next] = [subject.values[from]!(chance), subject.values[to]!(chance)]
  const returning = drawReturning(chance, subject)
  return {
    ...named(subject, "update of links"),
    build: (db) =>
      returning(
        db
          .update(subject.table)
          .set({ [to]: next })
          .where(eq(subject.table[from], old)),
        subject.table
      )
  }
}

const updateFrom: FormOf = (chance) => {
  const { child, parent, on, copies, beyond } = chance.of(relations)
  const set = drawAssignments(chance, child)
  const where = drawSimple(chance, parent)
  const [isCopying, isJoined, isAlias, isSubquery] = [2, 2, 3, 3].map((limit) => chance.below(limit) === 0)
  const join = chance.of(["leftJoin", "innerJoin", "rightJoin", "fullJoin"])
  const kind = chance.below(7)
  const columns = columnsOf(child.table).map(([property]) => property)
  const some = chance.of(columns)
  return {
    ...named(child, isJoined && beyond !== undefined ? "update … from … join" : "update … from"),
    build: (db) => {
      const source: any = isSubquery
        ? db.select().from(parent.table).as("source")
        : isAlias
          ? alias(parent.table, "source")
          : parent.table
      const assigned = set(child.table)
      if (isCopying && copies !== undefined) assigned[copies[0]] = sql`${source[copies[1]]}`
      const from: any = db.update(child.table).set(assigned).from(source)
      const far: any = beyond?.table
      const joined =
        isJoined && beyond !== undefined
          ? from[join](
              far,
              and(...Object.entries(beyond.on).map(([own, other]) => eq(source[own], far[other])))
            )
          : from
      const builder = joined.where(
        and(
          ...Object.entries(on).map(([own, other]) => eq(child.table[own], source[other])),
          where(db, source)
        )
      )
      return kind < 3
        ? builder
        : kind < 5
          ? builder.returning()
          : builder.returning({ [some]: child.table[some], of: source[Object.values(on)[0]!] })
    }
  }
}

const remove: FormOf = (chance) => {
  const subject = chance.of(subjects)
  // Seldom all of them, or nothing would be left.
  const drawn = drawCondition(chance, subject)
  const pinned = drawPinned(chance, subject)
  const isWide = chance.below(4) === 0
  const returning = drawReturning(chance, subject)
  return {
    ...named(subject, "delete"),
    build: (db) => {
      const where = isWide ? drawn : pinned
      return returning(db.delete(subject.table).where(where(db, subject.table)), subject.table)
    }
  }
}

const withRead: FormOf = (chance) => {
  const { child, parent, on } = chance.of(relations)
  const [own, others] = Object.entries(on)[0]!
  const condition = drawSimple(chance, parent)
  const set = drawAssignments(chance, child)
  const returning = drawReturning(chance, child)
  const isDelete = chance.below(4) === 0
  const isFrom = chance.below(3) === 0
  return {
    ...named(child, `with … ${isDelete ? "delete" : "update"}`),
    build: (db) => {
      const few: any = db
        .$with("few")
        .as(db.select({ value: parent.table[others] }).from(parent.table).where(condition(db, parent.table)))
      const among = inArray(child.table[own], db.select({ value: few.value }).from(few))
      const builder = isDelete
        ? db.with(few).delete(child.table).where(among)
        : isFrom
          ? db
              .with(few)
              .update(child.table)
              .set(set(child.table))
              .from(few)
              .where(eq(child.table[own], few.value))
          : db.with(few).update(child.table).set(set(child.table)).where(among)
      return returning(builder, child.table)
    }
  }
}

const withWrite: FormOf = (chance) => {
  const { child, parent, on } = chance.of(relations)
  const [own, others] = Object.entries(on)[0]!
  const where = drawPinned(chance, child)
  const setChild = drawAssignments(chance, child)
  const setParent = drawAssignments(chance, parent)
  const kind = chance.below(3)
  const returning = drawReturning(chance, parent)
  return {
    form: kind === 2 ? "with (write) select" : "with (write) update",
    targets: kind === 2 ? [child.name] : [child.name, parent.name],
    build: (db) => {
      const first: any =
        kind === 0
          ? db.delete(child.table).where(where(db, child.table))
          : db.update(child.table).set(setChild(child.table)).where(where(db, child.table))
      const changed: any = db.$with("changed").as(first.returning({ value: child.table[own] }))
      return kind === 2
        ? db.with(changed).select().from(changed)
        : returning(
            db
              .with(changed)
              .update(parent.table)
              .set(setParent(parent.table))
              .where(inArray(parent.table[others], db.select({ value: changed.value }).from(changed))),
            parent.table
          )
    }
  }
}

const raws: ReadonlyArray<
  (chance: Chance) => Pick<Drawn, "form" | "targets" | "tables"> & { readonly text: SQL }
> = [
  (chance) => ({
    form: "raw insert",
    targets: ["film_category"],
    text: sql`insert into film_category values (${film(chance)}, ${1 + chance.below(4)}) on conflict do nothing`
  }),
  (chance) => ({
    form: "raw insert",
    targets: ["notes"],
    text: sql`INSERT INTO "notes" (id, film_id) SELECT ${1 + chance.below(4)}, ${film(chance)} RETURNING *`
  }),
  (chance) => ({
    form: "raw update",
    targets: ["rentals"],
    text: sql`update only rentals as r set returned = not r.returned, staff_id = null where r.id <= ${1 + chance.below(8)}`
  }),
  (chance) => ({
    form: "raw update",
    targets: ["archive.reviews"],
    text: sql`update ${schema.reviews} set stars = 1 + stars % 5 where film_id = ${film(chance)}`
  }),
  (chance) => ({
    form: "raw delete … using",
    targets: ["payments"],
    text: sql`delete from payments p using rentals r where p.rental_id = r.id and r.customer_id = ${1 + chance.below(5)} returning p.id`
  }),
  (chance) => ({
    form: "raw with",
    targets: ["film_actor", "film_sequel"],
    text: sql`with gone as (delete from film_actor where actor_id = ${1 + chance.below(5)} returning film_id)
      insert into film_sequel select distinct film_id, film_id from gone on conflict do nothing`
  }),
  (chance) => {
    const table = chance.of(["film_sequel", "audit", "payments", "notes", "archive.reviews"])
    return { form: "raw truncate", targets: [table], text: sql.raw(`truncate ${table}`) }
  },
  (chance) =>
    chance.below(4) === 0
      ? { form: "raw truncate … cascade", targets: ["rentals"], text: sql`truncate table rentals cascade` }
      : { form: "raw truncate", targets: ["audit"], text: sql`truncate table audit` },
  (chance) => ({
    form: "raw merge",
    targets: ["customers"],
    text: sql`merge into customers c using (values (${1 + chance.below(5)}::int, ${chance.of(["a@x", "b@x", "e@x"])}::text)) v (id, email)
      on c.id = v.id when matched then update set email = v.email
      when not matched then insert (id, email) values (v.id, v.email)`
  }),
  (chance) => ({
    form: "raw merge",
    targets: ["inventory"],
    text: sql`merge into inventory i using films f on i.film_id = f.id and f.id = ${film(chance)}
      when matched and i.copy > 1 then delete when matched then do nothing`
  }),
  (chance) => ({
    form: "a function that writes",
    targets: ["films"],
    tables: [schema.films],
    text: sql`select see_film(${film(chance)})`
  })
]

const raw: FormOf = (chance) => {
  const { text, ...drawn } = chance.of(raws)(chance)
  return { ...drawn, build: (db) => db.execute(text) }
}

/** Puts rows back, so that there are always some. */
const restore: FormOf = (chance) => {
  const subject = chance.of(
    subjects.filter((subject) => !isView(subject) && subject !== auditSubject && subject !== notesSubject)
  )
  const rows = Array.from({ length: 4 }, () => drawRow(chance, subject))
  return {
    ...named(subject, "insert, do nothing"),
    build: (db) => db.insert(subject.table).values(rows).onConflictDoNothing()
  }
}

const forms: ReadonlyArray<FormOf> = [
  insert,
  insert,
  insert,
  insert,
  insert,
  insert,
  restore,
  restore,
  insertSelect,
  update,
  update,
  update,
  update,
  update,
  update,
  renumber,
  countUp,
  countUp,
  writingCondition,
  moveLinks,
  updateFrom,
  updateFrom,
  updateFrom,
  remove,
  remove,
  remove,
  withRead,
  withWrite,
  raw,
  raw
]
