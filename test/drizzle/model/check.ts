/**
 * The model check of writes: random statements through `Db.mutate`, while every question that has been asked stays in the
 * cache. After each commit and each rollback every cached answer is compared with the right one; one that differs is
 * stale. The same statements go to a twin of the database by plain Drizzle, which must answer, keep and refuse the same.
 *
 * A history has rounds, each on the same rows and with an empty cache, so that one that goes wrong is short enough to be
 * made minimal: steps are left out as long as it still goes wrong.
 */
import { Cause, Effect, Exit, Layer, References, Schema } from "effect"
import type { PgTable } from "drizzle-orm/pg-core"
import { rowsOf as answeredRows } from "../../../src/drizzle/Connection.ts"
import { Db } from "../../../src/drizzle/index.ts"
import { Cacheme, MemoryStore, Node } from "../../../src/index.ts"
import * as Tag from "../../../src/Tag.ts"
import type { Request } from "../../../src/Invalidation.ts"
import {
  copyStatement,
  type Data,
  type Question,
  questions,
  type Row,
  rowsOf,
  type TableName,
  tableNames
} from "./questions.ts"
import { beginning } from "./schema.ts"
import type { Sabotage } from "./sabotage.ts"
import type { Server } from "./servers.ts"
import { type Drawn, draw } from "./statements.ts"
import { drawSteps, sizeOf, smaller, type Step } from "./steps.ts"
import { codeOf, doPlainly, GivenUp, givenUp, textOf, type Trace, written } from "./twin.ts"

/** What is checked. */
export interface Options {
  readonly server: Server
  /** How many statements at least. */
  readonly statements: number
  readonly seed: number
  /** How many statements in a round; default 200. */
  readonly round?: number | undefined
  /** Tells less than the library does; the check ends with the first stale answer. */
  readonly sabotage?: Sabotage | undefined
  /** After how many failures it ends; default 1. What comes after one is another round. */
  readonly failures?: number | undefined
  /** True if what goes wrong is not made minimal. */
  readonly isQuick?: boolean | undefined
  /** Told how many statements have run. */
  readonly onProgress?: ((statements: number) => void) | undefined
}

/** How the statements of one form were told. */
export interface FormTally {
  /** Nothing was changed, so nothing was told. */
  nothing: number
  byRow: number
  byTable: number
  /** Of these, how many told other tables too: what follows from a statement is told by table. */
  others: number
}

/** What a check has found. */
export interface Findings {
  readonly tally: Tally
  readonly seconds: number
  readonly failures: ReadonlyArray<Failure>
}

interface Tally {
  steps: number
  statements: number
  committed: number
  rolledBack: number
  /** Statements that the database refused, by SQLSTATE. */
  readonly refused: Record<string, number>
  /** Answers that were compared, and those of them that came from the cache. */
  reads: number
  hits: number
  /** Of the steps that committed something: entries that were invalidated. */
  invalidated: number
  /** Those of them whose answer had changed. */
  needed: number
  /** The same, if each table that has really changed had ended all that reads it. */
  invalidatedByTable: number
  /** How the statements that ran by themselves were told, by form. */
  readonly forms: Record<string, FormTally>
}

/** What has gone wrong. */
export interface Failure {
  readonly kind:
    | "stale answer"
    | "told though rolled back"
    | "unlike plain Drizzle"
    | "wrong question"
    | "failed"
  readonly story: string
  /** The statements that lead to it, the last step last. */
  readonly history: ReadonlyArray<string>
  /** The round's seed. */
  readonly seed: number
}

const noTally = (): Tally => ({
  steps: 0,
  statements: 0,
  committed: 0,
  rolledBack: 0,
  refused: {},
  reads: 0,
  hits: 0,
  invalidated: 0,
  needed: 0,
  invalidatedByTable: 0,
  forms: {}
})

