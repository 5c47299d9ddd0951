import type { Sample } from "./types";

export const SPAN_MS = 15 * 60_000;

/** Samples by pool, the oldest first, each time once, none older than 15 minutes before the newest. */
export function merged(held: ReadonlyMap<string, readonly Sample[]>, added: readonly Sample[]): ReadonlyMap<string, readonly Sample[]> {
  if (added.length === 0) return held;
  const next = new Map(held);
  for (const [pool, fresh] of grouped(added)) {
    const before = next.get(pool) ?? [];
    const last = before.at(-1)?.at_ms ?? -Infinity;
    // What comes live is newer than all there is: then nothing is sorted.
    const all = fresh.every((one) => one.at_ms > last) ? [...before, ...fresh] : sorted([...before, ...fresh]);
    next.set(pool, all);
  }
  const newest = Math.max(...[...next.values()].map((all) => all.at(-1)?.at_ms ?? 0));
  for (const [pool, all] of next) {
    const kept = all.filter((one) => one.at_ms > newest - SPAN_MS);
    if (kept.length === 0) next.delete(pool);
    else next.set(pool, kept);
  }
  return next;
}

function sorted(samples: Sample[]): Sample[] {
  const byTime = new Map(samples.map((one) => [one.at_ms, one]));
  return [...byTime.values()].sort((one, other) => one.at_ms - other.at_ms);
}

function grouped(samples: readonly Sample[]): Map<string, Sample[]> {
  const found = new Map<string, Sample[]>();
  for (const one of samples) found.set(one.pool, [...(found.get(one.pool) ?? []), one]);
  return found;
}

/** All pools together, at the times of any. */
export function summed(held: ReadonlyMap<string, readonly Sample[]>): readonly Sample[] {
  const byTime = new Map<number, Sample>();
  for (const one of [...held.values()].flat()) {
    const sum = byTime.get(one.at_ms);
    byTime.set(one.at_ms, sum === undefined ? { ...one, pool: "" } : {
      ...sum,
      buffered: sum.buffered + one.buffered,
      demand: sum.demand + one.demand,
      oldest_wait_ms: Math.max(sum.oldest_wait_ms, one.oldest_wait_ms),
      slots_processing: sum.slots_processing + one.slots_processing,
      slots_total: sum.slots_total + one.slots_total,
      tokens_per_second: sum.tokens_per_second + one.tokens_per_second,
    });
  }
  return [...byTime.values()].sort((one, other) => one.at_ms - other.at_ms);
}
