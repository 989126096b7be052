import { defineConfig } from "vitest/config"

export default defineConfig(({ mode }) => ({
  test: {
    // `npm run test:full`: the long histories.
    provide: { isFull: mode === "full" },
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/support/globalSetup.ts"],
    testTimeout: 20_000,
    hookTimeout: 60_000
  }
}))
