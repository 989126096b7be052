/**
 * The lookups of one cache: what happens when the cache has no fresh answer.
 *
 * A lookup that is shared flies (`fly`): it takes its position, runs in its turn, is appraised, and its answer stored
 * if the rule allows. One that is not to be shared is computed in its caller's own context (`compute`). What a stale
 * answer may do meanwhile, or instead, is told here too.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as LogLevel from "effect/LogLevel"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import { type Appraisal, Appraiser, type Judged, ownIds } from "./Appraisal.ts"
import { type Noted, nothing, share } from "./Dependencies.ts"
import { absence, type Entry, type Stale, type Windows } from "./Entry.ts"
import { Crew, CurrentCrew, type Flight, Flights, type Landing } from "./Flight.ts"
import * as Freshness from "./Freshness.ts"
import type { Hit } from "./Hit.ts"
import type { Ledger } from "./Ledger.ts"
import * as Lookup from "./Lookup.ts"
import * as Node from "./Node.ts"
import type { Profiles } from "./Profile.ts"
import { CurrentRecorder, Recorder } from "./Recorder.ts"
import { Refreshes } from "./Refresh.ts"
import type { Settings } from "./Settings.ts"
import {
  type Acquired,
  type Fill,
  type Found,
  type Held,
  noValue,
  type Now,
  type Store,
  type Stored
} from "./Store.ts"
import { CurrentTransaction } from "./Transaction.ts"

/** An effect that finds an answer, whatever it fails with and needs. */
export type Any = Effect.Effect<any, any, any>

/** One key of a lookup, and the flight that brings its answer. */
export interface Departure {
  readonly node: Node.Any
  readonly flight: Flight
}

/** What a crew flies for. */
export interface Trip {
  readonly lookup: (missing: ReadonlyArray<Node.Any>) => Any
  /** The outcome for one key; `undefined` for a batch that has failed. */
  readonly outcomeOf: (exit: Exit.Exit<any, any>, node: Node.Any) => Exit.Exit<any, any> | undefined
  /** It looks up unless there is a fresh answer that ages out later than this, in milliseconds since the epoch. */
  readonly newerThan: number
  /** For how many milliseconds it is remembered that there was no answer. */
  readonly absentFor?: number
}

/** The lookups of one cache. */
export class Lookups {
  readonly flights: Flights
  readonly refreshes: Refreshes
  readonly appraiser: Appraiser
  readonly profiles: Profiles
  readonly ledger: Ledger
  readonly store: Store["Service"]
  readonly settings: Settings

  /** Lookups and refreshes run in this scope. */
  constructor(
    settings: Settings,
    store: Store["Service"],
    profiles: Profiles,
    ledger: Ledger,
    scope: Scope.Scope
  ) {
    this.settings = settings
    this.store = store
    this.profiles = profiles
    this.ledger = ledger
    this.flights = new Flights(scope)
    this.refreshes = new Refreshes(scope)
    this.appraiser = new Appraiser(settings, profiles)
  }

  /** The fresh value of a node without wishes of its own: all of an answer that needs no fiber. */
  readonly hit: Hit = (node, now) => {
    const profile = this.profiles.ofUnsafe(Node.definitionOf(node))
    if (!profile.isPlain) return undefined
    const found = this.store.peek(node, now)
    if (found === undefined || found.value === noValue) return undefined
    profile.counters.hits++
    return found
  }

  /** The fresh answer that may be given at once. */
  atOnce(node: Node.Any, now: Now, fiber: Fiber.Fiber<any, any>): Found | undefined {
    // What a lookup uses must be true at its start, which memory in front of a shared store does not tell.
    const mustAsk = noteAsked(fiber, [node]) && this.store.shared !== undefined
    return mustAsk ? undefined : this.store.peek(node, now)
  }

  // ------------------------------------------------------------------------------------------------------- shared

  /** Joins or starts the lookup of a key. */
  fly(
    node: Node.Any,
    lookup: Any,
    policy: Node.Policy | undefined,
    parent: Crew | undefined,
    newerThan = -Infinity
  ): Effect.Effect<Landing, never, any> {
    return this.flights.board(
      flightKey(node),
      parent,
      (crew, [flight]) =>
        this.lookUp(crew, [{ node, flight: flight! }], policy, {
          newerThan,
          lookup: () => lookup,
          outcomeOf: (exit) => exit
        }),
      () =>
        Effect.map(Effect.exit(lookup), (exit) => ({
          exit,
          isAnswer: true,
          isSound: true,
          ids: undefined,
          expiresAt: Infinity
        }))
    )
  }

