/**
 * The library with one rule taken out: what the model check of reads must catch. A mutant is a change of the source text,
 * so that nothing in the library is there for the check; what is to be found in a file must be there once, or the
 * mutant is no mutant any more, and fails.
 */
import { fork } from "node:child_process"
import { once } from "node:events"
import { readFileSync } from "node:fs"
import type { ReadFailure } from "./checkReads.ts"

/** One rule taken out. */
export interface Mutant {
  readonly name: string
  /** What is wrong. */
  readonly is: string
  readonly changes: ReadonlyArray<Change>
  /** The forms of queries among which it is caught soonest; default all. */
  readonly forms?: ReadonlyArray<string>
}

/** A change of a file's text. */
interface Change {
  /** The file in `src/`. */
  readonly file: string
  /** What is replaced in it, and by what. */
  readonly find: string
  readonly replace: string
}

const inFile =
  (file: string) =>
  (find: string, replace: string): Change => ({ file, find, replace })
const reads = inFile("drizzle/queryReads.ts")
const from = inFile("drizzle/fromClause.ts")
const level = inFile("drizzle/level.ts")
const solutions = inFile("drizzle/solutions.ts")
const shown = inFile("drizzle/shownValues.ts")
const shape = inFile("drizzle/selectShape.ts")
const mentions = inFile("drizzle/mentions.ts")
const tags = inFile("drizzle/readTags.ts")
const conditions = inFile("drizzle/conditions.ts")
const written = inFile("drizzle/changedRows.ts")

/** What is not looked into is not read whole either. */
const noLastNet = reads("for (const statement of this.#statements) this.#lastNet(statement)", "")

const outer = [
  "conditions in ON",
  "left join",
  "right join",
  "full join",
  "three joins",
  "three left joins",
  "anti join"
]
const withValues = ["with related", "inner join", "left join", "three left joins", "find with", "find deep"]

