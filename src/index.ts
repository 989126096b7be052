/** Caching for Effect that is never wrong after a write. */
export type { BatchPolicy } from "./Batch.ts"
export {
  Cacheme,
  type Memoized,
  type Question,
  type Service,
  type SetOptions,
  type Stats
} from "./Cacheme.ts"
export {
  CachemeError,
  Closed,
  DefinitionConflict,
  InvalidDefinition,
  InvalidKey,
  InvalidSetting,
  InvalidTarget,
  InvalidValue,
  LookupTimeout,
  NoDependencies,
  StoreFailed,
  StoreUnavailable
} from "./CachemeError.ts"
export { CachemeLive } from "./CachemeLive.ts"
export type { Dependencies, Explanation, Fallback, Reason, Source } from "./Entry.ts"
export type * as Invalidation from "./Invalidation.ts"
export type { NodeStats, TableStats } from "./Metrics.ts"
export * as Node from "./Node.ts"
export type { Options as Settings } from "./Settings.ts"
export type { Log, Position, Status } from "./Store.ts"
export * as MemoryStore from "./store/MemoryStore.ts"
export * as RedisStore from "./store/RedisStore.ts"
export * as TieredStore from "./store/TieredStore.ts"
export * as Tag from "./Tag.ts"