/** Runs a check, until it has done what it was asked for, or something goes wrong. */
export const check = async (options: Options): Promise<Findings> => {
  const { server, statements, seed, round = 200, onProgress } = options
  const tally = noTally()
  const startedAt = performance.now()
  const failures: Array<Failure> = []
  for (let i = 0; tally.statements < statements && failures.length < (options.failures ?? 1); i++) {
    const before = tally.statements
    const steps = drawSteps(seed + i, Math.min(round, statements - before))
    const wrong = await live(server, steps, {
      tally,
      sabotage: options.sabotage,
      onStep: () => onProgress?.(tally.statements)
    })
    if (wrong !== undefined)
      failures.push(await makeMinimal(options, steps.slice(0, wrong.at + 1), wrong, seed + i))
  }
  return { tally, seconds: (performance.now() - startedAt) / 1000, failures }
}

// -------------------------------------------------------------------------------------------------------- questions

const byName = new Map(questions.map((question) => [question.name, question]))

class Asked extends Node.Class<Asked>()("asked", {
  key: { name: Schema.String },
  // Rows as a text.
  value: Schema.String,
  timeToLive: "Infinity",
  tags: ({ name }) => byName.get(name)!.tags,
  valueTags: (text, { name }) => byName.get(name)!.valueTags?.(JSON.parse(text))
}) {}

/** The tags that an answer carries. */
const tagsOf = ({ tags, valueTags }: Question, text: string): ReadonlyArray<string> =>
  Tag.carriedIds(Tag.flattenUnsafe([tags, valueTags?.(JSON.parse(text))]))

const textFor = ({ fields }: Question, rows: ReadonlyArray<Row>): string =>
  JSON.stringify(rows.map((row) => fields.map((field) => row[field])))

// ------------------------------------------------------------------------------------------------------- one history

/** The database at one moment, as texts and as rows, and the right answers to all questions. */
interface Known {
  readonly texts: Readonly<Record<TableName, string>>
  readonly data: Data
  readonly answers: ReadonlyMap<string, string>
}

/** What has gone wrong, and in which step. */
interface Wrong extends Pick<Failure, "kind" | "story"> {
  readonly at: number
}

interface LiveOptions {
  readonly tally: Tally
  readonly sabotage?: Sabotage | undefined
  readonly onStep?: (() => void) | undefined
  /** The first step that is checked; default 0. */
  readonly from?: number | undefined
}

/** Lives through a history from the beginning. */
const live = async (
  server: Server,
  steps: ReadonlyArray<Step>,
  options: LiveOptions
): Promise<Wrong | undefined> => {
  await Promise.all([server.run(beginning), server.twin.run(beginning)])
  const news: News = { told: [] }
  const cache = Layer.effect(
    Cacheme,
    Effect.map(Cacheme, (cacheme) => {
      news.publish = cacheme.publish
      return {
        ...cacheme,
        publish: (request, definitions) =>
          Effect.suspend(() => {
            news.told.push(request)
            // A saboteur tells less, when it is known what has changed.
            return options.sabotage === undefined
              ? cacheme.publish(request, definitions)
              : Effect.succeed(Effect.succeed({ entries: 0, position: 0, pending: 0, deferred: false }))
          })
      }
    })
  ).pipe(Layer.provide(Cacheme.layer()), Layer.provide(MemoryStore.layer()), Layer.orDie)
  return Effect.runPromise(
    new History(server, news, options)
      .run(steps)
      .pipe(
        Effect.provide(server.layer.pipe(Layer.provideMerge(cache))),
        Effect.provideService(References.MinimumLogLevel, "Error")
      )
  )
}

/** What the library tells the cache. */
interface News {
  /** What was told in the step. */
  readonly told: Array<Request>
  publish?: Cacheme["Service"]["publish"]
}

class History {
  readonly #server: Server
  readonly #news: News
  readonly #options: LiveOptions
  #known: Known | undefined
  #at = 0
  #wrong: Wrong | undefined
  /** True when an answer had to be looked up. */
  #isLookedUp = false

  constructor(server: Server, news: News, options: LiveOptions) {
    this.#server = server
    this.#news = news
    this.#options = options
  }

