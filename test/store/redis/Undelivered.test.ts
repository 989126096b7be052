import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import * as Invalidation from "../../../src/Invalidation.ts"
import { type Delivery, Undelivered } from "../../../src/store/redis/Undelivered.ts"

const texts = (alphabet: string) => Schema.Array(Schema.Literals(alphabet.split("")))

const Request = Schema.Struct({
  cause: Invalidation.Cause,
  keys: texts("abc"),
  tags: texts("abcd"),
  patterns: texts("xy")
})
type Request = typeof Request.Type

/** What happens: something is added, a delivery begins, or one of those that have begun succeeds. */
const Step = Schema.Union([
  Request,
  Schema.Literal("begin"),
  Schema.Struct({ delivered: Schema.Literals([0, 1, 2, 3]) })
])

const request = (targets: Partial<Request>): Request => ({
  cause: "call",
  keys: [],
  tags: [],
  patterns: [],
  ...targets
})

/** All that requests invalidate, each with its cause. */
const facts = (requests: ReadonlyArray<Request>): ReadonlySet<string> =>
  new Set(
    requests.flatMap(({ cause, keys, tags, patterns }) => [
      ...keys.map((id) => `${cause} key ${id}`),
      ...tags.map((id) => `${cause} tag ${id}`),
      ...patterns.map((glob) => `${cause} pattern ${glob}`)
    ])
  )

const reaches = ({ isEverything, requests }: Delivery, wanted: Request): boolean => {
  const reached = facts(requests)
  return isEverything || [...facts([wanted])].every((fact) => reached.has(fact))
}

describe("Undelivered", () => {
  it.prop(
    "whatever was added is in a delivery that began later and has succeeded, or still waits",
    { steps: Schema.Array(Step) },
    ({ steps }) => {
      const undelivered = new Undelivered()
      // The naive model: every request with its delivery, or none.
      const waiting = new Set<Request>()
      const begun: Array<{ delivery: Delivery; delivered: () => void; covers: ReadonlySet<Request> }> = []
      for (const step of steps) {
        if (step === "begin") begun.push({ ...undelivered.all(), covers: new Set(waiting) })
        else if ("cause" in step) {
          waiting.add(step)
          undelivered.add(step)
        } else {
          const succeeded = begun[step.delivered]
          if (succeeded === undefined) continue
          for (const covered of succeeded.covers) {
            assert.isTrue(reaches(succeeded.delivery, covered))
            waiting.delete(covered)
          }
          succeeded.delivered()
        }
        const { delivery } = undelivered.all()
        for (const wanted of waiting) assert.isTrue(reaches(delivery, wanted), JSON.stringify(steps))
        if (waiting.size > 0) assert.isFalse(undelivered.isEmpty, JSON.stringify(steps))
      }
      // Nothing stays for ever.
      undelivered.all().delivered()
      assert.isTrue(undelivered.isEmpty)
      assert.strictEqual(undelivered.count, 0)
      assert.deepStrictEqual(undelivered.all().delivery, { isEverything: false, requests: [] })
    },
    { arbitrary: { runs: 2000 } }
  )

  it("a delivery that ends late takes nothing off that came after another one had emptied it", () => {
    const undelivered = new Undelivered()
    undelivered.add(request({ tags: ["a"] }))
    const [first, second] = [undelivered.all(), undelivered.all()]
    first.delivered()
    undelivered.add(request({ tags: ["b"] }))
    second.delivered()
    assert.isFalse(undelivered.isEmpty)
    assert.deepStrictEqual(undelivered.all().delivery.requests, [request({ tags: ["b"] })])
  })

  it("merges by cause, and counts invalidations", () => {
    const undelivered = new Undelivered()
    undelivered.add(request({ tags: ["a", "b"], keys: ["k"] }))
    undelivered.add(request({ tags: ["b", "c"], patterns: ["x*"] }))
    undelivered.add(request({ tags: ["a"], cause: "mutation" }))
    assert.strictEqual(undelivered.count, 3)
    assert.deepStrictEqual(undelivered.all().delivery, {
      isEverything: false,
      requests: [
        request({ tags: ["a", "b", "c"], keys: ["k"], patterns: ["x*"] }),
        request({ tags: ["a"], cause: "mutation" })
      ]
    })
  })

  it("tells a hundred attributions apart; what comes from more is delivered without one, once", () => {
    const undelivered = new Undelivered()
    const from = (actor: string) => ({ ...request({ tags: ["hot"] }), actor, reason: undefined })
    for (let i = 0; i < 1000; i++) undelivered.add(from(`user:${i}`))
    undelivered.add(from("user:7"))
    const { requests } = undelivered.all().delivery
    assert.lengthOf(requests, 101)
    assert.deepStrictEqual(requests[99], from("user:99"))
    assert.deepStrictEqual(requests[100], request({ tags: ["hot"] }))
    // Nor is anything kept of those that invalidate nothing.
    const nothing = new Undelivered()
    nothing.add({ ...request({}), actor: "user:1" })
    assert.deepStrictEqual(nothing.all().delivery.requests, [])
    assert.strictEqual(nothing.count, 1)
  })

  it("holds 100,000 ids and patterns; one more, and everything is invalidated instead", () => {
    const undelivered = new Undelivered()
    const ids = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => `id${from + i}`)
    undelivered.add(request({ tags: ids(0, 50_000) }))
    undelivered.add(request({ keys: ids(0, 49_999), patterns: ["x*"] }))
    // Once more the same.
    undelivered.add(request({ tags: ids(0, 50_000) }))
    assert.isFalse(undelivered.all().delivery.isEverything)
    undelivered.add(request({ tags: ["one more"] }))
    const { delivery, delivered } = undelivered.all()
    assert.deepStrictEqual(delivery, { isEverything: true, requests: [] })
    assert.strictEqual(undelivered.count, 4)
    // What comes now is part of everything; it waits for a delivery that began after it.
    undelivered.add(request({ tags: ["late"] }))
    delivered()
    assert.isFalse(undelivered.isEmpty)
    assert.isTrue(undelivered.all().delivery.isEverything)
    undelivered.all().delivered()
    assert.isTrue(undelivered.isEmpty)
    undelivered.add(request({ tags: ["a"] }))
    assert.deepStrictEqual(undelivered.all().delivery, {
      isEverything: false,
      requests: [request({ tags: ["a"] })]
    })
  })
})
