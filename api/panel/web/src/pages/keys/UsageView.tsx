import { useEffect, useMemo, useState } from "preact/hooks";
import { call } from "../../data/api";
import { bytes, count } from "../../data/format";
import { Alert } from "../../ui/Alert";
import { Button } from "../../ui/Button";
import { DayBars } from "../../ui/DayBars";
import { Empty } from "../../ui/Empty";
import { SelectField } from "../../ui/Field";
import { Table, type Column } from "../../ui/Table";
import type { Holding, Usage, UsageRow } from "./types";
import { byDay, dayBefore, totals, type By, type Measure } from "./usage";

const PERIODS = [["6", "7 days"], ["29", "30 days"], ["89", "90 days"], ["364", "A year"]] as const;
const GROUPS = [["key", "Key"], ["model", "Model"], ["tenant", "Tenant"]] as const;
const MEASURES = [["tokens", "Tokens"], ["output_tokens", "Tokens of answers"], ["prompt_tokens", "Tokens of prompts"], ["requests", "Requests"]] as const;
const LOOK_AGAIN_MS = 10_000;

/** What has been used, by day: drawn for keys, models or tenants, and in numbers for each key and model. */
export function UsageView() {
  const [days, setDays] = useState("29");
  const [by, setBy] = useState<By>("key");
  const [measure, setMeasure] = useState<Measure>("tokens");
  const [usage, error, readAgain] = useUsage(Number(days));
  const drawn = useMemo(() => usage && byDay(usage.usage, usage.from, usage.to, by, measure), [usage, by, measure]);
  const sums = useMemo(() => usage && totals(usage.usage), [usage]);
  if (error !== null) return <Alert tone="bad"><p>{error}</p><Button small onClick={readAgain}>Try again</Button></Alert>;
  const measured = MEASURES.find(([one]) => one === measure)?.[1] ?? "";
  return (
    <>
      <div class="usage-filters">
        <SelectField label="Time" value={days} options={PERIODS} onValue={setDays} />
        <SelectField label="Of each" value={by} options={GROUPS} onValue={(value) => setBy(value as By)} />
        <SelectField label="What" value={measure} options={MEASURES} onValue={(value) => setMeasure(value as Measure)} />
      </div>
      {usage === null || drawn === null || sums === null ? (
        <div class="skeleton" role="status" aria-label="Loading" />
      ) : sums.length === 0 ? (
        <Empty title="Nothing has been used in this time">
          <p>What requests with a key use is counted when they end, by day, tenant, key and model. What is asked for without a key is not counted here; the fleet's metrics have the totals.</p>
        </Empty>
      ) : (
        <>
          <section class="card"><DayBars label={`${measured} a day, from ${usage.from} to ${usage.to}`} days={drawn.days} series={drawn.series} show={short} /></section>
          <section class="card flush" aria-label="Sums"><Table label="Usage of each key and model" columns={COLUMNS} rows={sums} rowKey={({ tenant, key, model }) => `${tenant} ${key} ${model}`} /></section>
        </>
      )}
      {usage !== null && usage.held.length > 0 && (
        <>
          <p class="muted small">What tenants have now, whatever the time above:</p>
          <section class="card flush" aria-label="Files and batches"><Table label="Files and batches of each tenant" columns={HELD} rows={usage.held} rowKey={({ tenant }) => tenant} /></section>
        </>
      )}
    </>
  );
}

function useUsage(days: number): [Usage | null, string | null, () => void] {
  const [usage, setUsage] = useState<Usage | null>(null);
  const [error, setError] = useState<string | null>(null);
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const controller = new AbortController();
    const read = async () => {
      const today = new Date().toISOString().slice(0, 10);
      try {
        setUsage(await call<Usage>(`/api/v1/usage?group_by=day,tenant,key,model&from=${dayBefore(today, days)}&to=${today}`, { signal: controller.signal }));
        setError(null);
      } catch (problem) {
        if (!controller.signal.aborted) setError(problem instanceof Error ? problem.message : String(problem));
      }
    };
    void read();
    const timer = setInterval(() => void read(), LOOK_AGAIN_MS);
    return () => { clearInterval(timer); controller.abort(); };
  }, [days, turn]);
  return [usage, error, () => setTurn((before) => before + 1)];
}

const COLUMNS: readonly Column<UsageRow>[] = [
  { id: "key", head: "Key", cell: ({ key, key_name }) => <span class="key-name"><b>{key_name || "(forgotten)"}</b><span class="mono muted small">{key}</span></span> },
  { id: "tenant", head: "Tenant", cell: ({ tenant }) => tenant },
  { id: "model", head: "Model", cell: ({ model }) => model || <span class="muted">none served it</span> },
  { id: "requests", head: "Requests", right: true, cell: ({ requests }) => <span class="num">{count(requests)}</span> },
  { id: "prompt", head: "Prompt tokens", right: true, cell: ({ prompt_tokens }) => <span class="num">{count(prompt_tokens)}</span> },
  { id: "cached", head: "of them cached", right: true, cell: ({ cached_tokens, prompt_tokens }) => <span class="num">{count(cached_tokens)}{prompt_tokens > 0 && <span class="muted"> ({Math.round((cached_tokens / prompt_tokens) * 100)} %)</span>}</span> },
  { id: "output", head: "Answer tokens", right: true, cell: ({ output_tokens }) => <span class="num">{count(output_tokens)}</span> },
];

const HELD: readonly Column<Holding>[] = [
  { id: "tenant", head: "Tenant", cell: ({ tenant }) => tenant },
  { id: "files", head: "Files", right: true, cell: ({ files }) => <span class="num">{count(files)}</span> },
  { id: "bytes", head: "Stored", right: true, cell: ({ file_bytes }) => <span class="num">{bytes(file_bytes)}</span> },
  { id: "batches", head: "Open batches", right: true, cell: ({ open_batches }) => <span class="num">{count(open_batches)}</span> },
  { id: "lines", head: "Their lines", right: true, cell: ({ batch_lines }) => <span class="num">{count(batch_lines)}</span> },
];

const COMPACT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

function short(value: number): string {
  return COMPACT.format(value);
}