  /** Refreshes a key in the background, unless that is being done. `newerThan` is when a fresh answer ages out. */
  refreshSoon(
    node: Node.Any,
    lookup: Any,
    policy: Node.Policy | undefined,
    newerThan = -Infinity
  ): Effect.Effect<void, never, any> {
    return this.refreshes.start([flightKey(node)], () =>
      Effect.map(this.fly(node, lookup, policy, undefined, newerThan), ({ isAnswer }) => isAnswer)
    )
  }

  /** Runs the lookup of a crew, lands each of its flights, and stores the answers that the rule allows. */
  lookUp(
    crew: Crew,
    departures: ReadonlyArray<Departure>,
    policy: Node.Policy | undefined,
    trip: Trip
  ): Effect.Effect<void, never, any> {
    return Effect.withFiber((fiber) => {
      const clock = fiber.getRef(Clock.Clock)
      const isShared = this.store.shared !== undefined
      // Another flight may have landed between the callers' look and now. A store that is shared tells of it later.
      const missing = departures.filter(({ node, flight }) => {
        const found = isShared ? undefined : this.store.peek(node, clock)
        if (found === undefined || !willDo(found, crew, trip)) return true
        this.#landFound(flight, found)
        return false
      })
      return missing.length === 0 ? Effect.void : this.#lookUpMissing(crew, missing, policy, trip)
    })
  }

