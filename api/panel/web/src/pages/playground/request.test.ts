import { expect, test } from "vitest";
import { ask, emptySetup, giveResults, newAnswer, newConversation } from "./history";
import type { Answer, Conversation, Setup } from "./model";
import { faultsOf, requestOf } from "./request";

function conversation(setup: Partial<Setup> = {}, answer: Partial<Answer> = { text: "Light." }): Conversation {
  const begun = newConversation({ ...emptySetup("m"), ...setup }, 1);
  return ask(begun, "Why?", [], [{ ...newAnswer(0, "k"), state: "done", ...answer }], 2);
}

function bodyOf(one: Conversation, turns = one.turns, urls = new Map<string, string>()): Record<string, unknown> {
  return requestOf(one, turns, urls).body;
}

test("only what is set is sent", () => {
  const one = conversation({ system: "Be short.", values: { temperature: "0", ignore_eos: "true", class: "batch", timeout: "500", stop: "END" } });
  const { body, headers, numChoices } = requestOf(one, one.turns, new Map());
  expect(body).toEqual({
    model: "m",
    messages: [{ role: "system", content: "Be short." }, { role: "user", content: "Why?" }, { role: "assistant", content: "Light." }],
    temperature: 0,
    ignore_eos: true,
    stop: ["END"],
    prompt_cache_key: one.id,
    stream: true,
    stream_options: { include_usage: true },
  });
  expect(headers).toEqual({ "X-Request-Class": "batch", "X-Request-Timeout": "500" });
  expect(numChoices).toBe(1);
});

test("tools, their choice and results of calls", () => {
  const tools = '[{"name": "f", "parameters": {"type": "object"}}]';
  const one = conversation({ tools, toolChoice: "f", parallelCalls: false }, { calls: [{ id: "c", name: "f", arguments: "{}" }, { id: "d", name: "f", arguments: '{"cut' }] });
  const after = giveResults(one, [{ callId: "c", name: "f", text: "rain" }], [newAnswer(0, "k")], 3);
  const body = bodyOf(after, after.turns.slice(0, 3));
  expect(body.tool_choice).toEqual({ type: "function", function: { name: "f" } });
  expect(body.parallel_tool_calls).toBe(false);
  expect(body.messages).toEqual([
    { role: "user", content: "Why?" },
    { role: "assistant", content: null, tool_calls: [{ id: "c", type: "function", function: { name: "f", arguments: "{}" } }] },
    { role: "tool", tool_call_id: "c", content: "rain" },
  ]);
});

test("forms of the answer", () => {
  expect(bodyOf(conversation({ form: "json_object" })).response_format).toEqual({ type: "json_object" });
  expect(bodyOf(conversation({ form: "json_schema", schema: '{"type": "object"}' })).response_format).toEqual({ type: "json_schema", json_schema: { name: "answer", schema: { type: "object" } } });
  expect(bodyOf(conversation({ form: "grammar", grammar: "root ::= [0-9]" })).grammar).toBe("root ::= [0-9]");
});

test("images stand behind the text; those that this browser has lost are left out", () => {
  const pictures = ["p", "lost"].map((id) => ({ id, name: id, type: "image/png", bytes: 1 }));
  const one = ask(conversation(), "What is it?", pictures, [newAnswer(0, "k")], 3);
  const messages = bodyOf(one, one.turns.slice(0, 3), new Map([["p", "data:image/png;base64,AA=="]])).messages as unknown[];
  expect(messages.at(-1)).toEqual({ role: "user", content: [{ type: "text", text: "What is it?" }, { type: "image_url", image_url: { url: "data:image/png;base64,AA==" } }] });
});

test("an answer that said nothing is not repeated to the model", () => {
  expect(bodyOf(conversation({}, { state: "failed" })).messages).toEqual([{ role: "user", content: "Why?" }]);
});

test.each<[string, Partial<Setup>]>([
  ["temperature", { values: { temperature: "9" } }],
  ["Tools", { tools: "{" }],
  ["Schema", { form: "json_schema" }],
  ["Schema", { form: "json_schema", schema: '{"not": {}}' }],
  ["Grammar", { form: "grammar", grammar: " " }],
  ["exclude each other", { tools: '{"name": "f"}', form: "json_object" }],
  ["exclude each other", { tools: '{"name": "f"}', values: { logprobs: "true" } }],
  ["top_logprobs", { values: { top_logprobs: "3" } }],
  ["background", { values: { background: "true", n: "2" } }],
])("%s is checked before anything is sent", (words, setup) => {
  expect(faultsOf(conversation(setup).setup).join()).toContain(words);
  expect(() => bodyOf(conversation(setup))).toThrow(words);
});

test("tools that the model does not hear of exclude nothing", () => {
  expect(faultsOf(conversation({ tools: '{"name": "f"}', toolChoice: "none", form: "json_object" }).setup)).toEqual([]);
});
