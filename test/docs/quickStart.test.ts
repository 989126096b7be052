import { assert, describe, it } from "@effect/vitest"
import { mkdirSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { allExamples } from "./examples.ts"

/** Runs the README's first example as it stands, but for where its imports come from. */
const run = async (): Promise<ReadonlyArray<string>> => {
  const code = allExamples().find(({ file }) => file === "README.md")!.code
  const directory = join(import.meta.dirname, "../../.tmp/quickStart", String(process.pid))
  mkdirSync(directory, { recursive: true })
  const file = join(directory, "main.ts")
  const source = join(import.meta.dirname, "../../src")
  writeFileSync(
    file,
    code
      .replace(`"cacheme"`, JSON.stringify(join(source, "index.ts")))
      .replace(`"cacheme/drizzle"`, JSON.stringify(join(source, "drizzle/index.ts")))
      .replace("Effect.runPromise(", "export const done = Effect.runPromise(")
  )
  const lines: Array<string> = []
  const { log } = console
  console.log = (line: unknown) => void lines.push(String(line))
  try {
    const { done } = (await import(/* @vite-ignore */ file)) as { readonly done: Promise<void> }
    await done
    return lines
  } finally {
    console.log = log
    rmSync(directory, { recursive: true, force: true })
  }
}

describe("the README's quick start", () => {
  it("runs without a server, and reads what it has written", async () => {
    const lines = await run()
    assert.strictEqual(lines.at(-1), "Clueless")
  })
})
