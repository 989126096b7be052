/**
 * What must be known of tables and functions to tell what a query reads: `recording.ts` and `relations.ts` know it, from
 * the server, Drizzle's schema and the models; `queryReads.ts` asks for it.
 */
import type { Node, RangeVar, SelectStmt } from "libpg-query"
import type { Kind } from "./columnText.ts"
import type { KeyColumn, ToldColumn } from "./modelDefinition.ts"

/** What is known of tables and functions; `undefined` for what has not been asked yet. */
export interface Facts {
  readonly relation: (table: RangeVar) => Relation | "none" | undefined
  readonly function: (schema: string | undefined, name: string) => FunctionNature | undefined
}

/** What must be known of a table to tell which part of it is read. */
export interface Relation {
  /** As it is called in tags. */
  readonly name: string
  /** The same for no other table, whatever that is called. */
  readonly identity: string
  /** Its columns by their names on the server, in order, with the kind of those whose values have a canonical text. */
  readonly columns: ReadonlyMap<string, Kind | undefined>
  /** What its model declares; `undefined` if there is none. */
  readonly model: RelationModel | undefined
  /** Sets of columns of which no two rows have equal values; nulls aside. */
  readonly uniques: ReadonlyArray<ReadonlyArray<string>>
  /** Foreign keys that hold. */
  readonly foreignKeys: ReadonlyArray<ForeignKey>
  /** What it shows, of a view. */
  readonly view: SelectStmt | undefined
  /** True when row-level security may hide rows of it. */
  readonly hidesRows: boolean
  /** Conditions of its policies, where it has row-level security. */
  readonly policies: ReadonlyArray<Node>
  /** Why no write tells of its changes, if so. */
  readonly untold: string | undefined
}

/** What the model of a table declares, by the names of columns on the server. */
export interface RelationModel {
  readonly keys: ReadonlyArray<RelationKey>
  readonly properties: ReadonlyMap<string, KeyColumn>
  /** The columns of each group of volatile ones. */
  readonly volatile: ReadonlyMap<string, ReadonlySet<string>>
}

/** A key by which rows are told, with the names of its columns on the server. */
export interface RelationKey {
  readonly columns: ReadonlyArray<ToldColumn & { readonly name: string }>
  /** True when no two rows have equal values in it; nulls aside. */
  readonly isUnique: boolean
}

interface ForeignKey {
  readonly columns: ReadonlyArray<string>
  /** The identity of the table that is referred to. */
  readonly refersTo: string
  readonly referenced: ReadonlyArray<string>
}

/** What a function of this name may be. */
export type FunctionNature =
  /** It does nothing but compute one value. */
  | "scalar"
  /** It does nothing but compute one value of many rows. */
  | "aggregate"
  /** It does nothing but compute; it may answer any number of rows. */
  | "pure"
  /** Its answer depends on the time, on chance, or on the session. */
  | "volatile"
  /** It may read tables. */
  | "unknown"
