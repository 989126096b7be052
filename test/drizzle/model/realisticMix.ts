/**
 * A film rental as programs have it: several hundred films, pages that are read nine times of ten, and writes of single rows.
 * It tells how often a page was looked up again though nothing on it had changed, and how often that would have been so
 * had each write ended all that names its table, which is what Drizzle's own cache does.
 */
import { and, asc, count, desc, eq, inArray, like, sql, sum } from "drizzle-orm"
import { Cause, Effect, Exit, Layer, ManagedRuntime, References, Schema } from "effect"
import { getTableConfig } from "drizzle-orm/pg-core"
import type { Statement } from "../../../src/drizzle/builders.ts"
import { rowsOf } from "../../../src/drizzle/Connection.ts"
import { Cacheme, MemoryStore, Node } from "../../../src/index.ts"
import { type Chance, makeChance } from "../../checker/chance.ts"
import { type TableName, tableNames, tables } from "./copy.ts"
import { namedIn } from "./ReadWorld.ts"
import * as schema from "./schema.ts"
import { FilmDb, type Server } from "./servers.ts"
import { textOf } from "./twin.ts"

const { categories, customers, filmActor, filmCategory, films, inventory, languages } = schema
const { payments, rentals, reviews, staff, stores } = schema

// ---------------------------------------------------------------------------------------------------------- the rows

const sizes = {
  films: 400,
  actors: 150,
  categories: 16,
  stores: 4,
  customers: 300,
  copies: 250,
  rentals: 1500
}

/** The rows at the beginning; the triggers go that make one write a write of rows elsewhere. */
const beginning = `
drop trigger if exists note_customer on customers; drop trigger if exists place_reviews on archive.reviews;
drop trigger if exists count_visit on rentals; drop trigger if exists count_visit on holds;
truncate languages, categories, films, actors, film_actor, film_category, film_sequel, stores, staff, customers, inventory,
  rentals, payments, archive.reviews, notes, audit, holds restart identity;
insert into languages select i, 'Language ' || i from generate_series(1, 6) i;
insert into categories select i, 'Category ' || i, case when i > 4 then 1 + i % 4 end
  from generate_series(1, ${sizes.categories}) i;
insert into films (id, title, language_id, rating, code, rate)
  select i, chr(65 + i % 26) || ' film ' || i, 1 + i % 6, (array['G', 'PG', 'R'])[1 + i % 3]::film_rating, 'F' || i, i % 5
  from generate_series(1, ${sizes.films}) i;
insert into actors select i, 'First ' || i, 'Last ' || i from generate_series(1, ${sizes.actors}) i;
insert into film_actor select f, 1 + (f * 7 + k * 31) % ${sizes.actors}, 'Role ' || k
  from generate_series(1, ${sizes.films}) f, generate_series(1, 5) k on conflict do nothing;
insert into film_category select f, 1 + (f * k * 5) % ${sizes.categories}
  from generate_series(1, ${sizes.films}) f, generate_series(1, 2) k on conflict do nothing;
insert into stores (id, city) select i, 'City ' || i from generate_series(1, ${sizes.stores}) i;
insert into staff select i, 1 + i % ${sizes.stores}, 'Staff ' || i from generate_series(1, 12) i;
insert into customers (id, store_id, email) select i, 1 + i % ${sizes.stores}, 'customer' || i || '@example.com'
  from generate_series(1, ${sizes.customers}) i;
insert into inventory (store_id, copy, film_id) select s, c, 1 + (s * 97 + c * 13) % ${sizes.films}
  from generate_series(1, ${sizes.stores}) s, generate_series(1, ${sizes.copies}) c;
insert into rentals (id, store_id, copy, customer_id, staff_id, returned)
  select i, 1 + i % ${sizes.stores}, 1 + (i * 7) % ${sizes.copies}, 1 + (i * 11) % ${sizes.customers}, 1 + i % 12, i % 3 > 0
  from generate_series(1, ${sizes.rentals}) i;
select setval(pg_get_serial_sequence('rentals', 'id'), ${sizes.rentals});
insert into payments select i, 1 + i % 12, i, 1 + (i * 11) % ${sizes.customers}, 1 + i % 9
  from generate_series(1, ${sizes.rentals}) i;
insert into archive.reviews (film_id, customer_id, stars) select 1 + (c * k * 3) % ${sizes.films}, c, 1 + (c + k) % 5
  from generate_series(1, ${sizes.customers}) c, generate_series(1, 3) k on conflict do nothing;
analyze;
`

