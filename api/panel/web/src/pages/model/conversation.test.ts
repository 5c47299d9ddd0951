import { expect, test } from "vitest";
import { asked, EXAMPLE } from "./conversation";

test("turns are messages, and what is switched on goes along", () => {
  expect(asked(EXAMPLE)).toEqual({ messages: EXAMPLE.turns, add_generation_prompt: true });
  const told = asked({ ...EXAMPLE, hasTools: true, beginsAnswer: false });
  expect(told.add_generation_prompt).toBe(false);
  expect(told.tools).toHaveLength(1);
});

test("a turn of a tool answers a call of the turn before it", () => {
  const { messages } = asked({ turns: [{ role: "user", content: "?" }, { role: "assistant", content: "" }, { role: "tool", content: "sun" }], hasTools: true, beginsAnswer: true });
  expect(messages[1]).toMatchObject({ role: "assistant", tool_calls: [{ id: "call_2", function: { name: "get_weather" } }] });
  expect(messages[2]).toEqual({ role: "tool", content: "sun", tool_call_id: "call_2" });
});
