import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Logger, type Scope } from "effect"
import type { Redis } from "ioredis"
import { spawn } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { createServer, type Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Away, type Hooks, Link } from "../../../src/store/redis/Link.ts"
import * as redisSettings from "../../../src/store/redis/redisSettings.ts"
import { type RunningProxy, startProxy } from "../../support/proxy.ts"
import {
  freePort,
  type RedisOptions,
  redisServer,
  type RunningRedis,
  startRedis
} from "../../support/redis.ts"

// -------------------------------------------------------------------------------------------------------- the servers

const aRedis = (options?: RedisOptions): Effect.Effect<RunningRedis, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(() => startRedis(options)),
    (redis) => Effect.promise(redis.stop)
  )

const aProxy = (port: number): Effect.Effect<RunningProxy, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(() => startProxy(port)),
    (proxy) => Effect.promise(proxy.stop)
  )

/** A Sentinel that watches nothing; its port. */
const aSentinel: Effect.Effect<number, never, Scope.Scope> = Effect.map(
  Effect.acquireRelease(
    Effect.promise(async () => {
      const port = await freePort()
      const dir = mkdtempSync(join(tmpdir(), "cacheme-sentinel-"))
      const file = join(dir, "sentinel.conf")
      writeFileSync(file, `port ${port}\nbind 127.0.0.1\n`)
      const { executable, libraries = "" } = redisServer()
      const env = { ...process.env, LD_LIBRARY_PATH: libraries }
      return { port, dir, server: spawn(executable, [file, "--sentinel"], { stdio: "ignore", env }) }
    }),
    ({ dir, server }) =>
      Effect.promise(async () => {
        const ended = new Promise((resolve) => server.once("exit", resolve))
        if (server.exitCode === null && server.kill("SIGKILL")) await ended
        rmSync(dir, { recursive: true, force: true })
      })
  ),
  ({ port }) => port
)

/** A server that answers each command as it is told, in RESP; nothing where it is told nothing. */
const aFake = (
  answer: (command: string, args: ReadonlyArray<string>) => string | undefined
): Effect.Effect<{ readonly url: string; readonly opened: () => number }, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.promise(async () => {
        const sockets = new Set<Socket>()
        let opened = 0
        const server = createServer((socket) => {
          opened++
          sockets.add(socket)
          socket.on("error", () => {})
          socket.on("data", (data) => {
            for (const [command, ...args] of commandsOf(data.toString())) {
              const reply = answer(command!.toLowerCase(), args)
              if (reply !== undefined) socket.write(`${reply}\r\n`)
            }
          })
        })
        const port = await freePort()
        await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve))
        return { server, sockets, url: `redis://127.0.0.1:${port}`, opened: () => opened }
      }),
      ({ server, sockets }) =>
        Effect.promise(() => {
          for (const socket of sockets) socket.destroy()
          return new Promise((resolve) => server.close(resolve))
        })
    ),
    ({ url, opened }) => ({ url, opened })
  )

/** The commands of a chunk: `*2\r\n$4\r\nINFO\r\n…`, each whole. */
const commandsOf = (text: string): ReadonlyArray<ReadonlyArray<string>> =>
  text
    .split(/^\*\d+\r\n/m)
    .slice(1)
    .map((part) => part.split("\r\n").filter((_, i) => i % 2 === 1))

const bulk = (text: string) => `$${Buffer.byteLength(text)}\r\n${text}`

// ----------------------------------------------------------------------------------------------------------- the link

interface Observed extends Link {
  /** What the link has called, in order. */
  readonly events: Array<string>
  /** What was logged. */
  readonly logs: Array<string>
}

