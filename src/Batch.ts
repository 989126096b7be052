/**
 * A batch answers many nodes at once, with one lookup for all that have no fresh answer.
 *
 * One synchronous pass over the store, with one reading of the clock, sorts the nodes: answered, answered stale, to be
 * computed alone, wanted. Wanted keys that are in the air already are joined; one lookup flies for the others, in a
 * fiber of its own, so what a batch leads is never held up by what it waits for, and two overlapping batches cannot
 * wait for each other for ever.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { Judged } from "./Appraisal.ts"
import { absence, type Stale } from "./Entry.ts"
import { type Crew, CurrentCrew, type Landing, mayTake } from "./Flight.ts"
import { shortcut } from "./Hit.ts"
import {
  type Any,
  flightKey,
  handUp,
  isDueEarly,
  isUsable,
  type Lookups,
  markStale,
  orAfter,
  told,
  type Trip
} from "./Lookups.ts"
import * as Node from "./Node.ts"
import { CurrentRecorder } from "./Recorder.ts"
import type { Found, Held, Now, Shared } from "./Store.ts"
import { CurrentTransaction, hiddenBy } from "./Transaction.ts"

/** Finds the answers of several nodes at once; one that is left out has none. */
export type BatchLookup<E, R> = (
  missing: ReadonlyArray<any>
) => Effect.Effect<Iterable<readonly [Node.Any, unknown]>, E, R>

/** The options of a batch's call. */
export interface BatchPolicy extends Node.Overrides {
  /** For how long it is remembered that the lookup had no answer for a key. Default not at all. */
  readonly absent?: Duration.Input | undefined
}

/** A key that is asked for, and its places in the list of answers. */
interface Wanted {
  readonly node: Node.Any
  readonly places: Array<number>
}

/** Keys by the names of their flights. */
type Keys<A> = ReadonlyMap<string, A>

/** Answers nodes in their order; a node that has no answer is `Option.none`. */
export const answerAll = (
  lookups: Lookups,
  nodes: ReadonlyArray<Node.Any>,
  lookup: BatchLookup<any, any>,
  policy: BatchPolicy = {}
): Effect.Effect<ReadonlyArray<Option.Option<any>>, any, any> =>
  Effect.withFiber((fiber) => new Batch(lookups, nodes, lookup, policy, fiber).run())

/** One call. */
class Batch {
  readonly #lookups: Lookups
  readonly #nodes: ReadonlyArray<Node.Any>
  readonly #lookup: BatchLookup<any, any>
  readonly #policy: BatchPolicy
  readonly #fiber: Fiber.Fiber<any, any>
  readonly #answers: Array<Option.Option<unknown>> = []
  readonly #wanted = new Map<string, Wanted>()
  readonly #alone = new Map<string, Wanted>()
  /** Keys that only a shared store can tell of. */
  readonly #unknown = new Map<string, Wanted>()
  readonly #refreshed = new Map<string, { readonly node: Node.Any; readonly newerThan: number }>()
  readonly #callbacks: Array<Effect.Effect<unknown>> = []

  constructor(
    lookups: Lookups,
    nodes: ReadonlyArray<Node.Any>,
    lookup: BatchLookup<any, any>,
    policy: BatchPolicy,
    fiber: Fiber.Fiber<any, any>
  ) {
    this.#lookups = lookups
    this.#nodes = nodes
    this.#lookup = lookup
    this.#policy = policy
    this.#fiber = fiber
  }