/** What grows meanwhile. */
interface State {
  films: number
  customers: number
  rentals: number
  copies: number
}

/** Small numbers are drawn far more often than great ones. */
const popular = (chance: Chance, limit: number): number =>
  1 + Math.floor(limit * (chance.below(1_000_000) / 1_000_000) ** 2.5)

// ---------------------------------------------------------------------------------------------------------- the pages

interface Page {
  /** How often of a hundred. */
  readonly share: number
  readonly key: (chance: Chance, state: State) => number
  readonly read: (db: any, key: number) => Statement<any>
}

const one = (): number => 1
const aFilm = (chance: Chance, { films }: State): number => popular(chance, films)
const aCustomer = (chance: Chance, { customers }: State): number => popular(chance, customers)

const pages: Readonly<Record<string, Page>> = {
  "film with language and cast": {
    share: 25,
    key: aFilm,
    read: (db, id) =>
      db.query.films.findFirst({
        columns: { id: true, title: true, rating: true, rate: true, languageId: true },
        where: eq(films.id, id),
        with: {
          language: true,
          cast: {
            columns: { role: true, actorId: true },
            with: { actor: true },
            orderBy: [asc(filmActor.actorId)]
          }
        }
      })
  },
  "how often a film was seen": {
    share: 5,
    key: aFilm,
    read: (db, id) => db.select({ views: films.views }).from(films).where(eq(films.id, id))
  },
  "reviews of a film": {
    share: 8,
    key: aFilm,
    read: (db, id) =>
      db
        .select({ stars: reviews.stars, by: reviews.customerId, email: customers.email })
        .from(reviews)
        .innerJoin(customers, eq(customers.id, reviews.customerId))
        .where(eq(reviews.filmId, id))
        .orderBy(desc(reviews.stars), asc(reviews.customerId))
  },
  "a customer's rentals": {
    share: 12,
    key: aCustomer,
    read: (db, id) =>
      db
        .select({ id: rentals.id, returned: rentals.returned, filmId: inventory.filmId, title: films.title })
        .from(rentals)
        .innerJoin(inventory, and(eq(inventory.storeId, rentals.storeId), eq(inventory.copy, rentals.copy)))
        .innerJoin(films, eq(films.id, inventory.filmId))
        .where(eq(rentals.customerId, id))
        .orderBy(desc(rentals.id))
        .limit(20)
  },
  "a customer's rentals, by relations": {
    share: 4,
    key: aCustomer,
    read: (db, id) =>
      db.query.customers.findFirst({
        where: eq(customers.id, id),
        with: {
          rentals: {
            orderBy: [desc(rentals.id)],
            limit: 20,
            with: { of: { with: { film: { columns: { title: true } } } } }
          }
        }
      })
  },
  "a customer with a store": {
    share: 8,
    key: aCustomer,
    read: (db, id) =>
      db
        .select()
        .from(customers)
        .leftJoin(stores, eq(stores.id, customers.storeId))
        .where(eq(customers.id, id))
  },
  "a customer by email": {
    share: 4,
    key: aCustomer,
    read: (db, id) =>
      db
        .select()
        .from(customers)
        .where(eq(customers.email, `customer${id}@example.com`))
  },
  "films of a category": {
    share: 7,
    key: (chance) => popular(chance, sizes.categories),
    read: (db, id) =>
      db
        .select({ id: films.id, title: films.title })
        .from(filmCategory)
        .innerJoin(films, eq(films.id, filmCategory.filmId))
        .where(eq(filmCategory.categoryId, id))
        .orderBy(asc(films.title), asc(films.id))
  },
  "films of an actor": {
    share: 5,
    key: (chance) => popular(chance, sizes.actors),
    read: (db, id) =>
      db
        .select({ filmId: filmActor.filmId, role: filmActor.role, title: films.title })
        .from(filmActor)
        .innerJoin(films, eq(films.id, filmActor.filmId))
        .where(eq(filmActor.actorId, id))
        .orderBy(asc(filmActor.filmId))
  },
  "where to get a film": {
    share: 6,
    key: aFilm,
    read: (db, id) =>
      db
        .select({ storeId: inventory.storeId, copy: inventory.copy, city: stores.city, rental: rentals.id })
        .from(inventory)
        .innerJoin(stores, eq(stores.id, inventory.storeId))
        .leftJoin(
          rentals,
          and(
            eq(rentals.storeId, inventory.storeId),
            eq(rentals.copy, inventory.copy),
            eq(rentals.returned, false)
          )
        )
        .where(eq(inventory.filmId, id))
        .orderBy(asc(inventory.storeId), asc(inventory.copy), asc(rentals.id))
  },
  "what a store has": {
    share: 2,
    key: (chance) => popular(chance, sizes.stores),
    read: (db, id) =>
      db
        .select({ copy: inventory.copy, filmId: inventory.filmId, title: films.title })
        .from(inventory)
        .innerJoin(films, eq(films.id, inventory.filmId))
        .where(eq(inventory.storeId, id))
        .orderBy(asc(inventory.copy))
  },
  "a list of films": {
    share: 4,
    key: (chance) => popular(chance, 50),
    read: (db, id) =>
      db
        .select({ id: films.id, title: films.title, rating: films.rating })
        .from(films)
        .where(
          inArray(
            films.id,
            Array.from({ length: 10 }, (_, i) => 1 + ((id * 17 + i * 29) % sizes.films))
          )
        )
        .orderBy(asc(films.id))
  },
  "what a customer has paid": {
    share: 3,
    key: aCustomer,
    read: (db, id) =>
      db
        .select({ paid: sum(payments.amount), times: count() })
        .from(payments)
        .where(eq(payments.customerId, id))
  },
  "who works in a store": {
    share: 2,
    key: (chance) => popular(chance, sizes.stores),
    read: (db, id) => db.select().from(staff).where(eq(staff.storeId, id)).orderBy(asc(staff.id))
  },
  "ten films most seen": {
    share: 1,
    key: one,
    read: (db) =>
      db
        .select({ id: films.id, title: films.title, views: films.views })
        .from(films)
        .orderBy(desc(films.views), asc(films.id))
        .limit(10)
  },
  "ten films best reviewed": {
    share: 1,
    key: one,
    read: (db) =>
      db
        .select({ filmId: reviews.filmId, stars: sum(reviews.stars) })
        .from(reviews)
        .groupBy(reviews.filmId)
        .orderBy(desc(sum(reviews.stars)), asc(reviews.filmId))
        .limit(10)
  },
  "films whose title begins so": {
    share: 2,
    key: (chance) => popular(chance, 26),
    read: (db, id) =>
      db
        .select({ id: films.id, title: films.title })
        .from(films)
        .where(like(films.title, `${String.fromCharCode(64 + id)}%`))
        .orderBy(asc(films.title), asc(films.id))
        .limit(20)
  },
  "languages and categories": {
    share: 1,
    key: (chance) => 1 + chance.below(2),
    read: (db, id) =>
      id === 1
        ? db.select().from(languages).orderBy(asc(languages.id))
        : db.select().from(categories).orderBy(asc(categories.id))
  }
}

