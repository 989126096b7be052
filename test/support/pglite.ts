/**
 * An empty Postgres in this process. To make one takes seconds of work, to load one a fraction of that, so the tests load
 * what their setup has made.
 */
import { PGlite } from "@electric-sql/pglite"
import { openAsBlob } from "node:fs"
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"

const variable = "CACHEME_TEST_PGLITE"

/** Makes an empty database. */
export const makePglite = async (): Promise<PGlite> => {
  const file = process.env[variable]
  return file === undefined ? PGlite.create() : PGlite.create({ loadDataDir: await openAsBlob(file) })
}

/** Makes the database that the others are loaded from; the returned function takes it away again. */
export const preparePglite = async (): Promise<() => Promise<void>> => {
  const directory = await mkdtemp(join(tmpdir(), "cacheme-pglite-"))
  const file = join(directory, "empty.tar")
  const client = await PGlite.create()
  await writeFile(file, Buffer.from(await (await client.dumpDataDir("none")).arrayBuffer()))
  await client.close()
  process.env[variable] = file
  return () => rm(directory, { recursive: true, force: true })
}
