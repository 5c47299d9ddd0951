import { expect, test } from "vitest";
import { changedPaths, changesBetween, isSame, valueAt, withValue } from "./changes";
import { PARAMETERS, STATE } from "./fixtures";
import { merge, rebase } from "./rebase";
import type { State, Value } from "./types";

function set(values: Record<string, unknown>, state: State = STATE): State {
  return Object.entries(values).reduce((made, [path, value]) => withValue(made, path, value), state);
}

const parameter = (name: string, value: Value) => ({ [`inference_parameters.${name}`]: value });

test("a state does not differ from itself, nor from one with its keys in another order", () => {
  expect(changedPaths(STATE, structuredClone(STATE))).toEqual([]);
  expect(isSame({ a: 1, b: [{ c: null }] }, { b: [{ c: null }], a: 1 })).toBe(true);
  expect(isSame([1], { 0: 1 })).toBe(false);
  expect(isSame({ a: 0 }, { a: null })).toBe(false);
});

test("each field that differs is told, with what it was and what it becomes", () => {
  const after = set({ model: { HuggingFace: { repo_id: "a/b", filename: "c.gguf", revision: "main" } }, chat_template_override: { content: "1\n2" }, use_chat_template_override: true, rollout: "all_at_once", aliases: ["x", "y"], ...parameter("top_p", 0.5), ...parameter("dry_sequence_breakers", ["\n"]), ...parameter("model_name", "m") });
  const told = changesBetween(STATE, after, PARAMETERS).map(({ label, before, after: then, reloads }) => [label, before, then, reloads]);
  expect(told).toEqual([
    ["Model", "agent:///models/a.gguf", "https://huggingface.co/a/b/resolve/main/c.gguf", true],
    ["Chat template", "none", "2 lines", false],
    ["Which template", "the model's own", "yours", false],
    ["Further names", "none", "x, y", false],
    ["How it is rolled out", "in turn", "all at once", false],
    ["top_p", "0.8", "0.5", false],
    ["model_name", "none", "m", true],
    ["dry_sequence_breakers", "\\n, :", "\\n", false],
  ]);
});

test("a parameter that is being written, and cannot be read yet, is no change", () => {
  const { top_p: _, ...rest } = STATE.inference_parameters;
  expect(changedPaths(STATE, { ...STATE, inference_parameters: rest })).toEqual([]);
});

test("changes of different fields are both kept", () => {
  const mine = set(parameter("top_p", 0.1));
  const theirs = set({ ...parameter("temperature", 0), aliases: ["x"] });
  expect(rebase(STATE, mine, theirs)).toEqual({ theirs: ["aliases", "inference_parameters.temperature"], mine: ["inference_parameters.top_p"], clashes: [] });
  expect(merge(STATE, mine, theirs)).toEqual(set({ ...parameter("top_p", 0.1), ...parameter("temperature", 0), aliases: ["x"] }));
});

test("where both have changed a field, somebody chooses", () => {
  const mine = set({ ...parameter("top_p", 0.1), rollout: "all_at_once" });
  const theirs = set({ ...parameter("top_p", 0.2), rollout: "all_at_once" });
  expect(rebase(STATE, mine, theirs)).toEqual({ theirs: ["rollout", "inference_parameters.top_p"], mine: ["inference_parameters.top_p"], clashes: ["inference_parameters.top_p"] });
  expect(valueAt(merge(STATE, mine, theirs), "inference_parameters.top_p")).toBe(0.1);
  expect(merge(STATE, mine, theirs, new Map([["inference_parameters.top_p", "theirs"]]))).toEqual(theirs);
});
