/**
 * The library with one rule taken out: what the model check of reads must catch. A mutant is a change of the source text,
 * so that nothing in the library is there for the check; what is to be found in a file must be there once, or the
 * mutant is no mutant any more, and fails.
 */
import { fork } from "node:child_process"
import { once } from "node:events"
import type { ReadFailure } from "./checkReads.ts"

/** One rule taken out. */
export interface Mutant {
  readonly name: string
  /** What is wrong. */
  readonly is: string
  /** The file in `src/`. */
  readonly file: string
  /** What is replaced in it, and by what. */
  readonly find: string
  readonly replace: string
  /** The forms of queries among which it is caught soonest; default all. */
  readonly forms?: ReadonlyArray<string>
  /** More changed rows than these are told by table; default the library's. */
  readonly rowLimit?: number
}

/** All of them. */
export const mutants: ReadonlyArray<Mutant> = [
  {
    name: "no unknown",
    is: "who reads rows does not rest on changes of rows that nobody can name",
    file: "drizzle/modelTags.ts",
    find: `rows: (rest) => tag(rest, [rest, unknown], [rest, all]),`,
    replace: `rows: (rest) => tag(rest, [rest], [rest, all]),`
  }
]

/** The mutant of a name. Throws for a name that there is not. */
export const mutantOf = (name: string): Mutant => {
  const found = mutants.find((mutant) => mutant.name === name)
  if (found === undefined)
    throw new Error(`--mutant is ${name}: expected all, ${mutants.map(({ name }) => name).join(", ")}`)
  return found
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
  const child = fork(new URL("mutantProcess.ts", import.meta.url), { execArgv: ["--disable-warning=ExperimentalWarning"] })
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