  /** Lands a flight with an answer that was there all the same. */
  #landFound(flight: Flight, found: Found): void {
    this.ledger.forgetEnd(flight.key)
    // Another process may have invalidated it since it was read: it is for those who were there before.
    const isSound = this.store.shared === undefined
    const { exit, expiresAt } = found
    this.#land(flight, { exit, isAnswer: true, isSound, ids: found.ids(), expiresAt })
  }

  #lookUpMissing(
    crew: Crew,
    missing: ReadonlyArray<Departure>,
    policy: Node.Policy | undefined,
    trip: Trip
  ): Effect.Effect<void, never, any> {
    return Effect.gen({ self: this }, function* () {
      const clock = yield* Clock.Clock
      const how = this.#how(
        missing.map(({ node }) => node),
        policy,
        clock
      )
      const herd = new Herd(Node.herd(missing[0]!.node), crew, this.store.shared?.lease ?? 0, clock)
      let left: ReadonlyArray<Ready> = yield* Effect.forEach(missing, (departure) =>
        Effect.map(this.appraiser.declaredIds(departure.node, policy), (declared) => ({
          ...departure,
          declared,
          isImpatient: false
        }))
      )
      for (;;) {
        const elsewhere = yield* this.#round(crew, left, policy, trip, how, herd.isOver)
        if (elsewhere.length === 0) return
        // Other processes look these up: what they store is as good.
        const waited = yield* Effect.exit(how.limit?.within(herd.wait(elsewhere)) ?? herd.wait(elsewhere))
        left = elsewhere.map(({ ready }) => ready)
        if (Exit.isFailure(waited))
          return yield* this.#settleAll(left, new Map(), policy, trip, waited, neverFlown, 0)
      }
    })
  }

  /** Looks up what nobody else does, in its turn, lands it, and tells who looks up the others. */
  #round(
    crew: Crew,
    left: ReadonlyArray<Ready>,
    policy: Node.Policy | undefined,
    trip: Trip,
    how: Lookup.Run,
    isImpatient: boolean
  ): Effect.Effect<ReadonlyArray<Waiting>, never, any> {
    const fills = new Map<Ready, Fill>()
    const elsewhere: Array<Waiting> = []
    const endAll = Effect.suspend(() => Effect.forEach(fills.values(), (fill) => fill.end, { discard: true }))
    const round = Effect.gen({ self: this }, function* () {
      const clock = yield* Clock.Clock
      // Positions are read before the lookup starts, so that an invalidation during it wins.
      const begin = this.#begin(crew, left, trip, isImpatient, clock, (ready, acquired) => {
        if (acquired._tag === "Found") this.#landFound(ready.flight, acquired.found)
        else if (acquired._tag === "Elsewhere") elsewhere.push({ ready, woken: acquired.woken })
        else {
          const { fill } = acquired
          ready.flight.isOvertaken = () => fill.isOvertaken()
          fills.set(ready, fill)
        }
      })
      let startedAt = clock.currentTimeMillisUnsafe()
      let nodes: ReadonlyArray<Node.Any> = []
      const recorder = new Recorder(
        left.some(({ node }) => Node.dependencies(node, policy) !== "manual"),
        () => this.ledger.late(nodes[0]![Node.TypeId])
      )
      const lookup = () => {
        if (fills.size === 0) return Effect.void
        nodes = Array.from(fills.keys(), ({ node }) => node)
        startedAt = clock.currentTimeMillisUnsafe()
        return Effect.updateContext(
          Effect.suspend(() => trip.lookup(nodes)),
          lookupContext(recorder, crew)
        )
      }
      const outcome = yield* Effect.exit(Lookup.run(begin, lookup, how, crew))
      const took = clock.currentTimeMillisUnsafe() - startedAt
      const recording = recorder.close()
      const { answers, expiresAt } = recording
      const flown = { notedOf: share(recording, nodes), answers, expiresAt, took }
      const isElsewhere = new Set(elsewhere.map(({ ready }) => ready))
      // Also what was stopped before it could begin.
      const own = left.filter((ready) => ready.flight.landed === undefined && !isElsewhere.has(ready))
      yield* this.#settleAll(own, fills, policy, trip, outcome, flown, startedAt)
    })
    return Effect.as(Effect.ensuring(round, endAll), elsewhere)
  }

  /** Begins the fills of lookups; `take` is given what there is for each. */
  #begin(
    crew: Crew,
    left: ReadonlyArray<Ready>,
    trip: Trip,
    isImpatient: boolean,
    clock: Clock.Clock,
    take: (ready: Ready, acquired: Acquired) => void
  ): Effect.Effect<void> {
    const { store } = this
    const { shared } = store
    const knownOf = ({ node, declared }: Ready) => declared ?? ownIds(node)
    // What was begun must be ended: nothing may come between the two.
    return Effect.uninterruptibleMask((restore) => {
      if (shared === undefined)
        return Effect.forEach(
          left,
          (ready) =>
            Effect.map(restore(store.begin(ready.node, knownOf(ready))), (fill) =>
              take(ready, { _tag: "Fill", fill })
            ),
          { discard: true }
        )
      const wanted = left.map((ready) => ({
        node: ready.node,
        known: knownOf(ready),
        isImpatient: isImpatient || ready.isImpatient,
        accepts: (found: Found) => willDo(found, crew, trip)
      }))
      return Effect.map(shared.acquire(wanted, clock), (acquired) =>
        left.forEach((ready, i) => take(ready, acquired[i]!))
      )
    })
  }

  /** Lands flights with the outcome of their lookup, and stores what of it may be stored. */
  #settleAll(
    settled: ReadonlyArray<Ready>,
    fills: ReadonlyMap<Ready, Fill>,
    policy: Node.Policy | undefined,
    trip: Trip,
    outcome: Exit.Exit<any, any>,
    flown: Flown,
    startedAt: number
  ): Effect.Effect<void> {
    if (settled.length === 0) return Effect.void
    this.#count(
      settled.map(({ node }) => node),
      outcome,
      flown.took
    )
    return Effect.forEach(
      settled,
      (ready) => this.#settle(ready, fills.get(ready), policy, trip, outcome, flown, startedAt),
      // A store that is shared takes many answers in one round trip.
      { discard: true, concurrency: this.store.shared === undefined ? 1 : "unbounded" }
    )
  }

  #settle(
    { node, flight, declared }: Ready,
    fill: Fill | undefined,
    policy: Node.Policy | undefined,
    trip: Trip,
    outcome: Exit.Exit<any, any>,
    { notedOf, answers, expiresAt: usedUntil, took }: Flown,
    startedAt: number
  ): Effect.Effect<void> {
    const own = trip.outcomeOf(outcome, node)
    const noted = notedOf(node)
    const appraised: Effect.Effect<Appraisal> =
      own === undefined
        ? Effect.succeed(this.appraiser.failed(outcome, declared, noted))
        : this.appraiser.appraise(node, policy, own, declared, { noted, took }, trip.absentFor)
    return Effect.flatMapEager(appraised, ({ exit, isAnswer, ids, timeToLive, entry, isBare }) => {
      const now = startedAt + took
      const left = Math.min(timeToLive, usedUntil - now)
      // Closed to joiners first: whoever comes now starts anew or finds what is stored.
      this.flights.close(flight)
      const warning = this.#enter(node, flight.key, isAnswer ? exit : undefined, noted, ids)
      const end = (stored: Stored | undefined, isSound: boolean) => {
        this.#land(flight, { exit, isAnswer, isSound, ids, expiresAt: now + left })
        const logged = this.#log(node, startedAt, took, exit, stored, isBare)
        return warning === undefined ? logged : Effect.andThen(Effect.logWarning(warning), logged)
      }
      if (fill === undefined) return end(undefined, true)
      const isNested = answers.length > 0 || usedUntil < Infinity
      // What has used an answer is kept no longer than that one.
      const kept =
        !isNested || !entry ? entry : left > 0 ? { ...entry, timeToLive: left, answers } : undefined
      return Effect.flatMap(this.#store(fill, node, kept, isAnswer), (stored) =>
        stored === undefined
          ? Effect.flatMap(fill.isQuiet(answers), (isQuiet) => end(undefined, isQuiet))
          : end(stored, stored === "stored")
      )
    })
  }

  /** Enters the answer of a lookup into the books. Returns what is to be warned of. */
  #enter(
    node: Node.Any,
    key: string,
    answer: Exit.Exit<any, any> | undefined,
    noted: Noted | undefined,
    ids: ReadonlyArray<string> | undefined
  ): string | undefined {
    if (answer === undefined || noted === undefined || ids === undefined) return undefined
    if (noted.collapsed.length > 0) this.profiles.ofUnsafe(node[Node.TypeId]).counters.collapsed++
    return this.ledger.answered(key, noted, ids, answer)
  }

  #land(flight: Flight, landing: Landing): void {
    this.flights.close(flight)
    flight.land(landing)
  }

  /** Stores what may be stored, and counts what is refused; `undefined` if it was not to be stored. */
  #store(
    fill: Fill,
    node: Node.Any,
    entry: Entry | undefined,
    isAnswer: boolean
  ): Effect.Effect<Stored | undefined> {
    if (entry === undefined) {
      fill.noteUnstored()
      return isAnswer ? Effect.as(fill.discard, undefined) : Effect.undefined
    }
    return Effect.map(fill.store(entry), (stored) => {
      this.countRefusal(node, stored)
      return stored
    })
  }

  /** Counts an answer that was not stored though it was to be. */
  countRefusal(node: Node.Any, stored: Stored): void {
    const { refused } = this.profiles.ofUnsafe(node[Node.TypeId]).counters
    if (stored === "overtaken") refused.overtaken++
    if (stored === "too large") refused.tooLarge++
    if (stored === "failed") refused.failed++
  }

  #count(nodes: ReadonlyArray<Node.Any>, outcome: Exit.Exit<any, any>, took: number): void {
    for (const definition of new Set(nodes.map((node) => node[Node.TypeId]))) {
      const { counters } = this.profiles.ofUnsafe(definition)
      counters.lookups++
      counters.took(took)
      if (Exit.isFailure(outcome)) counters.failures++
    }
  }

  #log(
    node: Node.Any,
    startedAt: number,
    took: number,
    exit: Exit.Exit<any, any>,
    stored: Stored | undefined,
    isBare: boolean
  ): Effect.Effect<void> {
    return Effect.withFiber((fiber) => {
      if (LogLevel.isGreaterThan(fiber.cache.minimumLogLevel, "Debug")) return Effect.void
      const { name, id } = node[Node.TypeId]
      const outcome = Exit.isSuccess(exit) ? "answered" : exit === absence ? "had no answer" : "failed"
      const fate = stored === undefined ? "not to be stored" : fates[stored]
      return Effect.logDebug(
        `cacheme: looked up ${this.settings.prefix}${id(node)} in ${took} ms: ${outcome}, ${fate}${isBare ? "; it carries no tag, only its time to live ends it" : ""}`
      ).pipe(Effect.annotateLogs({ node: name, startedAt: new Date(startedAt).toISOString() }))
    })
  }

  /** How the lookup of nodes is run. A batch goes by its first node. */
  #how(
    nodes: ReadonlyArray<Node.Any>,
    policy: Node.Policy | undefined,
    clock: Clock.Clock,
    isInTransaction = false
  ): Lookup.Run {
    const { turns, definition } = this.profiles.ofUnsafe(nodes[0]![Node.TypeId])
    const { timeout, retry } = Node.lookupOptions(nodes[0]!, policy)
    const key = () =>
      nodes.length === 1 ? definition.id(nodes[0]) : `${nodes.length} keys of ${definition.name}`
    const limit = timeout === undefined ? undefined : new Lookup.Limit(timeout, key(), clock)
    return isInTransaction
      ? // Nothing waits for a turn there, whose holder may wait for the transaction's connection; and what has failed
        // cannot be tried again.
        { limit, retry: undefined, turns: undefined }
      : { limit, retry, turns }
  }

  // ------------------------------------------------------------------------------------------------------ not shared

  /** Computes without the cache, in the caller's own context; the answer is the schema's all the same. */
  compute(
    node: Node.Any,
    lookup: Any,
    policy: Node.Policy | undefined,
    fiber: Fiber.Fiber<any, any>
  ): Effect.Effect<any, any, any> {
    return Effect.flatMap(Effect.exit(this.computeOutcome([node], lookup, policy, fiber)), (outcome) =>
      Effect.flatMap(this.appraiser.judge(node, outcome), (judged) =>
        Effect.andThen(this.handUpComputed(node, policy, judged, fiber), judged.exit)
      )
    )
  }

  /** Runs a lookup of nodes in the caller's own context. */
  computeOutcome(
    nodes: ReadonlyArray<Node.Any>,
    lookup: Any,
    policy: Node.Policy | undefined,
    fiber: Fiber.Fiber<any, any>
  ): Any {
    return Effect.suspend(() => {
      const isInTransaction = fiber.getRef(CurrentTransaction) !== undefined
      const parent = fiber.getRef(CurrentCrew)
      const crew = new Crew(false)
      parent?.waitFor(crew)
      const how = this.#how(nodes, policy, fiber.getRef(Clock.Clock), isInTransaction)
      noteAsked(fiber, nodes)
      const inCrew = () => Effect.provideService(lookup, CurrentCrew, crew)
      return Effect.ensuring(
        Lookup.run(Effect.void, inCrew, how, crew),
        Effect.sync(() => parent?.waitsFor.delete(crew))
      )
    })
  }

  /** Tells the lookup that the fiber works for what a computed answer rests on. */
  handUpComputed(
    node: Node.Any,
    policy: Node.Policy | undefined,
    judged: Judged,
    fiber: Fiber.Fiber<any, any>
  ): Effect.Effect<void> {
    const { appraiser } = this
    const recorder = fiber.getRef(CurrentRecorder)
    if (recorder === undefined) return Effect.void
    return Effect.gen(function* () {
      const declared = yield* appraiser.declaredIds(node, policy)
      const ids = declared && (yield* appraiser.answerIds(node, policy, judged, declared, []))
      // What it has found of rows that the transaction has changed was never true, unless that is committed.
      const isUncommitted =
        ids !== undefined && fiber.getRef(CurrentTransaction)?.changed.reaches(ids) !== undefined
      if (ids === undefined || isUncommitted) recorder.addUnknown()
      else recorder.add(ids)
      const goodFor = yield* appraiser.goodFor(node, policy, judged)
      recorder.addExpiry(fiber.getRef(Clock.Clock).currentTimeMillisUnsafe() + goodFor)
    })
  }

  // ------------------------------------------------------------------------------------------------------- stale

  /** Gives a stale answer: it is counted, and what rests on it cannot be stored. */
  giveStale(node: Node.Any, stale: Stale, fiber: Fiber.Fiber<any, any>): Exit.Exit<any, any> {
    this.profiles.ofUnsafe(node[Node.TypeId]).counters.stale++
    // An answer that rests on a stale one is never kept as fresh.
    fiber.getRef(CurrentRecorder)?.addUnknown()
    return stale.exit
  }

  /** Gives a stale answer, and tells the caller's span, if there is one. */
  answerStale(node: Node.Any, stale: Stale, fiber: Fiber.Fiber<any, any>): Effect.Effect<any, any> {
    return Effect.andThen(markStale, this.giveStale(node, stale, fiber))
  }

  /** The stale answer that may be given while there is no answer: the lookup is slow, or has failed. */
  whileMissing(
    node: Node.Any,
    policy: Node.Policy | undefined,
    fiber: Fiber.Fiber<any, any>,
    isBatch = false
  ): Effect.Effect<Stale | undefined> {
    const clock = fiber.getRef(Clock.Clock)
    const { onError } = this.profiles.freshnessOf(node, policy)
    const usable = ({ stale }: Held) => (isUsable(stale, onError, isBatch) ? stale : undefined)
    const { shared } = this.store
    return shared === undefined
      ? Effect.sync(() => usable(this.store.held(node, clock)))
      : Effect.map(shared.look([node], clock), ([looked]) => looked!.held && usable(looked!.held))
  }

  /** The stale answer that may be given instead of what a flight has landed with: not of an answer. */
  instead(
    { exit, isAnswer }: Landing,
    node: Node.Any,
    policy: Node.Policy | undefined,
    fiber: Fiber.Fiber<any, any>,
    isBatch = false
  ): Effect.Effect<Stale | undefined> | undefined {
    const hasFailed = !isAnswer && Exit.isFailure(exit) && !Cause.hasInterruptsOnly(exit.cause)
    return hasFailed ? this.whileMissing(node, policy, fiber, isBatch) : undefined
  }
}

