/**
 * Real Redis servers for the tests: found or installed, started on a free port in a directory of their own, gone
 * afterwards.
 *
 * The server is `CACHEME_REDIS_SERVER`, the `redis-server` of the PATH or of `/usr/bin`; failing that, it is installed
 * from the distribution: by apt-get for root, else unpacked below `node_modules/.cache` without touching the machine.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { existsSync, globSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { delimiter, join } from "node:path"

/** A server of one's own. It is killed when this process ends. */
export interface RunningRedis {
  readonly port: number
  readonly url: string
  /** The process; another one after a restart. */
  readonly pid: number
  /** Where its dump is. */
  readonly dir: string
  /** Ends it for good, and removes its directory unless that was given. */
  readonly stop: () => Promise<void>
  /** `kill -9`; `restart` brings it back. */
  readonly kill: () => Promise<void>
  /** Starts it again on the same port, with what its dump holds: nothing, if none was saved. */
  readonly restart: () => Promise<void>
  /** Holds it (SIGSTOP): it accepts connections and answers nothing. */
  readonly pause: () => void
  /** Lets it go on. */
  readonly resume: () => void
}

/** Options of `startRedis`. */
export interface RedisOptions {
  /** Default: a free one. */
  readonly port?: number | undefined
  /** More arguments, such as `["--maxmemory", "10mb"]`. By default nothing is saved but by SAVE. */
  readonly args?: ReadonlyArray<string> | undefined
  /** Its directory; default a temporary one. */
  readonly dir?: string | undefined
  /** More variables of its environment, such as those of a library that is loaded before it. */
  readonly env?: Readonly<Record<string, string>> | undefined
}

/** Starts a server, and returns when it answers. */
export const startRedis = async (options: RedisOptions = {}): Promise<RunningRedis> => {
  const dir = options.dir ?? mkdtempSync(join(tmpdir(), "cacheme-redis-"))
  let started: Started | undefined
  for (let tries = 0; started === undefined; tries++) {
    const port = options.port ?? (await freePort())
    const outcome = await run(port, dir, options)
    if (typeof outcome !== "string") started = outcome
    else if (options.port !== undefined || tries >= 20 || !isBusy(outcome)) throw new Error(outcome)
  }
  const { port } = started
  let { server } = started
  const kill = async () => {
    if (hasEnded(server)) return
    const ended = new Promise((resolve) => server.once("exit", resolve))
    server.kill("SIGKILL")
    await ended
  }
  return {
    port,
    url: `redis://127.0.0.1:${port}`,
    get pid() {
      return server.pid!
    },
    dir,
    kill,
    stop: async () => {
      await kill()
      if (options.dir === undefined) rmSync(dir, { recursive: true, force: true })
    },
    restart: async () => {
      await kill()
      for (let tries = 0; ; tries++) {
        const outcome = await run(port, dir, options)
        if (typeof outcome !== "string") {
          server = outcome.server
          return
        }
        // Somebody else's connection may have come from this port for a moment.
        if (tries >= 100 || !isBusy(outcome)) throw new Error(outcome)
        await new Promise((resolve) => setTimeout(resolve, 20))
      }
    },
    pause: () => void server.kill("SIGSTOP"),
    resume: () => void server.kill("SIGCONT")
  }
}

/** The server that all tests share: that of `REDIS_URL`, if it is set. Tests that harm a server start their own. */
export const sharedRedis = async (): Promise<Pick<RunningRedis, "url" | "stop">> => {
  const { REDIS_URL: url } = process.env
  return url === undefined || url === "" ? startRedis() : { url, stop: () => Promise.resolve() }
}

interface Started {
  readonly port: number
  readonly server: ChildProcess
}

const running = new Set<ChildProcess>()
let killsAtExit = false

/** Starts the server once; returns what it said if it ended instead. */
const run = (port: number, dir: string, { args = [], env }: RedisOptions): Promise<Started | string> => {
  const { executable, libraries } = redisServer()
  const server = spawn(
    executable,
    [
      "--port",
      String(port),
      "--bind",
      "127.0.0.1",
      "--save",
      "",
      "--appendonly",
      "no",
      "--dir",
      dir,
      ...args
    ],
    {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, ...(libraries === undefined ? {} : { LD_LIBRARY_PATH: libraries }), ...env }
    }
  )
  running.add(server)
  if (!killsAtExit) {
    killsAtExit = true
    process.once("exit", () => running.forEach((server) => server.kill("SIGKILL")))
  }
  return new Promise((resolve) => {
    let output = ""
    const listen = (data: Buffer) => {
      output += data.toString()
      if (!output.includes("Ready to accept connections")) return
      // What it says from now on is read, so that it never waits for a reader, and forgotten.
      server.stdout.off("data", listen).resume()
      server.stderr.off("data", listen).resume()
      resolve({ port, server })
    }
    server.stdout.on("data", listen)
    server.stderr.on("data", listen)
    server.once("error", (error) => resolve(`${executable} does not start: ${error.message}`))
    server.once("close", (code, signal) => {
      running.delete(server)
      resolve(`${executable} on port ${port} ended with ${code ?? signal}: ${output}`)
    })
  })
}

