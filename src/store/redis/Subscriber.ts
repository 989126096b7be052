/**
 * Hears channels over a connection of its own, which opens when it is first needed and again whenever it is lost. What
 * is sent meanwhile is not heard: nothing may depend on a message.
 */
import type { Redis } from "ioredis"
import { isReply } from "./inspectServer.ts"

/** Hears channels. */
export class Subscriber {
  readonly #redis: Redis
  readonly #channels = new Map<string, (message: Buffer) => void>()
  readonly #onSubscribed: () => void
  readonly #onRefused: (reason: string) => void

  constructor(redis: Redis, onSubscribed: () => void, onRefused: (reason: string) => void) {
    this.#redis = redis
    this.#onSubscribed = onSubscribed
    this.#onRefused = onRefused
    redis.on("error", () => {})
    redis.on("ready", () => void this.#subscribeToAll())
    redis.on("messageBuffer", (channel: Buffer, message: Buffer) =>
      this.#channels.get(channel.toString())?.(message)
    )
  }

  /** Hears a channel from now on. The listener must not throw. */
  subscribe(channel: string, listener: (message: Buffer) => void): void {
    this.#channels.set(channel, listener)
    if (this.#redis.status === "wait") this.#redis.connect().catch(() => {})
    else if (this.#redis.status === "ready") void this.#subscribeToAll()
  }

  close(): void {
    this.#redis.disconnect()
  }

  async #subscribeToAll(): Promise<void> {
    try {
      await this.#redis.subscribe(...this.#channels.keys())
      this.#onSubscribed()
    } catch (error) {
      if (isReply(error)) this.#onRefused(error.message)
      // Once more, over another connection.
      else if (this.#redis.status === "ready") this.#redis.disconnect(true)
    }
  }
}
