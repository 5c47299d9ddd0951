import { expect, test } from "vitest";
import { ask, askAgain, asJson, asMarkdown, choose, emptySetup, fileName, giveResults, newAnswer, newConversation, regenerate, rename, turnsBefore, withAnswers } from "./history";
import { type Answer, type AssistantTurn, type Conversation, chosen } from "./model";

function answer(text: string): Answer {
  return { ...newAnswer(0, "k"), text, state: "done" };
}

function talked(...pairs: [string, string][]): Conversation {
  return pairs.reduce((conversation, [question, text]) => ask(conversation, question, [], [answer(text)], 5), newConversation(emptySetup("m"), 1));
}

test("a question has an answer behind it, and the first gives the title", () => {
  const conversation = talked(["Why is  the sky blue?\nSay it shortly, in one sentence or so, please.", "Light."], ["And red?", "Dust."]);
  expect(conversation.turns.map((turn) => turn.role)).toEqual(["user", "assistant", "user", "assistant"]);
  expect(conversation.title).toBe("Why is the sky blue? Say it shortly, in one …");
  expect(conversation.changedAt).toBe(5);
});

test("a name that was given stays", () => {
  const named = rename(talked(["a", "b"]), "  Mine ");
  expect(ask(named, "other words", [], [answer("x")], 6).title).toBe("Mine");
  expect(rename(named, "   ")).toBe(named);
});

test("a question in other words replaces what came behind it", () => {
  const before = talked(["one", "1"], ["two", "2"], ["three", "3"]);
  const turn = before.turns[2];
  const after = askAgain(before, turn?.id ?? "", "zwei", [answer("II")], 9);
  expect(asMarkdown(after)).toContain("zwei");
  expect(asMarkdown(after)).not.toMatch(/two|three/);
  expect(after.turns).toHaveLength(4);
  expect(before.turns).toHaveLength(6);
});

test("answers of before stay to choose from", () => {
  const before = talked(["one", "1"], ["two", "2"]);
  const id = before.turns[1]?.id ?? "";
  const after = regenerate(before, id, [answer("I"), answer("eins")], 9);
  const turn = after.turns[1] as AssistantTurn;
  expect(after.turns).toHaveLength(2);
  expect(turn.answers.map((one) => one.text)).toEqual(["1", "I", "eins"]);
  expect(chosen(turn).text).toBe("I");
  expect(chosen(choose(after, id, 0).turns[1] as AssistantTurn).text).toBe("1");
  expect(choose(after, id, 3).turns[1]).toBe(turn);
});

test("results of calls come before their answer", () => {
  const after = giveResults(talked(["weather?", ""]), [{ callId: "c", name: "f", text: "rain" }], [answer("It rains.")], 9);
  expect(after.turns.map((turn) => turn.role)).toEqual(["user", "assistant", "tool", "assistant"]);
});

test("an answer that grows changes its own turn alone", () => {
  const before = talked(["one", "1"], ["two", "2"]);
  const old = chosen(before.turns[3] as AssistantTurn);
  const after = withAnswers(before, [{ ...old, text: "2, of course" }]);
  expect(after.turns.map((turn, at) => turn === before.turns[at])).toEqual([true, true, true, false]);
  expect(turnsBefore(after, old.id)).toHaveLength(3);
});

test("a file for reading keeps code within its fences", () => {
  const conversation = talked(["say ```", "```js\n1\n```"]);
  const called = { ...answer(""), calls: [{ id: "c", name: "f", arguments: '{"a":"```"}' }] };
  const text = asMarkdown(ask(conversation, "call", [{ id: "p", name: "cat.png", type: "image/png", bytes: 1 }], [called], 9));
  expect(text).toContain("````json\n");
  expect(text).toContain("*(image: cat.png)*");
  expect(text.startsWith("# say ```\n\n**You**\n\nsay ```\n\n**m**")).toBe(true);
});

test("a file for machines has all of it", () => {
  const conversation = talked(["a", "b"]);
  expect(JSON.parse(asJson(conversation))).toMatchObject({ paddler: "conversation", version: 1, turns: conversation.turns });
  expect(fileName({ ...conversation, title: "Où est / c'est?" }, "md")).toBe("où-est-c-est.md");
  expect(fileName({ ...conversation, title: "??" }, "md")).toBe("conversation.md");
});
