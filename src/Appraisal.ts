/**
 * An appraisal tells what the outcome of a lookup is worth: what its callers are given, what it rests on, and what of
 * it may be stored, for how long.
 *
 * The user's own functions (`tags`, `valueTags`, `timeToLive`) are run here. One that throws harms nobody but the
 * cache: it is counted, told once, and the answer is not stored.
 *
 * Everything is done in the step in which it is asked for, as an `Exit`, unless a schema takes its time: a batch has a
 * thousand of these.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Random from "effect/Random"
import { CachemeError, NoDependencies } from "./CachemeError.ts"
import * as Codec from "./Codec.ts"
import type { Noted } from "./Dependencies.ts"
import { absence, type Entry } from "./Entry.ts"
import { freeze } from "./freeze.ts"
import * as Freshness from "./Freshness.ts"
import * as Node from "./Node.ts"
import type { Profiles } from "./Profile.ts"
import type { Settings } from "./Settings.ts"
import * as Tag from "./Tag.ts"

/** An outcome as the node's schemas see it. */
export interface Judged {
  readonly exit: Exit.Exit<any, any>
  /** True for a value or failure that the node's schemas accept. */
  readonly isStorable: boolean
  /** True unless the lookup could not tell: for every value, and for failures that the node declares. */
  readonly isAnswer: boolean
}

/** What is known of the lookup of an answer. */
export interface Observed {
  /** What it has noted; `undefined` when that could not be told. */
  readonly noted: Noted | undefined
  /** How long it took, in milliseconds. */
  readonly took: number
}

/** What an outcome is worth. */
export interface Appraisal extends Judged {
  /** All ids it rests on, its key first; `undefined` when that could not be told. */
  readonly ids: ReadonlyArray<string> | undefined
  /** How long it is good, in milliseconds; `Infinity` where nothing tells. */
  readonly timeToLive: number
  readonly entry: Entry | undefined
  /** True for an answer that only its time to live ends, where somebody may expect that more does. */
  readonly isBare: boolean
}

/** Appraises for one cache. */
export class Appraiser {
  readonly #settings: Settings
  readonly #profiles: Profiles
  readonly #warned = new Set<string>()

  constructor(settings: Settings, profiles: Profiles) {
    this.#settings = settings
    this.#profiles = profiles
  }

  /** The outcome as the node's schemas see it. */
  judge(node: Node.Any, outcome: Exit.Exit<any, any>): Effect.Effect<Judged> {
    if (outcome === absence) return Effect.succeed({ exit: outcome, isStorable: false, isAnswer: true })
    const isAnswer = Exit.isSuccess(outcome)
    return Effect.flatMapEager(
      Codec.accept(node[Node.TypeId], outcome),
      (accepted): Effect.Effect<Judged> => {
        switch (accepted._tag) {
          case "Storable": {
            const { exit } = accepted
            if (this.#settings.freeze && Exit.isSuccess(exit)) freeze(exit.value)
            return Effect.succeed({ exit, isStorable: true, isAnswer: true })
          }
          case "Undeclared":
            return Effect.succeed({ exit: outcome, isStorable: false, isAnswer })
          case "Rejected":
            this.#profiles.ofUnsafe(node[Node.TypeId]).counters.refused.rejected++
            return Effect.as(this.#warnOnce(node, `an answer is not stored: ${accepted.expected}`), {
              exit: outcome,
              isStorable: false,
              isAnswer
            })
        }
      }
    )
  }

  /** What an outcome is worth. `absentFor` is how long it is remembered that a batch had no answer. */
  appraise(
    node: Node.Any,
    policy: Node.Policy | undefined,
    outcome: Exit.Exit<any, any>,
    declared: ReadonlyArray<string> | undefined,
    { noted, took }: Observed,
    absentFor = 0
  ): Effect.Effect<Appraisal> {
    return Effect.flatMapEager(this.judge(node, outcome), (judged) =>
      Effect.flatMapEager(
        declared && noted ? this.answerIds(node, policy, judged, declared, noted.ids) : Effect.undefined,
        (ids) => {
          const isBare = this.#isBare(node, policy, judged, ids, noted)
          if (isBare && this.#settings.isDevelopment && Node.dependencies(node, policy) === "required")
            return Effect.succeed(withoutDependencies(node))
          const timeToLive =
            ids === undefined
              ? Effect.undefined
              : outcome === absence
                ? Effect.succeed(absentFor)
                : judged.isStorable
                  ? this.#timeToLive(node, policy, judged.exit)
                  : Effect.undefined
          return Effect.mapEager(timeToLive, (timeToLive): Appraisal => {
            if (ids === undefined || timeToLive === undefined || timeToLive === 0)
              return {
                ...judged,
                ids,
                // That it is not remembered that there is no answer says nothing of what rests on that.
                timeToLive: outcome === absence ? Infinity : (timeToLive ?? Infinity),
                entry: undefined,
                isBare
              }
            const keep = this.#profiles.freshnessOf(node, policy).onError
            return {
              ...judged,
              ids,
              isBare,
              timeToLive,
              entry: { exit: judged.exit, tags: ids.slice(1), timeToLive, took, keep }
            }
          })
        }
      )
    )
  }

  /** True for an answer that rests on its key and node only, and whose lookup has read nothing. */
  #isBare(
    node: Node.Any,
    policy: Node.Policy | undefined,
    { exit }: Judged,
    ids: ReadonlyArray<string> | undefined,
    noted: Noted | undefined
  ): boolean {
    return (
      Exit.isSuccess(exit) &&
      noted?.statements.length === 0 &&
      ids?.length === ownIds(node).length &&
      Node.dependencies(node, policy) !== "manual"
    )
  }

