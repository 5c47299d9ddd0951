import { expect, it } from "vitest";
import { begun, lengthOf, phasesOf, speedOf, stepsOf } from "./timeline";
import type { EventName, RequestTimeline } from "./types";

const START = 1_000_000;

function timeline(state: RequestTimeline["state"], tokens: number, now: number, ...events: [EventName, number][]): RequestTimeline {
  return {
    state,
    tokens,
    now_ms: START + now,
    events: events.map(([event, after_ms]) => ({ event, after_ms, at_ms: START + after_ms, times: 1 })),
  } as RequestTimeline;
}

it("cuts a life into stretches without a gap", () => {
  const done = timeline("done", 21, 9999, ["accepted", 0], ["buffered", 0], ["delivered", 500], ["opened", 510], ["first_token", 800], ["ended", 2800]);
  expect(phasesOf(done)).toEqual([
    { name: "waiting", start: 0, end: 500 },
    { name: "starting", start: 500, end: 510 },
    { name: "prompt", start: 510, end: 800 },
    { name: "answer", start: 800, end: 2800 },
  ]);
  expect(lengthOf(done)).toBe(2800);
  expect(speedOf(done)).toBe(10);
});

it("leaves out what took no time, and goes on until now", () => {
  const running = timeline("running", 0, 900, ["accepted", 0], ["delivered", 0], ["opened", 4]);
  expect(phasesOf(running)).toEqual([
    { name: "starting", start: 0, end: 4 },
    { name: "prompt", start: 4, end: 900 },
  ]);
  expect(speedOf(running)).toBeNull();
});

it("tells of a hand-over", () => {
  const moved = timeline("running", 5, 3000, ["accepted", 0], ["delivered", 1], ["opened", 2], ["first_token", 100], ["handed_over", 2000]);
  expect(phasesOf(moved).map((phase) => phase.name)).toEqual(["waiting", "starting", "prompt", "answer", "again"]);
  expect(stepsOf(moved.events).map((step) => step.since_ms)).toEqual([0, 1, 1, 98, 1900]);
});

it("says how often it was begun", () => {
  expect([0, 1, 2].map(begun)).toEqual(["not yet", "once", "2 times"]);
});
