/**
 * The connection of this process to its Redis: it knows whether the server can be used, makes one that cannot cost next
 * to nothing, and comes back by itself.
 *
 * **Up and down.** Commands go out while the link is up. It goes down when the connection closes, when the server says
 * that it can't be used now (it is loading, it has become a replica), or when three commands in a row have failed, each
 * in a turn of the event loop of its own: a process that was busy for longer than the deadline finds many commands late
 * at once, and their replies right behind, which is one failure. While the link is down commands fail at once, so a
 * server that stalls costs three deadlines and no more.
 *
 * **Coming back.** One fiber tries by a schedule, and at once when a connection is ready: it looks at what kind of server
 * answers, lets the store make good what was missed (`Hooks.recover`), and only then is the link up. So nothing is read
 * from a server that has not been told what was invalidated meanwhile.
 *
 * **Epochs.** Each opening and each closing of the connection begins another epoch. A reply is to be believed only where
 * the epoch is still the one in which its command was sent: another may come from another server.
 *
 * **What can't be used** (a wrong password, too old a server, a Cluster) keeps the layer from starting. If the server
 * could not be reached then, it is told by the log, and the link stays down until that has changed.
 */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type { Redis } from "ioredis"
import { CachemeError, StoreUnavailable } from "../../CachemeError.ts"
import { missingPackage } from "../../missingPackage.ts"
import { type ConnectionOptions, connectionOptions, hearAllErrors } from "./connectionOptions.ts"
import { Deadlines } from "./Deadlines.ts"
import { inspectServer, isReply, type Refusal, refusalOf } from "./inspectServer.ts"
import type { RedisSettings } from "./redisSettings.ts"
import { Subscriber } from "./Subscriber.ts"

/** Redis can't be used now: nothing is known of what became of the command. */
export class Away extends Error {
  override readonly name = "Away"
  /** `down`, `timeout`, `closed`, or what was answered. */
  readonly why: string
  constructor(why: string) {
    super(`Redis is away: ${why}`)
    this.why = why
  }
}

/**
 * Sends commands, and rejects with `Away` or with the error that the server has answered. All commands that the function
 * sends before it returns travel in one write. A pipeline's `exec` does not reject: send its commands by themselves.
 */
export type Send = <A>(command: (redis: Redis) => Promise<A>) => Promise<A>

/** What a store does when its link comes and goes. */
export interface Hooks {
  /** Called with the connection before anything is sent over it, to define scripts. */
  readonly prepare?: ((redis: Redis) => void) | undefined
  /** Makes good what was missed; what it sends goes out though the link is still down. A rejection keeps it down. */
  readonly recover: (send: Send) => Promise<void>
  readonly onUp: () => void
  readonly onDown: (why: string) => void
  /** The channels are heard from now on: messages may have been missed before. */
  readonly onSubscribed: () => void
}

/** How the link has been. */
export interface Stats {
  readonly state: "up" | "down"
  /** Since when, in milliseconds since the epoch. */
  readonly since: number
  /** Why it is down, as far as is known. */
  readonly why: string | undefined
  /** How often the connection was opened. */
  readonly opens: number
  /** How many commands were not answered in time. */
  readonly timeouts: number
}

/** So many failures in a row take the link down. */
const failuresAllowed = 3

/** How long the recovery waits between two attempts. */
const backoff = Schedule.jittered(
  Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("2 seconds")])
)

/** Replies that say that the server can't be used now, and those that may concern one command. */
const unusable = /^(LOADING|READONLY|MASTERDOWN|NOAUTH)\b/
const doubtful = /^(BUSY|CLUSTERDOWN|MISCONF|NOREPLICAS|TRYAGAIN)\b/

const down = new Away("down")
const closed = new Away("closed")

/** The connection of a process to its Redis. */
export class Link {
  /** True while commands go out. */
  isUp = false
  /** Another one from each opening, and each closing, of the connection. */
  epoch = 0
  /** False where scripts may not ask which server they run on. */
  canIdentify = true
  /** The connection for commands, which are sent by `run`. */
  readonly redis: Redis

