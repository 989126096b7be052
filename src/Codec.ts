/**
 * The codec decides what of an answer is stored: what the node's schemas accept, and nothing else.
 *
 * The value that is stored, and handed to the caller, is the schema's: plain rows become instances where the schema
 * is a class, excess properties go. An answer that the schema does not accept still reaches its caller; it is only
 * never stored.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as SchemaParser from "effect/SchemaParser"
import type { NodeDefinition } from "./Node.ts"

/** What the schemas say of a lookup's outcome. */
export type Accepted =
  /** May be stored; the exit holds the schema's value. */
  | { readonly _tag: "Storable"; readonly exit: Exit.Exit<unknown, unknown> }
  /** A failure, defect or interrupt that the node does not declare. */
  | { readonly _tag: "Undeclared" }
  /** A value that the schema does not accept: what was expected, and at which path. */
  | { readonly _tag: "Rejected"; readonly expected: string }

/** Asks a node's schemas about the outcome of its lookup. */
export const accept = (
  definition: NodeDefinition,
  exit: Exit.Exit<unknown, unknown>
): Effect.Effect<Accepted> => {
  if (Exit.isSuccess(exit)) {
    return SchemaParser.makeEffect(definition.value as any)(exit.value as never).pipe(
      Effect.match({
        onSuccess: (value): Accepted => ({ _tag: "Storable", exit: Exit.succeed(value) }),
        onFailure: (issue): Accepted => ({
          _tag: "Rejected",
          expected: new Schema.SchemaError(issue).message.replaceAll(/\s+/g, " ")
        })
      })
    )
  }
  const [reason, ...others] = exit.cause.reasons
  if (reason === undefined || others.length > 0 || !Cause.isFailReason(reason))
    return Effect.succeed({ _tag: "Undeclared" })
  return SchemaParser.makeEffect(definition.error as any)(reason.error as never).pipe(
    Effect.match({
      onSuccess: (error): Accepted => ({ _tag: "Storable", exit: Exit.fail(error) }),
      onFailure: (): Accepted => ({ _tag: "Undeclared" })
    })
  )
}
