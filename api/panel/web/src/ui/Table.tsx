import type { ComponentChildren, RefObject } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";

export interface Column<Row> {
  id: string;
  head: ComponentChildren;
  cell: (row: Row) => ComponentChildren;
  right?: boolean;
}

interface Props<Row> {
  label: string;
  columns: readonly Column<Row>[];
  rows: readonly Row[];
  rowKey: (row: Row) => string;
}

/** For some dozens of rows; more of them go into a `VirtualList`. Where it is wider than its box it scrolls sideways within
 * that, says so, and its first column stays in sight. */
export function Table<Row>({ label, columns, rows, rowKey }: Props<Row>) {
  const wrap = useRef<HTMLDivElement>(null);
  const isCut = useIsCut(wrap);
  return (
    <>
      {isCut && <p class="table-hint muted small" aria-hidden="true">There is more to the right: scroll the table sideways →</p>}
      <div ref={wrap} class={isCut ? "table-wrap cut" : "table-wrap"} role="region" aria-label={label} tabIndex={0}>
        <table class="table">
          <thead>
            <tr>{columns.map(({ id, head, right }) => <th key={id} scope="col" class={right ? "right" : undefined}>{head}</th>)}</tr>
          </thead>
          <tbody>
            {rows.map((row) => (
              <tr key={rowKey(row)}>
                {columns.map(({ id, cell, right }) => <td key={id} class={right ? "right" : undefined}>{cell(row)}</td>)}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </>
  );
}

/** Whether there is more than its width has room for, now and whenever either changes. */
function useIsCut(wrap: RefObject<HTMLElement>): boolean {
  const [isCut, setCut] = useState(false);
  useLayoutEffect(() => {
    const node = wrap.current;
    if (node === null || typeof ResizeObserver === "undefined") return;
    const observer = new ResizeObserver(() => setCut(node.scrollWidth > node.clientWidth + 1));
    observer.observe(node);
    for (const child of node.children) observer.observe(child);
    return () => observer.disconnect();
  }, [wrap]);
  return isCut;
}
