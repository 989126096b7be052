/** The sabotage of a name, of those that there are. Throws for a name that there is not. */
export const named = <S>(sabotages: Readonly<Record<string, S>>, name: string): S => {
  const found = sabotages[name]
  if (found === undefined)
    throw new Error(`--sabotage is ${name}: expected all, ${Object.keys(sabotages).join(", ")}`)
  return found
}
