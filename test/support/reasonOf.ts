import { assert } from "vitest"
import { CachemeError } from "../../src/index.ts"

/** Why a function throws. Fails where it does not, and throws on what is no error of ours. */
export const reasonOf = (f: () => unknown): CachemeError["reason"] => {
  try {
    f()
  } catch (error) {
    if (error instanceof CachemeError) return error.reason
    throw error
  }
  return assert.fail("nothing was thrown")
}
