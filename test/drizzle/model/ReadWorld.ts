/**
 * A database that is asked random queries, each cached with what `Db` has noted of it and with no tag by hand; and what
 * must be true after each step: the cached answers are the right ones, which plain Drizzle finds beside the cache.
 */
import { Cause, Effect, Exit, Layer, ManagedRuntime, References, Schema } from "effect"
import { getTableConfig } from "drizzle-orm/pg-core"
import { rowsOf } from "../../../src/drizzle/Connection.ts"
import { Cacheme, MemoryStore, Node } from "../../../src/index.ts"
import type { Request } from "../../../src/Invalidation.ts"
import { type Chance, makeChance } from "../../checker/chance.ts"
import { copied, type TableName, tableNames, tables } from "./copy.ts"
import { perform } from "./perform.ts"
import { build, type Built, type Query, textOfAnswer } from "./queries.ts"
import { noFormReads, type ReadTally } from "./readTally.ts"
import { beginning } from "./schema.ts"
import { FilmDb, type Server } from "./servers.ts"
import { sizeOf, type Step } from "./steps.ts"
import { textOf } from "./twin.ts"

// ------------------------------------------------------------------------------------------------------- one history

/** What can go wrong. */
export type ReadKind =
  /** A cached answer is not the right one. */
  | "stale answer"
  /** A query was answered otherwise than plain Drizzle answers it. */
  | "unlike plain Drizzle"
  /** Something could not be asked. */
  | "failed"

/** What has gone wrong, in which step, and with which query. */
export interface WrongRead {
  readonly kind: ReadKind
  readonly story: string
  readonly at: number
  readonly query: Query
  /** The step before which the answer was looked up. */
  readonly askedAt: number
}

/** What is looked at in a history. */
export interface ReadLiveOptions {
  readonly tally: ReadTally
  readonly onStep?: (() => void) | undefined
  /** The queries that are asked; else they are drawn by this seed. */
  readonly queries: ReadonlyArray<Query> | { readonly seed: number; readonly size: number }
  /** Draws only queries of these forms. */
  readonly forms?: ReadonlyArray<string> | undefined
  /** The step before which the queries are first asked; default 0. */
  readonly from?: number | undefined
}

/** A query that stays in the cache. */
interface Entry {
  readonly id: number
  readonly query: Query
  readonly built: Built
  readonly text: string
  /** The tables that its answer may depend on. */
  readonly reads: ReadonlySet<TableName>
  right: string | undefined
  askedAt: number
}

/** The texts of all tables. */
type Texts = Readonly<Record<TableName, string>>

/** A database with a cache. */
export class ReadWorld {
  readonly #server: Server
  readonly #runtime: ManagedRuntime.ManagedRuntime<FilmDb | Cacheme, never>
  /** What was told in this step. */
  readonly #told: Array<Request> = []
  #publish: Cacheme["Service"]["publish"] | undefined
  #entries: Array<Entry> = []
  #chance: Chance = makeChance(0)
  #forms: ReadonlyArray<string> = []
  #tally: ReadTally | undefined
  #texts: Texts | undefined
  #at = 0
  #ids = 0
  #wrong: WrongRead | undefined
  /** True when an answer had to be looked up. */
  #isLookedUp = false

