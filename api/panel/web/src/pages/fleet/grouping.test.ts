// @vitest-environment node
import { expect, test } from "vitest";
import type { Agent, Pool } from "../../data/types";
import { byPool, sum } from "./grouping";

const pool = (name: string, rest: Partial<Pool> = {}) => ({ name, waiting: { interactive: 0, normal: 0, batch: 0 }, oldest_wait_ms: null, demand: 0, slots_total: 0, slots_processing: 0, ...rest }) as Pool;
const agent = (id: string, name: string, of = "default", rest: Partial<Agent> = {}) => ({ id, name, pool: of, state: "ready", issue_details: [], ...rest }) as Agent;
const byKey = <T,>(things: T[], key: (thing: T) => string) => new Map(things.map((one) => [key(one), one]));

test("agents are with their pools, numbers in their order", () => {
  const pools = byKey([pool("default"), pool("big")], (one) => one.name);
  const agents = byKey([agent("1", "agent-10"), agent("2", "agent-2"), agent("3", "x", "big")], (one) => one.id);
  expect(byPool(pools, agents).map((one) => [one.pool.name, one.agents.map((own) => own.name)])).toEqual([["big", ["x"]], ["default", ["agent-2", "agent-10"]]]);
});

test("the fleet is the sum of its pools", () => {
  const pools = byKey([pool("a", { waiting: { normal: 2, batch: 1 }, oldest_wait_ms: 50, demand: 4, slots_total: 8, slots_processing: 3 }), pool("b", { oldest_wait_ms: 90, demand: 1, slots_total: 1 })], (one) => one.name);
  const agents = byKey([agent("1", "x", "a"), agent("2", "y", "a", { state: "loading" })], (one) => one.id);
  expect(sum(pools, agents)).toMatchObject({ agents: 2, ready: 1, slots: 9, busy: 3, buffered: 3, demand: 5, oldestWaitMs: 90 });
});
