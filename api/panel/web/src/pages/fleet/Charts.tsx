import { useMemo } from "preact/hooks";
import { count, duration, rate } from "../../data/format";
import { SPAN_MS, summed } from "../../data/history";
import { history } from "../../data/live";
import type { Sample } from "../../data/types";
import { Chart } from "../../ui/Chart";

const SPAN = SPAN_MS / 1000;

/** The last 15 minutes of all pools together. */
export function Charts() {
  const samples = useMemo(() => summed(history.value), [history.value]);
  const times = useMemo(() => samples.map((one) => one.at_ms / 1000), [samples]);
  const of = (field: Exclude<keyof Sample, "pool">) => samples.map((one) => one[field]);
  return (
    <section class="charts" aria-label="The last 15 minutes">
      <div class="card">
        <h2>Buffer and demand</h2>
        <Chart label="Requests that wait, and unfinished requests, over the last 15 minutes" times={times} span={SPAN} least={4} show={count} series={[{ label: "Buffered", colour: 2, values: of("buffered") }, { label: "Demand", colour: 1, values: of("demand") }]} />
      </div>
      <div class="card">
        <h2>Slots</h2>
        <Chart label="Slots that are busy, and all slots, over the last 15 minutes" times={times} span={SPAN} least={4} show={count} series={[{ label: "Busy", colour: 1, values: of("slots_processing") }, { label: "All", colour: 3, values: of("slots_total") }]} />
      </div>
      <div class="card">
        <h2>Tokens per second</h2>
        <Chart label="Tokens per second of ended requests over the last 15 minutes" times={times} span={SPAN} least={10} show={rate} series={[{ label: "Tokens/s", colour: 1, values: of("tokens_per_second") }]} />
      </div>
      <div class="card">
        <h2>Oldest wait</h2>
        <Chart label="How long the oldest waiting request has waited, over the last 15 minutes" times={times} span={SPAN} least={1000} show={duration} series={[{ label: "Oldest wait", colour: 4, values: of("oldest_wait_ms") }]} />
      </div>
    </section>
  );
}