/** A link whose hooks and log are watched. */
const aLink = (
  url: string,
  options: Partial<redisSettings.RedisOptions> = {},
  hooks: Partial<Hooks> = {},
  logs: Array<string> = []
) =>
  Effect.gen(function* () {
    const events: Array<string> = []
    const settings = yield* redisSettings.make({ url, connectTimeout: "5 seconds", ...options })
    const link = yield* Link.make(settings, {
      prepare: hooks.prepare,
      recover: async (send) => {
        events.push("recover")
        await hooks.recover?.(send)
      },
      onUp: () => void events.push("up"),
      onDown: () => void events.push("down"),
      onSubscribed: () => void events.push("subscribed")
    })
    return Object.assign(link, { events, logs }) satisfies Observed
  }).pipe(
    Effect.provide(
      Logger.layer([
        Logger.make(({ logLevel, message }) => void logs.push(`${logLevel}: ${String(message)}`))
      ])
    )
  )

/** Waits until something is so, for ten seconds at most. */
const until = (what: string, isSo: () => boolean | Promise<boolean>): Effect.Effect<void> =>
  Effect.promise(async () => {
    const end = performance.now() + 10_000
    while (!(await isSo())) {
      if (performance.now() > end) throw new Error(`in vain: ${what}`)
      await new Promise((resolve) => setTimeout(resolve, 2))
    }
  })

const ping = (redis: Redis) => redis.ping()

/** How a command ends: its answer, or the error. */
const ask = <A>(link: Link, command: (redis: Redis) => Promise<A>): Effect.Effect<A | Error> =>
  Effect.promise(() => link.run(command).catch((error: Error) => error))

/** Asks, and expects that Redis is away; says why. */
const whyAway = <A>(link: Link, command: (redis: Redis) => Promise<A>): Effect.Effect<string> =>
  Effect.map(ask(link, command), (answer) => {
    if (!(answer instanceof Away)) return assert.fail(`answered ${String(answer)}`)
    return answer.why
  })

/** Arguments of a server that knows a user with some rights. */
const aUser = (rights: string) => ["--user", "app", "on", ">secret", ...rights.split(" ")]

const noise = (text: RegExp, logs: ReadonlyArray<string>) => logs.filter((line) => text.test(line))

const failureOf = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) =>
  Effect.map(Effect.flip(Effect.scoped(effect)), String)

describe("a link to a server that is there", () => {
  it.live("is up once what was missed has been made good", () =>
    Effect.gen(function* () {
      const redis = yield* aRedis()
      const recovered: Array<unknown> = []
      const link = yield* aLink(
        redis.url,
        {},
        {
          prepare: (redis) => redis.defineCommand("answer", { lua: "return 42", numberOfKeys: 0 }),
          recover: async (send) => {
            recovered.push(await send((redis) => (redis as any).answer()), await send(ping))
          }
        }
      )
      assert.isTrue(link.isUp)
      assert.deepStrictEqual(link.events, ["recover", "up"])
      assert.deepStrictEqual(recovered, [42, "PONG"])
      assert.strictEqual(yield* ask(link, (redis) => (redis as any).answer()), 42)
      assert.deepInclude(link.stats(), { state: "up", why: undefined, opens: 1, timeouts: 0 })
      assert.strictEqual(link.epoch, 1)
      assert.deepStrictEqual(link.logs, [])
    })
  )

  it.effect("starts though the clock stands still", () =>
    Effect.gen(function* () {
      const redis = yield* aRedis()
      const link = yield* aLink(redis.url)
      assert.strictEqual(yield* ask(link, ping), "PONG")
    })
  )

  it.live("uses the database of the URL", () =>
    Effect.gen(function* () {
      const redis = yield* aRedis()
      const [two, zero] = [yield* aLink(`${redis.url}/2`), yield* aLink(redis.url)]
      yield* ask(two, (redis) => redis.set("a", 1))
      assert.deepStrictEqual(
        [yield* ask(two, (redis) => redis.get("a")), yield* ask(zero, (redis) => redis.get("a"))],
        ["1", null]
      )
    })
  )

  it.live("sends what one call sends in one write", () =>
    Effect.gen(function* () {
      const redis = yield* aRedis()
      const link = yield* aLink(redis.url)
      const writes: Array<string> = []
      const { stream } = link.redis
      const writev = (stream as any)._writev.bind(stream)
      Object.assign(stream, {
        _writev: (...args: ReadonlyArray<unknown>) => {
          writes.push("many")
          writev(...args)
        }
      })
      yield* ask(link, (redis) => Promise.all(Array.from({ length: 20 }, (_, i) => redis.set(`${i}`, i))))
      assert.deepStrictEqual(writes, ["many"])
    })
  )

  it.live("hands on what the server answers, an error too, and stays up", () =>
    Effect.gen(function* () {
      const redis = yield* aRedis()
      const link = yield* aLink(redis.url)
      yield* ask(link, (redis) => redis.lpush("list", 1))
      const failing: ReadonlyArray<readonly [RegExp, (redis: Redis) => Promise<unknown>]> = [
        [/^WRONGTYPE/, (redis) => redis.get("list")],
        [/^ERR.*no such thing/, (redis) => redis.eval("return redis.error_reply('ERR no such thing')", 0)],
        [/^OOM/, (redis) => redis.set("a", 1)]
      ]
      yield* ask(link, (redis) => redis.config("SET", "maxmemory", 1))
      for (const [message, command] of failing) {
        for (let i = 0; i < 4; i++) {
          const error = yield* ask(link, command)
          assert.notInstanceOf(error, Away)
          assert.match((error as Error).message, message)
          yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
        }
      }
      assert.isTrue(link.isUp)
      assert.deepStrictEqual(link.events, ["recover", "up"])
    })
  )
})

