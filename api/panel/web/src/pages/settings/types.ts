/** `GET /panel/api/settings`, as `api/panel/objects.py` has it. */
export interface Finding { check: string; level: "ok" | "warn" | "fail"; said: string; remedy?: string }
export interface Service { name: string; flag: string; url: string }
export interface Limit { flag: string; value: number | string; unit: "ms" | "bytes" | "requests" | "responses" | "share" | ""; meaning: string }
export interface Process { kind: string; name: string; version: string; host: string; pid: number; since_at_ms: number; clock_ms: number }

export interface RedisState {
  url: string;
  prefix: string;
  is_reachable: boolean;
  latency_ms: number | null;
  memory_used_bytes: number | null;
  memory_max_bytes: number | null;
  clients: number | null;
  findings: Finding[];
}

export interface Settings {
  version: string;
  python_version: string;
  host: string;
  pid: number;
  is_key_needed: boolean;
  services: Service[];
  limits: Limit[];
  redis: RedisState;
  processes: Process[] | null;
}
