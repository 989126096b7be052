/**
 * A TCP proxy in front of a server, which spoils what passes: connections that are cut or refused, a server that
 * accepts and does not answer, replies that come late. What passes keeps its order in each direction.
 */
import { createServer, connect, type Server, type Socket } from "node:net"
import { freePort } from "./redis.ts"

/** A proxy that is running. */
export interface RunningProxy {
  readonly port: number
  readonly url: string
  /** How many connections are open now. */
  readonly connections: () => number
  /** Ends all connections; what is on its way is lost. New ones are accepted. */
  readonly cut: () => void
  /** Ends all connections and refuses new ones, until `accept`. */
  readonly refuse: () => Promise<void>
  readonly accept: () => Promise<void>
  /** From now on it accepts and reads, but passes nothing on; `resume` passes on what it has read. */
  readonly stall: () => void
  readonly resume: () => void
  /** Each reply comes that many milliseconds late; 0 for not. */
  readonly delayReplies: (milliseconds: number) => void
  /** Requests stay here until `releaseRequests`, replies pass; a `cut` loses them. */
  readonly holdRequests: () => void
  readonly releaseRequests: () => void
  /** Requests reach the server, its replies stay here until `releaseReplies`; a `cut` loses them. */
  readonly holdReplies: () => void
  readonly releaseReplies: () => void
  /** The replies that have arrived here and wait. */
  readonly heldReplies: () => string
  /** Ends it for good. */
  readonly stop: () => Promise<void>
}

/** Starts a proxy in front of a port of this machine. */
export const startProxy = async (targetPort: number): Promise<RunningProxy> => {
  const gates: Gates = { holdsRequests: false, holdsReplies: false, delay: 0 }
  const open = new Set<Connection>()
  const server = createServer((client) => {
    const connection = new Connection(client, connect(targetPort, "127.0.0.1"), gates, () =>
      open.delete(connection)
    )
    open.add(connection)
  })
  const port = await listenAnywhere(server)
  const cut = () => open.forEach((connection) => connection.destroy())
  const pass = () => open.forEach((connection) => connection.pass())
  const hold = (held: Partial<Gates>) => {
    Object.assign(gates, held)
    pass()
  }
  const refuse = async () => {
    const closed = server.listening && new Promise((resolve) => server.close(resolve))
    cut()
    await closed
  }
  return {
    port,
    url: `redis://127.0.0.1:${port}`,
    connections: () => open.size,
    cut,
    refuse,
    accept: async () => {
      if (!server.listening) await listen(server, port)
    },
    stall: () => hold({ holdsRequests: true, holdsReplies: true }),
    resume: () => hold({ holdsRequests: false, holdsReplies: false }),
    delayReplies: (milliseconds) => void (gates.delay = milliseconds),
    holdRequests: () => hold({ holdsRequests: true }),
    releaseRequests: () => hold({ holdsRequests: false }),
    holdReplies: () => hold({ holdsReplies: true }),
    releaseReplies: () => hold({ holdsReplies: false }),
    heldReplies: () => Array.from(open, (connection) => connection.heldReplies).join(""),
    stop: refuse
  }
}

/** What may pass now. */
interface Gates {
  holdsRequests: boolean
  holdsReplies: boolean
  delay: number
}

/** A client's connection and the one to the server that belongs to it. */
class Connection {
  readonly #sockets: readonly [Socket, Socket]
  readonly #requests: Pipe
  readonly #replies: Pipe

  constructor(client: Socket, server: Socket, gates: Gates, onClosed: () => void) {
    this.#sockets = [client, server]
    this.#requests = new Pipe(
      client,
      server,
      () => !gates.holdsRequests,
      () => 0
    )
    this.#replies = new Pipe(
      server,
      client,
      () => !gates.holdsReplies,
      () => gates.delay
    )
    for (const socket of this.#sockets) {
      socket.setNoDelay(true)
      socket.on("error", () => this.destroy())
    }
    client.once("close", () => {
      this.destroy()
      onClosed()
    })
  }

  get heldReplies(): string {
    return this.#replies.held
  }

  /** Passes on what may pass now. */
  pass(): void {
    this.#requests.pass()
    this.#replies.pass()
  }

  destroy(): void {
    this.#requests.stop()
    this.#replies.stop()
    for (const socket of this.#sockets) socket.destroy()
  }
}

/** One direction of a connection. */
class Pipe {
  /** What has been read, and when it may pass; `undefined` for the end. */
  readonly #waiting: Array<{ readonly data: Buffer | undefined; readonly due: number }> = []
  readonly #to: Socket
  readonly #isOpen: () => boolean
  #timer: NodeJS.Timeout | undefined

  constructor(from: Socket, to: Socket, isOpen: () => boolean, delay: () => number) {
    this.#to = to
    this.#isOpen = isOpen
    const take = (data?: Buffer) => {
      this.#waiting.push({ data, due: performance.now() + delay() })
      this.pass()
    }
    from.on("data", take)
    from.once("end", () => take())
  }

  /** The text of what waits. */
  get held(): string {
    return this.#waiting.map(({ data }) => data?.toString() ?? "").join("")
  }

  pass(): void {
    clearTimeout(this.#timer)
    while (this.#isOpen() && this.#waiting.length > 0) {
      const { data, due } = this.#waiting[0]!
      const wait = due - performance.now()
      if (wait > 0) {
        this.#timer = setTimeout(() => this.pass(), Math.ceil(wait))
        return
      }
      this.#waiting.shift()
      if (data === undefined) this.#to.end()
      else this.#to.write(data)
    }
  }

  stop(): void {
    clearTimeout(this.#timer)
    this.#waiting.length = 0
  }
}

const listen = (server: Server, port: number): Promise<void> =>
  new Promise((resolve, reject) => {
    server.once("error", reject)
    server.listen(port, "127.0.0.1", () => {
      server.off("error", reject)
      resolve()
    })
  })

const listenAnywhere = async (server: Server): Promise<number> => {
  for (let tries = 0; ; tries++) {
    const port = await freePort()
    try {
      await listen(server, port)
      return port
    } catch (error) {
      if (tries >= 20) throw error
    }
  }
}
