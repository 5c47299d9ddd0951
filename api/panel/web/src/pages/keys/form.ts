import type { Limits, RequestClass, Scope } from "./types";

/** What the form of a key holds: text, as it is typed. */
export interface LimitsDraft {
  requests_per_minute: string;
  tokens_per_minute: string;
  max_in_flight: string;
  daily_tokens: string;
  max_file_bytes: string;
  max_open_batches: string;
  max_batch_lines: string;
  default_class: RequestClass;
  max_class: RequestClass;
  weight: string;
}

export interface KeyDraft {
  name: string;
  tenant: string;
  scopes: readonly Scope[];
  /** Days from now, empty for never, or `date` for that of `expires_on`. */
  expires: string;
  expires_on: string;
  limits: LimitsDraft;
}

/** All there are: `PUT` takes a limit that is left out for none. */
export const NUMBERS = [
  ...(["requests_per_minute", "tokens_per_minute", "max_in_flight", "daily_tokens"] as const),
  ...(["max_file_bytes", "max_open_batches", "max_batch_lines"] as const),
];

export const NO_LIMITS: LimitsDraft = {
  requests_per_minute: "",
  tokens_per_minute: "",
  max_in_flight: "",
  daily_tokens: "",
  max_file_bytes: "",
  max_open_batches: "",
  max_batch_lines: "",
  default_class: "normal",
  max_class: "interactive",
  weight: "1",
};

export const NEW_KEY: KeyDraft = { name: "", tenant: "", scopes: ["inference"], expires: "", expires_on: "", limits: NO_LIMITS };

/** By field, `limits.` before those of the limits, as the balancer names them. */
export type Problems = Record<string, string>;

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;
const NAME_RULE = "Letters, digits, dots, dashes and underscores, at most 63, a letter or digit first.";
const DAY_MS = 86_400_000;

export function draftOf(limits: Limits): LimitsDraft {
  const shown = (value: number | null) => (value === null ? "" : String(value));
  return {
    requests_per_minute: shown(limits.requests_per_minute),
    tokens_per_minute: shown(limits.tokens_per_minute),
    max_in_flight: shown(limits.max_in_flight),
    daily_tokens: shown(limits.daily_tokens),
    max_file_bytes: shown(limits.max_file_bytes),
    max_open_batches: shown(limits.max_open_batches),
    max_batch_lines: shown(limits.max_batch_lines),
    default_class: limits.default_class,
    max_class: limits.max_class,
    weight: String(limits.weight),
  };
}

/** Digits, with spaces or commas between them as people write thousands; null for empty, NaN for what is no number. */
export function numberOf(text: string): number | null {
  const digits = text.replace(/[\s,_']/g, "");
  return digits === "" ? null : /^\d+$/.test(digits) ? Number(digits) : NaN;
}

export function readLimits(draft: LimitsDraft, problems: Problems): Limits {
  const found: Record<string, number | null> = {};
  for (const name of NUMBERS) {
    const number = numberOf(draft[name]);
    if (number !== null && !(number >= 1 && number <= 1e12)) problems[`limits.${name}`] = "A whole number of 1 or more; leave it empty for no limit.";
    found[name] = number;
  }
  const weight = Number(draft.weight);
  if (!(weight >= 0.01 && weight <= 100)) problems["limits.weight"] = "A number from 0.01 to 100.";
  return { ...(found as Pick<Limits, (typeof NUMBERS)[number]>), default_class: draft.default_class, max_class: draft.max_class, weight };
}

/** The body of `POST /api/v1/keys`; what is wrong goes into `problems`. */
export function readKey(draft: KeyDraft, nowMs: number, problems: Problems): object {
  const tenant = draft.tenant.trim();
  const name = draft.name.trim();
  if (!NAME.test(name)) problems.name = NAME_RULE;
  if (tenant !== "" && !NAME.test(tenant)) problems.tenant = NAME_RULE;
  if (draft.scopes.length === 0) problems.scopes = "A key without a scope could do nothing.";
  let expires: number | null = null;
  if (draft.expires === "date") {
    expires = Date.parse(draft.expires_on);
    if (!(expires > nowMs)) problems.expires_at = "A time that is to come.";
  } else if (draft.expires !== "") {
    expires = nowMs + Number(draft.expires) * DAY_MS;
  }
  const limits = readLimits(draft.limits, problems);
  return {
    name,
    ...(tenant === "" ? {} : { tenant }),
    scopes: draft.scopes,
    ...(expires !== null && expires > nowMs ? { expires_at: new Date(expires).toISOString() } : {}),
    limits,
  };
}

/** The limits in a few words. */
export function limitsIn(limits: Limits): string[] {
  const said = (value: number | null, unit: string) => (value === null ? [] : [`${value.toLocaleString("en")} ${unit}`]);
  return [
    ...said(limits.requests_per_minute, "requests/min"),
    ...said(limits.tokens_per_minute, "tokens/min"),
    ...said(limits.max_in_flight, "in flight"),
    ...said(limits.daily_tokens, "tokens/day"),
    ...said(limits.max_file_bytes, "bytes of files"),
    ...said(limits.max_open_batches, "open batches"),
    ...said(limits.max_batch_lines, "batch lines"),
  ];
}
