/** What a conversation is. Everything here is plain data: it is stored in the browser, and exported, as it is. */

export interface Picture {
  id: string;
  name: string;
  type: string;
  bytes: number;
}

export interface Call {
  id: string;
  name: string;
  /** JSON text, as the model wrote it; not whole while it is written. */
  arguments: string;
}

export interface LikelyToken {
  token: string;
  logprob: number;
}

export interface Sampled extends LikelyToken {
  top: LikelyToken[];
}

/** An error in words, and what can be done about it. */
export interface Told {
  message: string;
  remedy: string;
  code: string;
  /** Whether the same request may succeed later. */
  canRetry: boolean;
  /** Seconds, where the server named them. */
  retryAfter: number | null;
}

export interface Place {
  position: number;
  etaMs: number | null;
}

/** Which way a request has gone; null is not known (yet). */
export interface Route {
  agent: string | null;
  attempt: number | null;
  cache: string | null;
}

/** Times are milliseconds of `Date.now()`. */
export interface Stats {
  sentAt: number;
  firstAt: number | null;
  lastAt: number | null;
  numPieces: number;
  /** As the server counted them when `piecesThen` had come; exact at the end. */
  tokens: number | null;
  piecesThen: number;
  promptTokens: number | null;
  cachedTokens: number | null;
}

/** `waiting`: no text yet; `broken`: the connection is being made again; `stopping`: told to stop. */
export type AnswerState = "waiting" | "streaming" | "broken" | "stopping" | "done" | "stopped" | "failed";

export const RUNNING: readonly AnswerState[] = ["waiting", "streaming", "broken", "stopping"];

export interface Answer {
  id: string;
  text: string;
  thought: string;
  calls: Call[];
  sampled: Sampled[];
  finish: string | null;
  state: AnswerState;
  error: Told | null;
  /** The request's id in the queue, once it is known. */
  requestId: string | null;
  lastEventId: string | null;
  /** Makes sending it again the same request. Empty where a request cannot be gone on with: several choices. */
  key: string;
  route: Route;
  /** Earlier agents of the same answer, the first one first. */
  handedOverFrom: string[];
  place: Place | null;
  stats: Stats;
}

export interface UserTurn {
  id: string;
  role: "user";
  text: string;
  pictures: Picture[];
}

export interface AssistantTurn {
  id: string;
  role: "assistant";
  /** Of regenerating, or of several choices; `chosen` is the one that the conversation goes on with. */
  answers: Answer[];
  chosen: number;
}

export interface ToolTurn {
  id: string;
  role: "tool";
  callId: string;
  name: string;
  text: string;
}

export type Turn = UserTurn | AssistantTurn | ToolTurn;

export type Form = "text" | "json_object" | "json_schema" | "grammar";

/** How a conversation is asked for. Texts are what stands in the fields, whether or not it is good. */
export interface Setup {
  model: string;
  system: string;
  /** Of `params.ts`, by name; what is absent is left to the pool. */
  values: Record<string, string>;
  tools: string;
  toolChoice: string;
  parallelCalls: boolean;
  form: Form;
  schema: string;
  grammar: string;
}

export interface Conversation {
  id: string;
  title: string;
  /** Named by its user, so no longer after its first words. */
  isNamed: boolean;
  createdAt: number;
  changedAt: number;
  setup: Setup;
  turns: Turn[];
}

export const NO_ROUTE: Route = { agent: null, attempt: null, cache: null };

export function isRunning(answer: Answer): boolean {
  return RUNNING.includes(answer.state);
}

export function chosen(turn: AssistantTurn): Answer {
  const answer = turn.answers[turn.chosen] ?? turn.answers[0];
  if (answer === undefined) throw new Error("a turn of the assistant has an answer");
  return answer;
}

/** An id. `crypto.randomUUID` is only there over HTTPS and on this machine. */
export function newId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
