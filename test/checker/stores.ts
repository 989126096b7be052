/** The store of each mode, as a user would have it, but for a lease as short as what goes wrong. */
import type { Layer } from "effect"
import { MemoryStore, RedisStore, TieredStore } from "../../src/index.ts"
import type { Store } from "../../src/Store.ts"
import { type Mode, prefixOf, type WorkerOptions } from "./messages.ts"

/** Makes the store of a mode. */
export const storeOf = (mode: Mode, { url, lease, bound }: WorkerOptions): Layer.Layer<Store, unknown> => {
  const redis = { url, prefix: prefixOf(mode), lease }
  switch (mode) {
    case "far":
      return RedisStore.layer(redis)
    case "validated":
      return TieredStore.layer({ ...redis, near: "validated" })
    case "bounded":
      return TieredStore.layer({ ...redis, near: "bounded", bound })
    case "memory":
      return MemoryStore.layer()
  }
}
