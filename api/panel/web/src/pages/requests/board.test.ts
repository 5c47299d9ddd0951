import { describe, expect, it } from "vitest";
import { arrange, EVERYTHING, filtered, isRequestId } from "./board";
import type { Row } from "./types";

const row = (id: string, more: Partial<Row> = {}): Row => ({
  id,
  pool: "default",
  class: "normal",
  served_as: "normal",
  score: 1,
  tenant: "t",
  accepted_at_ms: 0,
  prompt_tokens: 5,
  ...more,
});

describe("the board", () => {
  it("has what agents have first, then what waits in the order in which it is served", () => {
    const { unfinished, num_given, ended } = arrange(
      [
        row("c", { score: 3 }),
        row("b", { score: 3 }),
        row("batch", { class: "batch", served_as: "batch", score: 0 }),
        row("promoted", { class: "batch", served_as: "interactive", score: 9 }),
        row("young", { state: "running", started_at_ms: 20 }),
        row("old", { state: "running", started_at_ms: 10 }),
        row("elsewhere", { pool: "chat" }),
        row("done", { state: "done", ended_at_ms: 5 }),
        row("later", { state: "failed", ended_at_ms: 6 }),
      ],
      "default",
    );
    expect(unfinished.map(({ row: one, position }) => [one.id, position])).toEqual([
      ["old", null],
      ["young", null],
      ["promoted", 0],
      ["b", 1],
      ["c", 2],
      ["batch", 3],
    ]);
    expect(num_given).toBe(2);
    expect(ended.map((one) => one.id)).toEqual(["later", "done"]);
  });
});

describe("the filter", () => {
  const { unfinished } = arrange(
    [
      row("pool.a", { tenant: "alice", model: "SmolLM2" }),
      row("pool.b", { tenant: "bob", state: "running", agent_name: "gpu-1" }),
      row("pool.c", { class: "batch", served_as: "batch" }),
    ],
    "default",
  );
  const found = (more: object) => filtered(unfinished, { ...EVERYTHING, ...more }).map(({ row: one, position }) => [one.id, position]);

  it("wants every word, in any case, of id, tenant, model, agent or class", () => {
    expect(found({ search: "POOL smol" })).toEqual([["pool.a", 0]]);
    expect(found({ search: "gpu" })).toEqual([["pool.b", null]]);
    expect(found({ search: "nobody" })).toEqual([]);
  });

  it("wants what was chosen, and keeps the place in the whole line", () => {
    expect(found({ tenant: "alice" })).toEqual([["pool.a", 0]]);
    expect(found({ state: "running" })).toEqual([["pool.b", null]]);
    expect(found({ state: "waiting", class: "batch" })).toEqual([["pool.c", 1]]);
  });

  it("passes all when nothing is wanted", () => {
    expect(filtered(unfinished, { ...EVERYTHING, search: " " })).toBe(unfinished);
  });
});

it("knows an id of a request", () => {
  expect(isRequestId(` default.${"x".repeat(22)} `)).toBe(true);
  expect(isRequestId("default.x")).toBe(false);
  expect(isRequestId("hello world")).toBe(false);
});