  run(steps: ReadonlyArray<Step>) {
    return Effect.gen({ self: this }, function* () {
      const { from = 0, onStep, tally } = this.#options
      for (const [at, step] of steps.entries()) {
        this.#at = at
        if (at < from) {
          yield* Effect.exit(this.#perform(step, []))
          yield* Effect.promise(() => doPlainly(this.#server.twin.db, step, []).catch(() => {}))
          continue
        }
        if (this.#known === undefined) {
          this.#known = yield* this.#look(undefined)
          yield* this.#askAll(this.#known, "before it")
        }
        this.#news.told.length = 0
        yield* this.#check(step, this.#known)
        tally.steps++
        tally.statements += sizeOf(step)
        onStep?.()
        if (this.#wrong !== undefined) break
      }
      return this.#wrong
    })
  }

  /** Notes what has gone wrong; the first counts. */
  #note(kind: Failure["kind"], story: string): void {
    this.#wrong ??= { kind, story, at: this.#at }
  }

  /** Takes a step here and on the twin, and compares everything. */
  #check(step: Step, before: Known) {
    return Effect.gen({ self: this }, function* () {
      const { sabotage } = this.#options
      const trace: Trace = []
      const twinTrace: Trace = []
      const kept = yield* Effect.exit(this.#perform(step, trace))
      yield* Effect.promise(() =>
        doPlainly(this.#server.twin.db, step, twinTrace).catch((error: unknown) => {
          if (!(error instanceof GivenUp)) throw error
        })
      )
      const after = yield* this.#look(before)
      if (sabotage !== undefined) yield* this.#tellLess(sabotage, step, before, after)
      this.#count(step, trace, Exit.isSuccess(kept))
      if (trace.join("\n") !== twinTrace.join("\n")) {
        this.#note(
          "unlike plain Drizzle",
          `it answered\n${trace.join("\n")}\nbut should have\n${twinTrace.join("\n")}`
        )
      }
      const [twin] = yield* Effect.promise(() => this.#server.twin.run(copyStatement))
      for (const name of tableNames) {
        if (after.texts[name] !== twin![name]) {
          this.#note(
            "unlike plain Drizzle",
            `${name} is\n${after.texts[name]}\nbut should be\n${String(twin![name])}`
          )
        }
      }
      const isKept = Exit.isSuccess(kept) && kept.value > 0
      if (!isKept && this.#news.told.length > 0) {
        this.#note("told though rolled back", JSON.stringify(this.#news.told.flatMap(({ tags }) => tags)))
      }
      const lookedUp = yield* this.#askAll(after, "after it")
      if (isKept) this.#countPrecision(before, after, lookedUp)
      this.#known = after
    })
  }

  /** Takes a step; succeeds with the number of writes that are kept. */
  #perform(step: Step, trace: Trace): Effect.Effect<number, GivenUp, Db | Cacheme> {
    const end = (exit: Exit.Exit<unknown, unknown>): string => {
      if (Exit.isSuccess(exit)) return ""
      const error = Cause.squash(exit.cause)
      const { reason } = error as { readonly reason?: { readonly _tag: string } }
      const code = codeOf(error)
      return /^[0-9A-Z]{5}$/.test(code) ? code : `${reason?._tag ?? ""} ${String(error)}`
    }
    if (step.does === "write") {
      const drawn = step.statements.map(draw)
      const tables: ReadonlyArray<PgTable> = drawn.flatMap(({ tables }) => tables ?? [])
      const write: Effect.Effect<unknown, unknown, Db> =
        drawn.length === 1
          ? Db.mutate((db) => drawn[0]!.build(db), { tables })
          : Db.mutate((db) => drawn.map(({ build }) => build(db)), { tables })
      return Effect.flatMap(Effect.exit(write), (exit) => {
        if (Exit.isFailure(exit)) return Effect.fail(givenUp(trace, end(exit)))
        const answers = exit.value
        trace.push(
          drawn.length === 1
            ? written(answers)
            : (answers as ReadonlyArray<unknown>).map(written).join(" and ")
        )
        return Effect.succeed(1)
      })
    }
    const body = Effect.gen({ self: this }, function* () {
      let kept = 0
      for (const part of step.parts) {
        const exit = yield* Effect.exit(this.#perform(part.step, trace))
        if (Exit.isSuccess(exit)) kept += exit.value
        else if (!part.isCaught) return yield* exit
        if (part.asks && this.#known !== undefined) yield* this.#askInside
      }
      if (step.fails) return yield* Effect.fail(new GivenUp("it fails by itself"))
      return kept
    })
    return Effect.catchCause(Db.transaction(body), (cause) => {
      const error = Cause.squash(cause)
      return Effect.fail(error instanceof GivenUp ? error : new GivenUp(end(Exit.failCause(cause))))
    })
  }

  /** Asks everything inside a transaction, unless that has been aborted. */
  get #askInside(): Effect.Effect<void, never, Db | Cacheme> {
    return Effect.gen({ self: this }, function* () {
      const seen = yield* Effect.exit(this.#copy)
      if (Exit.isFailure(seen)) return
      yield* this.#askAll(this.#knownOf(seen.value, this.#known), "inside the transaction")
    })
  }

  // ------------------------------------------------------------------------------------------------ what is right

  get #copy() {
    return Effect.map(
      Db.query((db) => db.execute(copyStatement)),
      (answer) => answeredRows(answer)[0] as unknown as Known["texts"]
    )
  }

  #look(before: Known | undefined) {
    return Effect.map(Effect.orDie(this.#copy), (texts) => this.#knownOf(texts, before))
  }

  #knownOf(texts: Known["texts"], before: Known | undefined): Known {
    const changed = new Set(tableNames.filter((name) => texts[name] !== before?.texts[name]))
    if (before !== undefined && changed.size === 0) return before
    const data = Object.fromEntries(
      tableNames.map((name) => [name, changed.has(name) ? rowsOf(name, texts[name]) : before!.data[name]])
    ) as Data
    const answers = new Map(before?.answers)
    for (const question of questions) {
      if (question.reads.some((name) => changed.has(name)))
        answers.set(question.name, JSON.stringify(question.expect(data)))
    }
    return { texts, data, answers }
  }

  /** Asks all questions; tells which had to be looked up. */
  #askAll(known: Known, when: string) {
    return Effect.gen({ self: this }, function* () {
      const lookedUp = new Set<string>()
      for (const question of questions) {
        const { name } = question
        this.#isLookedUp = false
        const exit = yield* Effect.exit(this.#ask(question))
        if (Exit.isFailure(exit)) {
          this.#note("failed", `${name}, ${when}: ${Cause.pretty(exit.cause)}`)
          break
        }
        this.#options.tally.reads++
        if (this.#isLookedUp) lookedUp.add(name)
        else this.#options.tally.hits++
        const right = known.answers.get(name)!
        if (exit.value === right) continue
        const told = this.#news.told.flatMap(({ tags }) => tags)
        this.#note(
          this.#isLookedUp ? "wrong question" : "stale answer",
          [
            `${name}, ${when}`,
            `was answered  ${exit.value}`,
            `but it is     ${right}`,
            `its tags      ${tagsOf(question, exit.value).join(" ")}`,
            `told          ${told.join(" ")}`
          ].join("\n")
        )
      }
      return lookedUp
    })
  }

  #ask(question: Question) {
    return Db.query((db) => question.ask(db)).pipe(
      Effect.map((rows) => {
        this.#isLookedUp = true
        return textFor(question, rows)
      }),
      Cacheme.memoize(new Asked({ name: question.name }))
    )
  }

