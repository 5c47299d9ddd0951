import type { ComponentChildren } from "preact";
import { call } from "../../data/api";
import { bytes, count, plural } from "../../data/format";
import { Alert } from "../../ui/Alert";
import { Badge, type Tone } from "../../ui/Badge";
import { Button } from "../../ui/Button";
import { confirm } from "../../ui/Confirm";
import { Empty } from "../../ui/Empty";
import { Table, type Column } from "../../ui/Table";
import { toast, toastError } from "../../ui/Toast";
import { pathOf } from "./data";
import type { Holder, Prefix, State } from "./types";

const TONES: Record<State, Tone> = { waiting: "plain", computing: "info", resident: "good", saved: "accent", refused: "warn" };

interface Props {
  pool: string;
  prefixes: Prefix[] | null;
  error: string | null;
  onChange: () => void;
  pin: ComponentChildren;
}

export function PrefixList({ pool, prefixes, error, onChange, pin }: Props) {
  if (error !== null) return <Alert tone="bad"><p>{error}</p><Button small onClick={onChange}>Try again</Button></Alert>;
  if (prefixes === null) return <div class="skeleton" role="status" aria-label="Loading" />;
  if (prefixes.length === 0) {
    return (
      <Empty title="Nothing is pinned in this pool">
        <p>Pin what many requests begin with, such as a system prompt or a long document: each agent has it computed before anybody asks, and keeps it.</p>
        {pin}
      </Empty>
    );
  }
  const columns: readonly Column<Prefix>[] = [
    { id: "name", head: "Prefix", cell: (one) => <span class="prefix-name"><b class="wrap-any">{one.name}</b><span class="muted small">{one.tenant === null ? "For everybody" : `For ${one.tenant}`}</span></span> },
    { id: "tokens", head: "Tokens", right: true, cell: ({ tokens }) => <span class="num">{count(tokens)}</span> },
    { id: "hits", head: "Hits", right: true, cell: ({ hits }) => <span class="num">{count(hits)}</span> },
    { id: "bytes", head: "Held", right: true, cell: (one) => <span class="num">{bytes(one.bytes)}</span> },
    { id: "agents", head: "Agents", cell: ({ agents }) => <Agents agents={agents} /> },
    {
      id: "actions",
      head: <span class="sr-only">Actions</span>,
      right: true,
      cell: (one) => <Button small aria-label={`Unpin ${one.name}`} onClick={() => void unpin(pool, one).then((yes) => { if (yes) onChange(); })}>Unpin</Button>,
    },
  ];
  return <div class="card flush"><Table label="Pinned prefixes" columns={columns} rows={prefixes} rowKey={({ name }) => name} /></div>;
}

function Agents({ agents }: { agents: Holder[] }) {
  if (agents.length === 0) return <span class="muted small">No agent yet</span>;
  return (
    <ul class="prefix-agents">
      {agents.map(({ agent, agent_name, state, detail }) => (
        <li key={agent}>
          <span class="row-tight"><Badge tone={TONES[state]}>{state}</Badge><span class="small wrap-any">{agent_name ?? agent}</span></span>
          {detail !== null && <p class="muted small">{detail}</p>}
        </li>
      ))}
    </ul>
  );
}

/** Asked first; true if it was done. */
async function unpin(pool: string, one: Prefix): Promise<boolean> {
  const yes = await confirm({
    title: `Unpin ${one.name}?`,
    body: one.agents.length === 0 ? "Agents that start need not compute it any more." : `${plural(one.agents.length, "agent gives", "agents give")} up what they hold of it.`,
    action: "Unpin",
    danger: true,
  });
  if (!yes) return false;
  try {
    await call(pathOf(pool, one.name), { method: "DELETE" });
    toast(`${one.name} is not pinned any more.`, "good");
    return true;
  } catch (error) {
    toastError(error);
    return false;
  }
}
