/**
 * The truth database: what is so, and what has been acknowledged, on a Redis of its own that nobody harms.
 *
 * It holds registers that writers count up, a few rows and their owners, and for each the highest version whose
 * invalidation has been acknowledged. A read that begins after an acknowledgement was seen must not answer with less.
 */
import { Context } from "effect"
import { Redis } from "ioredis"
import type { Chance } from "./chance.ts"

/** How many rows and owners there are. Few, so that everything meets. */
export const rows = 12
export const owners = 4

/** A register: a row below `rows`, an owner from there on. */
export type Register = number

/** All registers. */
export const registers = rows + owners

/** The register of an owner. */
export const registerOf = (owner: number): Register => rows + owner

/** A version for each register. */
export type Versions = ReadonlyArray<number>

/** What is told of an acknowledged write, for the story of a violation. */
export interface Note {
  readonly version: number
  /** The process that wrote. */
  readonly by: string
  /** What it invalidated. */
  readonly target: string
  /** Wall clock, in milliseconds: when the invalidation was begun and acknowledged. */
  readonly begunAt: number
  readonly acknowledgedAt: number
}

/** How many notes are kept of a register. */
const notesKept = 30

const acknowledge = `
local known = tonumber(redis.call('GET', KEYS[1]) or '0')
if tonumber(ARGV[1]) > known then redis.call('SET', KEYS[1], ARGV[1]) end
redis.call('LPUSH', KEYS[2], ARGV[2])
redis.call('LTRIM', KEYS[2], 0, ${notesKept - 1})`

/** The registers of one mode. */
export class Truth {
  readonly #redis: Redis
  readonly #space: string
  readonly #acknowledged: ReadonlyArray<string>

  constructor(redis: Redis, space: string) {
    this.#redis = redis
    this.#space = space
    this.#acknowledged = Array.from({ length: registers }, (_, register) =>
      this.#key("acknowledged", register)
    )
  }

  #key(kind: string, of: number | string): string {
    return `${this.#space}:${kind}:${of}`
  }

  /** The version of a register now. */
  async read(register: Register): Promise<number> {
    return Number((await this.#redis.get(this.#key("register", register))) ?? 0)
  }

  /** Writes: the new version. */
  write(register: Register): Promise<number> {
    return this.#redis.incr(this.#key("register", register))
  }

  /** Says that no read which begins from now on may answer with less. */
  async acknowledge(register: Register, note: Note): Promise<void> {
    await this.#redis.eval(
      acknowledge,
      2,
      this.#acknowledged[register]!,
      this.#key("notes", register),
      note.version,
      JSON.stringify(note)
    )
  }

  /** What has been acknowledged, of each register. */
  async acknowledged(): Promise<Versions> {
    return (await this.#redis.mget(...this.#acknowledged)).map(Number)
  }

  /** The last acknowledged writes of a register, the newest first. */
  async notes(register: Register): Promise<ReadonlyArray<Note>> {
    return (await this.#redis.lrange(this.#key("notes", register), 0, -1)).map((note) => JSON.parse(note))
  }

  /** Counts a lookup of a herd's key; answers how many there have been. */
  countLookup(round: number): Promise<number> {
    return this.#redis.incr(this.#key("herd", round))
  }

  /** How many lookups a herd has made. */
  async lookups(round: number): Promise<number> {
    return Number((await this.#redis.get(this.#key("herd", round))) ?? 0)
  }
}

/** What a lookup of the checker needs: the truth, chance, and somebody to tell. */
export class World extends Context.Service<
  World,
  {
    readonly truth: Truth
    readonly chance: Chance
    /** Called when a lookup has begun. */
    readonly onLookup: () => void
  }
>()("cacheme/checker/World") {}

/** Connects to the truth. */
export const connectTruth = (url: string): Redis => new Redis(url, { enableAutoPipelining: true })
