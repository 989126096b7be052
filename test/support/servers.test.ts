import { assert, describe, it } from "@effect/vitest"
import { Redis } from "ioredis"
import { connect } from "node:net"
import { onTestFinished } from "vitest"
import { startProxy } from "./proxy.ts"
import { startRedis } from "./redis.ts"

const aRedis = async () => {
  const redis = await startRedis()
  onTestFinished(redis.stop)
  return redis
}

/** A client that fails instead of waiting for a connection or sending again. */
const aClient = (url: string) => {
  const client = new Redis(url, {
    maxRetriesPerRequest: 0,
    autoResendUnfulfilledCommands: false,
    retryStrategy: () => 10
  })
  client.on("error", () => {})
  onTestFinished(() => client.disconnect())
  return client
}

describe("startRedis", () => {
  it("starts several at once, each on a port of its own", async () => {
    const servers = await Promise.all(Array.from({ length: 4 }, aRedis))
    assert.strictEqual(new Set(servers.map(({ port }) => port)).size, 4)
    for (const { url } of servers) assert.strictEqual(await aClient(url).ping(), "PONG")
  })

  it("comes back with what was saved, and without what was not", async () => {
    const redis = await aRedis()
    const client = aClient(redis.url)
    await client.set("saved", 1)
    await client.save()
    await client.set("lost", 1)
    const { pid } = redis
    await redis.restart()
    assert.notStrictEqual(redis.pid, pid)
    assert.deepStrictEqual(await aClient(redis.url).mget("saved", "lost"), ["1", null])
  })

  it("says what is wrong when the server does not start", async () => {
    const failure = await startRedis({ args: ["--no-such-option"] }).then(String, String)
    assert.include(failure, "no-such-option")
  })

  it("holds and lets go", async () => {
    const redis = await aRedis()
    const client = aClient(redis.url)
    await client.ping()
    redis.pause()
    const pong = client.ping()
    assert.strictEqual(await Promise.race([pong, after(50)]), "nothing")
    redis.resume()
    assert.strictEqual(await pong, "PONG")
  })
})

describe("startProxy", () => {
  const behindProxy = async () => {
    const redis = await aRedis()
    const proxy = await startProxy(redis.port)
    onTestFinished(proxy.stop)
    const client = aClient(proxy.url)
    await client.ping()
    return { proxy, client, direct: aClient(redis.url) }
  }

  it("passes commands of all sizes on, in their order", async () => {
    const { client } = await behindProxy()
    const large = "x".repeat(1_000_000)
    const answers = await Promise.all([
      client.set("a", large),
      client.get("a"),
      client.incr("n"),
      client.incr("n")
    ])
    assert.deepStrictEqual(answers, ["OK", large, 1, 2])
  })

  it("cuts connections, and accepts new ones", async () => {
    const { proxy, client, direct } = await behindProxy()
    proxy.holdReplies()
    const lost = client.incr("n").then(String, String)
    await until(async () => (await direct.get("n")) === "1")
    proxy.cut()
    assert.include(await lost, "MaxRetriesPerRequestError")
    proxy.releaseReplies()
    assert.strictEqual(await client.incr("n"), 2)
  })

  it("refuses connections until it accepts them again", async () => {
    const { proxy, client } = await behindProxy()
    await proxy.refuse()
    assert.include(await client.ping().then(String, String), "MaxRetriesPerRequestError")
    const refused = new Promise<Error>((resolve) => connect(proxy.port, "127.0.0.1").once("error", resolve))
    assert.include(String(await refused), "ECONNREFUSED")
    assert.strictEqual(proxy.connections(), 0)
    await proxy.accept()
    assert.strictEqual(await pongOf(client), "PONG")
  })

  it("holds requests back while it stalls", async () => {
    const { proxy, client, direct } = await behindProxy()
    proxy.stall()
    const one = client.incr("n")
    assert.strictEqual(await Promise.race([one, after(50)]), "nothing")
    assert.isNull(await direct.get("n"))
    proxy.resume()
    assert.strictEqual(await one, 1)
  })

  it("holds requests back, while replies pass", async () => {
    const { proxy, client, direct } = await behindProxy()
    proxy.holdReplies()
    const one = client.incr("n")
    await until(async () => (await direct.get("n")) === "1")
    proxy.holdRequests()
    const two = client.incr("n")
    proxy.releaseReplies()
    assert.strictEqual(await one, 1)
    assert.strictEqual(await direct.get("n"), "1")
    proxy.releaseRequests()
    assert.strictEqual(await two, 2)
  })

  it("holds replies back, while the requests are done", async () => {
    const { proxy, client, direct } = await behindProxy()
    proxy.holdReplies()
    const both = Promise.all([client.incr("n"), client.incr("n")])
    await until(async () => (await direct.get("n")) === "2")
    assert.strictEqual(await Promise.race([both, after(20)]), "nothing")
    proxy.releaseReplies()
    assert.deepStrictEqual(await both, [1, 2])
  })

  it("delays replies", async () => {
    const { proxy, client } = await behindProxy()
    proxy.delayReplies(60)
    const start = performance.now()
    await Promise.all([client.ping(), client.ping()])
    assert.isAtLeast(performance.now() - start, 60)
  })
})

const after = (milliseconds: number): Promise<"nothing"> =>
  new Promise((resolve) => setTimeout(resolve, milliseconds, "nothing"))

const until = async (isSo: () => Promise<boolean>): Promise<void> => {
  while (!(await isSo())) await after(1)
}

/** The answer of a client that may still be connecting again. */
const pongOf = async (client: Redis): Promise<string> => {
  for (;;) {
    try {
      return await client.ping()
    } catch {
      await after(5)
    }
  }
}
