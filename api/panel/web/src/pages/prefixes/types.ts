/** What `/api/v1/pools/{name}/prefixes` tells. */

export type State = "waiting" | "computing" | "resident" | "saved" | "refused";

export interface Holder {
  agent: string;
  agent_name: string | null;
  state: State;
  tokens: number;
  bytes: number;
  /** Why it is refused. */
  detail: string | null;
}

export interface Prefix {
  name: string;
  version: number;
  tenant: string | null;
  size: number;
  created_at: string;
  author: string;
  /** Null before an agent has counted. */
  tokens: number | null;
  hits: number;
  bytes: number;
  agents: Holder[];
}
