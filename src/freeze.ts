/**
 * Freezes an answer, because callers share it: who changes it then gets a `TypeError` where it happens, instead of
 * changing what everybody else is given.
 *
 * Plain objects, arrays and instances of Schema classes are frozen, at every depth. What keeps state of its own (a
 * `Map`, a `Date`, a buffer, instances of other classes) is left as it is: freezing it would break it or protect
 * nothing.
 */
import * as Schema from "effect/Schema"

/** Freezes a value in place. */
export const freeze = (value: unknown): void => {
  const rest: Array<unknown> = [value]
  while (rest.length > 0) {
    const part = rest.pop()
    if (typeof part !== "object" || part === null || Object.isFrozen(part) || !isData(part)) continue
    Object.freeze(part)
    for (const item of Object.values(part)) rest.push(item)
  }
}

/** True for what is plain data: all that it is lies in its properties. */
export const isData = (part: object): boolean => {
  if (Array.isArray(part)) return true
  const prototype = Object.getPrototypeOf(part)
  // The classes of `Schema.Class` are schemas themselves.
  return prototype === null || prototype === Object.prototype || Schema.isSchema(prototype.constructor)
}
