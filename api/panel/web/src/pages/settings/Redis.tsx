import { bytes, count } from "../../data/format";
import { Alert } from "../../ui/Alert";
import { Badge, type Tone } from "../../ui/Badge";
import { Bar } from "../../ui/Bar";
import type { RedisState } from "./types";

const TONES: Record<string, Tone> = { ok: "good", warn: "warn", fail: "bad" };

export function Redis({ redis }: { redis: RedisState }) {
  return (
    <section class="card stack" aria-label="Redis">
      <div class="spread">
        <h2>Redis</h2>
        <Badge tone={redis.is_reachable ? "good" : "bad"}>{redis.is_reachable ? "reachable" : "not reachable"}</Badge>
      </div>
      {!redis.is_reachable && <Alert tone="bad">This balancer cannot reach Redis. Clients get 503 until it can; what runs goes on by itself then.</Alert>}
      <dl class="facts">
        <dt>Address</dt><dd class="mono wrap-any">{redis.url}</dd>
        <dt>Keys begin with</dt><dd class="mono">{redis.prefix}</dd>
        {redis.latency_ms !== null && <><dt>Latency</dt><dd>{redis.latency_ms} ms</dd></>}
        {redis.clients !== null && <><dt>Clients</dt><dd>{count(redis.clients)}</dd></>}
        {redis.memory_used_bytes !== null && <><dt>Memory</dt><dd><Memory used={redis.memory_used_bytes} max={redis.memory_max_bytes || null} /></dd></>}
      </dl>
      {redis.findings.length > 0 && (
        <ul class="findings">
          {redis.findings.map((one) => (
            <li key={one.check}>
              <Badge tone={TONES[one.level]}>{one.level}</Badge>
              <div class="grow">
                <p class="wrap-any"><b>{one.check.replace(/^redis /, "")}</b>: {one.said}</p>
                {one.remedy && <p class="muted small wrap-any">{one.remedy}</p>}
              </div>
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}

function Memory({ used, max }: { used: number; max: number | null }) {
  if (max === null) return <>{bytes(used)}, without a limit</>;
  return <div class="stack-small"><span>{bytes(used)} of {bytes(max)}</span><Bar value={used} total={max} label="Memory of Redis" warnsWhenFull /></div>;
}