// --------------------------------------------------------------------------------------------------------- the writes

interface Write {
  /** How often of a hundred. */
  readonly share: number
  readonly write: (
    chance: Chance,
    state: State
  ) => (db: any) => Statement<any> | ReadonlyArray<Statement<any>>
}

const copyOf = (chance: Chance, { copies }: State) => ({
  storeId: 1 + chance.below(sizes.stores),
  copy: 1 + chance.below(copies)
})

const writes: Readonly<Record<string, Write>> = {
  "a film is seen": {
    share: 35,
    write: (chance, state) => {
      const id = aFilm(chance, state)
      return (db) =>
        db
          .update(films)
          .set({ views: sql`${films.views} + 1` })
          .where(eq(films.id, id))
    }
  },
  "a rental": {
    share: 20,
    write: (chance, state) => {
      const row = {
        id: ++state.rentals,
        ...copyOf(chance, state),
        customerId: aCustomer(chance, state),
        staffId: 1
      }
      return (db) => db.insert(rentals).values(row)
    }
  },
  "a return": {
    share: 15,
    write: (chance, { rentals: all }) => {
      const id = 1 + chance.below(all)
      return (db) =>
        db
          .update(rentals)
          .set({ returned: true })
          .where(and(eq(rentals.id, id), eq(rentals.returned, false)))
    }
  },
  "a payment": {
    share: 10,
    write: (chance, state) => {
      const rentalId = 1 + chance.below(state.rentals)
      const row = {
        id: 100_000 + chance.below(1_000_000),
        month: 1 + chance.below(12),
        rentalId,
        customerId: aCustomer(chance, state),
        amount: 1 + chance.below(9)
      }
      return (db) => db.insert(payments).values(row).onConflictDoNothing()
    }
  },
  "a review": {
    share: 9,
    write: (chance, state) => {
      const row = {
        filmId: aFilm(chance, state),
        customerId: 1 + chance.below(state.customers),
        stars: 1 + chance.below(5)
      }
      return (db) =>
        db
          .insert(reviews)
          .values(row)
          .onConflictDoUpdate({ target: [reviews.filmId, reviews.customerId], set: { stars: row.stars } })
    }
  },
  "a film is renamed": {
    share: 4,
    write: (chance, state) => {
      const [id, letter] = [aFilm(chance, state), String.fromCharCode(65 + chance.below(26))]
      const title = `${letter} film ${chance.below(1_000_000)}`
      return (db) => db.update(films).set({ title }).where(eq(films.id, id))
    }
  },
  "a customer moves": {
    share: 3,
    write: (chance, state) => {
      const [id, storeId] = [aCustomer(chance, state), 1 + chance.below(sizes.stores)]
      return (db) => db.update(customers).set({ storeId }).where(eq(customers.id, id))
    }
  },
  "a new customer": {
    share: 1,
    write: (chance, state) => {
      const id = ++state.customers
      const row = { id, email: `customer${id}@example.com`, storeId: 1 + chance.below(sizes.stores) }
      return (db) => db.insert(customers).values(row)
    }
  },
  "a new film, with cast and category": {
    share: 2,
    write: (chance, state) => {
      const id = ++state.films
      const letter = String.fromCharCode(65 + chance.below(26))
      const cast = [...new Set(Array.from({ length: 5 }, () => 1 + chance.below(sizes.actors)))]
      const categoryId = 1 + chance.below(sizes.categories)
      return (db) => [
        db
          .insert(films)
          .values({ id, title: `${letter} film ${id}`, languageId: 1 + (id % 6), code: `F${id}` }),
        db.insert(filmActor).values(cast.map((actorId) => ({ filmId: id, actorId }))),
        db.insert(filmCategory).values({ filmId: id, categoryId })
      ]
    }
  },
  "a copy for a store": {
    share: 1,
    write: (chance, state) => {
      const row = {
        storeId: 1,
        copy: 1000 + state.films * 100 + chance.below(10_000),
        filmId: aFilm(chance, state)
      }
      return (db) => db.insert(inventory).values(row).onConflictDoNothing()
    }
  }
}

