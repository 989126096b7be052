/** `--help`: prints the comment that a program begins with, and ends. */
import { readFileSync } from "node:fs"

/** Prints what the program in this file is for, if it is asked for help. */
export const helpIfAsked = (file: string): void => {
  if (!process.argv.includes("--help")) return
  const [comment = ""] = readFileSync(file, "utf8").split("*/")
  console.log(comment.replaceAll(/^\/?\*\*? ?|^ \* ?/gm, "").trim())
  process.exit(0)
}
