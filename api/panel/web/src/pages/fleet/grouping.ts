import type { Agent, Pool } from "../../data/types";

export interface PoolAgents { pool: Pool; agents: Agent[] }

/** Pools by name, each with its agents by name. */
export function byPool(pools: ReadonlyMap<string, Pool>, agents: ReadonlyMap<string, Agent>): PoolAgents[] {
  const own = new Map<string, Agent[]>([...pools.keys()].map((name) => [name, []]));
  for (const agent of agents.values()) own.get(agent.pool)?.push(agent);
  const order = new Intl.Collator("en", { numeric: true });
  return [...pools.values()]
    .sort((one, other) => order.compare(one.name, other.name))
    .map((pool) => ({ pool, agents: (own.get(pool.name) ?? []).sort((one, other) => order.compare(one.name ?? one.id, other.name ?? other.id)) }));
}

export interface Sum {
  agents: number;
  ready: number;
  slots: number;
  busy: number;
  buffered: number;
  demand: number;
  oldestWaitMs: number | null;
  issues: number;
}

export function sum(pools: ReadonlyMap<string, Pool>, agents: ReadonlyMap<string, Agent>): Sum {
  const found: Sum = { agents: agents.size, ready: 0, slots: 0, busy: 0, buffered: 0, demand: 0, oldestWaitMs: null, issues: 0 };
  for (const agent of agents.values()) {
    if (agent.state === "ready") found.ready += 1;
    found.issues += agent.issue_details.length;
  }
  for (const pool of pools.values()) {
    found.slots += pool.slots_total;
    found.busy += pool.slots_processing;
    found.buffered += Object.values(pool.waiting).reduce((total, one) => total + one, 0);
    found.demand += pool.demand;
    if (pool.oldest_wait_ms !== null) found.oldestWaitMs = Math.max(found.oldestWaitMs ?? 0, pool.oldest_wait_ms);
  }
  return found;
}
