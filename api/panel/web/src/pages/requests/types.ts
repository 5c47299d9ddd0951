/** What `/api/v1/requests/...` tells; times are ms since the epoch by Redis's clock. */

export type RequestClass = "interactive" | "normal" | "batch";

export type RowState = "waiting" | "assigned" | "running" | "done" | "failed" | "cancelled";

/** A request as the live topic `requests` has it, for some minutes after its end too. What is not told is as the
 * comment says. */
export interface Row {
  id: string;
  pool: string;
  /** "waiting" */
  state?: RowState;
  class: RequestClass;
  served_as?: RequestClass;
  score?: number;
  tenant: string;
  model?: string;
  agent?: string;
  agent_name?: string;
  /** How often an agent has begun it; 0 */
  opens?: number;
  deaths?: number;
  accepted_at_ms: number;
  started_at_ms?: number;
  ended_at_ms?: number;
  prompt_tokens: number;
  cached_tokens?: number;
  /** Of one that has ended; those of others are the topic `request_tokens`. */
  tokens?: number;
  is_background?: boolean;
  is_cancelling?: boolean;
}

export type EventName = "accepted" | "buffered" | "delivered" | "opened" | "first_token" | "handed_over" | "ended";

export interface RequestEvent {
  event: EventName;
  at_ms: number;
  after_ms: number;
  times: number;
}

export interface RequestTimeline {
  id: string;
  pool: string;
  state: RowState;
  class: RequestClass;
  served_as: RequestClass;
  tenant: string;
  model: string | null;
  position: number | null;
  estimated_wait_ms: number | null;
  agent: string | null;
  agent_name: string | null;
  opens: number;
  deaths: number;
  start_deadline_at_ms: number | null;
  prompt_tokens: number;
  cached_tokens: number | null;
  tokens: number;
  finish_reason: string | null;
  error: { code: string; message: string } | null;
  is_background: boolean;
  is_cancelling: boolean;
  now_ms: number;
  events: RequestEvent[];
}

export interface DeadLetter {
  id: string;
  died_at_ms: number;
  deaths: number;
  tenant: string;
  can_requeue: boolean;
}

export interface DeadLetterPage {
  dead_letters: DeadLetter[];
  next_cursor: string | null;
}
