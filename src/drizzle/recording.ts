/**
 * Notes what a query has read, for the lookup that it runs in.
 *
 * The text that was sent is parsed and looked into once, and what it reads is kept for the next statement with that text,
 * as long as the server's tables and the models are the same. So what is paid each time is to write its tags.
 */
import type { PgTable } from "drizzle-orm/pg-core"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { RangeVar } from "libpg-query"
import type { Recorder } from "../Recorder.ts"
import { type Dialect, refOf as refOfTable } from "./builders.ts"
import type { Catalog, TableInfo } from "./catalog.ts"
import type { Connection } from "./Connection.ts"
import { DbError, UnknownReads } from "./DbError.ts"
import type { ModelDefinition } from "./modelDefinition.ts"
import { idsOfEveryGroup, tableName } from "./modelTags.ts"
import { type Parse, selectOf } from "./parser.ts"
import { type QueryReads, readsOf, type Relation } from "./queryReads.ts"
import { readOf, type Sent } from "./readTags.ts"
import { modelOf, natureOf, refOf, relationOf } from "./relations.ts"

/** So many texts are remembered. */
const remembered = 1000

/** Longer texts are looked into each time, in characters. */
const longest = 16_384

/** What was known when a text was looked into. */
interface Basis {
  readonly range: RangeVar
  readonly info: TableInfo | undefined
  readonly definition: ModelDefinition | undefined
}

interface Known {
  readonly reads: QueryReads
  readonly basis: ReadonlyArray<Basis>
  readonly functions: ReadonlyArray<readonly [name: string, info: unknown]>
}

/** The queries of one database. */
export class Recordings {
  readonly #parse: Parse
  readonly #byText = new Map<string, Known>()
  readonly #relations = new WeakMap<
    TableInfo,
    { readonly definition: ModelDefinition | undefined; readonly relation: Relation }
  >()

  constructor(parse: Parse) {
    this.#parse = parse
  }

  /**
   * Notes a statement that has run. `named` are tables that it reads beyond what it tells. Fails with `UnknownReads` if it
   * cannot be told what it reads, and none are named.
   */
  note(
    recorder: Recorder,
    catalog: Catalog,
    connection: Connection,
    sent: Sent,
    named: ReadonlyArray<PgTable> | undefined
  ): Effect.Effect<void, DbError> {
    if (named !== undefined) {
      for (const table of named) {
        const { schema, name } = refOfTable(table)
        recorder.add(idsOfEveryGroup(tableName(schema, name)))
      }
    }
    return Effect.flatMap(this.#readsOf(catalog, connection, sent.text), (reads) => {
      if (reads.unknown !== undefined && named === undefined) {
        const reason = new UnknownReads({ statement: sent.text.slice(0, 200), because: reads.unknown })
        return Effect.fail(new DbError({ reason }))
      }
      recorder.addRead(readOf(reads, sent))
      return Effect.void
    })
  }

  #readsOf(catalog: Catalog, connection: Connection, text: string): Effect.Effect<QueryReads, DbError> {
    return Effect.clockWith((clock) => {
      const now = clock.currentTimeMillisUnsafe()
      const known = this.#byText.get(text)
      return known !== undefined && isValid(known, catalog, now)
        ? Effect.succeed(known.reads)
        : this.#look(catalog, connection, text)
    })
  }

  #look(catalog: Catalog, connection: Connection, text: string): Effect.Effect<QueryReads, DbError> {
    return Effect.gen({ self: this }, function* () {
      const statements = this.#parse(text)
      const select = statements?.length === 1 ? selectOf(statements[0]) : undefined
      if (select === undefined) {
        const unknown = statements === undefined ? "it is not understood" : "it is no SELECT"
        return { tables: [], untold: [], unknown, isPerRow: false }
      }
      const dialect = dialectOf(connection)
      // Each round may find more to ask for: what a view shows has tables in turn.
      for (let round = 0; round < 10; round++) {
        const now = yield* Clock.currentTimeMillis
        const basis = new Map<RangeVar, Basis>()
        const functions = new Map<string, unknown>()
        const reads = readsOf(select, {
          relation: (range) => {
            const peeked = catalog.peek(refOf(range), now)
            if (peeked === undefined) return undefined
            const { info } = peeked
            const definition = info && modelOf(info, refOf(range)).definition
            basis.set(range, { range, info, definition })
            return info === undefined ? "none" : this.#relationOf(dialect, info, definition, range)
          },
          function: (schema, name) =>
            natureOf(schema, name, (name) => {
              const info = catalog.peekFunctions(name, now)
              functions.set(name, info)
              return info
            })
        })
        if (!("functions" in reads)) {
          this.#remember(text, { reads, basis: [...basis.values()], functions: [...functions] })
          return reads
        }
        for (const range of reads.tables) yield* catalog.describe(connection, refOf(range))
        if (reads.functions.length > 0) yield* catalog.describeFunctions(connection, reads.functions)
      }
      return { tables: [], untold: [], unknown: "its views are nested too deeply", isPerRow: false }
    })
  }

  #relationOf(
    dialect: Dialect,
    info: TableInfo,
    definition: ModelDefinition | undefined,
    range: RangeVar
  ): Relation {
    const known = this.#relations.get(info)
    if (known !== undefined && known.definition === definition) return known.relation
    const relation = relationOf(this.#parse, dialect, info, refOf(range))
    this.#relations.set(info, { definition, relation })
    return relation
  }

  #remember(text: string, known: Known): void {
    if (text.length > longest) return
    // The last to be looked into is the last to be forgotten.
    this.#byText.delete(text)
    this.#byText.set(text, known)
    if (this.#byText.size <= remembered) return
    for (const first of this.#byText.keys()) {
      this.#byText.delete(first)
      break
    }
  }
}

/** True while tables, models and functions are what they were. */
const isValid = ({ basis, functions }: Known, catalog: Catalog, now: number): boolean =>
  basis.every(({ range, info, definition }) => {
    const ref = refOf(range)
    const peeked = catalog.peek(ref, now)
    return (
      peeked !== undefined &&
      peeked.info === info &&
      (info === undefined || modelOf(info, ref).definition === definition)
    )
  }) && functions.every(([name, info]) => catalog.peekFunctions(name, now) === info)

const dialectOf = ({ db }: Connection): Dialect => (db as unknown as { readonly dialect: Dialect }).dialect
