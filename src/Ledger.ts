/**
 * What a cache remembers of its last lookups, to say what its answers rest on, and which invalidations were needless.
 *
 * An invalidation was needless for a key when the next lookup has found the same answer again: what was written did not
 * matter to it, the tag that it carried was not precise enough. So of each answer a number is kept that is the same for
 * equal answers, never the answer; all of it for the last 1,024 keys at least. Only those who look up pay for it.
 */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Noted } from "./Dependencies.ts"
import { digest } from "./digest.ts"
import { absence, type Dependencies, type Fallback, type Source } from "./Entry.ts"
import { TableCounters, type TableStats } from "./Metrics.ts"
import type { NodeDefinition } from "./Node.ts"
import * as TagIds from "./tagIds.ts"

/** So many keys are remembered at least, and as many that are being looked up again; twice as many at most. */
const keysRemembered = 1024

/** So many needless invalidations are worth a warning. */
const worthTelling = 20

/** So many declarations that would help are counted. */
const wishesAtMost = 1000

/** What is remembered of the last answer of a key. */
interface Known extends Omit<Noted, "ids"> {
  /** The same for equal answers; `undefined` where it cannot be told, or nothing asks for it. */
  readonly digest: number | undefined
}

/** A key of a model that is not declared, and would have made lookups rest on less. */
interface Wish {
  readonly table: string
  readonly key: ReadonlyArray<string>
  lookups: number
  needless: number
  isTold: boolean
}

/** The ledger of one cache. */
export class Ledger {
  /** By the names of their flights. */
  readonly #known = new Recent<Known>()
  /** The ids of tables' tags that have ended answers whose keys are to be looked up again. */
  readonly #ended = new Recent<string>()
  readonly #tables = new Map<string, TableCounters>()
  readonly #unregister: Array<() => void> = []
  readonly #wishes = new Map<string, Wish>()
  readonly #toldLate = new Set<string>()
  readonly #isDevelopment: boolean
  readonly #context: Context.Context<never>

  /** Metrics are registered in the registry of this context, and what comes late is logged in it. */
  constructor(isDevelopment: boolean, context: Context.Context<never>) {
    this.#isDevelopment = isDevelopment
    this.#context = context
  }

  /** Notes that a key is going to be looked up because an invalidation has ended its answer. */
  ended(key: string, by: string): void {
    if (TagIds.isOfTable(by)) this.#ended.set(key, by)
  }

  /** Forgets what is known of a key: its answer did not come from a lookup here. */
  forget(key: string): void {
    this.#known.delete(key)
    this.#ended.delete(key)
  }

  /** Notes that a key was not looked up after all: somebody else's answer was found. */
  forgetEnd(key: string): void {
    this.#ended.delete(key)
  }

