/**
 * Reads and writes 3,201 films, first without the cache, then with it, and checks every answer.
 *
 * Run it with `npm run demo`. It needs no server: the database is PGlite, inside the process.
 */
import { NodeRuntime } from "@effect/platform-node"
import Chartscii from "chartscii"
import { SingleBar } from "cli-progress"
import Table from "cli-table3"
import { sql } from "drizzle-orm"
import { ConfigProvider, Console, Effect, Exit, Layer, Logger, Semaphore, Stream } from "effect"
import { readFileSync } from "node:fs"
import { stripVTControlCharacters } from "node:util"
import { Db, type DbError } from "../../../src/drizzle/index.ts"
import { Cacheme, CachemeLive } from "../../../src/index.ts"
import { add, byDirector, credit, film, films, rate, rated, remove, topOfGenre } from "./films.ts"
import { draw, type Step } from "./traffic.ts"
import { type Change, type Question, type Read, type Row, textOf, Truth } from "./truth.ts"

const reads = 12_000
const writes = 400
const fibers = 16

/** The films of the npm package vega-datasets. */
const rows: ReadonlyArray<Row> = JSON.parse(
  readFileSync(new URL("../data/movies.json", import.meta.resolve("vega-datasets")), "utf8")
).map((movie: Record<string, unknown>, i: number) => ({
  id: i + 1,
  title: String(movie["Title"]),
  director: movie["Director"],
  genre: movie["Major Genre"],
  rating: movie["IMDB Rating"],
  votes: movie["IMDB Votes"] ?? 0
}))

const load = Effect.gen(function* () {
  yield* Db.mutate((db) =>
    db.execute(sql`create table films (id int primary key, title text not null, director text, genre text,
      rating double precision, votes int not null)`)
  )
  yield* Db.mutate((db) => db.execute(sql`create index on films (director)`))
  yield* Db.mutate((db) => db.execute(sql`create index on films (genre)`))
  yield* Db.mutate((db) => db.insert(films).values([...rows]))
})

const ask = (question: Question): Effect.Effect<unknown, DbError, Db | Cacheme> => {
  switch (question.about) {
    case "film":
      return Effect.catchTag(film({ id: question.id }), "FilmGone", () => Effect.succeed("gone"))
    case "director":
      return byDirector({ director: question.director })
    case "top":
      return topOfGenre({ genre: question.genre })
    case "count":
      return rated()
  }
}

const make = (change: Change) => {
  switch (change.does) {
    case "rate":
      return rate(change.id, change.rating, change.votes)
    case "credit":
      return credit(change.id, change.director)
    case "add":
      return add(change.row)
    case "remove":
      return remove(change.id)
  }
}

/** Does all steps, by several fibers at once. */
const run = (name: string, steps: ReadonlyArray<Step>) =>
  Effect.gen(function* () {
    yield* load
    const truth = new Truth(rows)
    const done: Array<Read> = []
    const oneAtATime = yield* Semaphore.make(1)
    let invalidations = 0
    yield* Effect.forkScoped(
      Stream.runForEach(Cacheme.events, () => Effect.sync(() => invalidations++)),
      { startImmediately: true }
    )

    const read = (question: Question) =>
      Effect.suspend(() => {
        const from = truth.completed
        const startedAt = performance.now()
        return Effect.map(ask(question), (answer) => {
          const milliseconds = performance.now() - startedAt
          done.push({ question, answer: textOf(answer), from, to: truth.begun, milliseconds })
        })
      })
    const write = (change: Change) =>
      oneAtATime.withPermit(
        Effect.suspend(() => {
          truth.begin(change)
          return Effect.tap(make(change), () => Effect.sync(() => truth.complete()))
        })
      )

    const bar = new SingleBar({ format: `${name} {bar} {value}/{total} steps`, noTTYOutput: true })
    bar.start(steps.length, 0)
    const startedAt = performance.now()
    yield* Effect.forEach(
      steps,
      (step) =>
        Effect.tap("reads" in step ? read(step.reads) : write(step.writes), () =>
          Effect.sync(() => bar.increment())
        ),
      { concurrency: fibers, discard: true }
    )
    const seconds = (performance.now() - startedAt) / 1000
    bar.stop()
    return {
      reads: done,
      invalidations,
      seconds,
      stats: (yield* Cacheme.stats).nodes,
      stale: done.filter((r) => truth.isStale(r))
    }
  }).pipe(Effect.scoped)

const percentile = (done: ReadonlyArray<Read>, part: number): string => {
  const sorted = done.map(({ milliseconds }) => milliseconds).toSorted((a, b) => a - b)
  return `${sorted[Math.floor(sorted.length * part)]!.toFixed(3)} ms`
}

const program = Effect.gen(function* () {
  const steps = yield* draw(rows, { reads, writes })
  const App = Db.layerPglite().pipe(Layer.provideMerge(CachemeLive))
  const off = ConfigProvider.layer(ConfigProvider.fromUnknown({ CACHEME_ENABLED: "false" }))
  const without = yield* Effect.provide(run("without the cache", steps), App.pipe(Layer.provide(off)))
  const cached = yield* Effect.provide(run("with the cache   ", steps), App)

  const both = [without, cached]
  const sum = (result: typeof cached, what: "hits" | "requests" | "lookups" | "bypassed") =>
    result.stats.reduce((total, stats) => total + stats[what], 0)
  const hitRatio = (hits: number, requests: number) =>
    `${((100 * hits) / Math.max(1, requests)).toFixed(1)} %`
  const table = new Table({
    head: ["", "without", "with"],
    colAligns: ["left", "right", "right"],
    style: { head: [], border: [], compact: true }
  })
  table.push(
    ["reads", ...both.map((result) => result.reads.length)],
    ["hit ratio", ...both.map((result) => hitRatio(sum(result, "hits"), sum(result, "requests")))],
    ["lookups", ...both.map((result) => sum(result, "lookups") + sum(result, "bypassed"))],
    ["time per read, p50", ...both.map((result) => percentile(result.reads, 0.5))],
    ["time per read, p99", ...both.map((result) => percentile(result.reads, 0.99))],
    ["writes", writes, writes],
    ["invalidations", ...both.map((result) => result.invalidations)],
    ["seconds in all", ...both.map((result) => result.seconds.toFixed(1))]
  )
  yield* Console.log(`\n${table.toString()}\n`)
  const bars = cached.stats.map(({ node, hits, requests }) => ({
    label: `${node}  ${hitRatio(hits, requests)}`,
    value: (100 * hits) / Math.max(1, requests)
  }))
  const width = 50
  const chart = new Chartscii(bars, {
    title: "answered from the cache, by node",
    width,
    scale: 100 / width,
    barSize: 1,
    padding: 0,
    colorLabels: false
  })
  const drawn = chart.create()
  yield* Console.log(process.stdout.isTTY ? drawn : stripVTControlCharacters(drawn))

  const stale = both.flatMap((result) => result.stale)
  for (const { question, answer } of stale.slice(0, 5)) {
    yield* Console.error(`stale: ${JSON.stringify(question)} was answered ${answer}`)
  }
  yield* Console.log(`\nstale answers: ${stale.length} of ${both.flatMap((result) => result.reads).length}`)
  return stale.length === 0 ? Exit.void : Exit.fail("a stale answer was given")
})

program.pipe(Effect.flatten, Effect.provide(Logger.layer([])), NodeRuntime.runMain)
