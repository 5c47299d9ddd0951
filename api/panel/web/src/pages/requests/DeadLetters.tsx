import { useEffect, useState } from "preact/hooks";
import { call } from "../../data/api";
import { count, dateTime } from "../../data/format";
import { Alert } from "../../ui/Alert";
import { Button } from "../../ui/Button";
import { Empty } from "../../ui/Empty";
import { Table, type Column } from "../../ui/Table";
import { drop, requeue } from "./actions";
import { detailPath } from "./RequestRow";
import type { DeadLetter, DeadLetterPage } from "./types";

const PAGE = 100;

/** `number` is how many there are, as the balancer tells it live: the list is read again when it changes. */
export function DeadLetters({ pool, number }: { pool: string; number: number }) {
  const [letters, setLetters] = useState<DeadLetter[] | null>(null);
  const [next, setNext] = useState<string | null>(null);
  const [error, setError] = useState<string | null>(null);
  const [turn, setTurn] = useState(0);

  const read = async (cursor: string | null, signal?: AbortSignal) => {
    const query = new URLSearchParams({ limit: String(PAGE), ...(cursor === null ? {} : { cursor }) });
    try {
      const page = await call<DeadLetterPage>(`/api/v1/pools/${encodeURIComponent(pool)}/dead_letters?${query}`, { signal });
      setLetters((before) => (cursor === null ? page.dead_letters : [...(before ?? []), ...page.dead_letters]));
      setNext(page.next_cursor);
      setError(null);
    } catch (problem) {
      if (!signal?.aborted) setError(problem instanceof Error ? problem.message : String(problem));
    }
  };

  useEffect(() => {
    const controller = new AbortController();
    void read(null, controller.signal);
    return () => controller.abort();
  }, [pool, number, turn]);

  const act = async (doing: (id: string) => Promise<boolean>, id: string) => { if (await doing(id)) setTurn((before) => before + 1); };
  const columns: readonly Column<DeadLetter>[] = [
    { id: "id", head: "Request", cell: ({ id, tenant, deaths }) => <span class="request-name"><a class="mono nowrap" href={detailPath(id)}>{id}</a><span class="request-narrow muted small">{tenant || "–"} · {count(deaths)} agents lost</span></span> },
    { id: "tenant", head: "Tenant", cell: ({ tenant }) => tenant || "–" },
    { id: "deaths", head: "Agents lost", right: true, cell: ({ deaths }) => <span class="num">{count(deaths)}</span> },
    { id: "died", head: "Gave up", cell: ({ died_at_ms }) => <span class="num">{dateTime(died_at_ms)}</span> },
    {
      id: "actions",
      head: <span class="sr-only">Actions</span>,
      right: true,
      cell: ({ id, can_requeue }) => (
        <div class="row-tight request-actions">
          <Button small disabled={!can_requeue} title={can_requeue ? undefined : "It died more than a day ago, and Redis has it no more"} aria-label={`Requeue ${id}`} onClick={() => void act(requeue, id)}>Requeue</Button>
          <Button small aria-label={`Drop ${id}`} onClick={() => void act(drop, id)}>Drop</Button>
        </div>
      ),
    },
  ];

  if (error !== null) return <Alert tone="bad"><p>{error}</p><Button small onClick={() => setTurn(turn + 1)}>Try again</Button></Alert>;
  if (letters === null) return <div class="skeleton" role="status" aria-label="Loading" />;
  if (letters.length === 0) {
    return (
      <Empty title="No dead letters" icon="check">
        <p>A request that loses three agents, one after the other, is given up and kept here for a day: it may be what killed them.</p>
      </Empty>
    );
  }
  return (
    <>
      <p class="muted small">Each has lost one agent after the other, and may be what killed them. Fix that first, then requeue; they are kept for a day.</p>
      <div class="card flush dead-letters"><Table label="Dead letters" columns={columns} rows={letters} rowKey={({ id }) => id} /></div>
      {next !== null && <div class="row"><Button onClick={() => void read(next)}>Show more</Button></div>}
    </>
  );
}
