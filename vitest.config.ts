import { availableParallelism } from "node:os"
import { defineConfig } from "vitest/config"

export default defineConfig(({ mode }) => ({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/support/globalSetup.ts"],
    // `npm run test:full`: the long histories.
    provide: { isFull: mode === "full" },
    // Also on two cores: much of the time is spent waiting for servers.
    maxWorkers: Math.max(2, availableParallelism() - 1),
    testTimeout: 20_000,
    hookTimeout: 60_000,
    // Everything must hold with the shortcut of a hit (src/Hit.ts), and without it.
    projects: [
      { extends: true, test: { name: "with the shortcut" } },
      {
        extends: true,
        test: {
          name: "without",
          setupFiles: ["test/support/withoutShortcut.ts"],
          // Nothing in these is answered by a cache, or, in the short run, by a hit that would take the shortcut.
          exclude: [
            ...(mode === "full"
              ? []
              : [
                  "test/scenarios/{Herd,DeployedModels}.test.ts",
                  "test/drizzle/{Db,Link,traps}.test.ts",
                  "test/store/{MemoryStore,redis/interleavings}.test.ts"
                ]),
            "test/docs/**",
            "test/checker/**",
            "test/support/**",
            "test/drizzle/model/**",
            "test/drizzle/{queryReads,relationalReads,relations,recording,readTags,Model,changedRows,rowImages,cascades,effects,rights,statementTables,preparedStatements,placeholders,postgresDriver,DbLive}.test.ts",
            "test/store/redis/{Link,redisSettings,names,entryBytes,compression,Mirror,Cell,scripts,Undelivered,rounds,versions}.test.ts"
          ]
        }
      },
      // What reads Drizzle's statements, with the next Drizzle. Its types are not looked at.
      {
        extends: true,
        resolve: { alias: [{ find: /^drizzle-orm(?=$|\/)/, replacement: "drizzle-orm-rc" }] },
        test: {
          name: "Drizzle 1.0",
          setupFiles: ["test/support/drizzle10.ts"],
          exclude: [
            "test/*.test.ts",
            "test/!(drizzle)/**",
            // Its relations are declared otherwise.
            "test/drizzle/{model/reads,relationalReads}.test.ts",
            // Nothing in these looks into a statement.
            "test/drizzle/{statementTables,preparedStatements,postgresDriver,DbLive}.test.ts",
            ...(mode === "full"
              ? []
              : [
                  "test/drizzle/{rowImages,relations,recording,readTags,Db,Link,Model,placeholders,transaction,effects,rights,traps,model/writes}.test.ts"
                ])
          ]
        }
      }
    ]
  }
}))
