/**
 * The application: films in a database, four questions about them, and four ways to change them.
 *
 * This is how a program that uses cacheme looks. The reads are memoized, the writes go through `Db.mutate`, and nobody
 * writes an invalidation, nor what an answer rests on: that is what its query has read.
 */
import { asc, desc, eq, isNotNull } from "drizzle-orm"
import { doublePrecision, index, integer, pgTable, text } from "drizzle-orm/pg-core"
import { Effect, Schema } from "effect"
import { Db, Model } from "../../../src/drizzle/index.ts"
import { Cacheme, Node } from "../../../src/index.ts"

export const films = pgTable(
  "films",
  {
    id: integer().primaryKey(),
    title: text().notNull(),
    director: text(),
    genre: text(),
    rating: doublePrecision(),
    votes: integer().notNull()
  },
  (table) => [index().on(table.director), index().on(table.genre)]
)

// By these columns films are looked for, beside their id: so a query tells which of them it read.
Model.make(films, { keys: { byDirector: ["director"], byGenre: ["genre"] } })

export class Film extends Schema.Class<Film>("Film")({
  id: Schema.Int,
  title: Schema.String,
  director: Schema.NullOr(Schema.String),
  genre: Schema.NullOr(Schema.String),
  rating: Schema.NullOr(Schema.Finite),
  votes: Schema.Int
}) {}

class FilmGone extends Schema.TaggedError<FilmGone>()("FilmGone", { id: Schema.Int }) {}

// ------------------------------------------------------------------------------------------------------- the questions

class FilmNode extends Node.Class<FilmNode>()("film", {
  key: { id: Schema.Int },
  value: Film,
  error: FilmGone, // "There is no such film" is remembered too, until there is one.
  timeToLive: "10 minutes"
}) {}

class DirectorNode extends Node.Class<DirectorNode>()("director", {
  key: { director: Schema.String },
  value: Schema.Array(Film),
  timeToLive: "10 minutes"
}) {}

class TopNode extends Node.Class<TopNode>()("top", {
  key: { genre: Schema.String },
  value: Schema.Array(Film),
  timeToLive: "10 minutes"
}) {}

class CountNode extends Node.Class<CountNode>()("count", {
  key: {},
  value: Schema.Int,
  timeToLive: "10 minutes"
}) {}

export const film = Cacheme.fn(FilmNode, ({ id }) =>
  Db.query((db) => db.select().from(films).where(eq(films.id, id))).pipe(
    Effect.flatMap(([row]) => (row === undefined ? Effect.fail(new FilmGone({ id })) : Effect.succeed(row)))
  )
)

export const byDirector = Cacheme.fn(DirectorNode, ({ director }) =>
  Db.query((db) => db.select().from(films).where(eq(films.director, director)).orderBy(asc(films.id)))
)

export const topOfGenre = Cacheme.fn(TopNode, ({ genre }) =>
  Db.query((db) =>
    db.select().from(films).where(eq(films.genre, genre)).orderBy(desc(films.votes), asc(films.id)).limit(10)
  )
)

export const rated = Cacheme.fn(CountNode, () => Db.query((db) => db.$count(films, isNotNull(films.rating))))

// ---------------------------------------------------------------------------------------------------------- the writes

export const rate = (id: number, rating: number, votes: number) =>
  Db.mutate((db) => db.update(films).set({ rating, votes }).where(eq(films.id, id)))

export const credit = (id: number, director: string) =>
  Db.mutate((db) => db.update(films).set({ director }).where(eq(films.id, id)))

export const add = (row: typeof films.$inferInsert) => Db.mutate((db) => db.insert(films).values(row))

export const remove = (id: number) => Db.mutate((db) => db.delete(films).where(eq(films.id, id)))
