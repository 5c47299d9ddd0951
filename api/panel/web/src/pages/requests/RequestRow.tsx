import { count, duration, plural } from "../../data/format";
import { Badge, type Tone } from "../../ui/Badge";
import { Button } from "../../ui/Button";
import { Icon } from "../../ui/Icon";
import { memo } from "../../ui/memo";
import { cancelRequest } from "./actions";
import type { Placed } from "./board";
import { serverNow, tokensOf } from "./feed";
import { begun } from "./timeline";
import type { Row, RowState } from "./types";

export const TONES: Record<RowState, Tone> = { waiting: "plain", assigned: "info", running: "good", done: "good", failed: "bad", cancelled: "warn" };

/** What the columns are, where there is room for columns. */
export function RowHead() {
  return (
    <div class="request-head request-row" aria-hidden="true">
      <span>State</span><span>Request</span><span>Class</span><span>Tenant</span><span>Agent</span><span class="right">For</span><span class="right">Tokens</span><span />
    </div>
  );
}

/** A row that has not changed is the same object: of those in view only what did change is drawn. */
export const RequestRow = memo(function RequestRow({ row, position }: Placed) {
  const state = row.state ?? "waiting";
  const { opens = 0, deaths = 0 } = row;
  return (
    <div class="request-row">
      <span class="row-tight request-state">
        <Badge tone={row.is_cancelling ? "warn" : TONES[state]}>{row.is_cancelling ? "cancelling" : state}</Badge>
        {position !== null && <span class="num muted" title="How many are served before it">#{count(position)}</span>}
      </span>
      <span class="request-name">
        <a class="mono clip" href={detailPath(row.id)} title={row.id}>{row.id}</a>
        {row.model && <span class="muted small clip" title={row.model}>{row.model}</span>}
      </span>
      <ClassOf row={row} />
      <span class="clip request-tenant" title={row.tenant}>{row.tenant}</span>
      <span class="row-tight request-agent">
        {row.agent && <span class="clip" title={row.agent}>{row.agent_name ?? row.agent}</span>}
        {opens > (state === "waiting" ? 0 : 1) && <Badge tone="warn" title={deaths ? `${plural(deaths, "agent")} lost with it` : "It came back from an agent"}>{`begun ${begun(opens)}`}</Badge>}
      </span>
      <Age row={row} />
      <Tokens row={row} />
      <Button kind="quiet" small icon class="request-cancel" disabled={row.is_cancelling} aria-label={`Cancel request ${row.id}`} title="Cancel" onClick={() => void cancelRequest(row.id)}>
        <Icon name="close" size={16} />
      </Button>
    </div>
  );
});

function ClassOf({ row }: { row: Row }) {
  const isPromoted = row.served_as !== undefined && row.served_as !== row.class;
  return (
    <span class="clip request-class" title={isPromoted ? "It has waited so long that it is served as a higher class" : undefined}>
      {row.class}{isPromoted && ` → ${row.served_as}`}{row.is_background && <span class="muted"> · bg<span class="sr-only"> (in the background)</span></span>}
    </span>
  );
}

function Tokens({ row }: { row: Row }) {
  const tokens = tokensOf(row.id);
  return (
    <span class="num right request-tokens" title="Tokens of the prompt, by estimate, and of the answer so far">
      <span class="muted">{count(row.prompt_tokens)}{tokens > 0 && " →"}</span> {tokens > 0 && count(tokens)}
    </span>
  );
}

/** Changes by itself, as the time does. */
function Age({ row }: { row: Row }) {
  const since = row.state === undefined || row.state === "waiting" ? row.accepted_at_ms : (row.started_at_ms ?? row.accepted_at_ms);
  return <span class="num right request-age">{duration(Math.max(0, serverNow.value - since))}</span>;
}

export function detailPath(id: string): string {
  return `#/requests/${encodeURIComponent(id)}`;
}
