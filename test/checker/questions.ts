/**
 * What the checker asks: rows that rest on themselves and on an owner who is known only afterwards, pairs that rest on
 * rows, and a key that a herd wants.
 */
import { Effect, Option, Schema } from "effect"
import { Cacheme, Node, Tag } from "../../src/index.ts"
import { owners, type Register, registerOf, rows, World } from "./Truth.ts"

/** What a row was when it was looked up: its own version, its owner, and the owner's version. */
export const Row = Schema.Struct({
  id: Schema.Int,
  version: Schema.Int,
  owner: Schema.Int,
  owned: Schema.Int
})
export type Row = typeof Row.Type

class RowTag extends Tag.Class<RowTag>()("row", { id: Schema.Int }) {}
class OwnerTag extends Tag.Class<OwnerTag>()("owner", { id: Schema.Int }) {}

/** A row. Its own tag is told by its key, its owner's by its value. */
class RowNode extends Node.Class<RowNode>()("row", {
  key: { id: Schema.Int },
  value: Row,
  timeToLive: "1 minute",
  tags: ({ id }) => new RowTag({ id }),
  valueTags: ({ owner }) => new OwnerTag({ id: owner })
}) {}

/** Two rows, by two memoized reads within its lookup. */
class PairNode extends Node.Class<PairNode>()("pair", {
  key: { id: Schema.Int },
  value: Schema.Tuple([Row, Row]),
  timeToLive: "1 minute"
}) {}

/** A key that everybody wants at once; its answer is how many lookups it has taken. */
export class HerdNode extends Node.Class<HerdNode>()("herd", {
  key: { round: Schema.Int },
  value: Schema.Int,
  timeToLive: "1 minute"
}) {}

const sleep = (milliseconds: number) => (milliseconds === 0 ? Effect.void : Effect.sleep(milliseconds))

const lookUpRow = Effect.fnUntraced(function* (id: number): Effect.fn.Return<Row, never, World> {
  const { truth, chance, onLookup } = yield* World
  onLookup()
  yield* sleep(chance.below(3))
  const version = yield* Effect.promise(() => truth.read(id))
  const owner = version % owners
  if (chance.below(3) === 0) yield* sleep(chance.below(5))
  const owned = yield* Effect.promise(() => truth.read(registerOf(owner)))
  yield* sleep(chance.below(chance.below(10) === 0 ? 60 : 4))
  return { id, version, owner, owned }
})

const row = (id: number) => Cacheme.memoize(lookUpRow(id), new RowNode({ id }))

const lookUpPair = Effect.fnUntraced(function* (
  id: number
): Effect.fn.Return<readonly [Row, Row], never, World | Cacheme> {
  const { chance } = yield* World
  const first = yield* row(id)
  yield* sleep(chance.below(3))
  return [first, yield* row((id + 1) % rows)]
})

/** How rows are asked for, and how often, in parts of the sum. */
const weights = { memoize: 600, pair: 120, getAll: 100, peek: 80, refresh: 4, set: 3 } as const

export type Ask = keyof typeof weights

const asks = (Object.keys(weights) as ReadonlyArray<Ask>).flatMap((ask) =>
  Array.from({ length: weights[ask] }, () => ask)
)

/** What is asked, and the rows that come of it. */
export interface Asked {
  readonly ask: Ask
  readonly ids: ReadonlyArray<number>
  readonly rows: Effect.Effect<ReadonlyArray<Row>, unknown, World | Cacheme>
}

/** Asks something by chance. */
export const askSomething = ({ chance }: World["Service"]): Asked => {
  const ask = chance.of(asks)
  const id = chance.below(rows)
  switch (ask) {
    case "memoize":
      return { ask, ids: [id], rows: Effect.map(row(id), (row) => [row]) }
    case "pair":
      return {
        ask,
        ids: [id, (id + 1) % rows],
        rows: Cacheme.memoize(lookUpPair(id), new PairNode({ id }))
      }
    case "getAll": {
      const ids = [...new Set([id, chance.below(rows), chance.below(rows)])]
      return {
        ask,
        ids,
        rows: Cacheme.getAll(
          ids.map((id) => new RowNode({ id })),
          (missing) =>
            Effect.forEach(missing, (node) => Effect.map(lookUpRow(node.id), (row) => [node, row] as const), {
              concurrency: "unbounded"
            })
        ).pipe(Effect.map((answers) => answers.map(Option.getOrThrow)))
      }
    }
    case "peek":
      return { ask, ids: [id], rows: Effect.map(Cacheme.peek(new RowNode({ id })), Option.toArray) }
    case "refresh":
      return {
        ask,
        ids: [id],
        rows: Effect.map(Cacheme.refresh(lookUpRow(id), new RowNode({ id })), (row) => [row])
      }
    case "set":
      return {
        ask,
        ids: [id],
        rows: Effect.gen(function* () {
          const since = yield* Cacheme.position
          const row = yield* lookUpRow(id)
          // Where the store is away it says so; that is no read that failed.
          yield* Effect.ignore(Cacheme.set(new RowNode({ id }), row, { since }))
          return [row]
        })
      }
  }
}

/** What reaches all entries that rest on a register, named in one of the ways in which a user may name it. */
export const somethingThatReaches = (register: Register, { chance }: World["Service"]) => {
  if (register >= rows) {
    const id = register - rows
    return { target: new OwnerTag({ id }), text: `tag owner ${id}` }
  }
  const id = register
  switch (chance.below(10)) {
    case 0:
      return { target: new RowNode({ id }), text: `node row ${id}` }
    case 1:
      return { target: { keys: [`row:${id}`] }, text: `key row:${id}` }
    case 2:
      return { target: { pattern: `row:${id}` }, text: `pattern row:${id}` }
    default:
      return { target: new RowTag({ id }), text: `tag row ${id}` }
  }
}

/** One of a herd. */
export const herd = (round: number) =>
  Effect.gen(function* () {
    const { truth } = yield* World
    const count = yield* Effect.promise(() => truth.countLookup(round))
    yield* Effect.sleep(30)
    return count
  }).pipe(Cacheme.memoize(new HerdNode({ round })))
