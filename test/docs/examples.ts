/**
 * Compiles every example of the docs: each block of TypeScript in README.md, docs/ and the docstrings of src/ is a
 * module of its own, checked as users' code is, against the package's own entries.
 */
import { execFileSync } from "node:child_process"
import { globSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join, relative } from "node:path"

/** A block of TypeScript, and where it is written. */
export interface Example {
  readonly file: string
  readonly line: number
  readonly code: string
}

const root = join(import.meta.dirname, "../..")

/** The blocks in a Markdown text, or in the docstrings of a source text. */
export const examplesIn = (file: string, text: string): ReadonlyArray<Example> => {
  const examples: Array<Example> = []
  const block = /^([ \t]*(?:\* ?)?)```ts[^\n]*\n([^]*?)^[ \t]*(?:\* ?)?```/gm
  for (const [all, margin, body] of text.matchAll(block)) {
    const line = text.slice(0, text.indexOf(all)).split("\n").length + 1
    const code = body!
      .split("\n")
      .map((row) =>
        row.startsWith(margin!) ? row.slice(margin!.length) : row.trimEnd() === margin!.trimEnd() ? "" : row
      )
      .join("\n")
    examples.push({ file, line, code })
  }
  return examples
}

/** All examples of the project. */
export const allExamples = (): ReadonlyArray<Example> =>
  ["README.md", "CONTRIBUTING.md", "docs/**/*.md", "src/**/*.ts"]
    .flatMap((pattern) => globSync(pattern, { cwd: root }))
    .toSorted()
    .flatMap((file) => examplesIn(file, readFileSync(join(root, file), "utf8")))

/** Compiles examples; tells the compiler's errors, with the place in the docs that they belong to. */
export const errorsOf = (examples: ReadonlyArray<Example>): ReadonlyArray<string> => {
  // Inside the project, so that its packages are found.
  const directory = join(root, "node_modules/.cache/examples", String(process.pid))
  mkdirSync(directory, { recursive: true })
  try {
    for (const [i, { code }] of examples.entries()) {
      // Unused names are how examples end.
      writeFileSync(join(directory, `example${i}.ts`), `${code}\nexport {}\n`)
    }
    const config = {
      extends: relative(directory, join(root, "tsconfig.json")),
      compilerOptions: {
        noUnusedLocals: false,
        plugins: [],
        paths: {
          cacheme: [relative(directory, join(root, "src/index.ts"))],
          "cacheme/drizzle": [relative(directory, join(root, "src/drizzle/index.ts"))],
          "cacheme/testing": [relative(directory, join(root, "src/testing/index.ts"))]
        }
      },
      include: ["*.ts"]
    }
    writeFileSync(join(directory, "tsconfig.json"), JSON.stringify(config))
    execFileSync(process.execPath, [join(root, "node_modules/typescript/bin/tsc"), "-p", directory], {
      cwd: directory,
      encoding: "utf8",
      stdio: "pipe"
    })
    return []
  } catch (error) {
    const { stdout } = error as { readonly stdout?: string }
    if (!stdout) throw error
    return stdout
      .trim()
      .split("\n")
      .map((row) =>
        row.replace(/^.*?example(\d+)\.ts\((\d+),(\d+)\)/, (_, i: string, line: string, column: string) => {
          const example = examples[Number(i)]!
          return `${example.file}:${example.line + Number(line) - 1}:${column}`
        })
      )
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

if (import.meta.main) {
  const examples = allExamples()
  if (!examples.some(({ file }) => file === "README.md")) throw new Error("README.md has no example")
  const errors = errorsOf(examples)
  for (const error of errors) console.error(error)
  console.log(`${examples.length} examples, ${errors.length} errors`)
  if (errors.length > 0) process.exitCode = 1
}
