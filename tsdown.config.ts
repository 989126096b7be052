import { defineConfig } from "tsdown"

export default defineConfig({
  entry: { index: "src/index.ts", drizzle: "src/drizzle/index.ts", testing: "src/testing/index.ts" },
  format: "esm",
  platform: "node",
  target: "node22",
  dts: true,
  sourcemap: true,
  clean: true,
  fixedExtension: false
})