/** True for an answer that a lookup need not be made for. */
const willDo = ({ expiresAt, exit }: Found, crew: Crew, { newerThan }: Trip): boolean =>
  expiresAt > newerThan && (exit !== absence || crew.isBatch)

/** A departure, and the ids that its answer rests on as far as its key tells. */
interface Ready extends Departure {
  readonly declared: ReadonlyArray<string> | undefined
  /** True when it waits no more for who else looks it up. */
  isImpatient: boolean
}

/** A departure whose key another process looks up. */
interface Waiting {
  readonly ready: Ready
  readonly woken: Effect.Effect<boolean>
}

/** Waits for other processes: until one of them is heard of, or it is time to look again by the schedule. */
class Herd {
  isOver = false
  #step: Effect.Effect<unknown, unknown> | undefined
  #endsAt = Infinity
  readonly #schedule: Schedule.Schedule<unknown>
  readonly #crew: Crew
  readonly #patience: number
  readonly #clock: Clock.Clock

  /**
   * Waits for so many milliseconds once its crew is waited for by another one: that may be, in the end, what the process
   * that it waits for waits for itself.
   */
  constructor(schedule: Schedule.Schedule<unknown>, crew: Crew, patience: number, clock: Clock.Clock) {
    this.#schedule = schedule
    this.#crew = crew
    this.#patience = patience
    this.#clock = clock
  }

