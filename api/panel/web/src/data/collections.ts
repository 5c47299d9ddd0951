import { signal, type Signal } from "@preact/signals";

/** What one message says of one collection: all of it (`reset`), or what is new or other, and what has gone. */
export interface Change {
  reset?: boolean;
  set?: Record<string, unknown>;
  gone?: string[];
}

const known = new Map<string, Signal<ReadonlyMap<string, unknown>>>();

/** The things of one topic by key, kept as the balancer has them. */
export function collection<T>(topic: string): Signal<ReadonlyMap<string, T>> {
  let found = known.get(topic);
  if (found === undefined) known.set(topic, (found = signal(new Map())));
  return found as Signal<ReadonlyMap<string, T>>;
}

/** A thing that did not change stays the same object, so that a page draws what did. */
export function apply(topic: string, { reset, set = {}, gone = [] }: Change): void {
  const held = collection<unknown>(topic);
  const next = new Map(reset ? [] : held.value);
  for (const key of gone) next.delete(key);
  for (const [key, value] of Object.entries(set)) next.set(key, value);
  held.value = next;
}
