/**
 * A database whose every question is cached, and what must be true of it after each step: the cached answers are the right
 * ones, nothing was told of what was rolled back, and the twin that was written by plain Drizzle has answered, kept and
 * refused the same.
 */
import { Cause, Effect, Exit, Layer, ManagedRuntime, References, Schema } from "effect"
import { rowsOf as answeredRows } from "../../../src/drizzle/Connection.ts"
import { Cacheme, MemoryStore, Node } from "../../../src/index.ts"
import * as Tag from "../../../src/Tag.ts"
import type { Request } from "../../../src/Invalidation.ts"
import { copied, type Data, type Row, rowsOf, type TableName, tableNames } from "./copy.ts"
import { type Question, questions } from "./questions.ts"
import { perform } from "./perform.ts"
import { beginning } from "./schema.ts"
import type { Sabotage } from "./sabotage.ts"
import { FilmDb, type Server } from "./servers.ts"
import { type Drawn, draw } from "./statements.ts"
import { sizeOf, type Step } from "./steps.ts"
import { noTally, type Tally } from "./tally.ts"
import { doPlainly, GivenUp, type Trace, written } from "./twin.ts"

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

/** What can go wrong. */
export type Kind =
  /** A cached answer is not the right one. */
  | "stale answer"
  /** Something was invalidated for what was not kept. */
  | "told though rolled back"
  /** The twin has answered, kept or refused something else. */
  | "unlike plain Drizzle"
  /** A question is answered in one way by the database, and in another from the copy: it is the check that is wrong. */
  | "wrong question"
  /** Something could not be asked. */
  | "failed"

/** What has gone wrong, and in which step. */
export interface Wrong {
  readonly kind: Kind
  readonly story: string
  readonly at: number
}

/** How a world is. */
export interface WriteWorldOptions {
  /** More changed rows than these are told by table; default the library's. */
  readonly rowLimit?: number | undefined
  /** Tells less than the library does. */
  readonly sabotage?: Sabotage | undefined
}

/** What is looked at in a history. */
export interface LiveOptions {
  readonly tally: Tally
  readonly onStep?: (() => void) | undefined
  /** The first step that is checked; default 0. */
  readonly from?: number | undefined
}

/** Of so many answers one is looked up in the database; the others come from the copy, which is the same. */
const lookedUpEvery = 16

/** A database with a cache, and its twin. */
export class WriteWorld {
  readonly #server: Server
  readonly #sabotage: Sabotage | undefined
  /** What the library has told the cache in this step. */
  readonly #told: Array<Request> = []
  readonly #runtime: ManagedRuntime.ManagedRuntime<FilmDb | Cacheme, never>
  #publish: Cacheme["Service"]["publish"] | undefined
  #known: Known | undefined
  #at = 0
  #wrong: Wrong | undefined
  /** True when an answer had to be looked up. */
  #isLookedUp = false
  #lookups = 0
  #tally: Tally = noTally()

  constructor(server: Server, { rowLimit, sabotage }: WriteWorldOptions) {
    this.#server = server
    this.#sabotage = sabotage
    const listening = Layer.effect(
      Cacheme,
      Effect.map(Cacheme, (cacheme) => {
        this.#publish = cacheme.publish
        return { ...cacheme, publish: this.#hear }
      })
    )
    const cache = listening.pipe(
      Layer.provide(Cacheme.layer()),
      Layer.provide(MemoryStore.layer()),
      Layer.orDie
    )
    this.#runtime = ManagedRuntime.make(
      server
        .layer(rowLimit)
        .pipe(
          Layer.provideMerge(cache),
          Layer.provideMerge(Layer.succeed(References.MinimumLogLevel, "Error"))
        )
    )
  }

  readonly #hear: Cacheme["Service"]["publish"] = (request, definitions) =>
    Effect.suspend(() => {
      this.#told.push(request)
      // A saboteur tells less, when it is known what has changed.
      return this.#sabotage === undefined
        ? this.#publish!(request, definitions)
        : Effect.succeed(Effect.succeed({ entries: 0, position: 0, pending: 0, deferred: false }))
    })

