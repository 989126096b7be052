/**
 * What one cache keeps of a node it has met: its numbers, the turns of its lookups, its windows.
 */
import type * as Context from "effect/Context"
import * as Semaphore from "effect/Semaphore"
import { Definitions } from "./Definition.ts"
import * as Freshness from "./Freshness.ts"
import { Counters, type Holding } from "./Metrics.ts"
import type { Any, NodeDefinition, Policy } from "./Node.ts"
import { TypeId } from "./Node.ts"
import type { Settings } from "./Settings.ts"
import type { Store } from "./Store.ts"

/** What is kept of one node. */
export interface Profile {
  readonly definition: NodeDefinition
  readonly counters: Counters
  /** One permit for each lookup that may run at once, if they are limited. */
  readonly turns: Semaphore.Semaphore | undefined
  /** True when a hit of it is all there is to do: nothing to skip, to tell or to look up early. */
  readonly isPlain: boolean
  /** The windows of calls that do not say. */
  readonly freshness: Freshness.Freshness
}

/** The nodes that one cache has met. */
export class Profiles {
  readonly definitions = new Definitions()
  readonly #byNumber: Array<Profile | undefined> = []
  readonly #unregister = new Map<string, () => void>()
  readonly #settings: Settings
  readonly #store: Store["Service"]
  readonly #context: Context.Context<never>

  /** Metrics are registered in the registry of this context. */
  constructor(settings: Settings, store: Store["Service"], context: Context.Context<never>) {
    this.#settings = settings
    this.#store = store
    this.#context = context
  }

  /** The profile of a node. Throws `DefinitionConflict` if another definition of its name has been met. */
  ofUnsafe(definition: NodeDefinition): Profile {
    const known = this.#byNumber[definition.number]
    return known?.definition === definition ? known : this.#meetUnsafe(definition)
  }

  #meetUnsafe(definition: NodeDefinition): Profile {
    this.definitions.meetUnsafe(definition)
    // A redefinition that is the same (hot reload) goes on with the numbers and turns of the earlier one.
    const earlier = this.#byNumber[definition.number]
    const { concurrency } = definition.lookup ?? {}
    const profile: Profile = {
      definition,
      counters: earlier?.counters ?? new Counters(),
      turns: earlier?.turns ?? (concurrency === undefined ? undefined : Semaphore.makeUnsafe(concurrency)),
      isPlain:
        this.#settings.enabled &&
        definition.skip === undefined &&
        definition.on?.hit === undefined &&
        definition.refresh?.ahead === undefined,
      freshness: Freshness.make([definition.stale, this.#settings.stale])
    }
    this.#byNumber[definition.number] = profile
    if (earlier === undefined) {
      const holding = () => this.holding(definition)
      this.#unregister.set(definition.name, profile.counters.register(definition, holding, this.#context))
    }
    return profile
  }

  /** The windows of one question. */
  freshnessOf(node: Any, policy: Policy | undefined): Freshness.Freshness {
    const profile = this.ofUnsafe(node[TypeId])
    return policy?.stale === undefined
      ? profile.freshness
      : Freshness.make([policy.stale, profile.definition.stale, this.#settings.stale])
  }

  /** What the store holds of a node. */
  holding(definition: NodeDefinition): Holding {
    return { entries: this.#store.size(definition), evictions: this.#store.evictions(definition) }
  }

  all(): ReadonlyArray<Profile> {
    return this.#byNumber.filter((profile) => profile !== undefined)
  }

  /** Takes the metrics out again. */
  close(): void {
    for (const unregister of this.#unregister.values()) unregister()
  }
}