describe("a link whose server goes", () => {
  it.live("fails at once, sends nothing, and comes back after what was missed is made good", () =>
    Effect.gen(function* () {
      const redis = yield* aRedis()
      const link = yield* aLink(redis.url)
      const { epoch } = link
      const inFlight = link.run((redis) => redis.blpop("nothing", 0)).catch((error: Away) => error.why)
      yield* Effect.promise(redis.kill)
      assert.strictEqual(yield* Effect.promise(() => inFlight), "closed")
      yield* until("down", () => !link.isUp)
      assert.isAbove(link.epoch, epoch)
      let sent = 0
      for (let i = 0; i < 100; i++) {
        const why = yield* whyAway(link, (redis) => {
          sent++
          return redis.ping()
        })
        assert.strictEqual(why, "down")
      }
      assert.strictEqual(sent, 0)
      assert.strictEqual(link.stats().state, "down")

      const away = link.epoch
      yield* Effect.promise(redis.restart)
      yield* until("up", () => link.isUp)
      assert.isAbove(link.epoch, away)
      assert.strictEqual(yield* ask(link, ping), "PONG")
      assert.deepStrictEqual(link.events, ["recover", "up", "down", "recover", "up"])
      assert.lengthOf(link.logs, 2)
      assert.match(link.logs[0]!, /^Warn: .*Redis at .* is away \(.+\): reads compute and invalidations wait/)
      assert.match(link.logs[1]!, /^Info: .*Redis at .* is up after \d/)
    })
  )

  it.live("costs three deadlines, whoever asks, while the server stalls", () =>
    Effect.gen(function* () {
      const redis = yield* aRedis()
      const link = yield* aLink(redis.url)
      redis.pause()
      yield* Effect.addFinalizer(() => Effect.sync(redis.resume))
      const start = performance.now()
      for (const why of ["timeout", "timeout", "timeout", "down", "down"])
        assert.strictEqual(yield* whyAway(link, ping), why)
      assert.isBelow(performance.now() - start, 600)
      assert.include(link.stats().why, "no answer within 100 ms, 3 times in a row")
      // What the recovery sends is not counted: three commands were ours.
      assert.strictEqual(link.stats().timeouts, 3)
      assert.deepStrictEqual(link.events, ["recover", "up", "down"])

      redis.resume()
      yield* until("up", () => link.isUp)
      assert.strictEqual(yield* ask(link, ping), "PONG")
      assert.lengthOf(link.logs, 2)
    })
  )

  it.live("takes many that are late at once for one failure: it is this process that was busy", () =>
    Effect.gen(function* () {
      const redis = yield* aRedis()
      const link = yield* aLink(redis.url)
      const late = Array.from({ length: 10 }, () => whyAway(link, ping))
      const fiber = yield* Effect.forkChild(Effect.all(late, { concurrency: "unbounded" }))
      yield* Effect.yieldNow
      const end = performance.now() + 200
      while (performance.now() < end);
      assert.deepStrictEqual(new Set(yield* Fiber.join(fiber)), new Set(["timeout"]))
      assert.strictEqual(yield* ask(link, ping), "PONG")
      assert.strictEqual(link.stats().timeouts, 10)
    })
  )

  it.live("stays up while every third command is answered in time", () =>
    Effect.gen(function* () {
      const redis = yield* aRedis()
      const proxy = yield* aProxy(redis.port)
      const link = yield* aLink(proxy.url)
      for (let round = 0; round < 3; round++) {
        proxy.delayReplies(150)
        for (let i = 0; i < 2; i++) assert.strictEqual(yield* whyAway(link, ping), "timeout")
        proxy.delayReplies(0)
        assert.strictEqual(yield* ask(link, ping), "PONG")
      }
      assert.isTrue(link.isUp)
    })
  )

  it.live("opens its connection anew when nothing comes over it any more", () =>
    Effect.gen(function* () {
      const redis = yield* aRedis()
      const proxy = yield* aProxy(redis.port)
      const link = yield* aLink(proxy.url)
      proxy.stall()
      for (let i = 0; i < 3; i++) yield* ask(link, ping)
      const { epoch } = link
      yield* until("another connection", () => link.epoch >= epoch + 2)
      assert.isFalse(link.isUp)
      // The new ones pass, though what the old one sent is lost.
      proxy.cut()
      proxy.resume()
      yield* until("up", () => link.isUp)
    })
  )

  it.live("believes nothing from before a cut", () =>
    Effect.gen(function* () {
      const redis = yield* aRedis()
      const proxy = yield* aProxy(redis.port)
      const link = yield* aLink(proxy.url, { deadline: "2 seconds" })
      const direct = yield* aLink(redis.url)
      const { epoch } = link
      proxy.holdReplies()
      const inFlight = link.run((redis) => redis.incr("n")).catch((error: Away) => error.why)
      yield* until("done", async () => (await direct.redis.get("n")) === "1")
      proxy.cut()
      proxy.releaseReplies()
      assert.strictEqual(yield* Effect.promise(() => inFlight), "closed")
      yield* until("up", () => link.isUp)
      assert.isAtLeast(link.epoch, epoch + 2)
      // It was not sent again.
      assert.strictEqual(yield* ask(link, (redis) => redis.get("n")), "1")
    })
  )

  it.live("survives a socket that fails twice, as one of TLS does", () =>
    Effect.gen(function* () {
      const redis = yield* aRedis()
      const link = yield* aLink(redis.url)
      for (let opens = 1; opens <= 2; opens++) {
        yield* until("up", () => link.isUp && link.stats().opens === opens)
        const { stream } = link.redis
        for (const text of ["first", "second"]) stream.emit("error", new Error(text))
        stream.destroy()
      }
    })
  )

  it.live("is opened again when it has given up", () =>
    Effect.gen(function* () {
      const redis = yield* aRedis()
      const link = yield* aLink(redis.url)
      link.redis.disconnect()
      yield* until("up again", () => link.isUp && link.stats().opens === 2)
      assert.strictEqual(yield* ask(link, ping), "PONG")
    })
  )

  it.live("goes down at the first sign of a replica, and connects again until it is a primary", () =>
    Effect.gen(function* () {
      const redis = yield* aRedis()
      const primary = yield* aRedis()
      const link = yield* aLink(redis.url)
      yield* ask(link, (redis) => redis.replicaof("127.0.0.1", String(primary.port)))
      assert.match(yield* whyAway(link, (redis) => redis.set("a", 1)), /^READONLY/)
      assert.isFalse(link.isUp)
      yield* until("told", () => link.stats().why?.includes("give the URL of the primary") === true)
      const { opens } = link.stats()
      yield* until("connects again", () => link.stats().opens > opens + 1)
      assert.deepStrictEqual(link.events, ["recover", "up", "down"])
      // Not in a hurry, though each connection succeeds.
      assert.isBelow(link.stats().opens, 10)
      yield* Effect.promise(() => link.redis.replicaof("NO", "ONE").catch(() => {}))
      yield* until("primary", async () => {
        await link.redis.replicaof("NO", "ONE").catch(() => {})
        return link.isUp
      })
      assert.strictEqual(yield* ask(link, (redis) => redis.set("a", 1)), "OK")
    })
  )

  it.live("stays down while what was missed can't be made good", () =>
    Effect.gen(function* () {
      const redis = yield* aRedis()
      let fails = false
      const link = yield* aLink(
        redis.url,
        {},
        {
          recover: async (send) => {
            await send(ping)
            if (fails) throw new Error("not yet")
          }
        }
      )
      fails = true
      yield* Effect.promise(redis.restart)
      yield* until("tried", () => link.events.filter((event) => event === "recover").length >= 3)
      assert.isFalse(link.isUp)
      assert.strictEqual(link.stats().why, "not yet")
      fails = false
      yield* until("up", () => link.isUp)
      assert.lengthOf(link.logs, 2)
    })
  )

  it.live("goes down when answers make no sense three times in a row", () =>
    Effect.gen(function* () {
      const redis = yield* aRedis()
      const link = yield* aLink(redis.url)
      for (let i = 0; i < 3; i++) {
        link.suspect(new Error("a position that is none"))
        yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
      }
      assert.deepStrictEqual(link.events.slice(0, 3), ["recover", "up", "down"])
      yield* until("up", () => link.isUp)
      assert.lengthOf(noise(/Warn: .*a position that is none$/, link.logs), 1)
    })
  )
})

