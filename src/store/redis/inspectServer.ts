/** Looks at what kind of server answers: whether a store can live there at all, and what its owner should know. */
import type { Redis } from "ioredis"

/** Why a server can't be used until somebody changes something, and what is expected instead. */
export interface Refusal {
  readonly found: string
  readonly expected: string
}

/** What an inspection has found. */
export interface Inspection {
  readonly refusal: Refusal | undefined
  /** True when it takes no writes, which may pass: a primary may become one in a failover. */
  readonly isReplica: boolean
  /** True when scripts may ask by INFO which server they run on. */
  readonly canIdentify: boolean
  /** What its owner should know. */
  readonly advice: ReadonlyArray<string>
}

/** The oldest Redis that has what the scripts use: ZRANGE BYSCORE, ZMSCORE. */
const oldest: readonly [number, number] = [6, 2]

const identify = `if type(redis.pcall('INFO', 'replication')) == 'string' then return 1 end return 0`

/** Inspects the server of a connection in one round trip. Rejects with the error that says that it is away, or refuses. */
export const inspectServer = async (redis: Redis, db: number): Promise<Inspection> => {
  const [pong, info, identified, selected] = await Promise.allSettled([
    redis.ping(),
    redis.info(),
    redis.eval(identify, 0),
    // A database that does not exist leaves a new connection in database 0.
    db === 0 ? "OK" : redis.select(db)
  ])
  if (pong.status === "rejected") throw pong.reason
  if (info.status === "rejected" && !isReply(info.reason)) throw info.reason
  const facts = info.status === "fulfilled" ? factsOf(info.value) : new Map<string, string>()
  // First, because such a server does not know the other commands.
  const refusal = info.status === "fulfilled" && !facts.has("redis_version") ? notRedis : refusalBy(facts)
  if (refusal === undefined && selected.status === "rejected") throw selected.reason
  if (refusal === undefined && identified.status === "rejected") throw identified.reason
  const canIdentify =
    info.status === "fulfilled" && identified.status === "fulfilled" && identified.value === 1
  return {
    refusal,
    isReplica: facts.get("role") === "slave",
    canIdentify,
    advice: [...(canIdentify ? [] : [identityAdvice]), ...evictionAdvice(facts)]
  }
}

/** The refusal that the reply to a command is; `undefined` for errors that pass by themselves. */
export const refusalOf = (error: unknown): Refusal | undefined => {
  if (!isReply(error)) return undefined
  const found = error.message
  const known = expectations.find(([pattern]) => pattern.test(found))
  return known === undefined ? undefined : { found, expected: known[1] }
}

const expectations: ReadonlyArray<readonly [RegExp, string]> = [
  [
    /^(WRONGPASS|NOAUTH)\b|invalid password|AUTH.* called without any password/i,
    "the user and the password of the server in the URL: redis://user:password@host:port/database"
  ],
  [
    /^NOPERM\b|can't (run|access)/,
    "a user that may run the store's commands and scripts, such as ACL SETUSER <user> ~* &* +@all -@dangerous +info"
  ],
  [/DB index|SELECT is not allowed/, `a database that the server has: see "databases" in its configuration`],
  [/^ERR unknown command/, `a server on which this command is neither renamed nor switched off`]
]

/** True for an error that the server has answered with. */
export const isReply = (error: unknown): error is Error =>
  error instanceof Error && error.name === "ReplyError"

const factsOf = (info: string): ReadonlyMap<string, string> =>
  new Map(
    info.split("\r\n").flatMap((line) => {
      const colon = line.indexOf(":")
      return colon < 0 ? [] : [[line.slice(0, colon), line.slice(colon + 1)] as const]
    })
  )

const notRedis: Refusal = {
  found: "what it answers to INFO has no redis_version",
  expected: `Redis ${oldest.join(".")} or later`
}

const refusalBy = (facts: ReadonlyMap<string, string>): Refusal | undefined => {
  if (facts.get("redis_mode") === "sentinel")
    return {
      found: "it is a Redis Sentinel",
      expected: "the URL of the primary itself: Sentinel is not supported yet"
    }
  if (facts.get("cluster_enabled") === "1")
    return { found: "it is a Redis Cluster", expected: "a single Redis: a Cluster is not supported yet" }
  const version = facts.get("redis_version")
  const [major = 0, minor = 0] = (version ?? "").split(".").map(Number)
  return version !== undefined && (major < oldest[0] || (major === oldest[0] && minor < oldest[1]))
    ? { found: `it is Redis ${version}`, expected: `Redis ${oldest.join(".")} or later` }
    : undefined
}

const identityAdvice =
  "this user may not run INFO, so a restart or a failover can't be told, and all that is stored is forgotten whenever " +
  "a connection is opened; allow it by ACL SETUSER <user> +info"

const evictionAdvice = (facts: ReadonlyMap<string, string>): ReadonlyArray<string> => {
  const policy = facts.get("maxmemory_policy") ?? ""
  return facts.get("maxmemory") !== "0" && policy.startsWith("allkeys-")
    ? [
        `maxmemory-policy ${policy} evicts the log of invalidations too, and with it all that is stored; ` +
          "set it to volatile-lfu, volatile-lru, volatile-ttl or noeviction"
      ]
    : []
}
