/**
 * Who caches in Redis installs its client, who queries Postgres a driver, and nobody else has to: such packages are loaded
 * when they are used. This is what is said where one is not there.
 */
import { CachemeError, InvalidSetting } from "./CachemeError.ts"

/** The error of a package that is needed, and cannot be loaded: it says how to install it. */
export const missingPackage = (name: string, found = "not installed"): CachemeError =>
  new CachemeError({
    reason: new InvalidSetting({
      setting: `the package "${name}"`,
      value: found,
      expected: `npm install ${name}`
    })
  })