describe("a link that has nobody to talk to at the start", () => {
  it.live("goes on without a server, says so once, and comes up when there is one", () =>
    Effect.gen(function* () {
      const port = yield* Effect.promise(freePort)
      const link = yield* aLink(`redis://127.0.0.1:${port}`, { connectTimeout: "150 millis" })
      assert.strictEqual(yield* whyAway(link, ping), "down")
      assert.lengthOf(link.logs, 1)
      assert.match(link.logs[0]!, /^Warn: .*is away \(.*ECONNREFUSED.*\): reads compute/)
      assert.deepStrictEqual(link.events, [])
      yield* aRedis({ port })
      yield* until("up", () => link.isUp)
      assert.deepStrictEqual(link.events, ["recover", "up"])
      assert.match(link.logs[1]!, /^Info: .*is up after/)
    })
  )

  it.live("goes on without a server that takes no writes, and says where to find one that does", () =>
    Effect.gen(function* () {
      const primary = yield* aRedis()
      const replica = yield* aRedis({ args: ["--replicaof", "127.0.0.1", String(primary.port)] })
      const link = yield* aLink(replica.url, { connectTimeout: "300 millis" })
      assert.isFalse(link.isUp)
      assert.lengthOf(link.logs, 1)
      assert.match(link.logs[0]!, /^Warn: .*is away \(it is a replica.*: give the URL of the primary\)/)
    })
  )

  it.live("waits for a server that is just starting", () =>
    Effect.gen(function* () {
      const port = yield* Effect.promise(freePort)
      const starting = yield* Effect.forkChild(aLink(`redis://127.0.0.1:${port}`))
      yield* aRedis({ port })
      const link = yield* Fiber.join(starting)
      assert.isTrue(link.isUp)
      assert.deepStrictEqual(link.logs, [])
    })
  )

  it.effect("goes on without a server though the clock stands still", () =>
    Effect.gen(function* () {
      const port = yield* Effect.promise(freePort)
      const link = yield* aLink(`redis://127.0.0.1:${port}`, { connectTimeout: "50 millis" })
      assert.isFalse(link.isUp)
    })
  )

  it.live("fails where the server is required", () =>
    Effect.gen(function* () {
      const port = yield* Effect.promise(freePort)
      const failure = yield* failureOf(
        aLink(`redis://u:secret@127.0.0.1:${port}`, { connectTimeout: "50 millis", required: true })
      )
      assert.match(failure, /Redis at 127.0.0.1:\d+ cannot be used: .*ECONNREFUSED.*; expected a server/)
      assert.notInclude(failure, "secret")
    })
  )

  it.live("gives up a server that accepts and never answers, again and again", () =>
    Effect.gen(function* () {
      const fake = yield* aFake(() => undefined)
      const link = yield* aLink(fake.url, { connectTimeout: "50 millis", deadline: "20 millis" })
      assert.isFalse(link.isUp)
      yield* until("another connection", () => fake.opened() > 2)
      assert.strictEqual(link.stats().why, "Command timed out")
    })
  )

  it.live("survives garbage", () =>
    Effect.gen(function* () {
      const fake = yield* aFake(() => "HTTP/1.1 400 Bad Request\r\n\r\n")
      const link = yield* aLink(fake.url, { connectTimeout: "300 millis" })
      assert.isFalse(link.isUp)
      yield* until("another connection", () => fake.opened() > 2)
      assert.lengthOf(link.logs, 1)
    })
  )

  it.live("waits while the server is loading, and for a name that is not known", () =>
    Effect.gen(function* () {
      let isLoading = true
      const fake = yield* aFake((command) => {
        if (command === "info") return bulk("redis_version:7.0.0\r\nloading:1")
        if (command === "eval") return ":1"
        return isLoading && command === "ping" ? "-LOADING Redis is loading the dataset in memory" : "+OK"
      })
      const link = yield* aLink(fake.url, { connectTimeout: "100 millis" })
      assert.include(link.logs[0], "LOADING")
      isLoading = false
      yield* until("up", () => link.isUp)
      isLoading = true
      assert.match(yield* whyAway(link, ping), /^LOADING/)
      assert.isFalse(link.isUp)

      const nowhere = yield* aLink("redis://no-such-host.invalid", { connectTimeout: "300 millis" })
      assert.lengthOf(nowhere.logs, 1)
      assert.isFalse(nowhere.isUp)
    })
  )
})

