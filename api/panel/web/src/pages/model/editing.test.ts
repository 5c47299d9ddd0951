import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Editing } from "./editing";
import { Balancer } from "./fakeBalancer";

let balancer: Balancer;
let editing: Editing;

beforeEach(async () => {
  balancer = new Balancer();
  vi.stubGlobal("fetch", balancer.fetch);
  editing = new Editing("default");
  await editing.load();
});

afterEach(() => vi.unstubAllGlobals());

test("what is written is set, and then nothing is left to be set", async () => {
  expect(editing.isDirty.value).toBe(false);
  editing.editParameter("top_p", "0.5");
  expect(editing.changes.value.map((one) => one.path)).toEqual(["inference_parameters.top_p"]);
  expect(await editing.apply()).toBe(true);
  expect(balancer.state.inference_parameters.top_p).toBe(0.5);
  expect([editing.isDirty.value, editing.base.value?.version]).toEqual([false, 2]);
});

test("what cannot be read is not sent", async () => {
  editing.editParameter("top_p", "2");
  expect(editing.isDirty.value).toBe(true);
  expect(await editing.apply()).toBe(false);
  expect(balancer.version).toBe(1);
});

test("what the balancer refuses is told at its field until it is changed", async () => {
  balancer.refuses = { message: "no", param: "inference_parameters.top_p" };
  editing.editParameter("top_p", "0.5");
  expect(await editing.apply()).toBe(false);
  expect(editing.errors.value.get("inference_parameters.top_p")).toBe("no");
  editing.editParameter("top_p", "0.6");
  expect(editing.errors.value.size).toBe(0);
});

test("a state that somebody else has set is taken over where nothing is being changed", async () => {
  balancer.sets({ aliases: ["x"] });
  await editing.look();
  expect([editing.base.value?.version, editing.draft.value?.aliases, editing.newer.value]).toEqual([2, "x", null]);
});

test("whoever is second is told, and goes on with what both have changed", async () => {
  editing.editParameter("top_p", "0.5");
  balancer.sets({ aliases: ["x"] });
  expect(await editing.apply()).toBe(false);
  expect(editing.newer.value).toMatchObject({ version: 2, theirs: ["aliases"], clashes: [], info: { author: "somebody" } });
  expect(editing.draft.value?.aliases).toBe("");
  editing.goOn(new Map());
  expect(editing.draft.value?.aliases).toBe("x");
  expect(await editing.apply()).toBe(true);
  expect(balancer.state).toMatchObject({ aliases: ["x"], inference_parameters: { top_p: 0.5 } });
});

test("what is half written is not lost by going on", async () => {
  editing.editParameter("top_p", "0.");
  editing.editParameter("context_size", "not yet");
  balancer.sets({ aliases: ["x"] });
  await editing.look();
  editing.goOn(new Map());
  expect(editing.draft.value?.parameters).toMatchObject({ context_size: "not yet" });
  expect(editing.draft.value?.aliases).toBe("x");
});

test("mine can be given up", async () => {
  editing.edit({ aliases: "mine" });
  balancer.sets({ aliases: ["theirs"] });
  await editing.look();
  expect(editing.newer.value?.clashes).toEqual(["aliases"]);
  editing.takeTheirs();
  expect([editing.draft.value?.aliases, editing.isDirty.value, editing.newer.value]).toEqual(["theirs", false, null]);
});
