import { useState } from "preact/hooks";
import { agents, connection, pools, system } from "../../data/live";
import { Alert } from "../../ui/Alert";
import { Button } from "../../ui/Button";
import { Icon } from "../../ui/Icon";
import { Page } from "../../ui/Page";
import "./fleet.css";
import { AddAgent } from "./AddAgent";
import { Charts } from "./Charts";
import { NoAgents } from "./NoAgents";
import { PoolCard } from "./PoolCard";
import { Totals } from "./Totals";
import { byPool } from "./grouping";

export default function Fleet() {
  const [adding, setAdding] = useState(false);
  if (connection.value.state === "connecting") return <Page title="Fleet"><div class="skeleton" role="status" aria-label="Loading" /></Page>;
  const grouped = byPool(pools.value, agents.value);
  return (
    <Page title="Fleet" actions={<Button kind="primary" onClick={() => setAdding(true)}><Icon name="plus" />Add an agent</Button>}>
      {!system.value.worker && (
        <Alert tone="warn">
          <b>No worker is running.</b> What lost agents and balancers leave is not looked after, and batches wait. Start one
          with <code>paddler worker</code>.
        </Alert>
      )}
      <Totals />
      {agents.value.size === 0 && <NoAgents />}
      <Charts />
      {grouped.map(({ pool, agents: own }) => (agents.value.size > 0 || pool.demand > 0) && <PoolCard key={pool.name} pool={pool} agents={own} onlyOne={grouped.length === 1} />)}
      {adding && <AddAgent onClose={() => setAdding(false)} />}
    </Page>
  );
}
