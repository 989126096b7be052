/** A short run of the checker, and whether it finds what it is there for. `npm run checker` runs it for longer. */
import { assert, describe, it } from "@effect/vitest"
import { inject } from "vitest"
import { faults } from "./chaos.ts"
import { check, type CheckOptions, everyPhase, type Findings } from "./check.ts"
import { type Sabotage, sabotages } from "./sabotage.ts"

const isFull = inject("isFull")
const timeout = isFull ? 600_000 : 60_000

const options: CheckOptions = {
  modes: ["far", "validated", "bounded"],
  processes: 3,
  reads: 3000,
  phases: [[], faults],
  seed: Date.now() % 1_000_000
}

const told = (findings: Findings) =>
  [...findings.broken, ...Object.values(findings.modes).flatMap(({ stories }) => stories)].join("\n")

describe("the checker", () => {
  it(
    "finds nobody who is given an answer from before an acknowledged invalidation, whatever goes wrong",
    async () => {
      const findings = await check(isFull ? { ...options, reads: 100_000, phases: everyPhase } : options)
      assert.strictEqual(told(findings), "", `seed ${options.seed}`)
      for (const tally of Object.values(findings.modes)) {
        assert.isAbove(tally.reads, 100)
        assert.isAbove(tally.hits, 50)
        assert.isAbove(tally.writes, 10)
        assert.strictEqual(tally.violations, 0)
        assert.strictEqual(tally.failures, 0)
      }
      for (const fault of faults) assert.isAbove(findings.faults[fault], 0, fault)
      assert.isAbove(findings.herds.length, 0)
      for (const { lookups, expected } of findings.herds) assert.strictEqual(lookups, expected)
    },
    timeout
  )

  it("finds nothing in one process with a store in memory", async () => {
    const findings = await check({ ...options, modes: ["memory"], processes: 1, phases: [[]] })
    assert.strictEqual(told(findings), "", `seed ${options.seed}`)
    assert.isAbove(findings.modes["memory"]!.hits, 1000)
  })

  const all: ReadonlyArray<readonly [string, Sabotage]> = Object.entries(sabotages)
  for (const [name, { is, faults: these = [], modes = options.modes, isDirected }] of all) {
    const isQuick = name === "late start" || name === "early acknowledgement"
    // The others take longer, and those that are directed have tests of their own.
    if (isDirected === true || !(isFull || isQuick)) continue
    it(
      `catches that ${is}`,
      async () => {
        const findings = await check({
          ...options,
          modes,
          processes: isFull ? 4 : 2,
          phases: [these],
          seconds: isFull ? 60 : 30,
          sabotage: name
        })
        assert.deepStrictEqual(findings.broken, [])
        assert.isAbove(
          Object.values(findings.modes).reduce((sum, { violations }) => sum + violations, 0),
          0
        )
      },
      timeout
    )
  }
})
