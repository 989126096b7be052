/** Traffic as the web has it: a few films are asked for most of the time (Zipf), and now and then one is changed. */
import { Effect, Random } from "effect"
import type { Change, Question, Row } from "./truth.ts"

/** One thing that somebody does. */
export type Step = { readonly reads: Question } | { readonly writes: Change }

/** Steps drawn by a seeded generator: the same ones every time. */
export const draw = (
  rows: ReadonlyArray<Row>,
  options: { readonly reads: number; readonly writes: number }
) =>
  Effect.gen(function* () {
    const directors = [...new Set(rows.flatMap(({ director }) => director ?? []))]
    const genres = [...new Set(rows.flatMap(({ genre }) => genre ?? []))]
    const anId = zipf(rows.map(({ id }) => id))
    const aDirector = zipf(directors)
    const aGenre = zipf(genres)

    const question = Effect.gen(function* (): Effect.fn.Return<Question> {
      const kind = yield* Random.next
      if (kind < 0.6) return { about: "film", id: yield* anId }
      if (kind < 0.85) return { about: "director", director: yield* aDirector }
      return kind < 0.95 ? { about: "top", genre: yield* aGenre } : { about: "count" }
    })
    const change = (i: number) =>
      Effect.gen(function* (): Effect.fn.Return<Change> {
        const kind = yield* Random.next
        const id = yield* anId
        const rating = (yield* Random.nextIntBetween(10, 100)) / 10
        const votes = yield* Random.nextIntBetween(0, 500_000)
        if (kind < 0.7) return { does: "rate", id, rating, votes }
        const director = yield* aDirector
        if (kind < 0.85) return { does: "credit", id, director }
        if (kind < 0.95) return { does: "remove", id }
        const row = { id: 1_000_000 + i, title: `Film ${i}`, director, genre: yield* aGenre, rating, votes }
        return { does: "add", row }
      })

    const steps: Array<Step> = []
    const every = Math.floor(options.reads / options.writes)
    for (let i = 0; i < options.reads; i++) {
      steps.push({ reads: yield* question })
      if (i % every === every - 1) steps.push({ writes: yield* change(i) })
    }
    return steps
  }).pipe(Random.withSeed("films"))

/** The i-th of a list is drawn with a weight of 1/i. */
const zipf = <A>(items: ReadonlyArray<A>): Effect.Effect<A> => {
  let total = 0
  const sums = items.map((_, i) => (total += 1 / (i + 1)))
  return Effect.map(Random.next, (n) => {
    const at = sums.findIndex((sum) => sum >= n * total)
    return items[at]!
  })
}
