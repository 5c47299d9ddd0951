import { clockTime, count, duration } from "../../data/format";
import { Badge } from "../../ui/Badge";
import { Empty } from "../../ui/Empty";
import { Table, type Column } from "../../ui/Table";
import { detailPath, TONES } from "./RequestRow";
import type { Row } from "./types";

const COLUMNS: readonly Column<Row>[] = [
  { id: "state", head: "Outcome", cell: ({ state = "waiting" }) => <Badge tone={TONES[state]}>{state}</Badge> },
  { id: "id", head: "Request", cell: ({ id, model }) => <span class="request-name"><a class="mono nowrap" href={detailPath(id)}>{id}</a>{model && <span class="muted small">{model}</span>}</span> },
  { id: "class", head: "Class", cell: (one) => one.class },
  { id: "tenant", head: "Tenant", cell: ({ tenant }) => tenant },
  { id: "agent", head: "Agent", cell: ({ agent_name }) => agent_name ?? "–" },
  { id: "tokens", head: "Tokens", right: true, cell: ({ prompt_tokens, tokens }) => <span class="num"><span class="muted">{count(prompt_tokens)} →</span> {count(tokens)}</span> },
  { id: "took", head: "Took", right: true, cell: ({ accepted_at_ms, ended_at_ms }) => <span class="num">{ended_at_ms ? duration(ended_at_ms - accepted_at_ms) : "–"}</span> },
  { id: "at", head: "Ended", right: true, cell: ({ ended_at_ms }) => <span class="num">{ended_at_ms ? clockTime(ended_at_ms) : "–"}</span> },
];

/** Those that ended while somebody looked on. */
export function EndedList({ ended }: { ended: readonly Row[] }) {
  if (ended.length === 0) {
    return <Empty title="Nothing has ended since somebody opened this page"><p>Requests that end while you look on are listed here; their time lines can be read for ten minutes.</p></Empty>;
  }
  return <div class="card flush ended"><Table label="Requests that have just ended" columns={COLUMNS} rows={ended} rowKey={({ id }) => id} /></div>;
}