  /** What a failed batch is worth to one of its keys: no answer, but who recovers from it rests on what it has used. */
  failed(
    outcome: Exit.Exit<any, any>,
    declared: ReadonlyArray<string> | undefined,
    noted: Noted | undefined
  ): Appraisal {
    return {
      exit: outcome,
      isStorable: false,
      isAnswer: false,
      ids: declared && noted && [...new Set([...declared, ...noted.ids])],
      timeToLive: Infinity,
      entry: undefined,
      isBare: false
    }
  }

  /** How long an answer is good, in milliseconds; `Infinity` where nothing tells. */
  goodFor(
    node: Node.Any,
    policy: Node.Policy | undefined,
    { exit, isStorable }: Judged
  ): Effect.Effect<number> {
    return isStorable
      ? Effect.map(this.#timeToLive(node, policy, exit), (timeToLive) => timeToLive ?? Infinity)
      : Effect.succeed(Infinity)
  }

  /** All ids that an answer rests on, its key first; `undefined` when the node's own functions fail to tell. */
  answerIds(
    node: Node.Any,
    policy: Node.Policy | undefined,
    { exit, isStorable }: Judged,
    declared: ReadonlyArray<string>,
    recorded: ReadonlyArray<string>
  ): Effect.Effect<ReadonlyArray<string> | undefined> {
    const valueTags = policy?.valueTags ?? node[Node.TypeId].valueTags
    if (valueTags === undefined || Exit.isFailure(exit))
      return Effect.succeed([...new Set([...declared, ...recorded])])
    if (!isStorable) return Effect.undefined
    return this.#attempt(node, "valueTags", () => [
      ...new Set([...declared, ...recorded, ...this.#idsOf(valueTags(exit.value, node))])
    ])
  }

  /** The ids that an answer rests on as far as its key tells; `undefined` when the node's `tags` fail. */
  declaredIds(
    node: Node.Any,
    policy: Node.Policy | undefined
  ): Effect.Effect<ReadonlyArray<string> | undefined> {
    const tags = policy?.tags ?? node[Node.TypeId].tags
    if (tags === undefined) return Effect.succeed(ownIds(node))
    return this.#attempt(node, "tags", () => [...new Set([...ownIds(node), ...this.#idsOf(tags(node))])])
  }

  #idsOf(tags: Tag.Tags): ReadonlyArray<string> {
    const flat = Tag.flattenUnsafe(tags)
    for (const tag of flat) this.#profiles.definitions.meetUnsafe(tag[Tag.TypeId])
    return Tag.carriedIds(flat)
  }

  #timeToLive(
    node: Node.Any,
    policy: Node.Policy | undefined,
    exit: Exit.Exit<any, any>
  ): Effect.Effect<number | undefined> {
    const timeToLive = this.#attempt(node, "timeToLive", () => {
      const option = policy?.timeToLive ?? node[Node.TypeId].timeToLive ?? this.#settings.timeToLive
      const input = typeof option === "function" ? option(exit, node) : option
      if (!Node.isDuration(input)) throw new TypeError(`${String(input)} is not a Duration of zero or more`)
      return Duration.toMillis(Duration.fromInputUnsafe(input))
    })
    const jitter = policy?.refresh?.jitter ?? node[Node.TypeId].refresh?.jitter
    return jitter === undefined || jitter === 0
      ? timeToLive
      : Effect.zipWith(timeToLive, Random.next, (time, chance) =>
          time === undefined ? undefined : Freshness.jittered(time, jitter, chance)
        )
  }

  /** Runs a function of the node's; if it throws, that is counted and told once, and the answer is not stored. */
  #attempt<A>(node: Node.Any, what: string, f: () => A): Effect.Effect<A | undefined> {
    try {
      return Effect.succeed(f())
    } catch (error) {
      // Mixing up two definitions is a mistake in the program, not a fault of the cache.
      if (error instanceof CachemeError && error.reason._tag === "DefinitionConflict")
        return Effect.die(error)
      this.#profiles.ofUnsafe(node[Node.TypeId]).counters.refused.faulty++
      return Effect.as(
        this.#warnOnce(node, `an answer is not stored: ${what} failed: ${String(error)}`),
        undefined
      )
    }
  }

  #warnOnce(node: Node.Any, message: string): Effect.Effect<void> {
    return Effect.suspend(() => {
      const warning = `cacheme: node "${node[Node.TypeId].name}": ${message}`
      if (this.#warned.has(warning) || this.#warned.size >= 1000) return Effect.void
      this.#warned.add(warning)
      return Effect.logWarning(warning)
    })
  }
}

/** What an answer is worth that was required to rest on something. */
const withoutDependencies = (node: Node.Any): Appraisal => {
  const { name, id } = node[Node.TypeId]
  const error = new CachemeError({ reason: new NoDependencies({ node: name, key: id(node) }) })
  return {
    exit: Exit.die(error),
    isStorable: false,
    isAnswer: false,
    ids: undefined,
    timeToLive: Infinity,
    entry: undefined,
    isBare: true
  }
}

/** The ids that every answer to a node rests on: its key, its node, and the keys it lies within. */
export const ownIds = (node: Node.Any): ReadonlyArray<string> => {
  const definition = node[Node.TypeId]
  return [definition.id(node), ...definition.classIds, ...definition.ancestorIds(node)]
}
