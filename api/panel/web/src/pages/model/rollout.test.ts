import { expect, test } from "vitest";
import { headline, progressOf, standingOf, workOf, type Application, type Follower } from "./rollout";

function agent(status: Application, part: Partial<Follower> = {}): Follower {
  return { state: "ready", desired_version: 2, state_application_status: status, download_filename: null, phase: null, slots_total: 2, ...part } as Follower;
}

const WANTED = { version: 2, wantsModel: true };

test.each([
  [agent("Applied"), "applied"],
  [agent("Applied", { desired_version: 1 }), "behind"],
  [agent("Fresh"), "working"],
  [agent("AttemptedAndRetrying"), "retrying"],
  [agent("Stuck"), "stuck"],
  [agent("AttemptedAndNotAppliable"), "failed"],
  [agent("Applied", { desired_version: null }), "pinned"],
  [agent("Applied", { state: "lost" }), "lost"],
] as const)("standing %#", (one, standing) => {
  expect(standingOf(one, WANTED)).toBe(standing);
});

test("what an agent is busy with", () => {
  expect(workOf(agent("Fresh", { download_filename: "m.gguf" }))).toBe("downloads m.gguf");
  expect(workOf(agent("Fresh", { state: "loading", phase: "reading" }))).toBe("loads: reading");
  expect(workOf(agent("Fresh"))).toContain("waits for its turn");
});

test.each([
  [[], 2, "No agent is here yet"],
  [[], 0, "Nobody has set a state"],
  [[agent("Applied", { desired_version: null })], 2, "No agent follows this state"],
  [[agent("Applied")], 2, "The agent serves version 2."],
  [[agent("Applied"), agent("Applied")], 2, "All 2 agents serve version 2."],
  [[agent("Applied"), agent("Fresh"), agent("Stuck")], 2, "1 of 3 agents serves version 2. One has trouble."],
  [[agent("Fresh"), agent("Stuck"), agent("AttemptedAndNotAppliable")], 2, "0 of 3 agents serve version 2. 2 have trouble."],
  [[agent("Applied"), agent("Applied", { state: "lost" })], 2, "The agent serves version 2."],
] as const)("headline %#", (agents, version, words) => {
  const wanted = { version, wantsModel: true };
  expect(headline(progressOf(agents, wanted), wanted)).toContain(words);
});

test("where no model is wanted, an agent that waits is where it should be", () => {
  const none = { version: 3, wantsModel: false };
  const waiting = agent("Fresh", { state: "waiting", desired_version: 3, slots_total: 0 });
  expect(standingOf(waiting, none)).toBe("idle");
  expect(standingOf({ ...waiting, slots_total: 2 }, none)).toBe("working");
  expect(headline(progressOf([waiting], none), none)).toBe("No model is wanted: the agent waits.");
});