  // ---------------------------------------------------------------------------------------------------- sabotage

  /** Tells the cache what the saboteur leaves of what was told. */
  #tellLess(sabotage: Sabotage, step: Step, before: Known, after: Known) {
    const targets = statementsOf(step).flatMap(({ targets }) => targets)
    const told = { targets, before: before.data, after: after.data }
    return Effect.gen({ self: this }, function* () {
      const publish = this.#news.publish!
      for (const request of this.#news.told) {
        const tags = request.tags.filter((tag) => sabotage.keeps(tag, told))
        yield* Effect.orDie(Effect.flatten(publish({ ...request, tags })))
      }
    })
  }

  // ------------------------------------------------------------------------------------------------------ figures

  #count(step: Step, trace: Trace, isKept: boolean): void {
    const { tally } = this.#options
    if (isKept) tally.committed++
    else tally.rolledBack++
    for (const line of trace) {
      const code = /^refused: (.*)/s.exec(line)?.[1]
      if (code !== undefined) tally.refused[code] = (tally.refused[code] ?? 0) + 1
    }
    if (!isKept || step.does !== "write" || step.statements.length > 1) return
    const { form, targets } = draw(step.statements[0]!)
    const formTally = (tally.forms[form] ??= { nothing: 0, byRow: 0, byTable: 0, others: 0 })
    const tags = this.#news.told.flatMap((request) => request.tags)
    const own = targets.map(
      (target) => ({ open_films: "films", payments_late: "payments" })[target] ?? target
    )
    const tables = (ending: string) =>
      tags.filter((tag) => tag.endsWith(ending)).map((tag) => tag.slice(1).replace(/(~[^:]*)?:.$/, ""))
    const unknown = tables(":?")
    if (tags.length === 0) formTally.nothing++
    else formTally[unknown.some((table) => own.includes(table)) ? "byTable" : "byRow"]++
    if (unknown.some((table) => !own.includes(table) && !targets.includes(table))) formTally.others++
  }

  #countPrecision(before: Known, after: Known, lookedUp: ReadonlySet<string>): void {
    const { tally } = this.#options
    const changed = new Set(tableNames.filter((name) => before.texts[name] !== after.texts[name]))
    for (const { name, reads } of questions) {
      if (lookedUp.has(name)) {
        tally.invalidated++
        if (before.answers.get(name) !== after.answers.get(name)) tally.needed++
      }
      if (reads.some((table) => changed.has(table))) tally.invalidatedByTable++
    }
  }
}