  run(): Effect.Effect<ReadonlyArray<Option.Option<unknown>>, any, any> {
    this.#sort()
    const { shared } = this.#lookups.store
    return shared === undefined || this.#unknown.size === 0
      ? this.#finish()
      : Effect.flatMap(this.#look(shared), () => this.#finish())
  }

  #finish(): Effect.Effect<ReadonlyArray<Option.Option<unknown>>, any, any> {
    const steps: Array<Any> = this.#callbacks
    if (this.#refreshed.size > 0) steps.push(this.#refreshSoon(this.#refreshed))
    if (this.#alone.size > 0) steps.push(this.#compute([...this.#alone.values()]))
    if (this.#wanted.size > 0) steps.push(this.#answerWanted())
    return steps.length === 0
      ? Effect.succeed(this.#answers)
      : Effect.as(
          Effect.forEach(steps, (step) => step, { discard: true }),
          this.#answers
        )
  }

  /** The synchronous pass. */
  #sort(): void {
    const moment = this.#moment()
    const { hit } = this.#lookups
    const mayHit = this.#mayHit()
    let place = 0
    for (const node of this.#nodes) {
      const found = mayHit ? hit(node, moment) : undefined
      this.#answers.push(found === undefined ? Option.none() : Option.some(found.value))
      if (found === undefined) this.#sortOne(node, place, moment)
      place++
    }
  }

  /** True when a hit, where there is one, is all there is to do: as for a single call (`Hit.ts`). */
  #mayHit(): boolean {
    const { skip, on, refresh } = this.#policy
    const hasWishes = skip !== undefined || on !== undefined || refresh !== undefined
    const isAlone =
      this.#fiber.getRef(CurrentTransaction) === undefined &&
      this.#fiber.getRef(CurrentRecorder) === undefined
    return shortcut.isOn && isAlone && !hasWishes
  }

  #sortOne(node: Node.Any, place: number, moment: Now): void {
    const { settings, store, profiles } = this.#lookups
    const { counters } = profiles.ofUnsafe(node[Node.TypeId])
    if (!settings.enabled || Node.isSkipped(node, this.#policy)) {
      counters.bypassed++
      return ask(this.#alone, node, [place])
    }
    const found = this.#lookups.atOnce(node, moment, this.#fiber)
    if (found !== undefined && this.#take(node, [place], found)) return
    if (store.shared !== undefined) ask(this.#unknown, node, [place])
    else this.#miss(node, [place], () => store.held(node, moment))
  }

  /** One moment for many looks. */
  #moment(): Now {
    const now = this.#fiber.getRef(Clock.Clock).currentTimeMillisUnsafe()
    return { currentTimeMillisUnsafe: () => now }
  }

  /** Asks a shared store for what memory does not tell: one round trip. */
  #look(shared: Shared): Effect.Effect<void> {
    const unknown = [...this.#unknown.values()]
    return Effect.map(
      shared.look(
        unknown.map(({ node }) => node),
        this.#moment()
      ),
      (looked) =>
        unknown.forEach(({ node, places }, i) => {
          const { found, held } = looked[i]!
          if (found === undefined) this.#miss(node, places, () => held)
          else if (!this.#take(node, places, found)) this.#miss(node, places, () => notHeld)
        })
    )
  }

  /** Takes a fresh answer, unless a transaction may not be given it. */
  #take(node: Node.Any, places: ReadonlyArray<number>, found: Found): boolean {
    if (hiddenBy(this.#fiber.getRef(CurrentTransaction), found) !== undefined) return false
    this.#lookups.profiles.ofUnsafe(node[Node.TypeId]).counters.hits += places.length
    this.#fiber.getRef(CurrentRecorder)?.addAnswer(found.ids(), found.expiresAt)
    this.#hit(node, places, found.exit)
    if (isDueEarly(node, this.#policy, found, this.#fiber))
      this.#refreshed.set(flightKey(node), { node, newerThan: found.expiresAt })
    return true
  }

  /** Decides on a key that has no fresh answer. */
  #miss(node: Node.Any, places: Array<number>, heldOf: () => Held): void {
    const { profiles } = this.#lookups
    const policy = this.#policy
    const definition = node[Node.TypeId]
    const { counters } = profiles.ofUnsafe(definition)
    if (this.#fiber.getRef(CurrentTransaction) !== undefined) {
      counters.bypassed += places.length
      ask(this.#alone, node, places)
      return
    }
    const held = heldOf()
    counters.misses[held.miss] += places.length
    if (held.by !== undefined) this.#lookups.ledger.ended(flightKey(node), held.by)
    if (isUsable(held.stale, profiles.freshnessOf(node, policy).atOnce, true)) {
      this.#hit(node, places, this.#lookups.giveStale(node, held.stale, this.#fiber))
      this.#refreshed.set(flightKey(node), { node, newerThan: -Infinity })
      this.#callbacks.push(markStale)
      return
    }
    ask(this.#wanted, node, places)
    const tell = (policy.on ?? definition.on)?.miss
    if (tell !== undefined) this.#callbacks.push(told(node, tell(node)))
  }

  #hit(node: Node.Any, places: ReadonlyArray<number>, exit: Exit.Exit<any, any>): void {
    const answer = Exit.getSuccess(exit)
    for (const place of places) this.#answers[place] = answer
    const tell = (this.#policy.on ?? node[Node.TypeId].on)?.hit
    if (tell !== undefined && Exit.isSuccess(exit)) this.#callbacks.push(told(node, tell(node, exit.value)))
  }

  #give(key: string, exit: Exit.Exit<any, any>): void {
    for (const place of this.#wanted.get(key)!.places) this.#answers[place] = Exit.getSuccess(exit)
  }

  /** Waits for the wanted keys' flights; where that fails, or takes too long, stale answers may do. */
  #answerWanted(): Effect.Effect<void, any, any> {
    const lookups = this.#lookups
    const nodes = new Map([...this.#wanted].map(([key, { node }]) => [key, node]))
    const policy = this.#policy
    const give = (key: string, node: Node.Any, stale: Stale) =>
      this.#give(key, lookups.giveStale(node, stale, this.#fiber))
    const newerThan = () => -Infinity
    const flown = this.#fly(nodes, this.#fiber.getRef(CurrentCrew), newerThan)
    const answered = Effect.flatMap(flown, (landings) => {
      // Also of a failure, which is recovered from perhaps, and before the first of them ends it.
      for (const [, landing] of landings) handUp(this.#fiber, landing)
      return Effect.forEach(
        landings,
        ([key, landing]) => {
          const node = nodes.get(key)!
          const otherwise = () => {
            if (!landing.isAnswer) return landing.exit
            this.#give(key, landing.exit)
            return Effect.void
          }
          const instead = lookups.instead(landing, node, policy, this.#fiber, true)
          if (instead === undefined) return otherwise()
          return Effect.flatMap(instead, (stale) => {
            if (stale === undefined) return otherwise()
            give(key, node, stale)
            return markStale
          })
        },
        { discard: true }
      )
    })
    const [first] = nodes.values()
    const { softTimeout } = Node.lookupOptions(first!, policy)
    if (softTimeout === undefined) return answered
    const instead = Effect.forEach(nodes, ([key, node]) =>
      Effect.map(
        lookups.whileMissing(node, policy, this.#fiber, true),
        (stale) => [key, node, stale] as const
      )
    )
    return orAfter(
      answered,
      softTimeout,
      Effect.map(instead, (all) => {
        if (all.some(([, , stale]) => stale === undefined)) return undefined
        const refreshed = new Map([...nodes].map(([key, node]) => [key, { node, newerThan: -Infinity }]))
        return Effect.flatMap(this.#refreshSoon(refreshed), () => {
          for (const [key, node, stale] of all) give(key, node, stale!)
          return markStale
        })
      })
    )
  }

  /** Joins the lookups of keys that are in the air, and starts one for the others. */
  #fly(
    nodes: Keys<Node.Any>,
    parent: Crew | undefined,
    newerThan: (key: string) => number
  ): Effect.Effect<ReadonlyArray<readonly [string, Landing]>, never, any> {
    const { flights } = this.#lookups
    const caller = flights.arrive(true)
    // A key whose flight was not for this caller is tried again; after the second time it relies on nobody else.
    const round = (
      keys: ReadonlyArray<string>,
      number: number
    ): Effect.Effect<ReadonlyArray<readonly [string, Landing]>, never, any> =>
      Effect.uninterruptibleMask((restore) =>
        Effect.suspend(() => {
          const joined = keys.flatMap((key) => {
            const flight =
              number > 2 || flights.wouldWait(parent, key) ? undefined : flights.join(key, parent)
            return flight === undefined ? [] : [flight]
          })
          const others = new Set(joined.map(({ key }) => key))
          const led = keys.filter((key) => !others.has(key))
          const leading =
            led.length === 0
              ? Effect.succeed([])
              : flights.lead(led, true, parent, (crew, own) => {
                  const departures = own.map((flight) => ({ node: nodes.get(flight.key)!, flight }))
                  const trip = this.#trip(Math.max(...led.map(newerThan)))
                  return this.#lookups.lookUp(crew, departures, this.#policy, trip)
                })
          return Effect.flatMap(leading, (own) => {
            const boarded = [...own, ...joined]
            const me = { ...caller, crew: own[0]?.crew }
            return Effect.flatMap(flights.awaitAll(boarded, parent, restore), () => {
              const again = boarded.filter((flight) => !mayTake(me, flight)).map(({ key }) => key)
              const taken = boarded.filter(({ key }) => !again.includes(key))
              const answers = taken.map(({ key, landed }) => [key, landed!] as const)
              return again.length === 0
                ? Effect.succeed(answers)
                : Effect.map(restore(round(again, number + 1)), (more) => [...answers, ...more])
            })
          })
        })
      )
    return round([...nodes.keys()], 1)
  }

  #trip(newerThan: number): Trip {
    const { absent } = this.#policy
    return {
      newerThan,
      absentFor: absent === undefined ? 0 : Duration.toMillis(Duration.fromInputUnsafe(absent)),
      lookup: (missing) => Effect.map(this.#lookup(missing), byKey),
      outcomeOf: (exit, node) => (Exit.isFailure(exit) ? undefined : outcomeOf(exit.value, node))
    }
  }

  #refreshSoon(
    refreshed: Keys<{ readonly node: Node.Any; readonly newerThan: number }>
  ): Effect.Effect<void, never, any> {
    return this.#lookups.refreshes.start([...refreshed.keys()], (keys) => {
      const nodes = new Map(keys.map((key) => [key, refreshed.get(key)!.node]))
      return Effect.map(
        this.#fly(nodes, undefined, (key) => refreshed.get(key)!.newerThan),
        (landings) => landings.every(([, { isAnswer }]) => isAnswer)
      )
    })
  }

  /** Computes without the cache, in the caller's own context. */
  #compute(asked: ReadonlyArray<Wanted>): Any {
    const lookups = this.#lookups
    const nodes = asked.map(({ node }) => node)
    const lookup = Effect.map(
      Effect.suspend(() => this.#lookup(nodes)),
      byKey
    )
    const computed = Effect.exit(lookups.computeOutcome(nodes, lookup, this.#policy, this.#fiber))
    return Effect.flatMap(computed, (exit): Any => {
      const handUpOf = (node: Node.Any, judged: Judged) =>
        lookups.handUpComputed(node, this.#policy, judged, this.#fiber)
      if (Exit.isFailure(exit)) {
        const failed = { exit, isStorable: false, isAnswer: false }
        return Effect.andThen(
          Effect.forEach(nodes, (node) => handUpOf(node, failed), { discard: true }),
          exit
        )
      }
      return Effect.forEach(
        asked,
        ({ node, places }) =>
          Effect.flatMap(lookups.appraiser.judge(node, outcomeOf(exit.value, node)), (judged) => {
            for (const place of places) this.#answers[place] = Exit.getSuccess(judged.exit)
            return handUpOf(node, judged)
          }),
        { discard: true }
      )
    })
  }
}

/** The list of places is its own from here on. */
const ask = (asked: Map<string, Wanted>, node: Node.Any, places: Array<number>): void => {
  const key = flightKey(node)
  const known = asked.get(key)
  if (known === undefined) asked.set(key, { node, places })
  else known.places.push(...places)
}

/** A fresh answer that a transaction may not be given. */
const notHeld: Held = { miss: "absent", stale: undefined }

const byKey = (pairs: Iterable<readonly [Node.Any, unknown]>): Keys<unknown> =>
  new Map([...pairs].map(([node, value]) => [flightKey(node), value]))

const outcomeOf = (values: Keys<unknown>, node: Node.Any): Exit.Exit<any, any> => {
  const key = flightKey(node)
  return values.has(key) ? Exit.succeed(values.get(key)) : absence
}