  /** Notes what a lookup has answered, and all that the answer rests on. Returns a warning that is to be logged. */
  answered(
    key: string,
    noted: Noted,
    carried: ReadonlyArray<string>,
    exit: Exit.Exit<unknown, unknown>
  ): string | undefined {
    const before = this.#known.get(key)
    const by = this.#ended.get(key)
    if (before !== undefined || by !== undefined) this.forget(key)
    const restsOnTables = carried.some(TagIds.isOfTable)
    if (!restsOnTables && noted.statements.length === 0 && by === undefined) return undefined
    const { statements, fallbacks, untold, collapsed } = noted
    const known = {
      statements,
      fallbacks,
      untold,
      collapsed,
      digest: restsOnTables ? digestOf(exit) : undefined
    }
    this.#known.set(key, known)
    if (by === undefined) return undefined
    const table = TagIds.tableOf(by)!
    const isNeedless = known.digest !== undefined && known.digest === before?.digest
    this.#countersOf(table).count(isNeedless)
    // A tag of all rows would not have ended it, had the lookup rested on some.
    return before === undefined || by !== TagIds.allRowsOf(by)
      ? undefined
      : this.#wish(
          before.fallbacks.filter((fallback) => fallback.table === table),
          isNeedless
        )
  }

  #countersOf(table: string): TableCounters {
    let counters = this.#tables.get(table)
    if (counters === undefined) {
      this.#tables.set(table, (counters = new TableCounters(table)))
      this.#unregister.push(counters.register(this.#context))
    }
    return counters
  }

  /** Counts a lookup for the keys that would have made it precise. Returns the warning for one that is worth it. */
  #wish(fallbacks: ReadonlyArray<Fallback>, isNeedless: boolean): string | undefined {
    const counted: Array<Wish> = []
    for (const { table, key } of fallbacks) {
      if (key === undefined) continue
      const name = [table, ...key].join("\n")
      let wish = this.#wishes.get(name)
      if (wish === undefined) {
        if (this.#wishes.size >= wishesAtMost) continue
        this.#wishes.set(name, (wish = { table, key, lookups: 0, needless: 0, isTold: false }))
      }
      wish.lookups++
      if (isNeedless) wish.needless++
      counted.push(wish)
    }
    const worth = counted.find((wish) => wish.needless >= worthTelling && this.#isLeading(wish))
    if (worth === undefined || worth.isTold || !this.#isDevelopment) return undefined
    worth.isTold = true
    return advice(worth)
  }

  /** True for the key of its table that would help most: where several would, one may do. */
  #isLeading({ table, needless }: Wish): boolean {
    for (const other of this.#wishes.values())
      if (other.table === table && other.needless > needless) return false
    return true
  }

  /** Warns, once for a node, that a fiber has outlived a lookup of it. */
  late({ name }: NodeDefinition): void {
    if (this.#toldLate.has(name)) return
    this.#toldLate.add(name)
    Effect.runForkWith(this.#context)(
      Effect.logWarning(
        `cacheme: node "${name}": a fiber outlived the lookup that started it, and has read or used something then: no answer rests on that. Let the lookup wait for it, or start it outside`
      )
    )
  }

  /** What an entry that carries these ids beside its own rests on; `undefined` when nothing is known of it. */
  dependencies(
    key: string,
    carried: ReadonlyArray<string> | undefined,
    isManual: boolean
  ): Dependencies | undefined {
    const known = this.#known.get(key)
    if (known === undefined && carried === undefined) return undefined
    const isCarried = carried && new Set(carried)
    const told = new Set<string>()
    const sources: Array<Source> = []
    for (const { text, ids: all } of known?.statements ?? []) {
      const ids = isCarried === undefined ? all : all.filter((id) => isCarried.has(id))
      for (const id of ids) told.add(id)
      sources.push({ statement: text, ids })
    }
    const others = (carried ?? []).filter((id) => !told.has(id))
    if (others.length > 0) sources.push({ statement: undefined, ids: others })
    const { fallbacks = [], untold = [], collapsed = [] } = known ?? {}
    return { sources, fallbacks, untold, collapsed, isBare: sources.length === 0 && !isManual }
  }

  /** The numbers of the tables, in the order in which they were met. */
  stats(): ReadonlyArray<TableStats> {
    return Array.from(this.#tables.values(), (counters) => counters.stats())
  }

  /** Takes the metrics out again. */
  close(): void {
    for (const unregister of this.#unregister) unregister()
  }
}

/** A batch that has no answer has none again. */
const digestOf = (exit: Exit.Exit<unknown, unknown>): number | undefined =>
  Exit.isSuccess(exit) ? digest(exit.value) : exit === absence ? 0 : undefined

/**
 * What was put in last: when a map is full, it becomes the older one of two, and the older one goes. To take the oldest key
 * out of a map each time would cost a walk over those that were there before it.
 */
class Recent<A> {
  #newer = new Map<string, A>()
  #older = new Map<string, A>()

  get(key: string): A | undefined {
    return this.#newer.get(key) ?? this.#older.get(key)
  }

  set(key: string, value: A): void {
    if (this.#newer.size >= keysRemembered) {
      this.#older = this.#newer
      this.#newer = new Map()
    }
    this.#newer.set(key, value)
  }

  delete(key: string): void {
    this.#newer.delete(key)
    this.#older.delete(key)
  }
}

/** What would help. */
const advice = ({ table, key, lookups, needless }: Wish): string => {
  const name = `by${key.map((property) => property.charAt(0).toUpperCase() + property.slice(1)).join("And")}`
  const columns = key.map((property) => JSON.stringify(property)).join(", ")
  return `cacheme: ${needless} of the last ${lookups} lookups that rest on "${table}" found the same answer again: declare Model.make(${table.slice(table.indexOf(".") + 1)}, { keys: { ${name}: [${columns}] } })`
}
