/** Sends every hit the longer way. */
import { shortcut } from "../../src/Hit.ts"

shortcut.isOn = false
