/** What the balancer sends, as far as pages read it. Python's types (`api/management/*_objects.py`) say more of each. */

export type AgentState = "waiting" | "loading" | "failed" | "ready" | "draining" | "drained" | "leaving" | "lost" | "?";

export interface IssueDetail {
  kind: string;
  detail: string;
  /** What Paddler does about it by itself. */
  action: string;
  /** What you can do. */
  remedy: string;
}

/** One tier behind an agent's KV cache, since its start; `bytes` and `blocks` are what it holds of this agent's now. */
export interface Tier {
  tier: "ram" | "disk" | "peer" | "shared" | (string & {});
  hits: number;
  misses: number;
  tokens: number;
  saved_ms: number;
  refused: number;
  failures: number;
  bytes: number;
  blocks: number;
  bytes_per_second: number | null;
}

export interface Agent {
  id: string;
  pool: string;
  name: string | null;
  state: AgentState;
  is_draining: boolean;
  desired_slots_total: number;
  slots_total: number;
  slots_processing: number;
  model: string | null;
  model_path: string | null;
  download_current: number;
  download_total: number;
  download_filename: string | null;
  download_indeterminate: boolean;
  phase: string | null;
  progress: number | null;
  desired_version: number | null;
  context_size: number | null;
  tokens_per_second: number | null;
  prefill_tokens_per_second: number | null;
  cache_hit_ratio: number | null;
  /** What its KV cache of `context_size` holds, of sequences that run or have ended; of the latter `max_parked` at most. */
  held_tokens: number;
  held_sequences: number;
  max_parked: number;
  /** What has left it for host memory, and how much has come back. */
  saved_tokens: number;
  saved_bytes: number;
  restored_tokens: number;
  /** All that lies behind the KV cache; an older balancer does not tell. */
  tiers?: Tier[];
  version: string | null;
  build: string | null;
  host: string | null;
  pid: number | null;
  issue_details: IssueDetail[];
}

export interface Pool {
  name: string;
  models: string[];
  waiting: Record<string, number>;
  oldest_wait_ms: number | null;
  demand: number;
  demand_batch: number;
  backlog_tokens: number;
  agents: number;
  slots_total: number;
  slots_idle: number;
  slots_processing: number;
  dead_letters: number;
  counters: Record<string, number>;
}

export interface System {
  /** Redis answers this balancer. */
  redis: boolean;
  /** A worker runs and looks after what dead agents and balancers leave. */
  worker: boolean;
}

/** One pool at one time. `tokens_per_second` were put out since the sample before. */
export interface Sample {
  at_ms: number;
  pool: string;
  buffered: number;
  demand: number;
  oldest_wait_ms: number;
  slots_processing: number;
  slots_total: number;
  tokens_per_second: number;
}

export interface Me {
  /** False while there are no API keys: everybody may do everything. */
  needs_key: boolean;
  logged_in: boolean;
  name: string | null;
  tenant: string | null;
  version: string;
}
