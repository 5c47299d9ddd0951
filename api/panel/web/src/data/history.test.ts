// @vitest-environment node
import { expect, test } from "vitest";
import { SPAN_MS, merged, summed } from "./history";
import type { Sample } from "./types";

const sample = (pool: string, at_ms: number, buffered = 0): Sample => ({
  pool, at_ms, buffered, demand: buffered, oldest_wait_ms: buffered * 10, slots_processing: 1, slots_total: 4, tokens_per_second: 2,
});

test("live samples and the history that comes later are each there once, in order", () => {
  const live = merged(new Map(), [sample("a", 3000), sample("a", 4000)]);
  const all = merged(live, [sample("a", 1000), sample("a", 2000), sample("a", 3000)]);
  expect(all.get("a")?.map((one) => one.at_ms)).toEqual([1000, 2000, 3000, 4000]);
});

test("what is older than 15 minutes goes, and a pool with nothing else", () => {
  const held = merged(new Map(), [sample("old", 0), sample("new", 1000)]);
  const next = merged(held, [sample("new", SPAN_MS + 500)]);
  expect([...next.keys()]).toEqual(["new"]);
  expect(next.get("new")?.map((one) => one.at_ms)).toEqual([1000, SPAN_MS + 500]);
});

test("pools are summed at each time; the oldest wait is the longest", () => {
  const held = merged(new Map(), [sample("a", 1000, 1), sample("b", 1000, 5), sample("b", 2000, 2)]);
  const all = summed(held);
  expect(all.map((one) => [one.at_ms, one.buffered, one.oldest_wait_ms, one.slots_total])).toEqual([[1000, 6, 50, 8], [2000, 2, 20, 4]]);
});
