import { Virtualizer, elementScroll, observeElementOffset, observeElementRect } from "@tanstack/virtual-core";
import type { ComponentChildren } from "preact";
import { useLayoutEffect, useReducer, useRef, useState } from "preact/hooks";

interface Props<Row> {
  label: string;
  rows: readonly Row[];
  rowKey: (row: Row) => string;
  /** Pixels, before a row is measured. */
  estimate: number;
  /** A CSS length; the list scrolls within. */
  height?: string;
  children: (row: Row, index: number) => ComponentChildren;
}

/** Only the rows in view are in the document. Rows may be of any height, and change it. */
export function VirtualList<Row>({ label, rows, rowKey, estimate, height, children }: Props<Row>) {
  const scroller = useRef<HTMLDivElement>(null);
  const size = useRef<HTMLDivElement>(null);
  const [, redraw] = useReducer((count: number) => count + 1, 0);
  const [list] = useState(() => new Virtualizer<HTMLDivElement, HTMLDivElement>(options()));

  function options() {
    return {
      count: rows.length,
      getScrollElement: () => scroller.current,
      estimateSize: () => estimate,
      getItemKey: (index: number) => { const row = rows[index]; return row === undefined ? index : rowKey(row); },
      overscan: 8,
      scrollToFn: elementScroll,
      observeElementRect,
      observeElementOffset,
      onChange: () => redraw(undefined),
    };
  }

  list.setOptions(options());
  useLayoutEffect(() => list._didMount(), [list]);
  useLayoutEffect(() => {
    list._willUpdate();
    scroller.current?.style.setProperty("--height", height ?? "60vh");
    size.current?.style.setProperty("--size", `${list.getTotalSize()}px`);
  });
  return (
    <div ref={scroller} class="virtual" role="list" aria-label={label} tabIndex={0}>
      <div ref={size} class="virtual-size" role="presentation">
        {list.getVirtualItems().map((item) => {
          const row = rows[item.index];
          return row === undefined ? null : (
            <div
              key={item.key}
              class="virtual-row"
              role="listitem"
              data-index={item.index}
              aria-setsize={rows.length}
              aria-posinset={item.index + 1}
              ref={(node) => { node?.style.setProperty("--top", `${item.start}px`); list.measureElement(node); }}
            >
              {children(row, item.index)}
            </div>
          );
        })}
      </div>
    </div>
  );
}
