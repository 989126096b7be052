/**
 * Where a Redis is and how long it may take, checked before anything is connected.
 *
 * The URL may hold a password. It is redacted where it is held, and masked where it is shown.
 */
import * as Config from "effect/Config"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type { CachemeError } from "../../CachemeError.ts"
import { isDuration } from "../../Node.ts"
import * as Settings from "../../Settings.ts"

/** Options of the connection to a Redis. */
export interface RedisOptions {
  /** `redis://user:password@host:port/database`, or `rediss://` for TLS. Only the host is needed. */
  readonly url: string | Redacted.Redacted
  /** How long a command may take, from 1 millisecond to 1 minute. Default 100 milliseconds. */
  readonly deadline?: Duration.Input | undefined
  /**
   * How long the start waits for the server before it goes on without it, and how long a connection may take to be
   * opened: from 1 millisecond to 1 minute. Default 1 second.
   */
  readonly connectTimeout?: Duration.Input | undefined
  /** True: the start fails where the server cannot be reached, instead of going on without it. Default false. */
  readonly required?: boolean | undefined
}

/** Options with their defaults, checked. */
export interface RedisSettings {
  /** What the server is called in messages: `Redis at host:port/database`. */
  readonly name: string
  readonly address: Redacted.Redacted<Address>
  /** In milliseconds. */
  readonly deadline: number
  /** In milliseconds. */
  readonly connectTimeout: number
  readonly required: boolean
}

/** What a URL says. */
interface Address {
  readonly host: string
  readonly port: number
  readonly db: number
  readonly isTls: boolean
  /** Undefined for the default user. */
  readonly username: string | undefined
  readonly password: string | undefined
}

const timeExpected = `a Duration from 1 millisecond to 1 minute, such as "100 millis"`

/** Checks options and fills in the defaults. Fails with `InvalidSetting`. */
export const make = (options: RedisOptions): Effect.Effect<RedisSettings, CachemeError> =>
  Effect.gen(function* () {
    const { deadline = "100 millis", connectTimeout = "1 second", required = false } = options
    const address = yield* checkUrl(
      "url",
      Redacted.isRedacted(options.url) ? Redacted.value(options.url) : options.url
    )
    if (!isTime(deadline)) return yield* Settings.invalid("deadline", deadline, timeExpected)
    if (!isTime(connectTimeout))
      return yield* Settings.invalid("connectTimeout", connectTimeout, timeExpected)
    if (typeof required !== "boolean") return yield* Settings.invalid("required", required, "true or false")
    const { host, port, db } = address
    return {
      name: `Redis at ${host.includes(":") ? `[${host}]` : host}:${port}${db === 0 ? "" : `/${db}`}`,
      address: Redacted.make(address),
      deadline: Duration.toMillis(Duration.fromInputUnsafe(deadline)),
      connectTimeout: Duration.toMillis(Duration.fromInputUnsafe(connectTimeout)),
      required
    }
  })

const isTime = (input: unknown): input is Duration.Input => {
  if (!isDuration(input)) return false
  const milliseconds = Duration.toMillis(Duration.fromInputUnsafe(input))
  return milliseconds >= 1 && milliseconds <= 60_000
}

/**
 * The options from `CACHEME_REDIS_URL`, `CACHEME_REDIS_DEADLINE`, `CACHEME_REDIS_CONNECT_TIMEOUT` and
 * `CACHEME_REDIS_REQUIRED`; `undefined` where there is no URL.
 */
export const fromConfig: Effect.Effect<RedisOptions | undefined, CachemeError | Config.ConfigError> =
  Effect.gen(function* () {
    const url = Option.getOrUndefined(yield* Config.option(Config.Redacted("CACHEME_REDIS_URL")))
    const options = {
      deadline: yield* time("CACHEME_REDIS_DEADLINE"),
      connectTimeout: yield* time("CACHEME_REDIS_CONNECT_TIMEOUT"),
      required: yield* Settings.flag("CACHEME_REDIS_REQUIRED")
    }
    if (url === undefined) return undefined
    yield* checkUrl("CACHEME_REDIS_URL", Redacted.value(url))
    return { url, ...options }
  })

const time = (name: string) =>
  Settings.variable(name, timeExpected, (text) => {
    const input = text as Duration.Input
    return isTime(input) ? input : undefined
  })

const checkUrl = (setting: string, url: unknown): Effect.Effect<Address, CachemeError> => {
  const address = typeof url === "string" ? addressOf(url) : urlExpected
  return typeof address === "string"
    ? Settings.invalid(setting, typeof url === "string" ? mask(url) : url, address)
    : Effect.succeed(address)
}

const urlExpected =
  "redis://user:password@host:port/database (rediss:// for TLS), with what is special in a password percent-encoded"

/** What a URL says, or what is expected instead. */
const addressOf = (text: string): Address | string => {
  const [, scheme = "", rest = ""] = /^([a-z][a-z\d+.-]*):\/\/(.*)$/is.exec(text) ?? []
  const place = rest.slice(rest.lastIndexOf("@") + 1).replace(/[/?#].*$/s, "")
  if (/sentinel/i.test(scheme)) return "the URL of the primary itself: Redis Sentinel is not supported yet"
  if (!/^rediss?$/i.test(scheme)) return urlExpected
  if (place.includes(",") || /,\s*rediss?:\/\//i.test(rest))
    return "the URL of a single Redis: a Redis Cluster is not supported yet"
  const port = Number(/:(\d+)$/.exec(place)?.[1] ?? 6379)
  if (port < 1 || port > 65_535) return "a port from 1 to 65535"
  if (!URL.canParse(text)) return urlExpected
  const url = new URL(text)
  if (url.hostname === "") return urlExpected
  if (url.search !== "" || url.hash !== "") return `${urlExpected}, and nothing after the database`
  if (!/^\/?\d{0,9}$/.test(url.pathname)) return "a database that is a whole number, such as /0"
  const username = decode(url.username)
  const password = decode(url.password)
  if (username === undefined || password === undefined) return urlExpected
  if (username !== "" && password === "") return "a password with the user: redis://user:password@host"
  return {
    host: url.hostname.replace(/^\[|\]$/g, ""),
    port,
    db: Number(url.pathname.slice(1)),
    isTls: /^rediss$/i.test(scheme),
    username: username === "" || username === "default" ? undefined : username,
    password: password === "" ? undefined : password
  }
}

const decode = (text: string): string | undefined => {
  try {
    return decodeURIComponent(text)
  } catch {
    return undefined
  }
}

/**
 * A text that is to be a URL, without its password. What stands before the last `@` is masked but for the user; where
 * there is none, what follows a colon and is no port; and what follows a question mark.
 */
const mask = (text: string): string => {
  const at = text.lastIndexOf("@")
  const start = text.indexOf("://") + 3
  if (at < 0 || at < start) return maskPlace(text)
  const [user = "", ...secrets] = text.slice(start < 3 ? 0 : start, at).split(":")
  const shown = secrets.length > 0 ? `${user}:***` : "***"
  return `${start < 3 ? "" : text.slice(0, start)}${shown}${maskPlace(text.slice(at))}`
}

const maskPlace = (text: string): string =>
  text.replace(/:(?!\/\/)(?!\d+(?:[/,]|$))[^/,]+/g, ":***").replace(/[?#].*$/s, (query) => `${query[0]}***`)
