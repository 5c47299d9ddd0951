import { useState } from "preact/hooks";
import { useLocation } from "wouter-preact";
import { count, plural } from "../../data/format";
import { pools } from "../../data/live";
import { currentPool } from "../../data/pool";
import { Button } from "../../ui/Button";
import { Empty } from "../../ui/Empty";
import { VirtualList } from "../../ui/VirtualList";
import { EVERYTHING, filtered, isEverything, isRequestId, type Filter, type Placed } from "./board";
import { arranged, isKnown } from "./feed";
import { useHeldWhileScrolling } from "./held";
import { RequestRow, RowHead } from "./RequestRow";
import { Toolbar } from "./Toolbar";

/** As `style.css` has it: a line on a wide page, three on a narrow one. */
const WIDE = window.matchMedia("(min-width: 821px)");

/** So many that wait the balancer tells of at most (`paddler/jobs/board.py`). */
const MAX_ROWS = 10_000;

/** What waits and runs now. */
export function LiveList() {
  const [filter, setFilter] = useState<Filter>(EVERYTHING);
  const [, navigate] = useLocation();
  const [{ unfinished, num_given, rows, waiting }, onScroll] = useHeldWhileScrolling(() => {
    const { unfinished, num_given } = arranged.value;
    const waiting = Object.values(pools.value.get(currentPool.value)?.waiting ?? {}).reduce((sum, number) => sum + number, 0);
    return { unfinished, num_given, rows: filtered(unfinished, filter), waiting };
  });
  if (!isKnown.value) return <div class="skeleton" role="status" aria-label="Loading" />;
  const known = unfinished.length;
  return (
    <>
      <Toolbar filter={filter} onFilter={setFilter} rows={unfinished} />
      <p class="muted small" role="status">
        {rows.length === known ? `${plural(num_given, "request")} with agents, ${count(known - num_given)} waiting` : `${count(rows.length)} of ${plural(known, "request")}`}
        {known >= MAX_ROWS && `; ${count(waiting)} wait in all, and the first of them are shown`}
      </p>
      {known === 0 && isEverything(filter) ? (
        <Empty title="Nothing waits and nothing runs">
          <p>Requests appear here when they arrive, and show where they stand until they end.</p>
        </Empty>
      ) : rows.length === 0 ? (
        <Empty title="No such request" icon="search">
          <p>It may have ended: what has happened to a request can be read by its id until ten minutes after its end.</p>
          {isRequestId(filter.search) && <Button onClick={() => navigate(`/requests/${encodeURIComponent(filter.search.trim())}`)}>Open its time line</Button>}
          <Button onClick={() => setFilter(EVERYTHING)}>Show all requests</Button>
        </Empty>
      ) : (
        <div class="card flush requests" onScrollCapture={onScroll}>
          <RowHead />
          <VirtualList label="Requests that have not ended" rows={rows} rowKey={rowKey} estimate={WIDE.matches ? 45 : 92} height="max(320px, calc(100dvh - 300px))">
            {({ row, position }) => <RequestRow row={row} position={position} />}
          </VirtualList>
        </div>
      )}
    </>
  );
}

function rowKey({ row }: Placed): string {
  return row.id;
}