  readonly #settings: RedisSettings
  readonly #hooks: Hooks
  readonly #subscriber: Subscriber
  readonly #clock: Clock.Clock
  readonly #log: (effect: Effect.Effect<void>) => void
  /** What has been told by the log, once. */
  readonly #told = new Set<string>()
  readonly #started = Deferred.makeUnsafe<void, CachemeError>()
  /** Open when there is a reason to try at once. */
  readonly #wake = Latch.makeUnsafe(false)
  readonly #db: number
  readonly #deadlines: Deadlines
  /** Runs while it is doubtful whether anything comes over the connection any more. */
  #silence: NodeJS.Timeout | undefined
  #isClosed = false
  /** The server takes no writes: its name may lead to another one by now. */
  #mustReconnect = false
  #failures = 0
  #hasFailedInThisTurn = false
  #since: number
  #why: string | undefined
  #refused: string | undefined
  #opens = 0
  #timeouts = 0

  private constructor(
    settings: RedisSettings,
    hooks: Hooks,
    connect: (options: ConnectionOptions) => Redis,
    clock: Clock.Clock,
    log: (effect: Effect.Effect<void>) => void
  ) {
    this.#settings = settings
    this.#hooks = hooks
    this.#clock = clock
    this.#log = log
    this.#db = Redacted.value(settings.address).db
    this.#since = clock.currentTimeMillisUnsafe()
    this.#deadlines = new Deadlines(settings.deadline)

    const options = connectionOptions(settings)
    this.redis = connect(options)
    hooks.prepare?.(this.redis)
    this.redis.on("error", (error: Error & { readonly command?: { readonly name: string } }) => {
      // The inspection selects the database again, and knows what kind of server refuses it.
      if (error.command?.name !== "select") this.#noteFailure(error)
    })
    this.redis.on("ready", () => {
      this.epoch++
      this.#opens++
      this.#wake.openUnsafe()
    })
    this.redis.on("close", () => {
      this.epoch++
      this.#expectNothing()
      this.#goDown(this.#why ?? "the connection was closed")
    })

    this.#subscriber = new Subscriber(
      connect({ ...options, db: 0, lazyConnect: true }),
      hooks.onSubscribed,
      (reason) => this.#tell(`messages are not heard (${reason}): allow their channels to this user`)
    )
  }

  /**
   * Connects, and waits for the server at most `connectTimeout`; then it goes on without it, unless it is `required`.
   * Fails with `CachemeError` (`StoreUnavailable`, `InvalidSetting` if ioredis is not installed).
   */
  static readonly make = (
    settings: RedisSettings,
    hooks: Hooks
  ): Effect.Effect<Link, CachemeError, Scope.Scope> =>
    Effect.gen(function* () {
      const { Redis } = yield* Effect.tryPromise({
        try: () => import("ioredis"),
        catch: () => missingPackage("ioredis")
      })
      const runFork = Effect.runForkWith(yield* Effect.context())
      const clock = yield* Clock.Clock
      const link = yield* Effect.acquireRelease(
        Effect.sync(
          () => new Link(settings, hooks, (options) => hearAllErrors(new Redis(options)), clock, runFork)
        ),
        (link) => Effect.sync(() => link.#close())
      )
      yield* Effect.forkScoped(link.#recovery)
      yield* link.#start
      return link
    })

  /** Sends commands while the link is up, and rejects at once with `Away` while it is not. */
  run<A>(command: (redis: Redis) => Promise<A>): Promise<A> {
    if (!this.isUp) return Promise.reject(this.#isClosed ? closed : down)
    return this.#send(command)
  }

  /** Counts an answer that makes no sense as a failure, and tells it by the log, once. */
  suspect(error: unknown): void {
    this.#tell(`answers what can't be used: ${messageOf(error)}`)
    this.#count(messageOf(error))
  }

  /** Hears a channel from now on, as far as messages arrive; the listener must not throw. */
  subscribe(channel: string, listener: (message: Buffer) => void): void {
    this.#subscriber.subscribe(channel, listener)
  }

  /** How the link is and has been. */
  stats(): Stats {
    return {
      state: this.isUp ? "up" : "down",
      since: this.#since,
      why: this.isUp ? undefined : this.#why,
      opens: this.#opens,
      timeouts: this.#timeouts
    }
  }

  // ------------------------------------------------------------------------------------------------------- commands

  readonly #send: Send = <A>(command: (redis: Redis) => Promise<A>) =>
    new Promise<A>((resolve, reject) => {
      const due = this.#deadlines.begin(() => reject(this.#late()))
      const { stream } = this.redis
      // One write for all: half the time of twenty commands.
      stream.cork()
      try {
        command(this.redis).then(
          (answer) => {
            if (due.isOver) return
            this.#deadlines.end(due)
            this.#failures = 0
            resolve(answer)
          },
          (error: unknown) => {
            if (due.isOver) return
            this.#deadlines.end(due)
            reject(this.#failure(error))
          }
        )
      } finally {
        stream.uncork()
      }
    })

  #late(): Away {
    this.#timeouts++
    this.#expectReply()
    this.#count(`no answer within ${this.#settings.deadline} ms`)
    return new Away("timeout")
  }

  #failure(error: unknown): unknown {
    const message = messageOf(error)
    if (isReply(error)) {
      if (unusable.test(message)) {
        this.#mustReconnect ||= message.startsWith("READONLY")
        this.#goDown(message)
      } else if (doubtful.test(message)) {
        this.#count(message)
      } else {
        this.#failures = 0
        return error
      }
      return new Away(message)
    }
    if (message === timedOut) return this.#late()
    this.#count(message)
    return new Away(isClosing.test(message) ? "closed" : message)
  }

  /** Gives the connection up unless something comes over it, when a command was not answered in time. */
  #expectReply(): void {
    if (this.#silence !== undefined) return
    const { stream } = this.redis
    const silence = Math.max(10 * this.#settings.deadline, 1000)
    this.#silence = setTimeout(() => {
      this.#silence = undefined
      stream.destroy(new Error(`nothing came over the connection for ${silence} ms`))
    }, silence).unref()
    stream.once("data", () => this.#expectNothing())
  }

  #expectNothing(): void {
    clearTimeout(this.#silence)
    this.#silence = undefined
  }

  #count(why: string): void {
    if (this.#hasFailedInThisTurn) return
    this.#hasFailedInThisTurn = true
    setImmediate(() => (this.#hasFailedInThisTurn = false))
    if (++this.#failures >= failuresAllowed) this.#goDown(`${why}, ${failuresAllowed} times in a row`)
  }

  // ---------------------------------------------------------------------------------------------------- up and down

  #goUp(): void {
    const downFor = Duration.format(Duration.millis(this.#clock.currentTimeMillisUnsafe() - this.#since))
    this.#turn(true, undefined)
    this.#hooks.onUp()
    if (Deferred.doneUnsafe(this.#started, Exit.void)) return
    this.#log(Effect.logInfo(`cacheme: ${this.#settings.name} is up after ${downFor}`))
  }

  #goDown(why: string): void {
    if (!this.isUp) return
    this.#turn(false, why)
    this.#hooks.onDown(why)
    this.#log(Effect.logWarning(this.#awayMessage(why)))
    this.#wake.openUnsafe()
  }

  #turn(isUp: boolean, why: string | undefined): void {
    this.isUp = isUp
    // ioredis has a timer for each command, which is dear: it is for what the link does not send (`Deadlines.ts`).
    Object.assign(this.redis.options, { commandTimeout: isUp ? undefined : this.#settings.deadline })
    this.#why = why
    this.#since = this.#clock.currentTimeMillisUnsafe()
    this.#failures = 0
    // What is told of a server that can't be used is told again, should it happen again.
    this.#refused = undefined
  }

  #awayMessage(why: string): string {
    return `cacheme: ${this.#settings.name} is away (${why}): reads compute and invalidations wait until it is back`
  }

  // ------------------------------------------------------------------------------------------------- start and recovery

  /** Waits for the first connection in real time, as everything that concerns the network is timed. */
  get #start(): Effect.Effect<void, CachemeError> {
    const { name: store, connectTimeout, required } = this.#settings
    const found = () => this.#why ?? `no answer within ${connectTimeout} ms`
    const expected = "a server that answers there; it need not be up at the start if it is not required"
    return Effect.gen({ self: this }, function* () {
      const timer = setTimeout(() => {
        const unavailable = () =>
          new CachemeError({ reason: new StoreUnavailable({ store, found: found(), expected }) })
        Deferred.doneUnsafe(this.#started, required ? Exit.fail(unavailable()) : Exit.void)
      }, connectTimeout)
      yield* Effect.ensuring(
        Deferred.await(this.#started),
        Effect.sync(() => clearTimeout(timer))
      )
      if (!this.isUp) yield* Effect.logWarning(this.#awayMessage(found()))
    })
  }

  get #recovery(): Effect.Effect<never> {
    const attempt = Effect.suspend(() => {
      this.#wake.closeUnsafe()
      return Effect.promise(() => this.#attempt())
    })
    return Effect.gen({ self: this }, function* () {
      for (;;) {
        yield* this.#wake.await
        const pause = yield* Schedule.toStepWithSleep(backoff)
        while (!(yield* attempt)) yield* Effect.raceFirst(Effect.exit(pause(undefined)), this.#wake.await)
      }
    })
  }

  /** True when the link is up. */
  async #attempt(): Promise<boolean> {
    const { epoch, redis } = this
    if (this.isUp) return true
    // A connection gives up where opening a socket throws.
    if (redis.status === "end") redis.connect().catch(() => {})
    if (redis.status !== "ready") return false
    if (this.#mustReconnect) {
      this.#mustReconnect = false
      redis.disconnect(true)
      return false
    }
    try {
      const { refusal, isReplica, canIdentify, advice } = await inspectServer(redis, this.#db)
      this.canIdentify = canIdentify
      for (const text of advice) this.#tell(text)
      this.#mustReconnect = isReplica
      if (refusal !== undefined) this.#refuse(refusal)
      else if (isReplica) this.#why = "it is a replica, which takes no writes: give the URL of the primary"
      if (refusal !== undefined || isReplica) return false
      await this.#hooks.recover(this.#send)
    } catch (error) {
      if (messageOf(error) === timedOut) this.#expectReply()
      this.#noteFailure(error)
      return false
    }
    if (epoch !== this.epoch || this.#isClosed) return false
    this.#goUp()
    return true
  }

  /** Remembers why the link is down, and tells of what does not pass by itself. */
  #noteFailure(error: unknown): void {
    const refusal = refusalOf(error)
    if (refusal === undefined) this.#why = messageOf(error)
    else this.#refuse(refusal)
  }

  #refuse({ found, expected }: Refusal): void {
    this.#why = found
    const error = new CachemeError({
      reason: new StoreUnavailable({ store: this.#settings.name, found, expected })
    })
    if (Deferred.doneUnsafe(this.#started, Exit.fail(error)) || this.#refused === found) return
    this.#refused = found
    this.#log(Effect.logError(`cacheme: ${error.message}`))
  }

  #tell(text: string): void {
    if (this.#told.size >= toldAtMost || this.#told.has(text)) return
    this.#told.add(text)
    this.#log(Effect.logWarning(`cacheme: ${this.#settings.name}: ${text}`))
  }

  /** Says goodbye; a peer that does not answer is left after the deadline. */
  #close(): void {
    this.#isClosed = true
    this.isUp = false
    this.redis.disconnect()
    this.#subscriber.close()
  }
}

const toldAtMost = 100

/** What ioredis says of a command that takes too long. */
const timedOut = "Command timed out"

/** What ioredis says of a connection that is not there. */
const isClosing = /^(Connection is closed|Stream isn't writeable|Reached the max retries|Command aborted)/

/** The message of an error; several attempts to connect have failed for one reason, but have no message together. */
const messageOf = (error: unknown): string => {
  const { message, code } = error as { readonly message?: string; readonly code?: string }
  return message || code || String(error)
}