  /** Lives through a history from the beginning; tells the first thing that has gone wrong. */
  async live(steps: ReadonlyArray<Step>, options: LiveOptions): Promise<Wrong | undefined> {
    await Promise.all([this.#server.run(beginning), this.#server.twin.run(beginning)])
    this.#known = undefined
    this.#wrong = undefined
    this.#tally = options.tally
    return this.#runtime.runPromise(
      Effect.catchCause(this.#run(steps, options), (cause) => {
        this.#note("failed", Cause.pretty(cause))
        return Effect.succeed(this.#wrong)
      })
    )
  }

  close(): Promise<void> {
    return this.#runtime.dispose()
  }

  #run(steps: ReadonlyArray<Step>, { from = 0, tally, onStep }: LiveOptions) {
    return Effect.gen({ self: this }, function* () {
      // By the library's own: the database was put back behind its back.
      yield* Effect.flatten(this.#publish!({ keys: [], tags: ["asked:*"], patterns: [], cause: "call" }))
      for (const [at, step] of steps.entries()) {
        this.#at = at
        if (at < from) {
          yield* Effect.exit(this.#perform(step, []))
          yield* this.#performPlainly(step, [])
          continue
        }
        if (this.#known === undefined) {
          this.#known = yield* this.#look(undefined)
          yield* this.#askAll(this.#known, "before it")
        }
        this.#told.length = 0
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
  #note(kind: Kind, story: string): void {
    this.#wrong ??= { kind, story, at: this.#at }
  }

  /** Takes a step here and on the twin, and compares everything. */
  #check(step: Step, before: Known) {
    return Effect.gen({ self: this }, function* () {
      const trace: Trace = []
      const twinTrace: Trace = []
      const kept = yield* Effect.exit(this.#perform(step, trace))
      yield* this.#performPlainly(step, twinTrace)
      const after = yield* this.#look(before)
      if (this.#sabotage !== undefined) yield* this.#tellLess(this.#sabotage, step, before, after)
      this.#count(step, trace, Exit.isSuccess(kept))
      if (!areAlike(trace, twinTrace)) {
        this.#note(
          "unlike plain Drizzle",
          `it answered\n${trace.join("\n")}\nbut should have\n${twinTrace.join("\n")}`
        )
      }
      const [twin] = yield* Effect.promise(() => this.#server.twin.run(copied))
      for (const name of tableNames) {
        if (after.texts[name] !== twin![name]) {
          this.#note(
            "unlike plain Drizzle",
            `${name} is\n${after.texts[name]}\nbut should be\n${String(twin![name])}`
          )
        }
      }
      const isKept = Exit.isSuccess(kept) && kept.value > 0
      if (!isKept && this.#told.length > 0) {
        this.#note("told though rolled back", JSON.stringify(this.#told.flatMap(({ tags }) => tags)))
      }
      const lookedUp = yield* this.#askAll(after, "after it")
      if (isKept) this.#countPrecision(step, before, after, lookedUp)
      this.#known = after
    })
  }

  #performPlainly(step: Step, trace: Trace) {
    return Effect.promise(() =>
      doPlainly(this.#server.twin.db, step, trace).catch((error: unknown) => {
        if (!(error instanceof GivenUp)) throw error
      })
    )
  }

  #perform(step: Step, trace: Trace) {
    const asks = this.#known === undefined ? Effect.void : this.#askInside
    return perform(step, { trace, asks, answer: this.#sabotage?.answer })
  }

  /** Asks everything inside a transaction, unless that has been aborted. */
  get #askInside(): Effect.Effect<void, never, FilmDb | Cacheme> {
    return Effect.gen({ self: this }, function* () {
      const seen = yield* Effect.exit(this.#copy)
      if (Exit.isFailure(seen)) return
      yield* this.#askAll(this.#knownOf(seen.value, this.#known), "inside the transaction")
    })
  }

  // ------------------------------------------------------------------------------------------------ what is right

  get #copy() {
    return Effect.map(
      FilmDb.query((db) => db.execute(copied)),
      (answer): Known["texts"] => {
        const [texts] = answeredRows(answer)
        if (texts === undefined) throw new Error(`the copy of all tables was answered by ${written(answer)}`)
        return texts as Known["texts"]
      }
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
        const exit = yield* Effect.exit(this.#ask(question, known))
        if (Exit.isFailure(exit)) {
          this.#note("failed", `${name}, ${when}: ${Cause.pretty(exit.cause)}`)
          break
        }
        this.#tally.reads++
        if (this.#isLookedUp) lookedUp.add(name)
        else this.#tally.hits++
        const right = known.answers.get(name)!
        if (exit.value === right) continue
        const told = this.#told.flatMap(({ tags }) => tags)
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

  #ask(question: Question, known: Known) {
    const { name } = question
    return Effect.suspend(() => {
      this.#isLookedUp = true
      // The first time, all of them.
      const isCopied = ++this.#lookups > questions.length && this.#lookups % lookedUpEvery !== 0
      return isCopied
        ? Effect.succeed(known.answers.get(name)!)
        : Effect.map(
            FilmDb.query((db) => question.ask(db)),
            (rows) => textFor(question, rows)
          )
    }).pipe(Cacheme.memoize(new Asked({ name })))
  }

  // ---------------------------------------------------------------------------------------------------- sabotage

  /** Tells the cache what the saboteur leaves of what was told. */
  #tellLess(sabotage: Sabotage, step: Step, before: Known, after: Known) {
    const targets = statementsOf(step).flatMap(({ targets }) => targets)
    const told = { targets, before: before.data, after: after.data }
    return Effect.gen({ self: this }, function* () {
      const publish = this.#publish!
      for (const request of this.#told) {
        const tags = request.tags.filter((tag) => sabotage.keeps(tag, told))
        yield* Effect.orDie(Effect.flatten(publish({ ...request, tags })))
      }
    })
  }

  // ------------------------------------------------------------------------------------------------------ figures

  #count(step: Step, trace: Trace, isKept: boolean): void {
    if (isKept) this.#tally.committed++
    else this.#tally.rolledBack++
    for (const line of trace) {
      const code = /^refused: (.*)/s.exec(line)?.[1]
      if (code !== undefined) this.#tally.refused[code] = (this.#tally.refused[code] ?? 0) + 1
    }
    if (!isKept || step.does !== "write" || step.statements.length > 1) return
    const { form, targets } = draw(step.statements[0]!)
    const formTally = (this.#tally.forms[form] ??= {
      nothing: 0,
      byRow: 0,
      byTable: 0,
      others: 0,
      needless: 0
    })
    const own = targets.map((target) => partsOf[target] ?? target)
    const unknown = this.#toldByTable
    if (this.#told.length === 0) formTally.nothing++
    else formTally[unknown.some((table) => own.includes(table)) ? "byTable" : "byRow"]++
    if (unknown.some((table) => !own.includes(table))) formTally.others++
  }

  /** The tables of which it was told that rows changed which nobody can name. */
  get #toldByTable(): ReadonlyArray<string> {
    return this.#told
      .flatMap(({ tags }) => tags)
      .filter((tag) => tag.endsWith(":?"))
      .map((tag) => tag.slice(1).replace(/(~[^:]*)?:.$/, ""))
      .filter((table) => !isPart(table))
  }

  #countPrecision(step: Step, before: Known, after: Known, lookedUp: ReadonlySet<string>): void {
    const changed = new Set(tableNames.filter((name) => before.texts[name] !== after.texts[name]))
    const [invalidated, needed, byTable] = [
      questions.filter(({ name }) => lookedUp.has(name)),
      questions.filter(
        ({ name }) => lookedUp.has(name) && before.answers.get(name) !== after.answers.get(name)
      ),
      questions.filter(({ reads }) => reads.some((table) => changed.has(table)))
    ].map(({ length }) => length) as [number, number, number]
    for (const precision of [
      this.#tally.all,
      ...(this.#toldByTable.length === 0 ? [this.#tally.byRow] : [])
    ]) {
      precision.steps++
      precision.invalidated += invalidated
      precision.needed += needed
      precision.byTable += byTable
    }
    if (step.does === "write" && step.statements.length === 1)
      this.#tally.forms[draw(step.statements[0]!).form]!.needless += invalidated - needed
  }
}

/** Which of several violated constraints is met first is by chance: rows may be changed in any order. */
const areAlike = (trace: Trace, other: Trace): boolean => {
  const comparable = (line: string) => line.replace(/^refused: 23.*/, "refused by a constraint")
  return trace.map(comparable).join("\n") === other.map(comparable).join("\n")
}

/** True for what is a part of another table, or a view. */
const isPart = (table: string): boolean => /^payments_|^open_films$|^teams$/.test(table)

/** Tables that are written by another name. */
const partsOf: Readonly<Record<string, string>> = { open_films: "films", payments_late: "payments" }

/** The statements of a step. */
const statementsOf = (step: Step): ReadonlyArray<Drawn> =>
  step.does === "write" ? step.statements.map(draw) : step.parts.flatMap(({ step }) => statementsOf(step))
