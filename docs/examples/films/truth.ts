/**
 * What the database holds after each write, kept beside it, so that every answer can be checked afterwards.
 *
 * Writes are made one after the other, so the states of the database have an order. A read that began when `from` writes
 * had been completed, and ended when `to` had been begun, may answer from any state between these two, and from no
 * earlier one: such an answer is stale.
 */

/** A film, as the database holds it. */
export interface Row {
  readonly id: number
  readonly title: string
  readonly director: string | null
  readonly genre: string | null
  readonly rating: number | null
  readonly votes: number
}

/** A question about the films. */
export type Question =
  | { readonly about: "film"; readonly id: number }
  | { readonly about: "director"; readonly director: string }
  | { readonly about: "top"; readonly genre: string }
  | { readonly about: "count" }

/** A change of the films. */
export type Change =
  | { readonly does: "rate"; readonly id: number; readonly rating: number; readonly votes: number }
  | { readonly does: "credit"; readonly id: number; readonly director: string }
  | { readonly does: "add"; readonly row: Row }
  | { readonly does: "remove"; readonly id: number }

/** One read: its answer as text, and the writes completed before it began and begun before it ended. */
export interface Read {
  readonly question: Question
  readonly answer: string
  readonly from: number
  readonly to: number
  readonly milliseconds: number
}

export class Truth {
  /** How many writes have been begun, and how many completed. */
  begun = 0
  completed = 0
  readonly #states: Array<ReadonlyMap<number, Row>>

  constructor(rows: ReadonlyArray<Row>) {
    this.#states = [new Map(rows.map((row) => [row.id, row]))]
  }

  /** Tells what the database will hold once the change is made. */
  begin(change: Change): void {
    const rows = new Map(this.#states[this.begun])
    switch (change.does) {
      case "rate":
      case "credit": {
        const row = rows.get(change.id)
        const { does: _, ...values } = change
        if (row !== undefined) rows.set(change.id, { ...row, ...values })
        break
      }
      case "add":
        rows.set(change.row.id, change.row)
        break
      case "remove":
        rows.delete(change.id)
    }
    this.#states.push(rows)
    this.begun++
  }

  complete(): void {
    this.completed++
  }

  /** True when no state that the read could have seen gives its answer. */
  isStale({ question, answer, from, to }: Read): boolean {
    for (let state = from; state <= to; state++) {
      if (textOf(answerTo(question, this.#states[state]!)) === answer) return false
    }
    return true
  }
}

/** An answer as text, whoever gave it. */
export const textOf = (answer: unknown): string => {
  const plain = (row: Row) => [row.id, row.title, row.director, row.genre, row.rating, row.votes]
  return JSON.stringify(
    Array.isArray(answer)
      ? answer.map(plain)
      : typeof answer === "object" && answer !== null
        ? plain(answer as Row)
        : answer
  )
}

const answerTo = (question: Question, rows: ReadonlyMap<number, Row>): unknown => {
  const all = [...rows.values()]
  const byId = (a: Row, b: Row) => a.id - b.id
  switch (question.about) {
    case "film":
      return rows.get(question.id) ?? "gone"
    case "director":
      return all.filter((row) => row.director === question.director).toSorted(byId)
    case "top":
      return all
        .filter((row) => row.genre === question.genre)
        .toSorted((a, b) => b.votes - a.votes || byId(a, b))
        .slice(0, 10)
    case "count":
      return all.filter((row) => row.rating !== null).length
  }
}