const statementsOf = (step: Step): ReadonlyArray<Drawn> =>
  step.does === "write" ? step.statements.map(draw) : step.parts.flatMap(({ step }) => statementsOf(step))

// ------------------------------------------------------------------------------------------------- what goes wrong

/** Histories are tried so often at most. */
const attempts = 300

/** Leaves out of a history whatever it goes wrong without. */
const makeMinimal = async (
  { server, sabotage, isQuick }: Options,
  steps: ReadonlyArray<Step>,
  wrong: Wrong,
  seed: number
): Promise<Failure> => {
  let left = isQuick === true ? 0 : attempts
  let [found, shortest] = [wrong, steps]
  /** True if a history goes wrong in its last step, in the same way. */
  const goesWrong = async (tried: ReadonlyArray<Step>): Promise<boolean> => {
    if (left-- <= 0) return false
    const again = await live(server, tried, { tally: noTally(), sabotage, from: tried.length - 1 })
    if (again?.kind !== wrong.kind) return false
    ;[found, shortest] = [again, tried]
    return true
  }
  if (await goesWrong(steps)) {
    for (let size = Math.ceil((steps.length - 1) / 1); size >= 1; size = Math.floor(size / 2)) {
      for (let at = 0; at < shortest.length - 1;) {
        const end = Math.min(at + size, shortest.length - 1)
        if (!(await goesWrong([...shortest.slice(0, at), ...shortest.slice(end)]))) at = end
      }
    }
    for (let at = shortest.length - 1; at >= 0; at--) {
      let isSmaller = true
      while (isSmaller) {
        isSmaller = false
        for (const step of smaller(shortest[at]!)) {
          if (!(await goesWrong(shortest.map((other, i) => (i === at ? step : other))))) continue
          isSmaller = true
          break
        }
      }
    }
  }
  const { kind, story } = found
  return { kind, story, seed, history: shortest.flatMap((step) => tell(server, step, "")) }
}

/** A step, line by line. */
const tell = (server: Server, step: Step, indent: string): ReadonlyArray<string> => {
  if (step.does === "write") {
    const texts = step.statements.map((statement) => {
      const { form, build } = draw(statement)
      return `${textOf(server.twin.db, build(server.twin.db))}   -- ${form}`
    })
    return texts.length === 1
      ? [`${indent}${texts[0]}`]
      : [`${indent}in one call:`, ...texts.map((text) => `${indent}  ${text}`)]
  }
  return [
    `${indent}transaction:`,
    ...step.parts.flatMap(({ step, isCaught, asks }) => [
      ...tell(server, step, `${indent}  `),
      ...(isCaught ? [`${indent}  (a failure of it is ignored)`] : []),
      ...(asks ? [`${indent}  everything is asked`] : [])
    ]),
    `${indent}${step.fails ? "fails by itself" : "ends"}`
  ]
}
