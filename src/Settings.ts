/** The settings of a cache: what they are called, their defaults, and what is allowed. */
import * as ByteSize from "effect/ByteSize"
import * as Config from "effect/Config"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { CachemeError, describe, InvalidSetting } from "./CachemeError.ts"
import * as Key from "./Key.ts"
import { durationExpected, isDuration, type StaleOptions, windowNames } from "./Node.ts"

/** The options of a cache. */
export interface Options {
  /** False: everything computes and nothing is stored. Default true. */
  readonly enabled?: boolean | undefined
  /** What the name of everything kept in a shared store begins with. Default `CM:`. */
  readonly prefix?: string | undefined
  /** How long an answer stays good where its node does not say. Default 1 hour. */
  readonly timeToLive?: Duration.Input | undefined
  /** The windows of nodes and calls that do not say. Default closed. */
  readonly stale?: StaleOptions | undefined
  /** Freezes what is stored, because callers share it. Default true unless `NODE_ENV` is `production`. */
  readonly freeze?: boolean | undefined
}

/** Options with their defaults, checked. */
export interface Settings {
  readonly enabled: boolean
  readonly prefix: string
  readonly timeToLive: Duration.Duration
  readonly stale: StaleOptions
  readonly freeze: boolean
  /** True unless `NODE_ENV` is `production`: mistakes are told where they are made. */
  readonly isDevelopment: boolean
}

/** Checks options and fills in the defaults. Fails with `InvalidSetting`. */
export const make = (options: Options = {}): Effect.Effect<Settings, CachemeError> =>
  Effect.gen(function* () {
    const { enabled = true, prefix = "CM:", timeToLive = "1 hour", stale = {} } = options
    const isDevelopment = isInDevelopment()
    const { freeze = isDevelopment } = options
    if (typeof enabled !== "boolean") return yield* invalid("enabled", enabled, "true or false")
    if (typeof prefix !== "string" || Key.isTooLong(prefix)) {
      return yield* invalid("prefix", prefix, `a text of at most ${Key.maxBytes} bytes`)
    }
    if (!isDuration(timeToLive)) return yield* invalid("timeToLive", timeToLive, durationExpected)
    for (const name of windowNames) {
      const window = stale[name]
      if (window !== undefined && !isDuration(window))
        return yield* invalid(`stale.${name}`, window, durationExpected)
    }
    if (typeof freeze !== "boolean") return yield* invalid("freeze", freeze, "true or false")
    const defaultTime = Duration.fromInputUnsafe(timeToLive)
    return { enabled, prefix, timeToLive: defaultTime, stale, freeze, isDevelopment }
  })

/** True outside production, wherever it runs: in a browser there is no `process`. */
export const isInDevelopment = (): boolean => {
  const { process } = globalThis as {
    readonly process?: { readonly env?: Record<string, string | undefined> }
  }
  return process?.env?.["NODE_ENV"] !== "production"
}

/** Fails with the setting, the value that was found and what is allowed. */
export const invalid = (
  setting: string,
  value: unknown,
  expected: string
): Effect.Effect<never, CachemeError> =>
  Effect.fail(new CachemeError({ reason: new InvalidSetting({ setting, value: describe(value), expected }) }))

/** Reads a variable; `undefined` when it is not set. Fails with `InvalidSetting` when its text is not allowed. */
export const variable = <A>(
  name: string,
  expected: string,
  read: (text: string) => A | undefined
): Effect.Effect<A | undefined, CachemeError | Config.ConfigError> =>
  Effect.flatMap(Config.option(Config.String(name)), (text) => {
    if (Option.isNone(text)) return Effect.undefined
    const value = read(text.value)
    return value === undefined ? invalid(name, text.value, expected) : Effect.succeed(value)
  })

/** Reads a yes-or-no variable. */
export const flag = (name: string) =>
  variable(name, "true or false (yes, no, on, off, 1, 0)", (text) =>
    /^(true|yes|on|1)$/i.test(text) ? true : /^(false|no|off|0)$/i.test(text) ? false : undefined
  )

/** Reads a Duration of zero or more. */
export const duration = (name: string) =>
  variable(name, durationExpected, (text) =>
    Option.getOrUndefined(
      Option.filter(Duration.fromInput(text as Duration.Input), (duration) => !Duration.isNegative(duration))
    )
  )

/** The options of a cache from `CACHEME_ENABLED`, `CACHEME_PREFIX`, `CACHEME_TIME_TO_LIVE` and `CACHEME_STALE_…`. */
export const fromConfig = Effect.all({
  enabled: flag("CACHEME_ENABLED"),
  prefix: variable("CACHEME_PREFIX", `a text of at most ${Key.maxBytes} bytes`, (text) =>
    Key.isTooLong(text) ? undefined : text
  ),
  timeToLive: duration("CACHEME_TIME_TO_LIVE"),
  stale: Effect.all({
    whileRevalidate: duration("CACHEME_STALE_WHILE_REVALIDATE"),
    afterInvalidation: duration("CACHEME_STALE_AFTER_INVALIDATION"),
    ifError: duration("CACHEME_STALE_IF_ERROR")
  })
})

/** What a store in memory is said to hold at most, in entries and in bytes. A Map holds at most 2^24 entries. */
export const capacityExpected = "an integer from 1 to 16777216"
export const sizeExpected = `a size of at least 1 byte, such as "64 MiB"`

/** The capacity of a store in memory from `CACHEME_CAPACITY`, in entries, and `CACHEME_CAPACITY_BYTES`. */
export const capacityFromConfig = Effect.all({
  capacity: variable("CACHEME_CAPACITY", capacityExpected, (text) => {
    const capacity = /^\d+$/.test(text) ? Number(text) : Number.NaN
    return capacity >= 1 && capacity <= 2 ** 24 ? capacity : undefined
  }),
  bytes: variable("CACHEME_CAPACITY_BYTES", sizeExpected, (text) =>
    Option.getOrUndefined(
      Option.filter(
        /^\d+$/.test(text) ? Option.some(ByteSize.bytes(BigInt(text))) : ByteSize.fromString(text),
        (size) => size > 0n
      )
    )
  )
})
