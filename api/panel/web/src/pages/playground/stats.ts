/** What is told of an answer in numbers. Times are milliseconds. */
import { type Answer, isRunning } from "./model";

export interface Shown {
  firstTokenMs: number | null;
  tokensPerS: number | null;
  /** The rate is by pieces that came, because nobody has counted tokens yet. */
  isEstimate: boolean;
  tokens: number | null;
  promptTokens: number | null;
  cachedTokens: number | null;
}

export function statsOf(answer: Answer): Shown {
  const { sentAt, firstAt, lastAt, numPieces, piecesThen, tokens, promptTokens, cachedTokens } = answer.stats;
  // A piece is a token or more: what has come since tokens were counted is at least so many.
  const count = tokens === null ? numPieces || null : tokens + numPieces - piecesThen;
  const spanMs = firstAt !== null && lastAt !== null ? lastAt - firstAt : 0;
  return {
    firstTokenMs: firstAt === null ? null : firstAt - sentAt,
    // The first token ends the prompt; the rate is of those after it.
    tokensPerS: count !== null && count > 1 && spanMs > 0 ? ((count - 1) * 1000) / spanMs : null,
    isEstimate: tokens === null || isRunning(answer),
    tokens: count,
    promptTokens,
    cachedTokens,
  };
}

export function asSeconds(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return ms < 60_000 ? `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s` : `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1000)} s`;
}

/** What a waiting answer waits for, in words. */
export function waitingFor(answer: Answer): string {
  if (answer.state === "stopping") return "Stopping …";
  if (answer.state === "broken") return "The connection broke; going on where it was …";
  if (answer.state === "streaming") return answer.handedOverFrom.length ? "Handed over …" : "Writing …";
  if (answer.place !== null) {
    const { position, etaMs } = answer.place;
    const place = position === 0 ? "Next in the queue" : `Waiting behind ${position} ${position === 1 ? "request" : "requests"}`;
    return etaMs === null ? `${place} …` : `${place}, about ${asSeconds(etaMs)} …`;
  }
  return answer.route.agent === null ? "Sent …" : `${answer.route.agent} reads the prompt …`;
}
