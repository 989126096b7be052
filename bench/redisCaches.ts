/**
 * What the workloads over Redis and their child processes share: the server's settings, the nodes, and the cache over
 * it.
 */
import { Effect, Layer, ManagedRuntime, Schema } from "effect"
import { Cacheme, Node, RedisStore, Tag, TieredStore } from "../src/index.ts"

/** How an answer is kept: in Redis alone, or with memory in front of it. */
export type Tier = "far" | "validated" | "bounded"

/** A tag that everything carries. */
export class All extends Tag.Class<All>()("all") {}

/** One of many tags. */
export class Numbered extends Tag.Class<Numbered>()("numbered", { number: Schema.Int }) {}

const firstTags = ({ tags }: { readonly tags: number }) =>
  Array.from({ length: tags }, (_, number) => new Numbered({ number }))

/** What is looked up where only its age matters. */
export const Versioned = Schema.Struct({ id: Schema.Int, version: Schema.Int })

/** A small answer that carries the tag of all. */
export class VersionNode extends Node.Class<VersionNode>()("version", {
  key: { id: Schema.Int },
  value: Versioned,
  timeToLive: "1 hour",
  tags: () => new All()
}) {}

/** Rows, as a query returns them: about 100 bytes each. */
export const Rows = Schema.Struct({
  id: Schema.Int,
  rows: Schema.Array(
    Schema.Struct({ id: Schema.Int, title: Schema.String, author: Schema.String, price: Schema.Finite })
  )
})

/** So many bytes of rows, with so many tags. */
export class RowsNode extends Node.Class<RowsNode>()("rows", {
  key: { id: Schema.Int, bytes: Schema.Int, tags: Schema.Int },
  value: Rows,
  timeToLive: "1 hour",
  tags: firstTags
}) {}

/** 1 KB of rows with five tags, asked for by a number alone. */
export class PageNode extends Node.Class<PageNode>()("page", {
  key: { id: Schema.Int },
  value: Rows,
  timeToLive: "1 hour",
  tags: () => firstTags({ tags: 5 })
}) {}

/** One text. */
export const Text = Schema.Struct({ id: Schema.Int, text: Schema.String })

/** So many bytes of text, with so many tags. */
export class TextNode extends Node.Class<TextNode>()("text", {
  key: { id: Schema.Int, bytes: Schema.Int, tags: Schema.Int },
  value: Text,
  timeToLive: "1 hour",
  tags: firstTags
}) {}

/** An answer of about so many bytes of JSON. */
export const rowsOf = (id: number, bytes: number): typeof Rows.Type => ({
  id,
  rows: Array.from({ length: Math.round((bytes - 17) / 88) }, (_, i) => ({
    id: 10_000 + i,
    title: `A book about the number ${10_000 + i}`,
    author: `Somebody ${id % 10}`,
    price: 9.95
  }))
})

/** An answer of about so many bytes of JSON. */
export const textOf = (id: number, bytes: number): typeof Text.Type => ({
  id,
  text: "All happy families are alike. ".repeat(Math.ceil(bytes / 30)).slice(0, bytes - 18)
})

/** The cache over Redis. Large answers take a loopback longer than the 100 milliseconds that a command usually may. */
export const makeRuntime = (
  url: string,
  tier: Tier,
  logCapacity = 200_000,
  prefix = "CM:"
): ManagedRuntime.ManagedRuntime<Cacheme, unknown> => {
  const options = { url, deadline: "10 seconds", freeze: false, required: true, logCapacity } as const
  return ManagedRuntime.make(
    Cacheme.layer({ freeze: false, prefix }).pipe(
      Layer.provide(
        tier === "far"
          ? RedisStore.layer({ ...options, prefix })
          : TieredStore.layer({ ...options, prefix, near: tier, capacity: 200_000 })
      )
    )
  )
}

/** A lookup that must not run. */
export const noLookup: Effect.Effect<never> = Effect.die(new Error("a miss where there should be a hit"))
