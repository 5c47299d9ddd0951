/** What `/api/v1/keys` and `/api/v1/usage` tell. */

export type Scope = "inference" | "management" | "agent";
export type RequestClass = "interactive" | "normal" | "batch";

export interface Limits {
  requests_per_minute: number | null;
  tokens_per_minute: number | null;
  max_in_flight: number | null;
  daily_tokens: number | null;
  /** These three count all of the tenant; null is the balancer's own setting. */
  max_file_bytes: number | null;
  max_open_batches: number | null;
  max_batch_lines: number | null;
  default_class: RequestClass;
  max_class: RequestClass;
  weight: number;
}

export interface ApiKey {
  id: string;
  name: string;
  tenant: string;
  scopes: Scope[];
  state: "active" | "revoked" | "expired";
  limits: Limits;
  created_at: string;
  expires_at: string | null;
  revoked_at: string | null;
  rotated_at: string | null;
}

export interface NewKey {
  key: ApiKey;
  secret: string;
}

export type Group = "day" | "tenant" | "key" | "model";

export interface UsageRow {
  date?: string;
  tenant?: string;
  key?: string;
  key_name?: string;
  model?: string;
  requests: number;
  prompt_tokens: number;
  cached_tokens: number;
  output_tokens: number;
}

/** What a tenant has now. */
export interface Holding {
  tenant: string;
  files: number;
  file_bytes: number;
  open_batches: number;
  batch_lines: number;
}

export interface Usage {
  from: string;
  to: string;
  group_by: Group[];
  usage: UsageRow[];
  held: Holding[];
}