/** All of them. */
export const mutants: ReadonlyArray<Mutant> = [
  {
    name: "no unknown",
    is: "who reads rows does not rest on changes of rows that nobody can name",
    changes: [tags("for (const group of groups) always.add(tableIds(name, group).unknown)", "")]
  },
  {
    name: "no old rows",
    is: "what a changed row was before is not told",
    changes: [
      written("[change.old, change.now]", "[change.old && change.now ? undefined : change.old, change.now]")
    ]
  },
  {
    name: "no new rows",
    is: "what a changed row has become is not told",
    changes: [
      written("[change.old, change.now]", "[change.old, change.old && change.now ? undefined : change.now]")
    ]
  },
  {
    name: "first alternative",
    is: "of an `or` only the first alternative is looked at",
    changes: [
      conditions("limited(args.flatMap(alternativesOf))", "limited(args.slice(0, 1).flatMap(alternativesOf))")
    ]
  },
  {
    name: "first alternatives",
    is: "of too many alternatives the first are looked at",
    changes: [
      conditions(
        "alternatives.length > mostAlternatives ? opaque : alternatives",
        "alternatives.slice(0, mostAlternatives)"
      ),
      conditions(
        "return both(left.length <= right.length ? left : right, opaque)",
        "return left.flatMap((one) => right.map((other) => [...one, ...other])).slice(0, mostAlternatives)"
      )
    ],
    forms: ["many alternatives"]
  },
  {
    name: "not",
    is: "a negation is taken for what it negates",
    changes: [
      conditions(
        "? [[isTrue(argument.ColumnRef, false)]] : opaque",
        "? [[isTrue(argument.ColumnRef, false)]] : alternativesOf(argument)"
      )
    ]
  },
  {
    name: "first of a list",
    is: "of a list of values only the first is looked at",
    changes: [tags("[...new Set(texts)]", "texts.slice(0, 1)")]
  },
  {
    name: "first region",
    is: "of the regions of a table only the first is told",
    changes: [tags("for (const region of regions) {", "for (const region of regions.slice(0, 1)) {")]
  },
  {
    name: "too many rows",
    is: "of too many combinations of values the first are told",
    changes: [tags("if (count > mostRows) return undefined", "if (count > mostRows) return []")],
    forms: ["by list"]
  },
  {
    name: "ON of both sides",
    is: "the ON of an outer join leaves rows out of both sides",
    changes: [solutions(`type === "left" ? join.right : type === "right" ? join.left : join`, "join")],
    forms: outer
  },
  {
    name: "ON of a left join",
    is: "the ON of a left join leaves rows out of the left side",
    changes: [
      solutions(
        `type === "left" ? join.right : type === "right" ? join.left : join`,
        `type === "left" ? join.left : type === "right" ? join.left : join`
      )
    ],
    forms: outer
  },
  {
    name: "ON of a right join",
    is: "the ON of a right join leaves rows out of the right side",
    changes: [
      solutions(
        `type === "left" ? join.right : type === "right" ? join.left : join`,
        `type === "left" ? join.right : type === "right" ? join.right : join`
      )
    ],
    forms: outer
  },
  {
    name: "ON of a full join",
    is: "the ON of a full join leaves rows out",
    changes: [
      solutions(
        `if (join.on?.length !== 1 || type === "full") continue`,
        "if (join.on?.length !== 1) continue"
      )
    ],
    forms: outer
  },
  {
    name: "first alternative of ON",
    is: "of an ON with alternatives the first is taken for all",
    changes: [
      solutions(
        `join.on?.length !== 1 || type === "full"`,
        `join.on === undefined || join.on.length === 0 || type === "full"`
      )
    ],
    forms: ["conditions in ON"]
  },
  {
    name: "values to both sides",
    is: "an outer join carries values to the side that it keeps",
    changes: [
      solutions("to.scope !== undefined || !reduced.includes(to.place.source)", "to.scope !== undefined")
    ],
    forms: outer
  },
  {
    name: "left join is inner",
    is: "a left join is taken for an inner one where its left side is strict",
    changes: [
      solutions(
        `if (type === "left") return isRightStrict ?`,
        `if (type === "left") return isRightStrict || isLeftStrict ?`
      )
    ],
    forms: outer
  },
  {
    name: "full join is inner",
    is: "a full join is taken for an inner one where one side is strict",
    changes: [
      solutions(`return isLeftStrict ? (isRightStrict ? "inner" : "left")`, `return isLeftStrict ? "inner"`)
    ],
    forms: ["conditions in ON", "full join"]
  },
  {
    name: "ON is strict",
    is: "the ON of an outer join makes the joins within the side that it keeps inner",
    changes: [
      solutions(
        `type === "full" ? new Set() : type === "left" ? strict : withOn`,
        `type === "full" ? new Set() : withOn`
      ),
      solutions(
        `type === "full" ? new Set() : type === "right" ? strict : withOn`,
        `type === "full" ? new Set() : withOn`
      )
    ],
    forms: outer
  },
  {
    name: "is null",
    is: "a column of the nullable side of an outer join that is null is taken for one that was null",
    changes: [solutions("place !== undefined && !nullable.has(place.source)", "place !== undefined")],
    forms: ["anti join", "conditions in ON"]
  },
  {
    name: "empty answer",
    is: "an answer without a row is taken for one that shows all there is",
    changes: [
      tags(`if (needsRow && rows.length === 0) return "its rows are told by an answer that is empty"`, "")
    ],
    forms: ["with some related"]
  },
  {
    name: "any shown row",
    is: "values are taken from the rows that an answer shows, whichever these are",
    changes: [shown("before?.has(from.source) === true", "from.source !== source")],
    forms: ["with related", "with some related"]
  },
  {
    name: "the first table by what is shown",
    is: "values are taken for the table that is read first",
    changes: [
      shown(
        "before?.has(from.source) === true",
        "before?.has(from.source) === true || source === level.sources[0]"
      )
    ],
    forms: ["with related", "inner join"]
  },
  {
    name: "any inner join",
    is: "any inner join is taken for one along a foreign key",
    changes: [shown("const keepsRows = !isInner || referring !== undefined", "const keepsRows = true")],
    forms: ["with related"]
  },
  {
    name: "any key",
    is: "an inner join along a foreign key may have other conditions",
    changes: [
      shown(
        "const pairs = condition.map((atom) => {",
        `const pairs = condition.filter(({ _tag }) => _tag === "Same").map((atom) => {`
      )
    ],
    forms: ["referring to some"]
  },
  {
    name: "limit",
    is: "an answer with a limit is taken for one that shows all there is",
    changes: [
      shown(" || !showsEachRow(select)) return found", ") return found"),
      shown("isLimited(select) ? select.sortClause : undefined", "undefined")
    ],
    forms: ["ordered by what is joined"]
  },
  {
    name: "offset",
    is: "what is skipped is taken not to depend on how many rows are joined to one",
    changes: [
      shown("const isCounted =\n    select.limitOffset === undefined ||", "const isCounted =\n    true ||")
    ],
    forms: ["skipping"]
  },
  {
    name: "conditions on what is joined",
    is: "an answer is taken for one that shows all there is, though a condition on what is joined leaves rows out",
    changes: [shown("[select.whereClause, isLimited", "[isLimited")],
    forms: ["with some related"]
  },
  {
    name: "groups show rows",
    is: "an answer in groups is taken for one that shows rows",
    changes: [shown("if (shownAt === undefined || isGrouped(select) ||", "if (shownAt === undefined ||")],
    forms: ["rolled up"]
  },
  {
    name: "null is one row",
    is: "a unique column that is null is taken to have one row",
    changes: [
      solutions(
        `(value!._tag === "Constant" || (value!._tag === "Parameter" && !value!.isList))`,
        `(value!._tag !== "Parameter" || !value!.isList)`
      )
    ],
    forms: ["not one row"]
  },
  {
    name: "a list is one row",
    is: "a unique column that is one of a list of values is taken to have one row",
    changes: [solutions(`(value!._tag === "Parameter" && !value!.isList)`, `value!._tag === "Parameter"`)],
    forms: ["not one row"]
  },
  {
    name: "nullable is one row",
    is: "a row of the nullable side of an outer join is taken to be there",
    changes: [solutions("!nullable.has(source) &&\n  (source.table", "(source.table")],
    forms: ["by way of one"]
  },
  {
    name: "left joins hide nothing",
    is: "a left join is taken to have no part in which rows are shown, whatever asks for what it adds",
    changes: [
      shown(
        "if (!isInner && select.limitOffset === undefined && !mayName(hiding, source)) continue",
        "if (!isInner) continue"
      )
    ],
    forms: ["roundabout"]
  },
  {
    name: "first shown row",
    is: "of the rows that an answer shows only the first is looked at",
    changes: [
      tags(`return yield* value.map((_, i) => [i])`, "return yield* value.slice(0, 1).map((_, i) => [i])")
    ],
    forms: withValues
  },
  {
    name: "no subqueries",
    is: "subqueries are not looked into, nor what is not looked into read whole",
    changes: [noLastNet, reads("this.#queriesIn(elsewhere, aroundIn(view, sources))", "")],
    forms: ["subqueries", "any condition"]
  },
  {
    name: "first branch",
    is: "of a set operator only the first branch is looked into, nor what is not looked into read whole",
    changes: [noLastNet, reads("for (const side of [larg, rarg])", "for (const side of [larg])")],
    forms: ["set operators"]
  },
  {
    name: "no views",
    is: "what a view shows is not looked into, nor read whole",
    changes: [
      noLastNet,
      from("if (view !== undefined) {", "if (view !== undefined) {\n      if (view !== null) return source")
    ],
    forms: ["view open_films", "view teams"]
  },
  {
    name: "filters pass limits",
    is: "what is asked of a query's answer is taken to hold of its rows before they are limited, grouped or made distinct",
    changes: [
      level("if (isLimited(select) || isDistinctOn || hasWindow(select)) return false", "return true")
    ],
    forms: ["filtered outside"]
  },
  {
    name: "no groups",
    is: "who reads volatile columns does not rest on their changes",
    changes: [
      mentions(
        "return [...(model?.volatile ?? [])].flatMap(([group, columns]) =>",
        "return [...(model?.volatile ?? [])].slice(1).flatMap(([group, columns]) =>"
      )
    ],
    forms: ["by key", "whole", "find flat"]
  },
  {
    name: "no stars",
    is: "a star is not taken to name volatile columns",
    changes: [mentions("this.#hasStar ||= !isHarmless", "void isHarmless")],
    forms: ["raw", "text for a table"]
  },
  {
    name: "no whole rows",
    is: "a table's name in the place of a column is not taken to name volatile columns",
    changes: [mentions("[...this.#single].some((name) => this.#aliases.has(name))", "false")],
    forms: ["raw"]
  },
  {
    name: "sets show rows",
    is: "a function that answers a set is taken to show each row",
    changes: [shown("|| !hasOneRowForEach(select, natureOf)) return []", ") return []")],
    forms: ["sets and windows"]
  },
  {
    name: "windows of limited rows",
    is: "what a window function tells of a row is taken not to depend on others",
    changes: [shape("(isOrderedByColumns(select) && !hasWindow(select))", "isOrderedByColumns(select)")],
    forms: ["sets and windows"]
  },
  {
    name: "null outside",
    is: "a column that is null outside of a query is taken to be null in its rows",
    changes: [reads("pinned === values || isNull ?", "pinned === values ?")],
    forms: ["derived joins"]
  },
  {
    name: "other names",
    is: "volatile columns are looked for by their own names where they are given others",
    changes: [mentions("if (names !== undefined && names.length > 0) this.#hasStar = true", "void names")],
    forms: ["raw"]
  },
  {
    name: "no groups of what is said to be read",
    is: "a table that is said to be read is taken to be read without its volatile columns",
    changes: [
      {
        file: "drizzle/modelTags.ts",
        find: "  someGroupId(table)\n]",
        replace: "]"
      }
    ],
    forms: ["raw with a function"]
  }
]

