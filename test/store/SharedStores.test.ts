import { freshLayerOf, sharedStores } from "../support/shared.ts"
import { suite } from "./StoreSuite.ts"

for (const kind of sharedStores) suite(kind, freshLayerOf(kind), { isShared: true })
