/**
 * How ioredis is to treat a connection: what is sent is answered in time, over this connection, or not at all. A lost
 * connection is opened again for as long as it takes.
 */
import * as Redacted from "effect/Redacted"
import type { Redis, RedisOptions } from "ioredis"
import type { RedisSettings } from "./redisSettings.ts"

/** Options of a connection, whose replies have the shapes that they have by default. */
export type ConnectionOptions = Omit<RedisOptions, "replyMapping">

/** The options of a connection for commands. */
export const connectionOptions = ({
  address,
  deadline,
  connectTimeout
}: RedisSettings): ConnectionOptions => {
  const { host, port, db, username, password, isTls } = Redacted.value(address)
  return {
    host,
    port,
    // Selected anew by ioredis itself, otherwise, and a rejection of that not caught.
    db,
    ...(username === undefined ? {} : { username }),
    ...(password === undefined ? {} : { password }),
    ...(isTls ? { tls: {} } : {}),
    connectionName: "cacheme",
    disableClientInfo: true,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    autoResendUnfulfilledCommands: false,
    // Channels would be forgotten when a connection is cut before it has subscribed again, and rejections not caught.
    autoResubscribe: false,
    commandTimeout: deadline,
    connectTimeout,
    // How long a peer may take to say goodbye.
    disconnectTimeout: deadline,
    // A connection that is silent because the way is cut is given up: nothing is sent by a subscriber.
    keepAlive: 10_000,
    noDelay: true,
    // The server is inspected by us. ioredis would wait for it up to ten seconds, and write to the console.
    enableReadyCheck: false,
    // Many processes lose their connections at once: they should not all come back at once.
    retryStrategy: (times) => Math.min(50 * 2 ** (times - 1), 2000) * (0.8 + 0.4 * Math.random())
  }
}

/**
 * Keeps a connection from ending the process: ioredis hears one error of each socket, and a TLS socket may tell of another
 * one, of which nobody would hear.
 */
export const hearAllErrors = (redis: Redis): Redis => {
  // It has its socket once this turn of the event loop is over.
  redis.on("connecting", () => setImmediate(() => redis.stream?.on("error", () => {})))
  return redis
}
