/**
 * Notes what a query has read, for the lookup that it runs in.
 *
 * The text that was sent is parsed and looked into once, and what it reads is kept for the next statement with that text,
 * as long as the server's tables and the models are the same. So what is paid each time is to write its tags.
 */
import type { PgTable } from "drizzle-orm/pg-core"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { RangeVar } from "libpg-query"
import { declared } from "../Declared.ts"
import type { Read, Recorder } from "../Recorder.ts"
import { type Dialect, dialectOf, refOf as refOfTable } from "./builders.ts"
import { type Catalog, type TableInfo, writtenName } from "./catalog.ts"
import type { Connection } from "./Connection.ts"
import { DbError, UnknownReads } from "./DbError.ts"
import type { ModelDefinition } from "./modelDefinition.ts"
import { idsOfEveryGroup, tableName } from "./modelTags.ts"
import { type Parse, selectOf } from "./parser.ts"
import type { Relation } from "./queryFacts.ts"
import { readsOf } from "./queryReads.ts"
import { reader, type Sent } from "./readTags.ts"
import { modelOf, natureOf, refOf, relationOf } from "./relations.ts"
import type { TableRef } from "./statementTables.ts"

/** So many texts are remembered, and so many characters of them in all. */
const mostTexts = 1000
const mostCharacters = 8_000_000

/** What is known of a text, and what was known when it was looked into. */
interface Known {
  /** Tells what was read when a statement with this text has run. */
  readonly read: (sent: Sent) => Read
  /** Why not even its tables are known, if so. */
  readonly unknown: string | undefined
  readonly basis: ReadonlyArray<{ readonly ref: TableRef; readonly info: TableInfo }>
  readonly functions: ReadonlyArray<readonly [name: string, info: unknown]>
  /** How often something was declared of tables. */
  readonly declarations: number
  /** True when it has been asked for again since it was last in danger of being forgotten. */
  isWanted: boolean
}

/** The queries of one database. */
export class Recordings {
  readonly #parse: Parse
  readonly #byText = new Map<string, Known>()
  #characters = 0
  readonly #relations = new WeakMap<
    TableInfo,
    { readonly definition: ModelDefinition | undefined; readonly relation: Relation }
  >()

  constructor(parse: Parse) {
    this.#parse = parse
  }

