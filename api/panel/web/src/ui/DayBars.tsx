import { useLayoutEffect, useRef } from "preact/hooks";

export interface BarSeries {
  name: string;
  /** One a day. */
  values: readonly number[];
  total: number;
}

interface Props {
  /** What it shows, for who cannot see it; the numbers themselves belong into a table. */
  label: string;
  /** `2026-01-31` */
  days: readonly string[];
  /** At most four, as there are colours; the first is at the bottom. */
  series: readonly BarSeries[];
  show: (value: number) => string;
}

/** A bar a day, made of what each part has of it. */
export function DayBars({ label, days, series, show }: Props) {
  const sums = days.map((_, index) => series.reduce((sum, one) => sum + (one.values[index] ?? 0), 0));
  const top = ceiling(Math.max(1, ...sums));
  return (
    <figure class="stack-small">
      <figcaption class="chart-legend">
        {series.map((one, index) => <span key={one.name}><i class={`bar-${index + 1}`} />{one.name} <b>{show(one.total)}</b></span>)}
      </figcaption>
      <div class="day-bars" role="img" aria-label={label}>
        <div class="day-scale num"><span>{show(top)}</span><span>{show(top / 2)}</span><span>0</span></div>
        <div class="day-columns">
          {days.map((day, index) => (
            <div key={day} class="day-column" title={said(day, series, index, show)}>
              {series.map((one, number) => <Part key={one.name} number={number + 1} share={(one.values[index] ?? 0) / top} />)}
            </div>
          ))}
        </div>
        <div class="day-names small"><span>{short(days[0])}</span>{days.length > 4 && <span>{short(days[Math.floor(days.length / 2)])}</span>}<span>{short(days.at(-1))}</span></div>
      </div>
    </figure>
  );
}

function Part({ number, share }: { number: number; share: number }) {
  const ref = useRef<HTMLSpanElement>(null);
  // By the CSSOM, as the content security policy forbids style attributes.
  useLayoutEffect(() => ref.current?.style.setProperty("--share", `${share * 100}%`), [share]);
  return share > 0 ? <span ref={ref} class={`bar-${number}`} /> : null;
}

function said(day: string, series: readonly BarSeries[], index: number, show: (value: number) => string): string {
  const parts = series.filter((one) => one.values[index]).map((one) => `${one.name}: ${show(one.values[index] ?? 0)}`);
  return [short(day), ...(parts.length ? parts : ["nothing"])].join("\n");
}

function short(day: string | undefined): string {
  return day === undefined ? "" : new Date(`${day}T00:00:00Z`).toLocaleDateString([], { day: "numeric", month: "short", timeZone: "UTC" });
}

/** The next round number: 1, 2 or 5 of a power of ten. */
export function ceiling(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value));
  return ([1, 2, 5, 10].find((step) => step * power >= value) ?? 10) * power;
}
