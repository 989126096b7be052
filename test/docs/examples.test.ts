import { assert, describe, it } from "@effect/vitest"
import { allExamples, errorsOf, examplesIn } from "./examples.ts"

describe("the docs' examples", () => {
  it("are found in Markdown and in docstrings, where they are", () => {
    const markdown = "# Title\n\n```ts\nconst a = 1\n```\n\n```sh\nls\n```\n"
    assert.deepStrictEqual(examplesIn("a.md", markdown), [{ file: "a.md", line: 4, code: "const a = 1\n" }])
    const source = "/**\n * ```ts\n * const a = {\n *   b: 1\n * }\n *\n * ```\n */\n"
    assert.deepStrictEqual(examplesIn("a.ts", source), [
      { file: "a.ts", line: 3, code: "const a = {\n  b: 1\n}\n\n" }
    ])
  })

  it("that do not compile are told, with their place", () => {
    const code = `import { Cacheme } from "cacheme"\nimport { Effect } from "effect"\nexport const a = Effect.void.pipe(Cacheme.memoise)\n`
    const errors = errorsOf([{ file: "README.md", line: 10, code }])
    assert.isNotEmpty(errors)
    assert.match(errors[0]!, /^README\.md:12:\d+: error TS\d+: .*memoise/)
  })

  it("belong to every public function", () => {
    const files = new Set(allExamples().map(({ file }) => file))
    for (const file of ["README.md", "src/Cacheme.ts", "src/Node.ts", "src/Tag.ts", "src/drizzle/Db.ts"]) {
      assert.isTrue(files.has(file), file)
    }
  })
})