  /**
   * Notes a statement that has run: at once, if its text is known. `named` are tables that it reads beyond what it tells. Fails with `UnknownReads` if it
   * cannot be told what it reads, and none are named.
   */
  note(
    recorder: Recorder,
    catalog: Catalog,
    connection: Connection,
    sent: Sent,
    named: ReadonlyArray<PgTable> | undefined,
    now: number
  ): Effect.Effect<void, DbError> {
    if (named !== undefined) {
      for (const table of named) {
        const { schema, name } = refOfTable(table)
        recorder.add(idsOfEveryGroup(tableName(schema, name)))
      }
    }
    return Effect.flatMapEager(this.#known(catalog, connection, sent.text, now), ({ unknown, read }) => {
      if (unknown !== undefined && named === undefined) {
        const reason = new UnknownReads({ statement: sent.text.slice(0, 200), because: unknown })
        return Effect.fail(new DbError({ reason }))
      }
      recorder.addRead(read(sent))
      return Exit.void
    })
  }

  #known(catalog: Catalog, connection: Connection, text: string, now: number): Effect.Effect<Known, DbError> {
    const known = this.#byText.get(text)
    if (known === undefined) return this.#look(catalog, connection, text)
    known.isWanted = true
    if (isValid(known, catalog, now)) return Exit.succeed(known)
    return Effect.flatMap(askAgain(known, catalog, connection, now), () =>
      isValid(known, catalog, now) ? Effect.succeed(known) : this.#look(catalog, connection, text)
    )
  }

  #look(catalog: Catalog, connection: Connection, text: string): Effect.Effect<Known, DbError> {
    return Effect.gen({ self: this }, function* () {
      const statements = this.#parse(text)
      const select = statements?.length === 1 ? selectOf(statements[0]) : undefined
      if (select === undefined)
        return untellable(statements === undefined ? "it is not understood" : "it is no SELECT")
      const dialect = dialectOf(connection)
      // Tables that were not there when they were last asked for may be there now: they are asked for once more.
      const asked = new Set<string>()
      // Each round may find more to ask for: what a view shows has tables in turn.
      for (let round = 0; round < 10; round++) {
        const now = yield* Clock.currentTimeMillis
        const declarations = declared.count
        const basis = new Map<RangeVar, Known["basis"][number]>()
        const functions = new Map<string, unknown>()
        const others = new Set<string>()
        let isLacking = false
        const reads = readsOf(select, {
          relation: (range) => {
            const ref = refOf(range)
            const info = catalog.peek(ref, now)?.info
            if (info === undefined) {
              if (!asked.has(writtenName(ref))) return undefined
              // It was there for the statement, or may be for the next one.
              isLacking = true
              for (const id of idsOfEveryGroup(tableName(ref.schema, ref.name))) others.add(id)
              return "none"
            }
            const { name, definition } = modelOf(info, ref)
            basis.set(range, { ref, info })
            // Who writes where the search path is another one may know it by no other name than these.
            for (const other of info.names)
              if (other !== name) for (const id of idsOfEveryGroup(other)) others.add(id)
            return this.#relationOf(dialect, info, definition, range)
          },
          function: (schema, name) =>
            natureOf(schema, name, (name) => {
              const info = catalog.peekFunctions(name, now)
              functions.set(name, info)
              return info
            })
        })
        if (!("functions" in reads)) {
          const known: Known = {
            read: reader(reads, [...others]),
            unknown: reads.unknown,
            basis: [...basis.values()],
            functions: [...functions],
            declarations,
            isWanted: false
          }
          // Where a table is not there, it is asked for the next time, too.
          if (!isLacking) this.#remember(text, known)
          return known
        }
        const tables = reads.tables.map(refOf)
        for (const table of tables) asked.add(writtenName(table))
        yield* catalog.describeTables(connection, tables)
        yield* catalog.describeFunctions(connection, reads.functions)
      }
      return untellable("its views are nested too deeply")
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
    if (text.length > mostCharacters) return
    this.#forget(text)
    for (const [first, oldest] of this.#byText) {
      if (this.#byText.size < mostTexts && this.#characters + text.length <= mostCharacters) break
      this.#forget(first)
      // What was asked for meanwhile has a second chance, behind the others.
      if (oldest.isWanted) this.#keep(first, { ...oldest, isWanted: false })
    }
    this.#keep(text, known)
  }

  #keep(text: string, known: Known): void {
    this.#byText.set(text, known)
    this.#characters += text.length
  }

  #forget(text: string): void {
    if (this.#byText.delete(text)) this.#characters -= text.length
  }
}

const untellable = (unknown: string): Known => ({
  read: reader({ tables: [], untold: [], unknown, isPerRow: false }, []),
  unknown,
  basis: [],
  functions: [],
  declarations: declared.count,
  isWanted: false
})

/** Asks for what has not been asked for lately. If it is what it was, nothing has to be looked into again. */
const askAgain = (
  { basis, functions }: Known,
  catalog: Catalog,
  connection: Connection,
  now: number
): Effect.Effect<void, DbError> =>
  Effect.gen(function* () {
    const tables = basis.map(({ ref }) => ref).filter((ref) => catalog.peek(ref, now) === undefined)
    yield* catalog.describeTables(connection, tables)
    const names = functions
      .map(([name]) => name)
      .filter((name) => catalog.peekFunctions(name, now) === undefined)
    yield* catalog.describeFunctions(connection, names)
  })

/** True while tables, models and functions are what they were. */
const isValid = ({ basis, functions, declarations }: Known, catalog: Catalog, now: number): boolean =>
  declarations === declared.count &&
  basis.every(({ ref, info }) => catalog.peek(ref, now)?.info === info) &&
  functions.every(([name, info]) => catalog.peekFunctions(name, now) === info)
