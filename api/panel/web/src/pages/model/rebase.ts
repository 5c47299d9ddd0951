import { changedPaths, isSame, valueAt, withValue } from "./changes";
import type { State } from "./types";

/** Whose value of a field is to stay. */
export type Side = "mine" | "theirs";

/** What three states have come to: what was read, what is in the form, and what somebody else has set meanwhile. */
export interface Rebase {
  /** Paths that they have changed, and paths that I have. */
  theirs: readonly string[];
  mine: readonly string[];
  /** Paths that both have changed, and not alike: somebody must choose. */
  clashes: readonly string[];
}

export function rebase(base: State, mine: State, theirs: State): Rebase {
  const own = changedPaths(base, mine);
  const others = changedPaths(base, theirs);
  return {
    theirs: others,
    mine: own.filter((path) => !isSame(valueAt(mine, path), valueAt(theirs, path))),
    clashes: own.filter((path) => others.includes(path) && !isSame(valueAt(mine, path), valueAt(theirs, path))),
  };
}

/** Theirs with my changes on top; where both have changed a field, as is picked, mine unless said. */
export function merge(base: State, mine: State, theirs: State, picks: ReadonlyMap<string, Side> = new Map()): State {
  return changedPaths(base, mine)
    .filter((path) => picks.get(path) !== "theirs")
    .reduce((state, path) => withValue(state, path, valueAt(mine, path)), theirs);
}
