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
            <Place key={item.key} list={list} index={item.index} top={item.start} number={rows.length}>{children(row, item.index)}</Place>
          );
        })}
      </div>
    </div>
  );
}

interface PlaceProps {
  list: Virtualizer<HTMLDivElement, HTMLDivElement>;
  index: number;
  top: number;
  number: number;
  children: ComponentChildren;
}

/** One row where it belongs. It is measured when it comes, and by the list's own observer from then on: not at each frame
 * while the reader scrolls. */
function Place({ list, index, top, number, children }: PlaceProps) {
  const ref = useRef<HTMLDivElement>(null);
  // Not by a custom property: all that is in the row would inherit it, and be styled anew.
  useLayoutEffect(() => { if (ref.current) ref.current.style.transform = `translateY(${top}px)`; }, [top]);
  useLayoutEffect(() => list.measureElement(ref.current), [list, index]);
  useLayoutEffect(() => () => list.measureElement(null), [list]);
  return (
    <div ref={ref} class="virtual-row" role="listitem" data-index={index} aria-setsize={number} aria-posinset={index + 1}>
      {children}
    </div>
  );
}
