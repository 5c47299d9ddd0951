/** What the queue knows of a request while it runs, asked for every other second: a stream tells its place rarely. */
import { noteRoute } from "./follow";
import type { Answer } from "./model";

export const POLL_MS = 2000;

/** Of `GET /api/v1/requests/{id}`, what is read here. */
export interface Progress {
  state: string;
  position: number | null;
  estimated_wait_ms: number | null;
  agent_name: string | null;
  attempt: number;
  prompt_tokens: number;
  cached_tokens: number | null;
  tokens: number;
}

export function noteProgress(answer: Answer, progress: Progress): void {
  if (progress.state === "waiting") {
    answer.place = progress.position === null ? null : { position: progress.position, etaMs: progress.estimated_wait_ms };
    return;
  }
  answer.place = null;
  if (progress.state !== "running") return;
  noteRoute(answer, { agent: progress.agent_name, attempt: progress.attempt });
  if (progress.cached_tokens !== null) {
    answer.stats.promptTokens = progress.prompt_tokens;
    answer.stats.cachedTokens = progress.cached_tokens;
  }
  if (progress.tokens > 0) [answer.stats.tokens, answer.stats.piecesThen] = [progress.tokens, answer.stats.numPieces];
}
