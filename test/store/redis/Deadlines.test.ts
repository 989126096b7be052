import { assert, describe, it } from "@effect/vitest"
import { afterEach, beforeEach, vi } from "vitest"
import { Deadlines, type Due } from "../../../src/store/redis/Deadlines.ts"

describe("Deadlines", () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "performance"] }))
  afterEach(() => void vi.useRealTimers())

  /** Deadlines of 100 milliseconds, and the names of those that were late. */
  const scene = () => {
    const late: Array<string> = []
    const deadlines = new Deadlines(100)
    const begin = (name: string): Due => deadlines.begin(() => late.push(name))
    return { late, deadlines, begin }
  }

  it("tells of each that is late, when it is due, and once", () => {
    const { late, begin } = scene()
    begin("a")
    begin("b")
    vi.advanceTimersByTime(50)
    begin("c")
    vi.advanceTimersByTime(49)
    assert.deepStrictEqual(late, [])
    vi.advanceTimersByTime(2)
    assert.deepStrictEqual(late, ["a", "b"])
    vi.advanceTimersByTime(50)
    assert.deepStrictEqual(late, ["a", "b", "c"])
    vi.advanceTimersByTime(1000)
    assert.lengthOf(late, 3)
  })

  it("tells nothing of what is over, in whatever order they end", () => {
    const { late, deadlines, begin } = scene()
    const [a, b, c] = [begin("a"), begin("b"), begin("c")]
    deadlines.end(b)
    deadlines.end(a)
    vi.advanceTimersByTime(200)
    assert.deepStrictEqual(late, ["c"])
    assert.isTrue(c.isOver)
  })

  it("has one timer while something is waited for, and none once nothing is", () => {
    const { deadlines, begin } = scene()
    for (let i = 0; i < 100; i++) begin("late")
    assert.strictEqual(vi.getTimerCount(), 1)
    vi.advanceTimersByTime(101)
    assert.strictEqual(vi.getTimerCount(), 0)
    for (let i = 0; i < 100; i++) deadlines.end(begin("in time"))
    assert.strictEqual(vi.getTimerCount(), 1)
    vi.advanceTimersByTime(101)
    assert.strictEqual(vi.getTimerCount(), 0)
  })

  it("keeps the deadline of what begins when another is late", () => {
    const late: Array<string> = []
    const deadlines = new Deadlines(100)
    deadlines.begin(() => {
      late.push("first")
      deadlines.begin(() => late.push("second"))
    })
    vi.advanceTimersByTime(101)
    assert.deepStrictEqual(late, ["first"])
    vi.advanceTimersByTime(101)
    assert.deepStrictEqual(late, ["first", "second"])
  })
})