const drawn = <A extends { readonly share: number }>(
  chance: Chance,
  all: Readonly<Record<string, A>>
): readonly [string, A] => {
  const entries = Object.entries(all)
  let left = chance.below(entries.reduce((sum, [, { share }]) => sum + share, 0))
  return entries.find(([, { share }]) => (left -= share) < 0)!
}

// ------------------------------------------------------------------------------------------------------------ the run

/** How often a page was looked up again, or would have been. */
export interface PageTally {
  reads: number
  /** Its answer had changed since it was read last. */
  changed: number
  lookedUp: number
  /** … though its answer had not changed. */
  needless: number
  /** A table that it names had been written. */
  byTable: number
  needlessByTable: number
}

/** What was found. */
export interface MixFindings {
  readonly reads: number
  readonly writes: number
  readonly pages: Readonly<Record<string, PageTally>>
  /** Answers from the cache that were looked up beside it and compared. */
  readonly compared: number
  readonly stale: string | undefined
}

/** How it is run. */
export interface MixOptions {
  readonly server: Server
  /** How many reads and writes. */
  readonly steps: number
  readonly seed: number
  readonly onProgress?: ((steps: number) => void) | undefined
}

class PageNode extends Node.Class<PageNode>()("page", {
  key: { page: Schema.String, key: Schema.Int },
  // What is shown, as a text.
  value: Schema.String,
  timeToLive: "Infinity"
}) {}

