import { useId, useRef } from "preact/hooks";
import type { ComponentChildren } from "preact";

interface Props<T extends string> {
  label: string;
  tabs: readonly (readonly [id: T, shown: ComponentChildren])[];
  current: T;
  onCurrent: (id: T) => void;
  /** What the current tab shows. */
  children: ComponentChildren;
}

/** The WAI-ARIA pattern: arrows, Home and End move, Tab leaves. */
export function Tabs<T extends string>({ label, tabs, current, onCurrent, children }: Props<T>) {
  const base = useId();
  const list = useRef<HTMLDivElement>(null);
  const move = (event: KeyboardEvent) => {
    const at = tabs.findIndex(([id]) => id === current);
    const moves: Record<string, number> = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 };
    const to = moves[event.key];
    if (to === undefined) return;
    const place = (to + tabs.length) % tabs.length;
    const found = tabs[place];
    if (found === undefined) return;
    event.preventDefault();
    onCurrent(found[0]);
    list.current?.querySelectorAll<HTMLElement>("[role=tab]")[place]?.focus();
  };
  return (
    <>
      <div ref={list} class="tabs" role="tablist" aria-label={label} onKeyDown={move}>
        {tabs.map(([id, shown]) => (
          <button key={id} type="button" role="tab" id={`${base}-${id}`} aria-selected={id === current} aria-controls={`${base}-panel`} tabIndex={id === current ? 0 : -1} onClick={() => onCurrent(id)}>
            {shown}
          </button>
        ))}
      </div>
      <div role="tabpanel" id={`${base}-panel`} aria-labelledby={`${base}-${current}`} class="stack">{children}</div>
    </>
  );
}
