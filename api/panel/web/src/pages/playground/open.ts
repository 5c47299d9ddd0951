import { Talks } from "./talks";
import { browserShelf, memoryShelf } from "./shelf";

/** What this browser keeps; made when the page is first opened, and there until it is reloaded. */
export const talks = new Talks(typeof indexedDB === "undefined" ? memoryShelf() : browserShelf());

let loading: Promise<void> | null = null;

export function loadTalks(): Promise<void> {
  loading ??= talks.load();
  return loading;
}
