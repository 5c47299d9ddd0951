import type { ComponentChildren } from "preact";

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

/** For some dozens of rows; more of them go into a `VirtualList`. It scrolls sideways where it must. */
export function Table<Row>({ label, columns, rows, rowKey }: Props<Row>) {
  return (
    <div class="table-wrap" role="region" aria-label={label} tabIndex={0}>
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
  );
}
