/** For tests of programs that use a cache: a layer that tells what happened, and a store that misbehaves on request. */
export { CachemeTest, type Options } from "./CachemeTest.ts"
export { type Fault, FaultyStore, type Operation } from "./FaultyStore.ts"
