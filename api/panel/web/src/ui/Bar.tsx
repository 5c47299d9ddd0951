import { useLayoutEffect, useRef } from "preact/hooks";

/** How much of it is done or used; `total` null: nobody knows how much there will be. */
export function Bar({ value, total, label, warnsWhenFull }: { value: number; total: number | null; label: string; warnsWhenFull?: boolean }) {
  const ref = useRef<HTMLDivElement>(null);
  const part = total ? Math.min(1, Math.max(0, value / total)) : 0;
  // Through the CSSOM, as the content security policy forbids style attributes.
  useLayoutEffect(() => ref.current?.style.setProperty("--part", `${part * 100}%`), [part]);
  const names = ["bar", total === null && "moving", warnsWhenFull && part >= 1 && "full"].filter(Boolean).join(" ");
  return (
    <div ref={ref} class={names} role="progressbar" aria-label={label} aria-valuemin={0} aria-valuemax={total ?? undefined} aria-valuenow={total === null ? undefined : value}>
      <span />
    </div>
  );
}

const MAX_BOXES = 16;

/** Each slot a box, filled while it is busy; many are one bar. */
export function Slots({ busy, total, label }: { busy: number; total: number; label: string }) {
  if (total > MAX_BOXES || total === 0) return <Bar value={busy} total={total || 1} label={label} />;
  return (
    <div class="slots" role="img" aria-label={label}>
      {Array.from({ length: total }, (_, index) => <span key={index} class={index < busy ? "busy" : undefined} />)}
    </div>
  );
}
