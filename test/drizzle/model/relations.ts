/** How the tables of the film rental are related, for Drizzle's relational queries. */
import { relations } from "drizzle-orm"
import * as tables from "./schema.ts"

const { actors, categories, customers, filmActor, filmCategory, films, filmSequel, holds } = tables
const { inventory, languages, notes, payments, rentals, reviews, staff, stores } = tables

/** The tables, and how they are related. */
export const filmSchema = {
  actors,
  categories,
  customers,
  filmActor,
  filmCategory,
  films,
  filmSequel,
  holds,
  inventory,
  languages,
  notes,
  payments,
  rentals,
  reviews,
  staff,
  stores,
  ofLanguages: relations(languages, ({ many }) => ({
    films: many(films, { relationName: "language" }),
    originals: many(films, { relationName: "original" })
  })),
  ofCategories: relations(categories, ({ one, many }) => ({
    parent: one(categories, {
      fields: [categories.parentId],
      references: [categories.id],
      relationName: "parent"
    }),
    children: many(categories, { relationName: "parent" }),
    sorted: many(filmCategory)
  })),
  ofFilms: relations(films, ({ one, many }) => ({
    language: one(languages, {
      fields: [films.languageId],
      references: [languages.id],
      relationName: "language"
    }),
    original: one(languages, {
      fields: [films.originalLanguageId],
      references: [languages.id],
      relationName: "original"
    }),
    cast: many(filmActor),
    sorted: many(filmCategory),
    sequels: many(filmSequel, { relationName: "film" }),
    prequels: many(filmSequel, { relationName: "sequel" }),
    copies: many(inventory),
    reviews: many(reviews),
    notes: many(notes)
  })),
  ofActors: relations(actors, ({ many }) => ({ cast: many(filmActor) })),
  ofFilmActor: relations(filmActor, ({ one }) => ({
    film: one(films, { fields: [filmActor.filmId], references: [films.id] }),
    actor: one(actors, { fields: [filmActor.actorId], references: [actors.id] })
  })),
  ofFilmCategory: relations(filmCategory, ({ one }) => ({
    film: one(films, { fields: [filmCategory.filmId], references: [films.id] }),
    category: one(categories, { fields: [filmCategory.categoryId], references: [categories.id] })
  })),
  ofFilmSequel: relations(filmSequel, ({ one }) => ({
    film: one(films, { fields: [filmSequel.filmId], references: [films.id], relationName: "film" }),
    sequel: one(films, { fields: [filmSequel.sequelId], references: [films.id], relationName: "sequel" })
  })),
  ofStores: relations(stores, ({ one, many }) => ({
    manager: one(staff, { fields: [stores.managerId], references: [staff.id], relationName: "manager" }),
    team: many(staff, { relationName: "store" }),
    customers: many(customers),
    copies: many(inventory)
  })),
  ofStaff: relations(staff, ({ one, many }) => ({
    store: one(stores, { fields: [staff.storeId], references: [stores.id], relationName: "store" }),
    boss: one(staff, { fields: [staff.reportsTo], references: [staff.id], relationName: "boss" }),
    reports: many(staff, { relationName: "boss" }),
    rentals: many(rentals)
  })),
  ofCustomers: relations(customers, ({ one, many }) => ({
    store: one(stores, { fields: [customers.storeId], references: [stores.id] }),
    rentals: many(rentals),
    payments: many(payments),
    reviews: many(reviews),
    holds: many(holds)
  })),
  ofInventory: relations(inventory, ({ one, many }) => ({
    store: one(stores, { fields: [inventory.storeId], references: [stores.id] }),
    film: one(films, { fields: [inventory.filmId], references: [films.id] }),
    rentals: many(rentals),
    holds: many(holds)
  })),
  ofHolds: relations(holds, ({ one }) => ({
    of: one(inventory, {
      fields: [holds.storeId, holds.copy],
      references: [inventory.storeId, inventory.copy]
    }),
    customer: one(customers, { fields: [holds.customerId], references: [customers.id] })
  })),
  ofRentals: relations(rentals, ({ one, many }) => ({
    of: one(inventory, {
      fields: [rentals.storeId, rentals.copy],
      references: [inventory.storeId, inventory.copy]
    }),
    customer: one(customers, { fields: [rentals.customerId], references: [customers.id] }),
    staff: one(staff, { fields: [rentals.staffId], references: [staff.id] }),
    payments: many(payments)
  })),
  ofPayments: relations(payments, ({ one }) => ({
    rental: one(rentals, { fields: [payments.rentalId], references: [rentals.id] }),
    customer: one(customers, { fields: [payments.customerId], references: [customers.id] })
  })),
  ofReviews: relations(reviews, ({ one }) => ({
    film: one(films, { fields: [reviews.filmId], references: [films.id] }),
    customer: one(customers, { fields: [reviews.customerId], references: [customers.id] })
  })),
  ofNotes: relations(notes, ({ one }) => ({
    film: one(films, { fields: [notes.filmId], references: [films.id] })
  }))
}
export type FilmSchema = typeof filmSchema

/** The relations of each table that has any: their names, and the tables that they lead to. */
export const related: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  languages: { films: "films", originals: "films" },
  categories: { parent: "categories", children: "categories", sorted: "filmCategory" },
  films: {
    language: "languages",
    original: "languages",
    cast: "filmActor",
    sorted: "filmCategory",
    sequels: "filmSequel",
    prequels: "filmSequel",
    copies: "inventory",
    reviews: "reviews",
    notes: "notes"
  },
  actors: { cast: "filmActor" },
  filmActor: { film: "films", actor: "actors" },
  filmCategory: { film: "films", category: "categories" },
  filmSequel: { film: "films", sequel: "films" },
  stores: { manager: "staff", team: "staff", customers: "customers", copies: "inventory" },
  staff: { store: "stores", boss: "staff", reports: "staff", rentals: "rentals" },
  customers: {
    store: "stores",
    rentals: "rentals",
    payments: "payments",
    reviews: "reviews",
    holds: "holds"
  },
  inventory: { store: "stores", film: "films", rentals: "rentals", holds: "holds" },
  holds: { of: "inventory", customer: "customers" },
  rentals: { of: "inventory", customer: "customers", staff: "staff", payments: "payments" },
  payments: { rental: "rentals", customer: "customers" },
  reviews: { film: "films", customer: "customers" },
  notes: { film: "films" }
}

/** The relations that lead to at most one row. */
export const isOne = (relation: string): boolean =>
  [
    "parent",
    "language",
    "original",
    "film",
    "actor",
    "category",
    "sequel",
    "manager",
    "store",
    "boss",
    "of",
    "customer",
    "staff",
    "rental"
  ].includes(relation)