describe("a server that can't be used", () => {
  const refusal = (args: ReadonlyArray<string>, path = "", user = "") =>
    Effect.gen(function* () {
      const redis = yield* aRedis({ args })
      const failure = yield* failureOf(aLink(`${redis.url.replace("//", `//${user}`)}${path}`))
      assert.match(failure, /^cacheme\/CachemeError: Redis at 127\.0\.0\.1:\d+(\/\d+)? cannot be used: /)
      assert.notInclude(failure, "secret")
      return failure
    })

  it.live("keeps the layer from starting, with an error that says what to do", () =>
    Effect.gen(function* () {
      const locked = ["--requirepass", "right"]
      assert.match(yield* refusal(locked), /NOAUTH.*; expected the user and the password/)
      assert.match(yield* refusal(locked, "", ":secret@"), /WRONGPASS.*; expected the user and the password/)
      assert.match(yield* refusal([], "", "app:secret@"), /WRONGPASS.*; expected the user and the password/)
      assert.match(yield* refusal([], "/99"), /DB index is out of range; expected a database that the server/)
      const cannotEval = aUser("~* &* +@all -eval")
      assert.match(yield* refusal(cannotEval, "", "app:secret@"), /NOPERM.*; expected a user that may run/)
      const cluster = ["--cluster-enabled", "yes"]
      assert.match(yield* refusal(cluster), /it is a Redis Cluster; expected a single Redis/)
      assert.match(yield* refusal(cluster, "/1"), /it is a Redis Cluster; expected a single Redis/)
    })
  )

  it.live("is also what does not let the store's own scripts run", () =>
    Effect.gen(function* () {
      const redis = yield* aRedis({ args: aUser("~CM:* &* +@all") })
      const url = redis.url.replace("//", "//app:secret@")
      const failure = yield* failureOf(
        aLink(url, {}, { recover: async (send) => void (await send((redis) => redis.get("elsewhere"))) })
      )
      assert.match(failure, /NOPERM.*; expected a user that may run/)
    })
  )

  it.live("is a Sentinel", () =>
    Effect.gen(function* () {
      const port = yield* aSentinel
      for (const path of ["", "/1"]) {
        const failure = yield* failureOf(aLink(`redis://127.0.0.1:${port}${path}`))
        assert.match(failure, /it is a Redis Sentinel; expected the URL of the primary itself/)
      }
    })
  )

  it.live("is one that is too old, though it does not know the protocol either", () =>
    Effect.gen(function* () {
      for (const [version, isOld] of [
        ["5.0.7", true],
        ["6.0.16", true],
        ["6.2.0", false],
        ["8.0.1", false]
      ] as const) {
        const fake = yield* aFake((command) => {
          if (command === "info") return bulk(`# Server\r\nredis_version:${version}\r\nrole:master`)
          if (command === "ping") return "+PONG"
          if (command === "client") return "+OK"
          if (command === "eval") return ":1"
          return `-ERR unknown command \`${command}\`, with args beginning with:`
        })
        const outcome = yield* Effect.exit(Effect.scoped(aLink(fake.url)))
        assert.strictEqual(Exit.isFailure(outcome), isOld, version)
        if (isOld) assert.include(String(outcome), `it is Redis ${version}; expected Redis 6.2 or later`)
      }
    })
  )

  it.live("keeps the link down when it comes later, and is told once", () =>
    Effect.gen(function* () {
      const port = yield* Effect.promise(freePort)
      const link = yield* aLink(`redis://127.0.0.1:${port}`, { connectTimeout: "50 millis" })
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* aRedis({ port, args: ["--requirepass", "right"] })
          yield* until("told", () => noise(/Error: .*NOAUTH.*; expected the user/, link.logs).length > 0)
          const { epoch } = link
          yield* until("tried again", () => link.epoch > epoch + 2)
        })
      )
      assert.lengthOf(noise(/Error/, link.logs), 1)
      assert.deepStrictEqual(link.events, [])
      yield* aRedis({ port })
      yield* until("up", () => link.isUp)
    })
  )
})

