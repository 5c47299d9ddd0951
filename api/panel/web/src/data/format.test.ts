// @vitest-environment node
import { expect, test } from "vitest";
import { bytes, duration, percent, plural, rate } from "./format";

test("durations have at most two parts", () => {
  const shown = [0, 850, 7200, 9949, 9950, 59_400, 200_000, 7_500_000, 273_600_000].map((ms) => duration(ms));
  expect(shown).toEqual(["0 ms", "850 ms", "7.2 s", "9.9 s", "10 s", "59 s", "3 min 20 s", "2 h 5 min", "3 d 4 h"]);
});

test("rates and sizes have three figures at most", () => {
  expect([0, 7.25, 12.4, 1234.4].map(rate)).toEqual(["0", "7.3", "12", "1,234"]);
  expect([0, 999, 1500, 98_765_432, 123_456_789].map(bytes)).toEqual(["0 B", "999 B", "1.5 kB", "98.8 MB", "123 MB"]);
});

test("what is not known is a dash", () => {
  expect([duration(null), rate(undefined), percent(null), bytes(null)]).toEqual(["–", "–", "–", "–"]);
});

test("one is not many", () => {
  expect([plural(1, "agent"), plural(0, "agent"), plural(2, "reply", "replies")]).toEqual(["1 agent", "0 agents", "2 replies"]);
});
