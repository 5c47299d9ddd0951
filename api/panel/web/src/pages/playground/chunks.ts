/** From the chunks of a chat completion to the answers that they are parts of. */
import type { Answer, Call, Sampled } from "./model";

interface Delta {
  content?: string | null;
  reasoning_content?: string | null;
  tool_calls?: { index: number; id?: string; function?: { name?: string; arguments?: string } }[];
}

interface LikelyOut {
  token: string;
  logprob: number;
  top_logprobs?: LikelyOut[];
}

export interface Chunk {
  choices?: { index: number; delta: Delta; finish_reason: string | null; logprobs?: { content?: LikelyOut[] } | null }[];
  usage?: { prompt_tokens: number; completion_tokens: number; prompt_tokens_details?: { cached_tokens?: number } } | null;
}

const MAX_SAMPLED = 4096;

/** Changes `answers`, one for each choice. `now` is when the chunk came. */
export function applyChunk(answers: readonly Answer[], chunk: Chunk, now: number): void {
  for (const choice of chunk.choices ?? []) {
    const answer = answers[choice.index];
    if (answer === undefined) continue;
    if (applyDelta(answer, choice.delta)) {
      answer.stats.firstAt ??= now;
      answer.stats.lastAt = now;
      answer.stats.numPieces += 1;
      if (answer.state === "waiting" || answer.state === "broken") answer.state = "streaming";
      answer.place = null;
    }
    for (const one of choice.logprobs?.content ?? []) {
      if (answer.sampled.length < MAX_SAMPLED) answer.sampled.push(sampledOf(one));
    }
    if (choice.finish_reason) answer.finish = choice.finish_reason;
  }
  if (chunk.usage) {
    const { prompt_tokens, completion_tokens, prompt_tokens_details } = chunk.usage;
    for (const answer of answers) {
      answer.stats.promptTokens = prompt_tokens;
      answer.stats.cachedTokens = prompt_tokens_details?.cached_tokens ?? 0;
      // Of several choices the sum of all: what one had is not told.
      if (answers.length === 1) [answer.stats.tokens, answer.stats.piecesThen] = [completion_tokens, answer.stats.numPieces];
    }
  }
}

/** Has it said something? */
function applyDelta(answer: Answer, delta: Delta): boolean {
  if (delta.content) answer.text += delta.content;
  if (delta.reasoning_content) answer.thought += delta.reasoning_content;
  for (const part of delta.tool_calls ?? []) {
    const call = (answer.calls[part.index] ??= emptyCall());
    if (part.id) call.id = part.id;
    if (part.function?.name) call.name += part.function.name;
    if (part.function?.arguments) call.arguments += part.function.arguments;
  }
  return Boolean(delta.content || delta.reasoning_content || delta.tool_calls?.length);
}

function emptyCall(): Call {
  return { id: "", name: "", arguments: "" };
}

function sampledOf(one: LikelyOut): Sampled {
  const top = (one.top_logprobs ?? []).map(({ token, logprob }) => ({ token, logprob }));
  return { token: one.token, logprob: one.logprob, top };
}