describe("what the owner of a server should know", () => {
  it.live("that it evicts the log", () =>
    Effect.gen(function* () {
      for (const [policy, memory, isTold] of [
        ["allkeys-lru", "100mb", true],
        ["allkeys-lru", "0", false],
        ["volatile-lfu", "100mb", false],
        ["noeviction", "100mb", false]
      ] as const) {
        const redis = yield* aRedis({ args: ["--maxmemory-policy", policy, "--maxmemory", memory] })
        const link = yield* aLink(redis.url)
        yield* Effect.promise(redis.restart)
        yield* until("up again", () => link.stats().opens === 2 && link.isUp)
        assert.lengthOf(
          noise(/Warn: .*maxmemory-policy allkeys-lru evicts the log/, link.logs),
          isTold ? 1 : 0
        )
      }
    })
  )

  it.live("that it can't be told from another", () =>
    Effect.gen(function* () {
      for (const [rights, canIdentify] of [
        ["+@all -info", false],
        ["+@all -@dangerous", false],
        ["+@all -@dangerous +info", true]
      ] as const) {
        const redis = yield* aRedis({ args: aUser(`~* &* ${rights}`) })
        const link = yield* aLink(redis.url.replace("//", "//app:secret@"))
        assert.isTrue(link.isUp)
        assert.strictEqual(link.canIdentify, canIdentify, rights)
        assert.lengthOf(noise(/Warn: .*may not run INFO.*\+info/, link.logs), canIdentify ? 0 : 1)
      }
    })
  )
})

