import { count, duration, plural } from "../../data/format";
import type { Agent, Pool } from "../../data/types";
import { Badge } from "../../ui/Badge";
import { VirtualList } from "../../ui/VirtualList";
import { AgentRow } from "./AgentRow";

/** So many agents are drawn at once; more of them scroll within the card, and only those in view are drawn. */
const PLAIN = 40;

export function PoolCard({ pool, agents, onlyOne }: { pool: Pool; agents: Agent[]; onlyOne: boolean }) {
  const buffered = Object.values(pool.waiting).reduce((total, one) => total + one, 0);
  return (
    <section class="card flush" aria-label={`Pool ${pool.name}`}>
      <header class="pool-head">
        <div class="row">
          <h2>{onlyOne && pool.name === "default" ? "Agents" : pool.name}</h2>
          <span class="muted">{plural(agents.length, "agent")}, {pool.slots_processing} of {plural(pool.slots_total, "slot")} busy</span>
        </div>
        <div class="row">
          {buffered > 0 && <Badge tone="warn">{count(buffered)} buffered{pool.oldest_wait_ms !== null ? `, oldest ${duration(pool.oldest_wait_ms)}` : ""}</Badge>}
          {pool.demand_batch > 0 && <Badge>{count(pool.demand_batch)} of class batch</Badge>}
          {pool.dead_letters > 0 && <Badge tone="bad">{plural(pool.dead_letters, "dead letter")}</Badge>}
        </div>
      </header>
      {agents.length === 0 && <p class="pool-none muted">No agent serves this pool: its requests wait until one does.</p>}
      {agents.length > 0 && <AgentHead />}
      {agents.length <= PLAIN ? (
        <div role="list" aria-label={`Agents of ${pool.name}`}>{agents.map((agent) => <div role="listitem" key={agent.id}><AgentRow agent={agent} /></div>)}</div>
      ) : (
        <VirtualList label={`Agents of ${pool.name}`} rows={agents} rowKey={(agent) => agent.id} estimate={77} height="70vh">
          {(agent) => <AgentRow agent={agent} />}
        </VirtualList>
      )}
    </section>
  );
}

function AgentHead() {
  return (
    <div class="agent agent-head" aria-hidden="true">
      <span>Agent</span><span>Slots</span><span>Model</span><span class="right">Tokens/s</span><span class="right">Cache</span><span>Version</span><span />
    </div>
  );
}
