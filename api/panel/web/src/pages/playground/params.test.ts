import { expect, test } from "vitest";
import { PARAMS, type Param, faultOf, rangeOf, readJson, readValue } from "./params";

function param(name: string): Param {
  const found = PARAMS.find((one) => one.name === name);
  if (found === undefined) throw new Error(name);
  return found;
}

test.each([
  ["temperature", "0.7", 0.7],
  ["top_k", "-1", -1],
  ["seed", "-5", -5],
  ["mirostat", "2", 2],
  ["logprobs", "true", true],
  ["stop", "END\n\\n\\n\nC:\\\\x", ["END", "\n\n", "C:\\x"]],
  ["logit_bias", '{"5": -100}', { 5: -100 }],
  ["chat_template_kwargs", '{"enable_thinking": false}', { enable_thinking: false }],
])("%s %j", (name, text, value) => {
  expect(readValue(param(name), text)).toEqual(value);
  expect(faultOf(param(name), text)).toBeNull();
});

test.each([
  ["temperature", "2.1", "From 0 to 2."],
  ["temperature", "warm", "A number."],
  ["top_k", "1.5", "A whole number."],
  ["max_tokens", "0", "From 1 up."],
  ["n", "9", "From 1 to 8."],
  ["mirostat", "3", "One of 0, 1, 2."],
  ["logit_bias", "5", "A JSON object or list."],
  ["stop", Array.from({ length: 17 }, String).join("\n"), "At most 16 lines."],
])("%s %j is refused", (name, text, words) => {
  expect(faultOf(param(name), text)).toBe(words);
});

test("an empty field is left to the pool", () => {
  expect(PARAMS.map((one) => faultOf(one, ""))).toEqual(PARAMS.map(() => null));
});

test("ranges in words", () => {
  expect([rangeOf(param("top_p")), rangeOf(param("top_k")), rangeOf(param("seed")), rangeOf(param("stop"))]).toEqual(["0 to 1", "-1 or more", "any whole number", ""]);
});

test("no parameter is there twice", () => {
  expect(new Set(PARAMS.map((one) => one.name)).size).toBe(PARAMS.length);
});

test("where JSON stops to be JSON is told", () => {
  expect(() => readJson('{\n  "a": 1,\n  b\n}')).toThrow(/no JSON.*(line 3|column|Expected)/);
});
