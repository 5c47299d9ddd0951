import type { Conversation } from "./model";

/**
 * What the tabs of one browser tell each other of conversations.
 *
 * Each has its own copies of them. One tab follows an answer, the one that asked for it; the others show what it keeps,
 * and take it over when nobody says that it is theirs.
 */
export type Word =
  | { kind: "kept"; conversation: Conversation }
  | { kind: "dropped"; id: string }
  | { kind: "who"; id: string }
  | { kind: "mine"; id: string }
  | { kind: "stop"; id: string };

export interface Tabs {
  /** To all others. */
  say: (word: Word) => void;
  hear: (listener: (word: Word) => void) => void;
}

/** Null where the browser has no such thing: then each tab is alone, as after a reload. */
export function browserTabs(): Tabs | null {
  if (typeof BroadcastChannel === "undefined") return null;
  const channel = new BroadcastChannel("paddler-conversations");
  return {
    say: (word) => channel.postMessage(word),
    hear: (listener) => channel.addEventListener("message", ({ data }: MessageEvent<Word>) => listener(data)),
  };
}
