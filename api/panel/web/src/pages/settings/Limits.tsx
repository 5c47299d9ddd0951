import { bytes, count, duration, percent } from "../../data/format";
import type { Limit } from "./types";

export function shown({ value, unit }: Limit): string {
  if (typeof value === "string") return value;
  switch (unit) {
    case "ms": return value === 0 ? "0" : duration(value);
    case "bytes": return bytes(value);
    case "share": return percent(value);
    default: return count(value);
  }
}

export function Limits({ limits }: { limits: Limit[] }) {
  return (
    <section class="card stack" aria-label="Limits">
      <h2>Limits of this balancer</h2>
      <p class="muted small">They are flags of <code>paddler balancer</code>, or variables such as <code>PADDLER_MAX_BODY</code>; limits of single keys are on their page.</p>
      <dl class="limits">
        {limits.map((limit) => (
          <div key={limit.flag}>
            <dt><code>{limit.flag}</code></dt>
            <dd class="limit-value num">{shown(limit)}</dd>
            <dd class="muted small">{limit.meaning}</dd>
          </div>
        ))}
      </dl>
    </section>
  );
}