/** The mutant of a name. Throws for a name that there is not. */
export const mutantOf = (name: string): Mutant => {
  const found = mutants.find((mutant) => mutant.name === name)
  if (found === undefined)
    throw new Error(`--mutant is ${name}: expected all, ${mutants.map(({ name }) => name).join(", ")}`)
  return found
}

/** The texts of the files that a mutant changes, by their addresses. Throws if what it changes is not there just once. */
export const sourcesOf = ({ name, changes }: Mutant): ReadonlyMap<string, string> => {
  const sources = new Map<string, string>()
  for (const { file, find, replace } of changes) {
    const url = new URL(`../../../src/${file}`, import.meta.url)
    const parts = (sources.get(url.href) ?? readFileSync(url, "utf8")).split(find)
    if (parts.length !== 2)
      throw new Error(`mutant "${name}": src/${file} has this ${parts.length - 1} times, not once: ${find}`)
    sources.set(url.href, parts.join(replace))
  }
  return sources
}

/** How a mutant is sought. */
export interface MutantOrder {
  readonly name: string
  readonly database: string
  readonly steps: number
  readonly seed: number
  /** How many histories are tried to make what is found minimal. */
  readonly attempts: number
}

/** What came of a mutant. */
export interface MutantNews {
  /** What has gone wrong first; none if it was not caught. */
  readonly failure: ReadFailure | undefined
  readonly statements: number
}

/** Runs the check with a mutant, in a process of its own, since a module is loaded once. */
export const seek = async (order: MutantOrder): Promise<MutantNews> => {
  const child = fork(new URL("mutantProcess.ts", import.meta.url), {
    execArgv: ["--disable-warning=ExperimentalWarning"]
  })
  try {
    child.send(order)
    const [news] = (await Promise.race([once(child, "message"), gone(child)])) as [MutantNews]
    return news
  } finally {
    child.kill("SIGKILL")
  }
}

const gone = async (child: ReturnType<typeof fork>): Promise<never> => {
  const [code] = await once(child, "exit")
  throw new Error(`the process of a mutant ended with ${code}: what it says is above`)
}
