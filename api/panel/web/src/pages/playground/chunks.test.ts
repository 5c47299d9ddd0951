import { expect, test } from "vitest";
import { type Chunk, applyChunk } from "./chunks";
import { newAnswer } from "./history";

function delta(delta: object, finish: string | null = null, index = 0): Chunk {
  return { choices: [{ index, delta, finish_reason: finish }] };
}

test("text, thoughts and calls grow apart", () => {
  const answer = newAnswer(1000, "k");
  applyChunk([answer], delta({ role: "assistant", content: "" }), 1100);
  expect(answer.stats.firstAt).toBeNull();
  applyChunk([answer], delta({ reasoning_content: "Hm. " }), 1200);
  applyChunk([answer], delta({ content: "Hel" }), 1300);
  applyChunk([answer], delta({ content: "lo" }), 1400);
  applyChunk([answer], delta({ tool_calls: [{ index: 0, id: "c0", type: "function", function: { name: "f", arguments: "" } }] }), 1500);
  applyChunk([answer], delta({ tool_calls: [{ index: 0, function: { arguments: '{"a":' } }] }), 1600);
  applyChunk([answer], delta({ tool_calls: [{ index: 1, id: "c1", function: { name: "g", arguments: "{}" } }] }), 1650);
  applyChunk([answer], delta({ tool_calls: [{ index: 0, function: { arguments: "1}" } }] }), 1700);
  applyChunk([answer], delta({}, "tool_calls"), 1800);
  applyChunk([answer], { choices: [], usage: { prompt_tokens: 9, completion_tokens: 30, prompt_tokens_details: { cached_tokens: 4 } } }, 1800);
  expect([answer.thought, answer.text, answer.finish]).toEqual(["Hm. ", "Hello", "tool_calls"]);
  expect(answer.calls).toEqual([{ id: "c0", name: "f", arguments: '{"a":1}' }, { id: "c1", name: "g", arguments: "{}" }]);
  expect(answer.stats).toMatchObject({ sentAt: 1000, firstAt: 1200, lastAt: 1700, tokens: 30, promptTokens: 9, cachedTokens: 4 });
});

test("choices are told apart by their number", () => {
  const answers = [newAnswer(0, ""), newAnswer(0, "")];
  applyChunk(answers, delta({ content: "b" }, null, 1), 1);
  applyChunk(answers, delta({ content: "a" }, "stop", 0), 1);
  applyChunk(answers, delta({ content: "lost" }, null, 2), 1);
  expect(answers.map((answer) => answer.text)).toEqual(["a", "b"]);
  expect(answers.map((answer) => answer.finish)).toEqual(["stop", null]);
});

test("a broken answer goes on with its next word", () => {
  const answer = newAnswer(0, "k");
  answer.state = "broken";
  applyChunk([answer], delta({ content: "x" }), 1);
  expect(answer.state).toBe("streaming");
});

test("probabilities are kept with their tokens", () => {
  const answer = newAnswer(0, "k");
  const content = [{ token: "Hi", logprob: -0.1, bytes: [72], top_logprobs: [{ token: "Ho", logprob: -2, bytes: [] }] }];
  applyChunk([answer], { choices: [{ index: 0, delta: { content: "Hi" }, finish_reason: null, logprobs: { content } }] }, 1);
  expect(answer.sampled).toEqual([{ token: "Hi", logprob: -0.1, top: [{ token: "Ho", logprob: -2 }] }]);
});
