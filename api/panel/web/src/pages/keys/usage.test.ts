import { describe, expect, it } from "vitest";
import { ceiling } from "../../ui/DayBars";
import type { UsageRow } from "./types";
import { byDay, dayBefore, daysBetween, totals } from "./usage";

const row = (date: string, key: string, model: string, output: number, prompt = 0): UsageRow => ({
  date,
  tenant: "t",
  key,
  key_name: `name of ${key}`,
  model,
  requests: 1,
  prompt_tokens: prompt,
  cached_tokens: 0,
  output_tokens: output,
});

describe("usage by day", () => {
  it("has a number for each day, also where nothing was used", () => {
    const rows = [row("2026-03-01", "a", "m", 5, 2), row("2026-03-03", "a", "n", 7), row("2026-03-03", "b", "m", 1)];
    const found = byDay(rows, "2026-02-28", "2026-03-03", "key", "tokens");
    expect(found.days).toEqual(["2026-02-28", "2026-03-01", "2026-03-02", "2026-03-03"]);
    expect(found.series).toEqual([
      { name: "name of a", values: [0, 7, 0, 7], total: 14 },
      { name: "name of b", values: [0, 0, 0, 1], total: 1 },
    ]);
    expect(byDay(rows, "2026-02-28", "2026-03-03", "model", "output_tokens").series.map((one) => [one.name, one.total])).toEqual([["n", 7], ["m", 6]]);
  });

  it("shows those that used most, and the others together", () => {
    const rows = ["a", "b", "c", "d", "e", "f"].map((key, index) => row("2026-03-01", key, "m", 10 * (index + 1)));
    const { series } = byDay(rows, "2026-03-01", "2026-03-01", "key", "tokens");
    expect(series.map((one) => [one.name, one.total])).toEqual([["name of f", 60], ["name of e", 50], ["name of d", 40], ["3 others", 60]]);
  });

  it("does not take two keys of one name for one", () => {
    const rows = [{ ...row("2026-03-01", "a", "m", 1), key_name: "same" }, { ...row("2026-03-01", "b", "m", 2), key_name: "same" }];
    expect(byDay(rows, "2026-03-01", "2026-03-01", "key", "tokens").series.map((one) => one.total)).toEqual([2, 1]);
  });
});

it("adds up what is alike in key and model", () => {
  const rows = [row("2026-03-01", "a", "m", 5), row("2026-03-02", "a", "m", 6), row("2026-03-02", "b", "m", 100)];
  expect(totals(rows).map((one) => [one.key, one.requests, one.output_tokens])).toEqual([["b", 1, 100], ["a", 2, 11]]);
});

it("counts days across months", () => {
  expect(dayBefore("2026-03-01", 1)).toBe("2026-02-28");
  expect(daysBetween("2026-12-31", "2027-01-01")).toEqual(["2026-12-31", "2027-01-01"]);
});

it("rounds the top of the scale up", () => {
  expect([1, 3, 5, 11, 999, 1_000_001].map(ceiling)).toEqual([1, 5, 5, 20, 1000, 2_000_000]);
});
