/**
 * The imports of src/ point one way: words ← mechanics and contracts ← columns ← surfaces, and columns are blind to each
 * other, save that the database tells the service what was written. This is the layout of docs/design.md.
 */
import { assert, describe, it } from "@effect/vitest"
import { globSync, readFileSync } from "node:fs"
import { dirname, join, normalize } from "node:path"
import { parseSync } from "oxc-parser"

const layers: ReadonlyArray<{ readonly name: string; readonly files: ReadonlyArray<string> }> = [
  {
    name: "words",
    files: [
      "Attribution.ts",
      "CachemeError.ts",
      "Declared.ts",
      "Definition.ts",
      "Entry.ts",
      "Invalidation.ts",
      "Key.ts",
      "Node.ts",
      "Pattern.ts",
      "Tag.ts",
      "tagIds.ts"
    ]
  },
  {
    name: "mechanics",
    files: [
      "Appraisal.ts",
      "Batch.ts",
      "Codec.ts",
      "Dependencies.ts",
      "digest.ts",
      "Flight.ts",
      "Freshness.ts",
      "freeze.ts",
      "Guard.ts",
      "Hit.ts",
      "Invalidator.ts",
      "Ledger.ts",
      "Lookup.ts",
      "Lookups.ts",
      "Metrics.ts",
      "missingPackage.ts",
      "plainJson.ts",
      "Profile.ts",
      "Recorder.ts",
      "Refresh.ts",
      "Settings.ts",
      "Store.ts",
      "Transaction.ts"
    ]
  },
  { name: "columns", files: ["Cacheme.ts", "store/", "drizzle/"] },
  { name: "surfaces", files: ["CachemeLive.ts", "index.ts", "testing/"] }
]

/** Packages that a user may not have: they are loaded when they are used, and not before. */
const loadedWhenUsed = [
  "postgres",
  "@electric-sql/pglite",
  "ioredis",
  "drizzle-orm/postgres-js",
  "drizzle-orm/pglite"
]

const layerOf = (file: string): number =>
  layers.findIndex(({ files }) =>
    files.some((known) => (known.endsWith("/") ? file.startsWith(known) : file === known))
  )

const columnOf = (file: string): string => (file.includes("/") ? file.split("/")[0]! : file)

interface Import {
  readonly from: string
  readonly isTypeOnly: boolean
}

const importsOf = (file: string, text: string): ReadonlyArray<Import> => {
  const { module, errors } = parseSync(file, text)
  if (errors.length > 0) throw new Error(`${file}: ${errors[0]!.message}`)
  const imports = module.staticImports.map(({ moduleRequest, entries }) => ({
    from: moduleRequest.value,
    isTypeOnly: entries.length > 0 && entries.every(({ isType }) => isType)
  }))
  const exports = module.staticExports.flatMap(({ entries }) =>
    entries.flatMap(({ moduleRequest, isType }) =>
      moduleRequest === null || moduleRequest === undefined
        ? []
        : [{ from: moduleRequest.value, isTypeOnly: isType }]
    )
  )
  return [...imports, ...exports]
}

/** What is wrong with the imports of a file. */
const faultsOf = (file: string, text: string): ReadonlyArray<string> => {
  const layer = layerOf(file)
  if (layer < 0) return [`${file} is in no layer: see docs/design.md`]
  return importsOf(file, text).flatMap(({ from, isTypeOnly }) => {
    // What needs Node is loaded when it is used: a cache in memory runs in a browser, too.
    const isNodes = (path: string) => path.startsWith("store/redis/") || path.startsWith("drizzle/")
    const isEarly = (path: string) =>
      !isTypeOnly &&
      (loadedWhenUsed.includes(path) ||
        (!isNodes(file) && (path.startsWith("node:") || path.startsWith("store/redis/"))))
    if (!from.startsWith(".")) return isEarly(from) ? [`${file} loads ${from} before it is used`] : []
    const target = normalize(join(dirname(file), from))
    const other = layerOf(target)
    if (isEarly(target)) return [`${file} loads ${target} before it is used`]
    if (other > layer) return [`${file} (${layers[layer]!.name}) imports ${target} (${layers[other]!.name})`]
    const isColumn =
      layers[layer]!.name === "columns" && other === layer && columnOf(target) !== columnOf(file)
    const isWriter = columnOf(file) === "drizzle" && target === "Cacheme.ts"
    return isColumn && !isWriter ? [`${file} imports ${target}: columns are blind to each other`] : []
  })
}

describe("the structure of src/", () => {
  const files = globSync("**/*.ts", { cwd: join(import.meta.dirname, "../src") })

  it("imports point one way", () => {
    assert.isAbove(files.length, 20)
    const faults = files.flatMap((file) =>
      faultsOf(file, readFileSync(join(import.meta.dirname, "../src", file), "utf8"))
    )
    assert.deepStrictEqual(faults, [])
  })

  it("what can be imported of the package is named one by one", () => {
    // `export * as Node` is one name; `export *` makes public whatever is put into that file later.
    for (const entry of ["index.ts", "drizzle/index.ts", "testing/index.ts"])
      assert.notMatch(
        readFileSync(join(import.meta.dirname, "../src", entry), "utf8"),
        /export (type )?\* from/,
        entry
      )
  })

  it("finds an import that points the other way", () => {
    for (const [file, text] of [
      ["Tag.ts", `import * as Store from "./Store.ts"`],
      ["Tag.ts", `import { createHash } from "node:crypto"`],
      ["store/RedisStore.ts", `import * as Names from "./redis/names.ts"`],
      ["store/redis/Link.ts", `import { Redis } from "ioredis"`],
      ["Tag.ts", `import type { Service } from "./Cacheme.ts"`],
      ["Tag.ts", `export { Flights } from "./Flight.ts"`],
      ["Tag.ts", `export * from "./Flight.ts"`],
      ["Store.ts", `import { Cacheme } from "./Cacheme.ts"`],
      ["Cacheme.ts", `import * as MemoryStore from "./store/MemoryStore.ts"`],
      ["store/MemoryStore.ts", `import { Cacheme } from "../Cacheme.ts"`],
      ["store/MemoryStore.ts", `import { Db } from "../drizzle/Db.ts"`],
      ["drizzle/Db.ts", `import * as MemoryStore from "../store/MemoryStore.ts"`],
      ["drizzle/Db.ts", `import { CachemeLive } from "../CachemeLive.ts"`],
      ["drizzle/Db.ts", `import postgres from "postgres"`],
      ["drizzle/Db.ts", `import { drizzle } from "drizzle-orm/pglite"`],
      ["Utils.ts", ``]
    ] as const) {
      assert.lengthOf(faultsOf(file, text), 1, `${file}: ${text}`)
    }
  })

  it("allows what the layers allow", () => {
    for (const [file, text] of [
      ["Tag.ts", `import * as Key from "./Key.ts"; import * as Effect from "effect/Effect"`],
      [
        "store/MemoryStore.ts",
        `import { Eviction } from "./Eviction.ts"; import { Store } from "../Store.ts"`
      ],
      ["drizzle/Db.ts", `import { Cacheme } from "../Cacheme.ts"`],
      ["drizzle/postgresDriver.ts", `import type { Sql } from "postgres"; const p = import("postgres")`],
      ["CachemeLive.ts", `import * as MemoryStore from "./store/MemoryStore.ts"`]
    ] as const) {
      assert.deepStrictEqual(faultsOf(file, text), [], `${file}: ${text}`)
    }
  })
})