  constructor(server: Server, rowLimit?: number) {
    this.#server = server
    const listening = Layer.effect(
      Cacheme,
      Effect.map(Cacheme, (cacheme) => {
        this.#publish = cacheme.publish
        const publish: Cacheme["Service"]["publish"] = (request, definitions) => {
          this.#told.push(request)
          return cacheme.publish(request, definitions)
        }
        return { ...cacheme, publish }
      })
    )
    this.#runtime = ManagedRuntime.make(
      server
        .layer(rowLimit)
        .pipe(
          Layer.provideMerge(
            listening.pipe(
              Layer.provide(Cacheme.layer()),
              Layer.provide(MemoryStore.layer({ capacity: 1000 })),
              Layer.orDie
            )
          ),
          Layer.provideMerge(Layer.succeed(References.MinimumLogLevel, "Error"))
        )
    )
  }

  /** Lives through a history from the beginning; tells the first thing that has gone wrong. */
  async live(steps: ReadonlyArray<Step>, options: ReadLiveOptions): Promise<WrongRead | undefined> {
    const { queries, forms = [] } = options
    await this.#server.run(beginning)
    this.#wrong = undefined
    this.#texts = undefined
    this.#tally = options.tally
    this.#forms = forms
    const isDrawn = !Array.isArray(queries)
    const { seed = 0, size = 0 } = isDrawn ? (queries as { seed: number; size: number }) : {}
    this.#chance = makeChance(Math.imul(seed, 0x27d4eb2f) + 3)
    this.#entries = isDrawn
      ? Array.from({ length: size }, () => this.#drawn())
      : (queries as ReadonlyArray<Query>).map((query) => this.#entryOf(query))
    return this.#runtime.runPromise(
      Effect.catchCause(this.#run(steps, isDrawn, options), (cause) => {
        this.#note("failed", Cause.pretty(cause), undefined)
        return Effect.succeed(this.#wrong)
      })
    )
  }

  /** A query, with what is known of it. */
  tell(query: Query): string {
    const { form, statement, values } = build(query, this.#server.db, this.#forms)
    const given = values === undefined ? "" : `, ${JSON.stringify(values)}`
    return `${textOf(this.#server.db, statement)}   -- ${form}${given}`
  }

  /** The draws of a query. */
  drawsOf(query: Query): ReadonlyArray<number> {
    return build(query, this.#server.db, this.#forms).draws
  }

  close(): Promise<void> {
    return this.#runtime.dispose()
  }

  #run(steps: ReadonlyArray<Step>, isDrawn: boolean, { from = 0, tally, onStep }: ReadLiveOptions) {
    return Effect.gen({ self: this }, function* () {
      // By the library's own: the database was put back behind its back.
      yield* Effect.flatten(this.#publish!({ keys: [], tags: ["read:*"], patterns: [], cause: "call" }))
      for (const [at, step] of steps.entries()) {
        this.#at = at
        if (at < from) {
          yield* Effect.exit(perform(step, { trace: [], asks: Effect.void }))
          continue
        }
        if (this.#texts === undefined) {
          this.#texts = yield* Effect.orDie(this.#copy)
          yield* this.#askAll(new Set(), "before it", false)
        }
        this.#told.length = 0
        const kept = yield* Effect.exit(perform(step, { trace: [], asks: this.#askInside }))
        const after = yield* Effect.orDie(this.#copy)
        const changed = changedIn(this.#texts, after)
        this.#texts = after
        if (Exit.isSuccess(kept) && kept.value > 0) tally.committed++
        yield* this.#askAll(changed, "after it", false)
        tally.steps++
        tally.statements += sizeOf(step)
        onStep?.()
        if (this.#wrong !== undefined) break
        if (isDrawn && this.#chance.below(4) === 0)
          this.#entries[this.#chance.below(this.#entries.length)] = this.#drawn()
      }
      if (this.#wrong === undefined) yield* this.#lookBeside
      return this.#wrong
    })
  }

  #drawn(): Entry {
    return this.#entryOf(this.#chance.below(2 ** 31))
  }

  #entryOf(query: Query): Entry {
    const built = build(query, this.#server.db, this.#forms)
    const text = textOf(this.#server.db, built.statement)
    const form = (this.#tally!.forms[built.form] ??= noFormReads())
    form.queries++
    return { id: ++this.#ids, query, built, text, reads: namedIn(text), right: undefined, askedAt: 0 }
  }

  /** Notes what has gone wrong; the first counts. */
  #note(kind: ReadKind, story: string, entry: Entry | undefined): void {
    this.#wrong ??= { kind, story, at: this.#at, query: entry?.query ?? 0, askedAt: entry?.askedAt ?? 0 }
  }

  // ------------------------------------------------------------------------------------------------------- questions

  /** Asks everything; what rests on a changed table is looked up beside the cache too. */
  #askAll(changed: ReadonlySet<TableName>, when: string, isInside: boolean) {
    const isByRow = !this.#told.some(({ tags }) => tags.some((tag) => tag.endsWith(":?")))
    return Effect.gen({ self: this }, function* () {
      for (const entry of this.#entries) {
        const { built, right: before, reads } = entry
        const isTouched = [...changed].some((name) => reads.has(name))
        // What the transaction has not written is asked there by chance only.
        if (isInside && !isTouched && this.#chance.below(8) > 0) continue
        this.#isLookedUp = false
        const exit = yield* Effect.exit(this.#ask(entry))
        if (Exit.isFailure(exit)) {
          this.#note("failed", `${entry.text}, ${when}: ${Cause.pretty(exit.cause)}`, entry)
          return
        }
        const isHit = !this.#isLookedUp
        const isNew = before === undefined
        const isBeside = isHit ? isTouched || isNew : isNew && !isInside
        const right = isBeside
          ? yield* isInside ? Effect.orDie(this.#read(entry)) : this.#readPlainly(entry)
          : isHit
            ? before!
            : exit.value
        this.#tally!.reads++
        if (isHit) this.#tally!.hits++
        if (isHit && isBeside) this.#tally!.compared++
        if (isHit && isInside) this.#tally!.inside++
        if (exit.value !== right) {
          this.#note(
            isHit ? "stale answer" : "unlike plain Drizzle",
            [
              `${entry.text}   -- ${built.form}`,
              `${when}, was answered  ${exit.value}`,
              `but it is              ${right}`,
              `told                   ${this.#told.flatMap(({ tags }) => tags).join(" ")}`,
              `explained              ${(yield* Cacheme.explain(this.#nodeOf(entry))).message}`
            ].join("\n"),
            entry
          )
          return
        }
        if (isInside) continue
        if (!isNew) {
          const form = this.#tally!.forms[built.form]!
          for (const precision of isByRow ? [form.all, form.byRow] : [form.all]) {
            if (isTouched) precision.byTable++
            if (!isHit) precision.invalidated++
            if (right !== before) precision.changed++
          }
        }
        entry.right = right
        if (!isHit) entry.askedAt = this.#at + (when === "after it" ? 1 : 0)
      }
    })
  }

  /** Looks everything up beside the cache: whether the right answers that are known are right. */
  get #lookBeside() {
    return Effect.gen({ self: this }, function* () {
      for (const entry of this.#entries) {
        if (entry.right === undefined) continue
        const right = yield* this.#readPlainly(entry)
        if (right === entry.right) continue
        const story = `${entry.text}, at the end, was taken to be\n${entry.right}\nbut it is\n${right}`
        this.#note("stale answer", story, entry)
      }
    })
  }

  /** Asks inside a transaction, unless that has been aborted. */
  get #askInside(): Effect.Effect<void, never, FilmDb | Cacheme> {
    return Effect.gen({ self: this }, function* () {
      if (this.#texts === undefined || this.#wrong !== undefined) return
      const seen = yield* Effect.exit(this.#copy)
      if (Exit.isFailure(seen)) return
      yield* this.#askAll(changedIn(this.#texts, seen.value), "inside the transaction", true)
    })
  }

  #nodeOf({ id }: Entry) {
    return new Read({ id })
  }

  #ask(entry: Entry) {
    return Effect.suspend(() => {
      this.#isLookedUp = true
      return this.#read(entry)
    }).pipe(Cacheme.memoize(this.#nodeOf(entry)))
  }

  #read({ query, built }: Entry) {
    return Effect.map(
      FilmDb.query((db) => build(query, db as any, this.#forms).statement, {
        values: built.values,
        reads: built.reads
      }),
      (answer) => textOfAnswer(built, answer)
    )
  }

  #readPlainly({ query, built, id }: Entry): Effect.Effect<string> {
    return Effect.promise(async () => {
      const { statement, values } = build(query, this.#server.db, this.#forms)
      const answer =
        values === undefined
          ? await statement
          : await (statement as unknown as Preparable).prepare(`read_${id}`).execute(values)
      return textOfAnswer(built, answer)
    })
  }

  get #copy() {
    return Effect.map(
      FilmDb.query((db) => db.execute(copied)),
      (answer) => rowsOf(answer)[0] as Texts
    )
  }
}

class Read extends Node.Class<Read>()("read", {
  key: { id: Schema.Int },
  // Rows as a text.
  value: Schema.String,
  timeToLive: "Infinity"
}) {}

interface Preparable {
  readonly prepare: (name: string) => {
    readonly execute: (values: Readonly<Record<string, unknown>>) => Promise<unknown>
  }
}

const changedIn = (before: Texts, after: Texts): ReadonlySet<TableName> =>
  new Set(tableNames.filter((name) => before[name] !== after[name]))

// ----------------------------------------------------------------------------------------- the tables that are named

/** The tables whose rows are seen by another name. */
const behind: Readonly<Record<string, ReadonlyArray<TableName>>> = {
  open_films: ["films"],
  french_films: ["films", "languages"],
  films_in: ["films"],
  views_of: ["films"],
  teams: ["staff", "stores"],
  payments_early: ["payments"],
  payments_late: ["payments"]
}

const byWord = new Map<string, ReadonlyArray<TableName>>([
  ...tableNames.map((name) => [getTableConfig(tables[name]).name, [name]] as const),
  ...Object.entries(behind)
])

/** The tables that a statement names, as far as its text tells. */
export const namedIn = (text: string): ReadonlySet<TableName> =>
  new Set((text.match(/\w+/g) ?? []).flatMap((word) => byWord.get(word) ?? []))
