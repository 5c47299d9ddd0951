import { useLayoutEffect, useRef } from "preact/hooks";
import { effect } from "@preact/signals";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { isDark } from "../app/theme";

export interface Series {
  label: string;
  /** 1 to 4, of `style/tokens.css`. */
  colour: number;
  values: readonly (number | null)[];
}

interface Props {
  /** What it shows, for who cannot see it; the numbers of now are in the legend. */
  label: string;
  /** Seconds since the epoch. */
  times: readonly number[];
  series: readonly Series[];
  height?: number;
  show?: (value: number) => string;
  /** What the axis of values reaches at least. */
  least?: number;
  /** How far the axis of time goes back, in seconds, even while there is less. */
  span?: number;
}

/** Steps of the axis of values: there is no half a request. */
const WHOLE = Array.from({ length: 10 }, (_, power) => [1, 2, 5].map((one) => one * 10 ** power)).flat();

/** Lines over time, drawn again when the data, the width or the theme change. */
export function Chart({ label, times, series, height = 140, show = String, least = 1, span }: Props) {
  const root = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const latest = useRef({ times, series, show, least, span });
  latest.current = { times, series, show, least, span };
  const shape = series.map((one) => `${one.label}:${one.colour}`).join();

  useLayoutEffect(() => {
    const element = root.current;
    if (element === null) return;
    const draw = () => {
      plot.current?.destroy();
      plot.current = new uPlot(optionsFor(element, height, latest.current), dataOf(latest.current), element);
    };
    const undo = effect(() => { void isDark.value; draw(); });
    const observer = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height }));
    observer.observe(element);
    return () => { observer.disconnect(); undo(); plot.current?.destroy(); plot.current = null; };
  }, [shape, height]);

  useLayoutEffect(() => plot.current?.setData(dataOf({ times, series })), [times, series]);

  return (
    <figure class="stack-small">
      <figcaption class="chart-legend">
        {series.map((one) => <Legend key={one.label} series={one} show={show} />)}
      </figcaption>
      <div ref={root} class="chart" role="img" aria-label={label} />
    </figure>
  );
}

function Legend({ series, show }: { series: Series; show: (value: number) => string }) {
  const last = series.values.at(-1);
  return (
    <span>
      <i ref={(node) => node?.style.setProperty("--colour", `var(--series-${series.colour})`)} />
      {series.label} <b>{last === undefined || last === null ? "–" : show(last)}</b>
    </span>
  );
}

function dataOf({ times, series }: Pick<Props, "times" | "series">): uPlot.AlignedData {
  return [times, ...series.map((one) => one.values)] as unknown as uPlot.AlignedData;
}

function optionsFor(element: HTMLElement, height: number, latest: Pick<Props, "series" | "span"> & { show: (value: number) => string; least: number }): uPlot.Options {
  const style = getComputedStyle(element);
  const colour = (name: string) => style.getPropertyValue(`--${name}`).trim();
  const axis = { stroke: colour("muted"), font: `11px ${colour("font")}`, ticks: { show: false } };
  const grid = { stroke: colour("line"), width: 1 };
  return {
    width: element.clientWidth,
    height,
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false } },
    padding: [8, 8, 0, 0],
    scales: {
      x: { time: true, range: (_, min, max) => timeRange(min, max, latest.span) },
      y: { range: (_, __, max) => [0, Math.max(max * 1.1, latest.least)] },
    },
    axes: [
      { ...axis, grid: { show: false }, size: 22, space: 70, values: (_, splits) => splits.map(clock) },
      { ...axis, grid, size: 50, space: 30, incrs: WHOLE, values: (_, splits) => splits.map((value) => (value === null ? "" : latest.show(value))) },
    ],
    series: [
      {},
      ...latest.series.map((one) => ({
        label: one.label,
        stroke: colour(`series-${one.colour}`),
        fill: latest.series.length === 1 ? `color-mix(in srgb, ${colour(`series-${one.colour}`)} 14%, transparent)` : undefined,
        width: 1.75,
        points: { show: false },
      })),
    ],
  };
}

/** uPlot gives null for both while there are no data. */
function timeRange(min: number | null, max: number | null, span: number | undefined): [number, number] {
  const end = max ?? Date.now() / 1000;
  return [span === undefined ? (min ?? end - 1) : end - span, end];
}

function clock(seconds: number): string {
  return new Date(seconds * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}
