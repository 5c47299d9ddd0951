import { describe, expect, it } from "vitest";
import { draftOf, limitsIn, NEW_KEY, NO_LIMITS, numberOf, readKey, readLimits, type Problems } from "./form";
import type { Limits } from "./types";

const NOW = Date.parse("2026-01-01T00:00:00Z");

function read(more: object): [Record<string, unknown>, Problems] {
  const problems: Problems = {};
  return [readKey({ ...NEW_KEY, name: "alice", ...more }, NOW, problems) as Record<string, unknown>, problems];
}

describe("the form of a key", () => {
  it("sends what was chosen, and leaves out what was not", () => {
    const [body, problems] = read({});
    expect(problems).toEqual({});
    expect(body).toEqual({
      name: "alice",
      scopes: ["inference"],
      limits: { requests_per_minute: null, tokens_per_minute: null, max_in_flight: null, daily_tokens: null, max_file_bytes: null, max_open_batches: null, max_batch_lines: null, default_class: "normal", max_class: "interactive", weight: 1 },
    });
  });

  it("counts days from now, or takes a time", () => {
    expect(read({ expires: "30" })[0].expires_at).toBe("2026-01-31T00:00:00.000Z");
    expect(read({ expires: "date", expires_on: "2026-02-01T00:00:00Z" })[0].expires_at).toBe("2026-02-01T00:00:00.000Z");
    expect(read({ expires: "date", expires_on: "2025-02-01T00:00:00Z" })[1]).toHaveProperty("expires_at");
    expect(read({ expires: "date", expires_on: "" })[1]).toHaveProperty("expires_at");
  });

  it("says which field is wrong", () => {
    const [, problems] = read({ name: "no spaces", tenant: "-", scopes: [], limits: { ...NO_LIMITS, daily_tokens: "0", max_in_flight: "many", weight: "0" } });
    expect(Object.keys(problems).sort()).toEqual(["limits.daily_tokens", "limits.max_in_flight", "limits.weight", "name", "scopes", "tenant"]);
  });
});

it("reads thousands as people write them", () => {
  expect([numberOf("1,000 000"), numberOf(""), numberOf("-1"), numberOf("1.5")]).toEqual([1_000_000, null, NaN, NaN]);
});

it("keeps every limit that it does not change", () => {
  const limits: Limits = { requests_per_minute: 1, tokens_per_minute: 2, max_in_flight: 3, daily_tokens: 4, max_file_bytes: 5, max_open_batches: 6, max_batch_lines: 7, default_class: "batch", max_class: "normal", weight: 0.5 };
  expect(readLimits(draftOf(limits), {})).toEqual(limits);
});

it("shows limits as they were read", () => {
  const problems: Problems = {};
  const limits = readLimits({ ...NO_LIMITS, requests_per_minute: "60", weight: "2" }, problems);
  expect(draftOf(limits)).toEqual({ ...NO_LIMITS, requests_per_minute: "60", weight: "2" });
  expect(limitsIn({ ...limits, daily_tokens: 2_000_000 })).toEqual(["60 requests/min", "2,000,000 tokens/day"]);
});
