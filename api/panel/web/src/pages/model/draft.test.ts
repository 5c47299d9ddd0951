import { expect, test } from "vitest";
import { draftOf, escaped, rangeOf, readDraft, unescaped, type Draft } from "./draft";
import { PARAMETERS, STATE } from "./fixtures";
import { complete } from "./types";

const DRAFT = draftOf(STATE, PARAMETERS);

function withParameters(part: Draft["parameters"]): Draft {
  return { ...DRAFT, parameters: { ...DRAFT.parameters, ...part } };
}

test("a form that nobody touches says what it was made of", () => {
  const state = { ...STATE, chat_template_override: { content: "{{ messages }}\n" }, aliases: ["a", "b c"], inference_parameters: { ...STATE.inference_parameters, lora_adapters: [{ path: "/a.gguf", scale: -0.5 }] } };
  const { state: read, errors } = readDraft(draftOf(state, PARAMETERS), PARAMETERS);
  expect([...errors]).toEqual([]);
  expect(read).toEqual(state);
});

test("what a state leaves out is as by default", () => {
  const { aliases: _aliases, rollout: _rollout, ...told } = STATE;
  expect(complete({ ...told, inference_parameters: { top_p: 0.5 } }, PARAMETERS)).toEqual({ ...STATE, inference_parameters: { ...STATE.inference_parameters, top_p: 0.5 } });
});

test.each([
  ["top_p", "1", 1],
  ["top_p", " 0,25 ", 0.25],
  ["temperature", "-3", -3],
  ["context_size", "64", 64],
  ["model_name", "  ", null],
  ["model_name", "mine", "mine"],
  ["dry_sequence_breakers", ["\\n", "", "\\\\n"], ["\n", "\\n"]],
  ["tensor_split", " 3, 1.5 ", [3, 1.5]],
  ["tensor_split", "", []],
] as const)("%s %j is %j", (name, written, value) => {
  const { state, errors } = readDraft(withParameters({ [name]: written }), PARAMETERS);
  expect([...errors]).toEqual([]);
  expect(state.inference_parameters[name]).toEqual(value);
});

test.each([
  ["top_p", "1.01", "0 to 1"],
  ["top_p", "", "A number"],
  ["top_p", "much", "A number"],
  ["temperature", "1001", "at most 1000"],
  ["context_size", "63", "at least 64"],
  ["context_size", "64.5", "A whole number"],
  ["model_name", "x".repeat(13), "12 characters"],
  ["dry_sequence_breakers", ["1", "2", "3", "4"], "At most 3"],
  ["dry_sequence_breakers", ["12345"], "4 characters"],
  ["tensor_split", "3, x", "A number"],
  ["tensor_split", "3, -1", "at least 0"],
  ["tensor_split", "1, 1, 1, 1", "At most 3"],
  ["lora_adapters", [{ path: " ", scale: "1" }], "path"],
  ["lora_adapters", [{ path: "/a", scale: "x" }], "scale"],
] as const)("%s %j is refused", (name, written, words) => {
  const { errors } = readDraft(withParameters({ [name]: written }), PARAMETERS);
  expect(errors.get(`inference_parameters.${name}`)).toContain(words);
});

test("errors of the rest name their place", () => {
  const draft = { ...DRAFT, model: { ...DRAFT.model, path: "" }, aliases: "a, b\na", usesTemplate: true, template: " " };
  const { errors } = readDraft(draft, PARAMETERS);
  expect([...errors.keys()].sort()).toEqual(["aliases", "chat_template_override", "model.path"]);
  expect(errors.get("aliases")).toBe("a is there twice.");
});

test("texts that cannot be typed are escaped, and come back", () => {
  const text = '\n\t\r\\n "x"';
  expect(escaped(text)).toBe('\\n\\t\\r\\\\n "x"');
  expect(unescaped(escaped(text))).toBe(text);
});

test("ranges are told in words", () => {
  expect(PARAMETERS.slice(0, 3).map(rangeOf)).toEqual(["at least 64", "at most 1000", "0 to 1"]);
});
