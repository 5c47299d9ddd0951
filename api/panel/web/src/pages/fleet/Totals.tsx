import type { ComponentChildren } from "preact";
import { count, duration, plural, rate } from "../../data/format";
import { summed } from "../../data/history";
import { agents, history, pools } from "../../data/live";
import { Slots } from "../../ui/Bar";
import { sum } from "./grouping";

/** The fleet in five numbers. */
export function Totals() {
  const now = sum(pools.value, agents.value);
  const speed = summed(history.value).at(-1)?.tokens_per_second;
  const notReady = now.agents - now.ready;
  return (
    <dl class="totals card flush">
      <Total label="Agents" value={count(now.agents)} note={now.issues > 0 ? plural(now.issues, "issue") : notReady > 0 ? `${notReady} not ready` : now.agents > 0 ? "all ready" : "none yet"} />
      <Total label="Slots busy" value={`${count(now.busy)} / ${count(now.slots)}`} note={<Slots busy={now.busy} total={now.slots} label={`${now.busy} of ${now.slots} slots are busy`} />} />
      <Total label="Buffered" value={count(now.buffered)} note={`${plural(now.demand, "request")} unfinished`} />
      <Total label="Oldest wait" value={now.oldestWaitMs === null ? "–" : duration(now.oldestWaitMs)} note={now.oldestWaitMs === null ? "nothing waits" : "for a slot"} />
      <Total label="Tokens/s" value={rate(speed)} note="of ended requests" />
    </dl>
  );
}

function Total({ label, value, note }: { label: string; value: string; note: ComponentChildren }) {
  return (
    <div class="total">
      <dt>{label}</dt>
      <dd class="total-value">{value}</dd>
      <dd class="total-note">{note}</dd>
    </div>
  );
}
