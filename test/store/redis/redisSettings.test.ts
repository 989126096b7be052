import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, Redacted, Schema } from "effect"
import * as redisSettings from "../../../src/store/redis/redisSettings.ts"

const make = (options: redisSettings.RedisOptions) => Effect.runSync(redisSettings.make(options))
const addressOf = (url: string) => Redacted.value(make({ url }).address)

const reasonOf = <A>(effect: Effect.Effect<A, unknown>) => String(Effect.runSync(Effect.flip(effect)))
const refusalOf = (options: redisSettings.RedisOptions) => reasonOf(redisSettings.make(options))

const fromEnv = (env: Record<string, string>) =>
  Effect.provideService(
    redisSettings.fromConfig,
    ConfigProvider.ConfigProvider,
    ConfigProvider.fromEnv({ env })
  )

describe("make", () => {
  it("reads what a URL says", () => {
    const plain = { host: "localhost", port: 6379, db: 0, isTls: false }
    const nobody = { username: undefined, password: undefined }
    for (const [url, expected] of [
      ["redis://localhost", { ...plain, ...nobody }],
      ["redis://localhost/", { ...plain, ...nobody }],
      ["REDISS://localhost:7000/3", { host: "localhost", port: 7000, db: 3, isTls: true, ...nobody }],
      ["redis://:secret@localhost", { ...plain, username: undefined, password: "secret" }],
      ["redis://default:secret@localhost", { ...plain, username: undefined, password: "secret" }],
      ["redis://app:p%40s%2Fs@localhost", { ...plain, username: "app", password: "p@s/s" }],
      ["redis://:a,b@localhost", { ...plain, username: undefined, password: "a,b" }],
      ["redis://[::1]:6380", { host: "::1", port: 6380, db: 0, isTls: false, ...nobody }]
    ] as const) {
      assert.deepStrictEqual(addressOf(url), expected, url)
    }
  })

  it.prop(
    "reads back any user and password",
    { user: Schema.String, password: Schema.String },
    ({ user, password }) => {
      // A lone surrogate is in no URL; without a password there is no user.
      if (!user.isWellFormed() || !password.isWellFormed() || password === "" || user === "default") return
      const url = `redis://${encodeURIComponent(user)}:${encodeURIComponent(password)}@host:1/2`
      const address = addressOf(url)
      assert.deepStrictEqual([address.username ?? "", address.password], [user, password])
    },
    { arbitrary: { runs: 500 } }
  )

  it("waits 100 ms for a command and a second for the start, and does not require the server", () => {
    const { deadline, connectTimeout, required } = make({ url: "redis://localhost" })
    assert.deepStrictEqual([deadline, connectTimeout, required], [100, 1000, false])
    const other = make({
      url: Redacted.make("redis://localhost"),
      deadline: "5 millis",
      connectTimeout: 250,
      required: true
    })
    assert.deepStrictEqual([other.deadline, other.connectTimeout, other.required], [5, 250, true])
  })

  it("names the server without its user and password", () => {
    for (const [url, name] of [
      ["redis://app:secret@cache.example", "Redis at cache.example:6379"],
      ["redis://[::1]:7/2", "Redis at [::1]:7/2"]
    ] as const) {
      const settings = make({ url })
      assert.strictEqual(settings.name, name)
      assert.notInclude(JSON.stringify(settings), "secret")
    }
  })

  it("says what to do about what is not allowed, and shows no password", () => {
    for (const [url, shown, expected] of [
      ["localhost:6379", "localhost:6379", "redis://user:password@host:port/database"],
      ["", `""`, "redis://user:password@host:port/database"],
      ["http://localhost", "http://localhost", "redis://user:password@host:port/database"],
      ["redis:localhost", "redis:***", "redis://user:password@host:port/database"],
      ["redis:///1", "redis:///1", "redis://user:password@host:port/database"],
      [
        "redis+sentinel://:secret@a:26379/main",
        "redis+sentinel://:***@a:26379/main",
        "Sentinel is not supported yet"
      ],
      [
        "redis://:secret@a:1,b:2",
        "redis://:***@a:1,b:2",
        "a single Redis: a Redis Cluster is not supported yet"
      ],
      ["redis://:secret@a:1,redis://:secret@b:2", "redis://:***@b:2", "Redis Cluster is not supported yet"],
      ["redis://u:secret@a:70000", "redis://u:***@a:70000", "a port from 1 to 65535"],
      ["redis://a:0", "redis://a:0", "a port from 1 to 65535"],
      ["redis://u:secret@a/main", "redis://u:***@a/main", "a database that is a whole number"],
      ["redis://a/-1", "redis://a/-1", "a database that is a whole number"],
      ["redis://a/1.5", "redis://a/1.5", "a database that is a whole number"],
      ["redis://a/0?password=secret", "redis://a/0?***", "nothing after the database"],
      ["redis://u:sec/ret@a:6379", "redis://u:***@a:6379", "percent-encoded"],
      ["redis://u:sec#ret@a", "redis://u:***@a", "percent-encoded"],
      ["redis://u:%zzsecret@a", "redis://u:***@a", "percent-encoded"],
      ["redis://u:secret", "redis://u:***", "percent-encoded"],
      ["redis://secret@a", "redis://***@a", "a password with the user"]
    ] as const) {
      const refusal = refusalOf({ url })
      assert.include(refusal, `url is`, url)
      assert.include(refusal, shown, url)
      assert.include(refusal, expected, url)
      assert.notInclude(refusal, "secret", url)
    }
    assert.include(refusalOf({ url: 6379 as never }), "url is 6379, expected redis://")
  })

  it("refuses times that cannot be waited for", () => {
    const url = "redis://localhost"
    for (const time of [0, -1, Number.NaN, Infinity, "0.5 millis", "2 minutes", "soon"] as const) {
      const deadline = time as never
      assert.include(refusalOf({ url, deadline }), "expected a Duration from 1 millisecond to 1 minute")
      assert.match(refusalOf({ url, connectTimeout: deadline }), /connectTimeout is .*, expected a Duration/)
    }
    assert.include(refusalOf({ url, required: "yes" as never }), `required is "yes", expected true or false`)
  })
})

