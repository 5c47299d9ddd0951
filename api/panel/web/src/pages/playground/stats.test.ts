import { expect, test } from "vitest";
import { newAnswer } from "./history";
import { type Answer } from "./model";
import { noteProgress } from "./progress";
import { asSeconds, statsOf, waitingFor } from "./stats";

function answer(fields: Partial<Answer> = {}, stats: Partial<Answer["stats"]> = {}): Answer {
  const fresh = newAnswer(1000, "k");
  return { ...fresh, ...fields, stats: { ...fresh.stats, ...stats } };
}

test("the rate is of the tokens after the first", () => {
  const shown = statsOf(answer({ state: "done" }, { firstAt: 1500, lastAt: 3500, numPieces: 30, piecesThen: 30, tokens: 41 }));
  expect(shown).toMatchObject({ firstTokenMs: 500, tokensPerS: 20, isEstimate: false, tokens: 41 });
});

test("until tokens are counted, pieces are", () => {
  expect(statsOf(answer({ state: "streaming" }, { firstAt: 1000, lastAt: 2000, numPieces: 11 }))).toMatchObject({ tokensPerS: 10, isEstimate: true, tokens: 11 });
  expect(statsOf(answer({ state: "streaming" }, { firstAt: 1000, lastAt: 2000, numPieces: 11, piecesThen: 10, tokens: 20 })).tokens).toBe(21);
  expect(statsOf(answer())).toMatchObject({ firstTokenMs: null, tokensPerS: null, tokens: null });
});

test.each<[string, Partial<Answer>]>([
  ["Sent …", {}],
  ["Next in the queue …", { place: { position: 0, etaMs: null } }],
  ["Waiting behind 1 request …", { place: { position: 1, etaMs: null } }],
  ["Waiting behind 3 requests, about 1.20 s …", { place: { position: 3, etaMs: 1200 } }],
  ["a1 reads the prompt …", { route: { agent: "a1", attempt: 1, cache: null } }],
  ["Stopping …", { state: "stopping", place: { position: 0, etaMs: null } }],
])("%s", (words, fields) => {
  expect(waitingFor(answer(fields))).toBe(words);
});

test("times in words", () => {
  expect([0.4, 850, 1234, 12_345, 61_000].map(asSeconds)).toEqual(["0 ms", "850 ms", "1.23 s", "12.3 s", "1 min 1 s"]);
});

test("what the queue knows while it waits, and while it runs", () => {
  const waiting = answer();
  const known = { state: "waiting", position: 2, estimated_wait_ms: 900, agent_name: null, attempt: 0, prompt_tokens: 12, cached_tokens: null, tokens: 0 };
  noteProgress(waiting, known);
  expect(waiting.place).toEqual({ position: 2, etaMs: 900 });
  noteProgress(waiting, { ...known, state: "running", position: null, agent_name: "a1", attempt: 1, cached_tokens: 8, tokens: 5 });
  expect(waiting.place).toBeNull();
  expect(waiting.route).toEqual({ agent: "a1", attempt: 1, cache: null });
  expect(waiting.stats).toMatchObject({ tokens: 5, promptTokens: 12, cachedTokens: 8 });
});
