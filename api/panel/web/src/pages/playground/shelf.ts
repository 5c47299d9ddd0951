/** Conversations and pictures in this browser (IndexedDB). Another browser, or another address of the panel, has its own. */
import { type UseStore, createStore, del, entries, get, set } from "idb-keyval";
import type { Conversation, Picture } from "./model";

export interface Shelf {
  /** What has been kept, the last changed first. */
  load: () => Promise<Conversation[]>;
  keep: (conversation: Conversation) => Promise<void>;
  drop: (conversation: Conversation) => Promise<void>;
  keepPicture: (picture: Picture, url: string) => Promise<void>;
  /** Data URLs by id; those that are gone are left out. */
  pictures: (ids: readonly string[]) => Promise<Map<string, string>>;
}

export function browserShelf(): Shelf {
  const conversations = createStore("paddler-conversations", "conversations");
  const pictures = createStore("paddler-pictures", "pictures");
  return {
    load: async () => sorted((await entries<string, Conversation>(conversations)).map(([, conversation]) => conversation)),
    keep: (conversation) => set(conversation.id, conversation, conversations),
    drop: async (conversation) => {
      await del(conversation.id, conversations);
      await dropPictures(conversation, pictures);
    },
    keepPicture: (picture, url) => set(picture.id, url, pictures),
    pictures: async (ids) => {
      const urls = await Promise.all(ids.map(async (id) => [id, await get<string>(id, pictures)] as const));
      return new Map(urls.filter((pair): pair is [string, string] => pair[1] !== undefined));
    },
  };
}

/** For a browser that keeps nothing, and for tests. */
export function memoryShelf(): Shelf {
  const conversations = new Map<string, Conversation>();
  const urls = new Map<string, string>();
  return {
    load: async () => sorted([...conversations.values()]),
    keep: async (conversation) => void conversations.set(conversation.id, structuredClone(conversation)),
    drop: async (conversation) => void conversations.delete(conversation.id),
    keepPicture: async (picture, url) => void urls.set(picture.id, url),
    pictures: async (ids) => new Map(ids.flatMap((id) => (urls.has(id) ? [[id, urls.get(id) as string] as const] : []))),
  };
}

async function dropPictures(conversation: Conversation, store: UseStore): Promise<void> {
  for (const turn of conversation.turns) {
    if (turn.role === "user") await Promise.all(turn.pictures.map((picture) => del(picture.id, store)));
  }
}

function sorted(conversations: Conversation[]): Conversation[] {
  return conversations.sort((one, other) => other.changedAt - one.changedAt);
}