describe("fromConfig", () => {
  it("is nothing without a URL", () => {
    assert.isUndefined(Effect.runSync(fromEnv({ CACHEME_REDIS_DEADLINE: "1 second" })))
  })

  it("reads each variable", () => {
    const options = Effect.runSync(
      fromEnv({
        CACHEME_REDIS_URL: "redis://:secret@localhost",
        CACHEME_REDIS_DEADLINE: "20 millis",
        CACHEME_REDIS_CONNECT_TIMEOUT: "3 seconds",
        CACHEME_REDIS_REQUIRED: "yes"
      })
    )
    assert.notInclude(JSON.stringify(options), "secret")
    const { deadline, connectTimeout, required, address } = make(options!)
    assert.deepStrictEqual([deadline, connectTimeout, required], [20, 3000, true])
    assert.strictEqual(Redacted.value(address).password, "secret")
  })

  it("names the variable whose value is not allowed", () => {
    const url = { CACHEME_REDIS_URL: "redis://localhost" }
    for (const [env, expected] of [
      [
        { CACHEME_REDIS_URL: "redis://:secret@a:1,b:2" },
        /CACHEME_REDIS_URL is "redis:\/\/:\*\*\*@a:1,b:2", expected/
      ],
      [
        { ...url, CACHEME_REDIS_DEADLINE: "0 millis" },
        /CACHEME_REDIS_DEADLINE is "0 millis", expected a Duration/
      ],
      [
        { ...url, CACHEME_REDIS_CONNECT_TIMEOUT: "1 hour" },
        /CACHEME_REDIS_CONNECT_TIMEOUT is "1 hour", expected/
      ],
      [
        { ...url, CACHEME_REDIS_REQUIRED: "maybe" },
        /CACHEME_REDIS_REQUIRED is "maybe", expected true or false/
      ]
    ] as const) {
      const refusal = reasonOf(fromEnv(env))
      assert.match(refusal, expected)
      assert.notInclude(refusal, "secret")
    }
  })
})