const hasEnded = (server: ChildProcess) => server.exitCode !== null || server.signalCode !== null

const isBusy = (outcome: string) => outcome.includes("Address already in use")

/**
 * A port that nobody listens on. Outside the range from which the system gives ports to outgoing connections, so that
 * a server which is down for a while finds its port free; low enough for the bus of a cluster, 10,000 above it.
 */
export const freePort = async (): Promise<number> => {
  for (;;) {
    const port = 10_240 + Math.floor(Math.random() * 12_000)
    const isFree = await new Promise<boolean>((resolve) => {
      const server = createServer()
      server.once("error", () => resolve(false))
      server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)))
    })
    if (isFree) return port
  }
}

// ------------------------------------------------------------------------------------------------------ the program

/** An executable, and where its libraries are if the system does not know. */
export interface Program {
  readonly executable: string
  readonly libraries: string | undefined
}

let program: Program | undefined

/** The server, installed if there is none. */
export const redisServer = (): Program => {
  program ??= find()
  if (program === undefined && process.getuid?.() === 0) {
    installAsRoot()
    program = find()
  }
  return (program ??= unpack(join(import.meta.dirname, "../../node_modules/.cache/redis")))
}

const find = (): Program | undefined => {
  const { CACHEME_REDIS_SERVER: named, PATH = "" } = process.env
  if (named !== undefined && named !== "" && !existsSync(named)) throw missing(`there is no ${named}`)
  const executable = [
    ...(named === undefined || named === "" ? [] : [named]),
    ...PATH.split(delimiter).map((folder) => join(folder, "redis-server")),
    "/usr/bin/redis-server"
  ].find((path) => existsSync(path))
  return executable === undefined ? undefined : { executable, libraries: undefined }
}

const aptOptions = ["-qq", "-o", "DPkg::Lock::Timeout=120"]

const installAsRoot = (): void => {
  // RUNLEVEL 1 keeps the package from starting a daemon.
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive", RUNLEVEL: "1" }
  spawnSync("apt-get", ["update", ...aptOptions], { env })
  spawnSync("apt-get", ["install", "-y", "--no-install-recommends", ...aptOptions, "redis-server"], { env })
}

/**
 * Unpacks the server and the libraries that this machine lacks into a folder, once. `apt` are more options of apt-get.
 * Everything apt-get writes is within the folder too, so it needs no rights.
 */
const unpack = (folder: string, apt: ReadonlyArray<string> = []): Program => {
  const root = join(folder, "root")
  if (!existsSync(root)) {
    mkdirSync(folder, { recursive: true })
    const work = mkdtempSync(join(folder, "unpack-"))
    try {
      const packages = join(work, "cache/archives")
      for (const path of [join(packages, "partial"), join(work, "lists/partial"), join(work, "root")])
        mkdirSync(path, { recursive: true })
      const settings = {
        "Dir::Cache": join(work, "cache"),
        "Dir::State::Lists": join(work, "lists"),
        "Debug::NoLocking": "1",
        "APT::Sandbox::User": ""
      }
      const options = [
        "-qq",
        ...Object.entries(settings).flatMap(([key, value]) => ["-o", `${key}=${value}`]),
        ...apt
      ]
      command("apt-get", ["update", ...options])
      command("apt-get", [
        "install",
        "-y",
        "--download-only",
        "--no-install-recommends",
        ...options,
        "redis-server"
      ])
      for (const name of readdirSync(packages).filter((name) => name.endsWith(".deb")))
        command("dpkg-deb", ["-x", join(packages, name), join(work, "root")])
      try {
        renameSync(join(work, "root"), root)
      } catch (error) {
        // Another process was quicker.
        if (!existsSync(root)) throw error
      }
    } finally {
      rmSync(work, { recursive: true, force: true })
    }
  }
  const libraries = globSync("{usr/lib,lib}/*-linux-*", { cwd: root }).map((path) => join(root, path))
  return { executable: join(root, "usr/bin/redis-server"), libraries: libraries.join(delimiter) }
}

const command = (name: string, args: ReadonlyArray<string>): void => {
  const { status, error, stderr } = spawnSync(name, args, { encoding: "utf8" })
  if (status !== 0) throw missing(`${name} ${args[0]}: ${error?.message ?? stderr}`)
}

const missing = (reason: string) =>
  new Error(
    `no redis-server to test with (${reason}): install one (apt-get install redis-server, brew install redis), ` +
      `or name one in CACHEME_REDIS_SERVER`
  )