  wait(waiting: ReadonlyArray<Waiting>): Effect.Effect<void> {
    return Effect.gen({ self: this }, function* () {
      if (this.#step === undefined) {
        const step = yield* Schedule.toStepWithSleep(this.#schedule)
        this.#step = Effect.suspend(() => step(undefined))
      }
      const woken = Effect.forEach(
        waiting,
        ({ ready, woken }) =>
          Effect.map(woken, (wasVain) => {
            ready.isImpatient = wasVain
          }),
        { concurrency: "unbounded", discard: true }
      )
      // The schedule fails when it is over: then it waits no more.
      const isOver = yield* Effect.raceFirst(
        Effect.as(woken, false),
        Effect.matchCause(this.#step, { onSuccess: () => false, onFailure: () => true })
      )
      const now = this.#clock.currentTimeMillisUnsafe()
      if (this.#crew.isAwaited) this.#endsAt = Math.min(this.#endsAt, now + this.#patience)
      this.isOver ||= isOver || now >= this.#endsAt
    })
  }
}

/** How a lookup went. */
interface Flown {
  /** What it has noted for a key; `undefined` when that could not be told. */
  readonly notedOf: (node: Node.Any) => Noted | undefined
  /** What each of the memoized answers rests on that it has used. */
  readonly answers: ReadonlyArray<ReadonlyArray<string>>
  /** When the first of what it has used ages out, in milliseconds since the epoch. */
  readonly expiresAt: number
  /** How long it took, in milliseconds. */
  readonly took: number
}

/** A lookup that others ran, and that came to nothing. */
const neverFlown: Flown = { notedOf: () => nothing, answers: [], expiresAt: Infinity, took: 0 }

/** Tells the caller's span, if there is one, that it was given a stale answer. */
export const markStale: Effect.Effect<void> = Effect.annotateCurrentSpan("cacheme.stale", true)

const fates: Record<Stored, string> = {
  stored: "stored",
  overtaken: "not stored, invalidated meanwhile",
  "too large": "not stored, too large",
  failed: "not stored, the store failed"
}

/** What tells flights apart. The id of a node begins with its name; that of a one-off is whatever was given. */
export const flightKey = (node: Node.Any): string => {
  const { name, id, isOneOff } = node[Node.TypeId]
  return isOneOff === true ? `${name}\n${id(node)}` : id(node)
}

/** Tells the lookup that the fiber works for which answer was used. */
export const handUp = (
  fiber: Fiber.Fiber<any, any>,
  { ids, expiresAt }: Pick<Landing, "ids" | "expiresAt">
): void => {
  const recorder = fiber.getRef(CurrentRecorder)
  if (ids === undefined) recorder?.addUnknown()
  else recorder?.addAnswer(ids, expiresAt)
}

/**
 * Tells the lookup that the fiber works for, if there is one, what is asked for; true if there is one. Before anything is
 * waited for: who gives up waiting rests on what it has asked for, too.
 */
export const noteAsked = (fiber: Fiber.Fiber<any, any>, nodes: ReadonlyArray<Node.Any>): boolean => {
  const recorder = fiber.getRef(CurrentRecorder)
  if (recorder === undefined) return false
  for (const node of nodes) recorder.add(ownIds(node))
  return true
}

/** A lookup works for all its callers: it records for itself, and has no scope that one of them could close. */
const lookupContext =
  (recorder: Recorder, crew: Crew) =>
  (context: Context.Context<any>): Context.Context<any> =>
    Context.add(Context.add(Context.omit(Scope.Scope)(context), CurrentRecorder, recorder), CurrentCrew, crew)

/** True for a stale answer that may be given. That a batch had no answer is one to batches only. */
export const isUsable = (stale: Stale | undefined, windows: Windows, isBatch = false): stale is Stale =>
  stale !== undefined && (isBatch || stale.exit !== absence) && Freshness.isWithin(stale, windows)

/** True when a fresh answer is to be looked up early, this time. Inside a transaction none is. */
export const isDueEarly = (
  node: Node.Any,
  policy: Node.Policy | undefined,
  found: Found,
  fiber: Fiber.Fiber<any, any>
): boolean => {
  const ahead = policy?.refresh?.ahead ?? node[Node.TypeId].refresh?.ahead
  if (ahead === undefined || fiber.getRef(CurrentTransaction) !== undefined) return false
  const now = fiber.getRef(Clock.Clock).currentTimeMillisUnsafe()
  return Freshness.isDueEarly(found, ahead, now, fiber.getRef(Random.Random).nextDoubleUnsafe())
}

/** Runs a callback, whose failure is logged and changes nothing. */
export const told = (node: Node.Any, callback: Effect.Effect<unknown>): Effect.Effect<unknown> =>
  Effect.catchCause(callback, (cause) =>
    Cause.hasInterruptsOnly(cause)
      ? Effect.failCause(cause)
      : Effect.logWarning(`cacheme: node "${node[Node.TypeId].name}": a callback failed`, cause)
  )

/** Goes on as `instead` says when it takes longer, or waits on if that says nothing. */
export const orAfter = <A, E, R, A2, E2, R2>(
  self: Effect.Effect<A, E, R>,
  duration: Duration.Input,
  instead: Effect.Effect<Effect.Effect<A2, E2, R2> | undefined>
): Effect.Effect<A | A2, E | E2, R | R2> =>
  Effect.raceFirst(
    self,
    Effect.flatMap(Effect.andThen(Effect.sleep(duration), instead), (other) => other ?? Effect.never)
  )