describe("subscribe", () => {
  const publish = (link: Link, channel: string, text: string | Buffer) =>
    Effect.promise(() => link.redis.publish(channel, text))

  it.live("hears messages, also those of after a restart, and says since when", () =>
    Effect.gen(function* () {
      const redis = yield* aRedis()
      const link = yield* aLink(redis.url)
      const heard: Array<string> = []
      link.subscribe("a", (message) => heard.push(`a${message.toString("hex")}`))
      link.subscribe("b", (message) => heard.push(`b${message.toString("hex")}`))
      const subscriptions = () => link.events.filter((event) => event === "subscribed").length
      yield* until("subscribed", () => subscriptions() === 1)
      yield* publish(link, "a", Buffer.from("ff00", "hex"))
      yield* publish(link, "b", "1")
      yield* publish(link, "c", "1")
      yield* until("heard", () => heard.length === 2)
      assert.deepStrictEqual(heard, ["aff00", "b31"])

      yield* Effect.promise(redis.restart)
      yield* until("up and subscribed", () => link.isUp && subscriptions() === 2)
      yield* publish(link, "a", "2")
      yield* until("heard", () => heard.length === 3)
      link.subscribe("c", (message) => heard.push(`c${message.toString("hex")}`))
      yield* until("subscribed", () => subscriptions() === 3)
      yield* publish(link, "c", "3")
      yield* until("heard", () => heard.length === 4)
      assert.deepStrictEqual(heard.slice(2), ["a32", "c33"])
    })
  )

  it.live("concerns commands in nothing", () =>
    Effect.gen(function* () {
      const redis = yield* aRedis()
      const link = yield* aLink(redis.url)
      link.subscribe("a", () => {})
      const subscriptions = () => link.events.filter((event) => event === "subscribed").length
      yield* until("subscribed", () => subscriptions() === 1)
      yield* ask(link, (redis) => redis.call("CLIENT", "KILL", "TYPE", "pubsub"))
      yield* until("subscribed again", () => subscriptions() === 2)
      assert.deepStrictEqual(
        link.events.filter((event) => event !== "subscribed"),
        ["recover", "up"]
      )
      assert.strictEqual(link.stats().opens, 1)
      assert.deepStrictEqual(link.logs, [])
    })
  )

  it.live("is told of channels that may not be heard, and goes without", () =>
    Effect.gen(function* () {
      const redis = yield* aRedis({ args: aUser("~* +@all") })
      const link = yield* aLink(redis.url.replace("//", "//app:secret@"))
      link.subscribe("a", () => {})
      yield* until("told", () => noise(/Warn: .*messages are not heard \(NOPERM/, link.logs).length === 1)
      assert.strictEqual(yield* ask(link, ping), "PONG")
    })
  )
})

describe("closing a link", () => {
  it.live("ends both connections, and rejects what is asked afterwards", () =>
    Effect.gen(function* () {
      const redis = yield* aRedis()
      const proxy = yield* aProxy(redis.port)
      const link = yield* Effect.scoped(
        Effect.gen(function* () {
          const link = yield* aLink(proxy.url)
          link.subscribe("a", () => {})
          yield* until("subscribed", () => link.events.includes("subscribed"))
          assert.strictEqual(proxy.connections(), 2)
          return link
        })
      )
      assert.strictEqual(yield* whyAway(link, ping), "closed")
      yield* until("no connections", () => proxy.connections() === 0)
      assert.deepStrictEqual(link.logs, [])
    })
  )

  it.live("does not wait for a server that stalls, nor for one that is gone", () =>
    Effect.gen(function* () {
      for (const harm of ["pause", "kill"] as const) {
        const redis = yield* aRedis()
        let start = 0
        const link = yield* Effect.scoped(
          Effect.gen(function* () {
            const link = yield* aLink(redis.url)
            yield* Effect.promise(async () => redis[harm]())
            yield* ask(link, ping)
            start = performance.now()
            return link
          })
        )
        assert.isBelow(performance.now() - start, 50)
        assert.strictEqual(yield* whyAway(link, ping), "closed")
        yield* until("no connection", () => link.redis.stream.destroyed)
        assert.isBelow(performance.now() - start, 600)
        assert.isFalse(link.isUp)
      }
    })
  )
})