/** Reads and writes, nine to one; ends with the first stale page. */
export const runMix = async ({ server, steps, seed, onProgress }: MixOptions): Promise<MixFindings> => {
  const chance = makeChance(seed)
  const state: State = {
    films: sizes.films,
    customers: sizes.customers,
    rentals: sizes.rentals,
    copies: sizes.copies
  }
  await server.run(beginning)
  const runtime = ManagedRuntime.make(
    server
      .layer(undefined)
      .pipe(
        Layer.provideMerge(
          Cacheme.layer().pipe(Layer.provide(MemoryStore.layer({ capacity: 20_000 })), Layer.orDie)
        ),
        Layer.provideMerge(Layer.succeed(References.MinimumLogLevel, "Error"))
      )
  )
  const versions = new Map<TableName, string>()
  /** What each page showed last, and the versions of its tables then. */
  const last = new Map<string, { readonly text: string; readonly version: string }>()
  const tallies: Record<string, PageTally> = {}
  let [reads, writeCount, compared] = [0, 0, 0]
  const stale: Array<string> = []

  const readPage = Effect.gen(function* () {
    const [name, page] = drawn(chance, pages)
    const key = page.key(chance, state)
    const tally = (tallies[name] ??= noPageTally())
    let isLookedUp = false
    const text = yield* Effect.suspend(() => {
      isLookedUp = true
      return Effect.map(
        FilmDb.query((db) => page.read(db, key)),
        (answer) => JSON.stringify(answer) ?? "nothing"
      )
    }).pipe(Cacheme.memoize(new PageNode({ page: name, key })))
    const sent = textOf(server.db, page.read(server.db, key))
    const version = [...namedIn(sent)].map((table) => versions.get(table)).join()
    const before = last.get(`${name} ${key}`)
    last.set(`${name} ${key}`, { text, version })
    if (before === undefined) return
    const isWritten = version !== before.version
    const isChanged = text !== before.text
    tally.reads++
    if (isChanged) tally.changed++
    if (isLookedUp) tally.lookedUp++
    if (isLookedUp && !isChanged) tally.needless++
    if (isWritten) tally.byTable++
    if (isWritten && !isChanged) tally.needlessByTable++
    if (isLookedUp || !isWritten) return
    compared++
    const right = yield* Effect.promise(
      async () => JSON.stringify(await page.read(server.db, key)) ?? "nothing"
    )
    if (right !== text) stale.push(`${name} ${key}, ${sent}\nwas answered  ${text}\nbut it is     ${right}`)
  })

  const write = Effect.gen(function* () {
    const [, { write }] = drawn(chance, writes)
    const statements = write(chance, state)
    yield* FilmDb.mutate((db) => statements(db) as any)
    const written = yield* FilmDb.query((db) => db.execute(versionsOfAll))
    for (const [table, version] of Object.entries(rowsOf(written)[0]!))
      versions.set(table as TableName, String(version))
  })

  try {
    for (let step = 0; step < steps && stale.length === 0; step++) {
      const isWrite = chance.below(10) === 0
      const exit = await runtime.runPromiseExit(isWrite ? write : readPage)
      if (Exit.isFailure(exit)) throw new Error(Cause.pretty(exit.cause))
      if (isWrite) writeCount++
      else reads++
      onProgress?.(step + 1)
    }
  } finally {
    await runtime.dispose()
  }
  return { reads, writes: writeCount, pages: tallies, compared, stale: stale[0] }
}

const noPageTally = (): PageTally => ({
  reads: 0,
  changed: 0,
  lookedUp: 0,
  needless: 0,
  byTable: 0,
  needlessByTable: 0
})

/** What is another text after each change of a table: which transaction wrote last, and how many rows there are. */
const versionsOfAll = `select ${tableNames
  .map((name) => {
    const { schema: of, name: called } = getTableConfig(tables[name])
    const table = of === undefined ? `"${called}"` : `"${of}"."${called}"`
    return `(select count(*) || ' ' || coalesce(max(xmin::text::bigint), 0) from ${table}) as "${name}"`
  })
  .join(", ")}`
