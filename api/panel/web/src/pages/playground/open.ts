import { Talks } from "./talks";
import { browserShelf, memoryShelf } from "./shelf";
import { browserTabs } from "./tabs";

/** What this browser keeps; made when the page is first opened, and there until it is reloaded. */
export const talks = typeof indexedDB === "undefined" ? new Talks(memoryShelf()) : new Talks(browserShelf(), undefined, browserTabs());

let loading: Promise<void> | null = null;

export function loadTalks(): Promise<void> {
  loading ??= talks.load();
  return loading;
}
