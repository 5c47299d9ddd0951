import { expect, test } from "vitest";
import { EXAMPLE_SCHEMA, EXAMPLE_TOOLS } from "./examples";
import { faultIn, readSchema, readTools } from "./schema";

test("what can be enforced is taken as it is", () => {
  expect(readSchema(EXAMPLE_SCHEMA)).toMatchObject({ required: ["name", "age"] });
  expect(readTools(EXAMPLE_TOOLS).map((tool) => tool.function.name)).toEqual(["weather"]);
});

test.each([
  ["[1]", "A schema is a JSON object."],
  ["{", "no JSON"],
  ['{"type": "text"}', '"text" is no type'],
  ['{"properties": {"a": {"items": {"not": {}}}}}', '"not" cannot be enforced; leave it out (at /properties/a/items).'],
  ['{"anyOf": [{}, {"multipleOf": 2}]}', "/anyOf/1"],
  ['{"required": "a"}', '"required" is a list of names'],
])("%s is refused", (text, words) => {
  expect(faultIn(readSchema, text)).toContain(words);
});

test("a property may be called like a keyword", () => {
  expect(faultIn(readSchema, '{"type": "object", "properties": {"not": {"type": "string"}, "if": true}}')).toBeNull();
});

test("a tool, or a function alone, is a list of one", () => {
  const tool = { type: "function", function: { name: "f", parameters: { type: "object" } } };
  expect(readTools(JSON.stringify(tool))).toEqual([tool]);
  expect(readTools(JSON.stringify(tool.function))).toEqual([tool]);
});

test.each([
  ["[]", "at least one"],
  ['[{"type": "function"}]', 'Tool 1 has no "function"'],
  ['[{"function": {"name": "a b"}}]', "a name has"],
  ['[{"type": "code_interpreter", "name": "x"}]', 'only the type "function"'],
  ['[{"name": "f"}, {"name": "f"}]', "Two tools are called f."],
  ['[{"name": "f", "parameters": {"uniqueItems": true}}]', "/f/parameters"],
])("tools %s are refused", (text, words) => {
  expect(faultIn(readTools, text)).toContain(words);
});
