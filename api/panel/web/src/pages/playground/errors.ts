/** Errors in words: what the server said, and what whoever sits here can do about it. */
import type { Told } from "./model";

const REMEDIES: Record<string, string> = {
  context_length_exceeded: "Shorten the conversation, or start a new one. The context of an agent is set with --context-size.",
  image_decoding_failed: "Attach the image again as PNG, JPEG, GIF or WebP.",
  multimodal_not_supported: "Remove the images, or start the agent with --multimodal-projection.",
  invalid_field: "Correct that setting and send the message again.",
  invalid_api_key: "Log in again: the session has ended, or its key was revoked.",
  insufficient_scope: "Log in with a key that has the scopes `management` and `inference`.",
  model_not_found: "Choose another model, or start an agent that serves this one.",
  request_not_found: "Send the message again: an answer is kept for ten minutes.",
  body_too_large: "Use smaller or fewer images, or a shorter conversation. --max-body of the balancer sets this limit.",
  cancelled: "It was stopped on the server. Regenerate to ask again.",
  buffer_full: "Wait a moment, or add an agent. --max-buffered-requests sets how many may wait.",
  tenant_buffer_full: "Wait until some of your requests have been answered.",
  rate_limit_exceeded: "Wait until the limit of your API key allows more.",
  too_many_in_flight: "Wait until one of your requests has ended, or stop one.",
  daily_budget_exhausted: "The tokens of the day are used up. An operator can raise the key's limit.",
  queue_unavailable: "Redis is away or full. The page Settings tells more; try again when it is back.",
  shutting_down: "The balancer was stopped. Try again once it is back.",
  start_timeout: "No slot became free in time. Add an agent, or raise the waiting time under Delivery.",
  item_timeout: "The agent said nothing for too long. Look at the page Fleet; --inference-item-timeout sets the limit.",
  agents_lost: "This request was lost with several agents. Look at their logs before you send it again.",
  request_lost: "Redis lost it in a crash. Send the message again.",
  engine_failed: "The agent's log has the details.",
  upstream_failed: "Look at the server behind the agent.",
  offline: "The balancer cannot be reached from this browser. Check the network; the page tries again by itself.",
  interrupted: "Regenerate to ask again.",
  empty: "The answer ended without a word. Regenerate, or raise the number of tokens.",
};

const BY_STATUS: Record<number, string> = {
  401: REMEDIES.invalid_api_key as string,
  403: REMEDIES.insufficient_scope as string,
  404: REMEDIES.model_not_found as string,
  413: REMEDIES.body_too_large as string,
  429: REMEDIES.rate_limit_exceeded as string,
  502: "A proxy before the balancer could not reach it. Try again in a moment.",
  503: "The service is not ready. Try again in a moment.",
  504: "A proxy before the balancer gave up waiting. Raise its timeout.",
};

/** Of OpenAI's error object, as it comes in a body or an event; of anything else as far as it goes. */
export function toldOf(body: unknown, status: number, retryAfter: number | null = null): Told {
  const error = field(body, "error");
  const code = text(field(error, "code"));
  const message = text(field(error, "message")) || (typeof error === "string" ? error : "") || `The server answered with ${status || "an error"}.`;
  const param = text(field(error, "param"));
  const named = param && !message.includes(param) ? `${param}: ${message}` : message;
  return {
    message: named.charAt(0).toUpperCase() + named.slice(1),
    remedy: REMEDIES[code] ?? BY_STATUS[status] ?? (status >= 500 ? "The balancer's log has the details." : ""),
    code: code || String(status || "error"),
    canRetry: status === 429 || status >= 500 || ["start_timeout", "request_lost", "interrupted"].includes(code),
    retryAfter,
  };
}

export function toldAs(code: "offline" | "interrupted" | "empty", message: string): Told {
  return { message, remedy: REMEDIES[code] as string, code, canRetry: true, retryAfter: null };
}

/** Whether an event's data is an error, and no chunk. */
export function isError(value: unknown): boolean {
  return field(value, "error") !== undefined;
}

export function codeOf(value: unknown): string {
  return text(field(field(value, "error"), "code"));
}

/** `Retry-After` in seconds. */
export function retryAfterOf(headers: Headers): number | null {
  const seconds = Number(headers.get("retry-after") ?? "");
  return Number.isFinite(seconds) && seconds > 0 ? seconds : null;
}

function field(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}
