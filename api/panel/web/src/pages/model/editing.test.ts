import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Editing } from "./editing";
import { PARAMETERS, STATE } from "./fixtures";
import type { State } from "./types";

/** A balancer with one state, as far as a form asks for it. */
class Balancer {
  version = 1;
  state: State = STATE;
  refuses: { message: string; param: string } | null = null;

  readonly fetch = async (path: string, { method = "GET", body, headers }: RequestInit = {}): Promise<Response> => {
    if (path.endsWith("/inference_parameters")) return Response.json({ parameters: PARAMETERS });
    if (path.includes("/history/")) return Response.json({ version: this.version, updated_ms: 7, author: "somebody", balancer_desired_state: this.state });
    if (method === "PUT") {
      if (this.refuses) return Response.json({ error: this.refuses }, { status: 400 });
      if (new Headers(headers).get("if-match") !== `"${this.version}"`) return Response.json({ error: { message: "other version" } }, { status: 412 });
      this.state = JSON.parse(String(body)) as State;
      this.version += 1;
      return new Response(null, { status: 204, headers: { etag: `"${this.version}"` } });
    }
    return Response.json(this.state, { headers: { etag: `"${this.version}"` } });
  };

  async sets(part: Partial<State>): Promise<void> {
    this.state = { ...this.state, ...part };
    this.version += 1;
  }
}

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
  await balancer.sets({ aliases: ["x"] });
  await editing.look();
  expect([editing.base.value?.version, editing.draft.value?.aliases, editing.newer.value]).toEqual([2, "x", null]);
});

test("whoever is second is told, and goes on with what both have changed", async () => {
  editing.editParameter("top_p", "0.5");
  await balancer.sets({ aliases: ["x"] });
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
  await balancer.sets({ aliases: ["x"] });
  await editing.look();
  editing.goOn(new Map());
  expect(editing.draft.value?.parameters).toMatchObject({ context_size: "not yet" });
  expect(editing.draft.value?.aliases).toBe("x");
});

test("mine can be given up", async () => {
  editing.edit({ aliases: "mine" });
  await balancer.sets({ aliases: ["theirs"] });
  await editing.look();
  expect(editing.newer.value?.clashes).toEqual(["aliases"]);
  editing.takeTheirs();
  expect([editing.draft.value?.aliases, editing.isDirty.value, editing.newer.value]).toEqual(["theirs", false, null]);
});
