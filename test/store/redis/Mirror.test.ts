import { assert, describe, inject, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as Node from "../../../src/Node.ts"
import * as Pattern from "../../../src/Pattern.ts"
import {
  type Delta,
  type Judged,
  type Listener,
  Mirror,
  type Point
} from "../../../src/store/redis/Mirror.ts"

/** A mirror, and what its listener was told. */
const aMirror = (listener: Partial<Listener> = {}) => {
  const told: Array<string> = []
  const mirror: Mirror = new Mirror({
    onRows: (ids, globs) => {
      told.push(`${[...ids, ...globs.map((glob) => `~${glob}`)].join()} at ${mirror.cursor}`)
      listener.onRows?.(ids, globs)
    },
    onGap: () => {
      told.push(`gap at ${mirror.cursor}`)
      listener.onGap?.()
    }
  })
  return { mirror, told }
}

/** What a sync answers to a mirror as it is: rows by their sequences. */
const delta = (
  mirror: Mirror,
  rows: ReadonlyArray<readonly [string, number]>,
  more: Partial<Delta>
): Delta => ({
  incarnation: "1",
  sequence: 100,
  floor: 10,
  rows: rows.flatMap(([member, at]) => [member, String(at)]),
  time: more.sequence ?? 100,
  sent: mirror.asking(1000),
  ...more
})

const entry = (startedAt: number, tags: ReadonlyArray<string> = [], incarnation = "1"): Judged => ({
  incarnation,
  startedAt,
  tags
})

describe("Mirror", () => {
  it("knows nothing before the first delta", () => {
    const { mirror } = aMirror()
    assert.isFalse(mirror.covers({ incarnation: "1", sequence: 0 }))
    assert.strictEqual(mirror.endedBy(entry(100), "row:1"), "")
    assert.isFalse(mirror.applyNext({ incarnation: "1", sequence: 5 }, 0, [":#a"]))
    assert.strictEqual(mirror.size, 0)
  })

  it("judges by the key, each tag, the floor and the incarnation", () => {
    const { mirror } = aMirror()
    assert.strictEqual(
      mirror.apply(
        delta(
          mirror,
          [
            [":row:1", 20],
            [":#a", 30]
          ],
          {}
        )
      ),
      "complete"
    )
    assert.isTrue(mirror.covers({ incarnation: "1", sequence: 100 }))
    assert.isFalse(mirror.covers({ incarnation: "1", sequence: 101 }))
    assert.isFalse(mirror.covers({ incarnation: "2", sequence: 100 }))
    for (const [judged, key, by] of [
      [entry(19), "row:1", "row:1"],
      [entry(20), "row:1", undefined],
      [entry(29, ["#a"]), "row:2", "#a"],
      [entry(30, ["#a"]), "row:2", undefined],
      [entry(29, ["#b"]), "row:2", undefined],
      [entry(10, ["#b"]), "row:2", undefined],
      [entry(9, ["#b"]), "row:2", ""],
      [entry(100, [], "2"), "row:2", ""]
    ] as const)
      assert.strictEqual(mirror.endedBy(judged, key), by, JSON.stringify(judged))
  })

  it("matches a pattern with the key, and with every key that an answer rests on", () => {
    const { mirror } = aMirror()
    mirror.apply(delta(mirror, [["~row:*", 20]], {}))
    assert.strictEqual(mirror.endedBy(entry(15), "row:1"), "row:*")
    assert.strictEqual(mirror.endedBy(entry(20), "row:1"), undefined)
    assert.strictEqual(mirror.endedBy(entry(15, ["row:1"]), "list:1"), "row:*")
    // The tags of nodes and facts are no keys.
    assert.strictEqual(mirror.endedBy(entry(15, ["#row:1", "row:*", "list:*"]), "list:1"), undefined)
  })

  it("asks on where a delta was cut, which may be amid one invalidation, and covers nothing of it yet", () => {
    const { mirror } = aMirror()
    mirror.apply(delta(mirror, [], {}))
    const page = (rows: ReadonlyArray<readonly [string, number]>) =>
      mirror.apply(delta(mirror, rows, { sequence: 200, sent: mirror.asking(2) }))
    // "#b" was invalidated at 105, too: the log has only the later one, which is beyond the cut.
    assert.strictEqual(
      page([
        [":#a", 110],
        [":#b", 120]
      ]),
      "more"
    )
    assert.strictEqual(mirror.asking(2).from, 119)
    assert.isFalse(mirror.covers({ incarnation: "1", sequence: 105 }))
    assert.isTrue(mirror.covers({ incarnation: "1", sequence: 100 }))
    // So no message can follow it either.
    assert.isFalse(mirror.applyNext({ incarnation: "1", sequence: 120 }, 119, [":#b"]))
    assert.strictEqual(
      page([
        [":#b", 120],
        [":#c", 120]
      ]),
      "more"
    )
    assert.strictEqual(mirror.asking(2).from, 119)
    assert.strictEqual(
      mirror.apply(
        delta(
          mirror,
          [
            [":#b", 120],
            [":#c", 120]
          ],
          { sequence: 200 }
        )
      ),
      "complete"
    )
    assert.isTrue(mirror.covers({ incarnation: "1", sequence: 200 }))
  })

  it("tells of rows before it moves, of each once, and of a gap when rows were forgotten before it learnt them", () => {
    const { mirror, told } = aMirror()
    mirror.apply(
      delta(
        mirror,
        [
          [":#a", 20],
          [":#b", 20],
          ["~row:*", 30]
        ],
        {}
      )
    )
    mirror.apply(
      delta(
        mirror,
        [
          [":#a", 20],
          [":#c", 110]
        ],
        { sequence: 110 }
      )
    )
    assert.isTrue(mirror.applyNext({ incarnation: "1", sequence: 120 }, 110, [":#d", "~x"]))
    mirror.apply(delta(mirror, [], { sequence: 130, floor: 120 }))
    mirror.apply(delta(mirror, [], { sequence: 150, floor: 140 }))
    mirror.apply(delta(mirror, [], { sequence: 150, incarnation: "2" }))
    assert.deepStrictEqual(told, [
      "gap at 10",
      "#a,#b at 10",
      "~row:* at 10",
      "#c at 100",
      "#d,~x at 110",
      "gap at 130",
      "gap at 10"
    ])
  })

  it("takes a message only right after what it knows, and notes its rows in any case", () => {
    const { mirror } = aMirror()
    mirror.apply(delta(mirror, [], {}))
    assert.isFalse(mirror.applyNext({ incarnation: "1", sequence: 120 }, 110, [":#a"]))
    assert.strictEqual(mirror.cursor, 100)
    assert.strictEqual(mirror.endedBy(entry(115, ["#a"]), "row:1"), "#a")
    assert.isFalse(mirror.applyNext({ incarnation: "2", sequence: 120 }, 100, [":#b"]))
    assert.isTrue(mirror.applyNext({ incarnation: "1", sequence: 110 }, 100, [":#c"]))
    assert.strictEqual(mirror.cursor, 110)
    assert.isTrue(mirror.applyNext({ incarnation: "1", sequence: 105 }, 1, [":#d"]))
    assert.strictEqual(mirror.cursor, 110)
  })

  it("refuses an answer to what it asked before it forgot", () => {
    const { mirror } = aMirror()
    mirror.apply(delta(mirror, [[":#b", 50]], {}))
    const late = delta(mirror, [[":#c", 110]], { sequence: 110 })
    mirror.forget()
    assert.strictEqual(mirror.apply(late), "refused")
    assert.strictEqual(mirror.apply(delta(mirror, [[":#a", 20]], { sent: mirror.asking(1) })), "more")
    // It leaves out what lies between 19 and 100.
    assert.strictEqual(mirror.apply(late), "refused")
    assert.strictEqual(mirror.apply({ ...late, floor: 30 }), "refused")
    assert.strictEqual(mirror.asking(1).from, 19)
  })

  it("forgets everything when a cell has gone back", () => {
    const { mirror, told } = aMirror()
    mirror.apply(delta(mirror, [[":#a", 20]], {}))
    assert.strictEqual(mirror.apply(delta(mirror, [], { sequence: 99 })), "refused")
    assert.deepStrictEqual([mirror.incarnation, mirror.cursor, mirror.size], [undefined, 0, 0])
    assert.strictEqual(told.at(-1), "gap at 0")
  })

  it("remembers a pattern once, however often it is used", () => {
    const { mirror } = aMirror()
    mirror.apply(delta(mirror, [], {}))
    for (let at = 101; at < 1101; at++)
      mirror.applyNext({ incarnation: "1", sequence: at }, at - 1, ["~row:*", ":#a"])
    assert.strictEqual(mirror.size, 2)
    assert.strictEqual(mirror.endedBy(entry(1099), "row:1"), "row:*")
    assert.strictEqual(mirror.endedBy(entry(1100), "row:1"), undefined)
  })

  it("takes what is no pattern for one that reaches everything", () => {
    const { mirror, told } = aMirror()
    mirror.apply(delta(mirror, [], {}))
    for (const garbage of ["~", `~${"x".repeat(300)}`]) {
      const previous = mirror.cursor
      told.length = 0
      assert.isTrue(
        mirror.applyNext({ incarnation: "1", sequence: previous + 10 }, previous, [":#a", garbage])
      )
      assert.deepStrictEqual(told, [`gap at ${previous}`, `#a at ${previous}`])
      assert.strictEqual(mirror.endedBy(entry(previous), "row:1"), "*")
      assert.strictEqual(mirror.endedBy(entry(previous + 10), "row:1"), undefined)
    }
  })

  it("gives back what lies below the floor", () => {
    const { mirror } = aMirror()
    const rows = Array.from({ length: 100 }, (_, i) => [i % 10 === 0 ? `~${i}` : `:${i}`, 20 + i] as const)
    mirror.apply(delta(mirror, rows, { sequence: 200 }))
    assert.strictEqual(mirror.size, 100)
    mirror.apply(delta(mirror, [], { sequence: 200, floor: 100 }))
    assert.strictEqual(mirror.size, 19)
  })

  describe("since when an answer is not fresh", () => {
    it("is where the last delta ended before the one that told of it, or right before a message", () => {
      const { mirror } = aMirror()
      mirror.apply(delta(mirror, [[":#a", 20]], {}))
      mirror.apply(
        delta(
          mirror,
          [
            [":#b", 150],
            [":#c", 160]
          ],
          { sequence: 200 }
        )
      )
      mirror.applyNext({ incarnation: "1", sequence: 300 }, 200, [":#d"])
      // The server had answered at 400, and nothing but that had happened.
      mirror.apply(delta(mirror, [], { sequence: 300, time: 400 }))
      mirror.apply(delta(mirror, [[":#e", 500]], { sequence: 600 }))
      assert.strictEqual(mirror.endedNotBefore(entry(50, ["#e"]), "row:1"), 400)
      assert.strictEqual(mirror.endedNotBefore(entry(110, ["#b"]), "row:1"), 110)
      assert.strictEqual(mirror.endedNotBefore(entry(50, ["#b", "#c"]), "row:1"), 100)
      assert.strictEqual(mirror.endedNotBefore(entry(50, ["#d"]), "row:1"), 299)
      assert.strictEqual(mirror.endedNotBefore(entry(50, ["#c", "#d"]), "row:1"), 100)
    })

    it("is not known of what was invalidated again: then it is when the lookup began", () => {
      const { mirror } = aMirror()
      mirror.apply(delta(mirror, [[":#a", 50]], {}))
      mirror.applyNext({ incarnation: "1", sequence: 300 }, 100, [":#a", "~row:*"])
      mirror.applyNext({ incarnation: "1", sequence: 400 }, 300, ["~row:*"])
      assert.strictEqual(mirror.endedNotBefore(entry(40, ["#a"]), "list:1"), 40)
      assert.strictEqual(mirror.endedNotBefore(entry(60, ["#a"]), "list:1"), 299)
      assert.strictEqual(mirror.endedNotBefore(entry(110), "row:1"), 110)
      assert.strictEqual(mirror.endedNotBefore(entry(310), "row:1"), 399)
    })

    it("is not taken from the middle of a delta that came in pieces", () => {
      const { mirror } = aMirror()
      // "#a" was invalidated at 110, and again at 150 before the mirror asked: the log only has the latter.
      mirror.apply(delta(mirror, [], {}))
      mirror.apply(delta(mirror, [[":#b", 140]], { sequence: 200, sent: mirror.asking(1) }))
      assert.strictEqual(mirror.asking(1).from, 139)
      mirror.apply(
        delta(
          mirror,
          [
            [":#b", 140],
            [":#a", 150]
          ],
          { sequence: 200 }
        )
      )
      assert.isAtMost(mirror.endedNotBefore(entry(50, ["#a"]), "row:1"), 110)
    })

    it("counts an earlier invalidation that is heard of after a later one", () => {
      const { mirror } = aMirror()
      mirror.apply(delta(mirror, [], {}))
      mirror.applyNext({ incarnation: "1", sequence: 120 }, 110, [":#a", "~row:*"])
      mirror.applyNext({ incarnation: "1", sequence: 105 }, 100, [":#a", "~row:*"])
      mirror.applyNext({ incarnation: "1", sequence: 110 }, 105, [":#b"])
      mirror.applyNext({ incarnation: "1", sequence: 120 }, 110, [":#a", "~row:*"])
      assert.isAtMost(mirror.endedNotBefore(entry(100, ["#a"]), "list:1"), 105)
      assert.isAtMost(mirror.endedNotBefore(entry(100), "row:1"), 105)
    })

    it("grows more careful, not wrong, where so much has happened that the past is forgotten", () => {
      const { mirror } = aMirror()
      mirror.apply(delta(mirror, [], {}))
      const many = Array.from({ length: 12_000 }, (_, id) => `:#${id}`)
      mirror.applyNext({ incarnation: "1", sequence: 120 }, 100, many)
      mirror.applyNext({ incarnation: "1", sequence: 130 }, 120, [":#other"])
      mirror.applyNext({ incarnation: "1", sequence: 140 }, 130, many)
      for (let id = 0; id < 12_000; id += 100)
        assert.isAtMost(mirror.endedNotBefore(entry(110, [`#${id}`]), "row:1"), 120)
      for (let at = 141; at < 30_000; at++)
        mirror.applyNext({ incarnation: "1", sequence: at }, at - 1, [":#x"])
      assert.strictEqual(mirror.endedNotBefore(entry(135, ["#1"]), "row:1"), 135)
      assert.strictEqual(mirror.endedNotBefore(entry(29_000, ["#y", "#x"]), "row:1"), 29_000)
      mirror.apply(delta(mirror, [[":#y", 30_500]], { sequence: 31_000 }))
      assert.strictEqual(mirror.endedNotBefore(entry(29_000, ["#y"]), "row:1"), 29_999)
    })
  })
})

// ------------------------------------------------------------------------------------------------------- the model

const ids = ["row:1", "row:2", "list:1", "#a", "#b", "row:*"] as const
const members = [...ids.map((id) => `:${id}`), "~row:*", "~*:1", "~row:2"]

const Members = Schema.Array(Schema.Literals(members)).check(Schema.isMinLength(1), Schema.isMaxLength(5))
const Few = Schema.Literals([0, 1, 2, 3, 4, 5, 6, 7])

/** What happens in Redis, on the way, and in the process that has the mirror. */
const Step = Schema.Union([
  Schema.TaggedStruct("Invalidate", { members: Members, later: Schema.Literals([0, 1, 5]) }),
  Schema.TaggedStruct("Invalidate", { members: Members, later: Schema.Literals([0, 1, 5]) }),
  Schema.TaggedStruct("Trim", { rows: Schema.Literals([1, 2, 4]) }),
  Schema.TaggedStruct("BeginAnew", { clock: Schema.Literals([-50, 0, 50]) }),
  Schema.TaggedStruct("Ask", { limit: Schema.Literals([1, 2, 3, 100, 1000]) }),
  Schema.TaggedStruct("Ask", { limit: Schema.Literals([1, 2, 3, 100, 1000]) }),
  Schema.TaggedStruct("Answer", { which: Few, isAgain: Schema.Boolean }),
  Schema.TaggedStruct("Answer", { which: Few, isAgain: Schema.Boolean }),
  Schema.TaggedStruct("SyncAll", {}),
  Schema.TaggedStruct("Hear", { which: Few }),
  Schema.TaggedStruct("Hear", { which: Few }),
  Schema.TaggedStruct("HearInOrder", {}),
  Schema.TaggedStruct("Forget", {}),
  Schema.TaggedStruct("Lookup", {
    key: Schema.Literals(["row:1", "row:2", "list:1"]),
    tags: Schema.Array(Schema.Literals(ids)).check(Schema.isMaxLength(3))
  })
])

const History = Schema.Array(Step).check(Schema.isMinLength(20), Schema.isMaxLength(80))

interface Known {
  readonly key: string
  readonly judged: Judged
}

/** A cell as Redis keeps it, and the log of everything that was ever invalidated, which Redis does not keep. */
class World {
  incarnation = "1"
  clock = 1000
  sequence = 1000
  floor = 1000
  readonly log = new Map<string, number>()
  readonly history: Array<Point & { readonly previous: number; readonly members: ReadonlyArray<string> }> = []

  invalidate(invalidated: ReadonlyArray<string>, later: number): void {
    const previous = this.sequence
    this.clock += later
    this.sequence = Math.max(this.sequence + 1, this.clock)
    for (const member of invalidated) {
      this.log.delete(member)
      this.log.set(member, this.sequence)
    }
    this.history.push({
      incarnation: this.incarnation,
      sequence: this.sequence,
      previous,
      members: invalidated
    })
  }

  trim(rows: number): void {
    for (const [member, at] of [...this.log].slice(0, rows)) {
      this.log.delete(member)
      this.floor = at
    }
  }

  beginAnew(clock: number): void {
    this.incarnation = String(Number(this.incarnation) + 1)
    this.floor = this.sequence = this.clock = Math.max(this.sequence, this.clock) + clock
    this.log.clear()
  }

  sync(sent: Delta["sent"]): Delta {
    const from = sent.incarnation !== this.incarnation ? this.floor : Math.max(sent.from, this.floor)
    const rows = [...this.log].filter(([, at]) => at > from).slice(0, sent.limit)
    return {
      incarnation: this.incarnation,
      sequence: this.sequence,
      floor: this.floor,
      rows: rows.flatMap(([member, at]) => [member, String(at)]),
      time: this.clock,
      sent
    }
  }

  /** The invalidations of an entry after its lookup began, up to a point of its incarnation. */
  endsOf({ key, judged }: Known, to = Infinity): ReadonlyArray<number> {
    const rests = [key, ...judged.tags]
    return this.history
      .filter(
        ({ incarnation, sequence, members }) =>
          incarnation === judged.incarnation &&
          sequence > judged.startedAt &&
          sequence <= to &&
          members.some((member) => reaches(member, rests))
      )
      .map(({ sequence }) => sequence)
  }
}

const reaches = (member: string, rests: ReadonlyArray<string>): boolean => {
  if (member.startsWith(":")) return rests.includes(member.slice(1))
  const { matches } = Pattern.makeUnsafe(member.slice(1))
  return rests.some((id) => Node.isKeyId(id) && matches(id))
}

const runHistory = (steps: ReadonlyArray<typeof Step.Type>): void => {
  const world = new World()
  const entries: Array<Known> = []
  const answers: Array<Delta> = []
  /** What a memory in front would hold: put there while it is judged fresh, and told what is invalidated. */
  let near = new Set<Known>()
  const mirror: Mirror = new Mirror({
    onRows: (ids, globs) => {
      checkNear()
      const told = [...ids.map((id) => `:${id}`), ...globs.map((glob) => `~${glob}`)]
      for (const known of near)
        if (told.some((member) => reaches(member, [known.key, ...known.judged.tags]))) near.delete(known)
    },
    onGap: () => {
      near = new Set()
    }
  })
  const checkNear = () => {
    for (const known of near) {
      assert.strictEqual(
        known.judged.incarnation,
        mirror.incarnation,
        "memory holds what it was told to clear"
      )
      assert.isEmpty(world.endsOf(known, mirror.cursor), "memory holds what ended before the cursor")
    }
  }
  const check = () => {
    checkNear()
    assert.isAtMost(mirror.size, members.length)
    const now = { incarnation: world.incarnation, sequence: world.sequence }
    assert.isAtMost(mirror.cursor, mirror.incarnation === world.incarnation ? world.sequence : Infinity)
    for (const known of entries) {
      const { key, judged } = known
      const endedBy = mirror.endedBy(judged, key)
      const label = JSON.stringify({ known, cursor: mirror.cursor, floor: mirror.floor })
      if (endedBy === undefined) {
        near.add(known)
        assert.isEmpty(
          world.endsOf(known, mirror.cursor),
          `fresh, though it ended before the cursor: ${label}`
        )
        if (mirror.covers(now)) {
          assert.strictEqual(judged.incarnation, world.incarnation, label)
          assert.isEmpty(world.endsOf(known), `fresh, though covered: ${label}`)
        }
        continue
      }
      const ends = world.endsOf(known)
      if (judged.incarnation === mirror.incarnation && judged.startedAt >= mirror.floor)
        assert.isNotEmpty(ends, `a needless miss: ${label}`)
      if (endedBy === "") continue
      const since = mirror.endedNotBefore(judged, key)
      assert.isAtLeast(since, judged.startedAt, label)
      assert.isAtMost(since, Math.min(...ends), `later than the first invalidation: ${label}`)
    }
  }
  let heard = 0
  for (const step of steps) {
    switch (step._tag) {
      case "Invalidate":
        world.invalidate([...new Set(step.members)], step.later)
        break
      case "Trim":
        world.trim(step.rows)
        break
      case "BeginAnew":
        world.beginAnew(step.clock)
        break
      case "Ask":
        answers.push(world.sync(mirror.asking(step.limit)))
        break
      case "Answer": {
        const at = answers.length === 0 ? 0 : step.which % answers.length
        const answer = answers[at]
        if (!step.isAgain) answers.splice(at, 1)
        if (answer !== undefined) mirror.apply(answer)
        break
      }
      case "SyncAll":
        for (let limit = 1, refused = 0; ; limit *= 2) {
          const outcome = mirror.apply(world.sync(mirror.asking(limit)))
          if (outcome === "complete") break
          if (outcome === "refused") assert.isBelow(refused++, 2)
        }
        assert.isTrue(mirror.covers({ incarnation: world.incarnation, sequence: world.sequence }))
        break
      case "Hear":
      case "HearInOrder": {
        const { history } = world
        const at = step._tag === "Hear" ? history.length - 1 - step.which : heard++
        const message = history[at]
        if (message !== undefined) mirror.applyNext(message, message.previous, message.members)
        break
      }
      case "Forget":
        mirror.forget()
        break
      case "Lookup":
        entries.push({
          key: step.key,
          judged: {
            incarnation: world.incarnation,
            startedAt: world.sequence,
            tags: step.tags.filter((tag) => tag !== step.key)
          }
        })
    }
    check()
  }
}

describe("Mirror, whatever happens", () => {
  it.effect.prop(
    "judges nothing fresh that is not, misses nothing that is, and knows no end later than it was",
    [History],
    ([steps]) => Effect.sync(() => runHistory(steps)),
    { arbitrary: { runs: inject("isFull") ? 20_000 : 1500, size: 80 }, timeout: 600_000 }
  )
})
