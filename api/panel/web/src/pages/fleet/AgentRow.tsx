import { memo } from "../../ui/memo";
import { bytes, count, percent, plural, rate } from "../../data/format";
import type { Agent } from "../../data/types";
import { Badge, type Tone } from "../../ui/Badge";
import { Bar, Slots } from "../../ui/Bar";
import { Icon } from "../../ui/Icon";
import { AgentActions } from "./AgentActions";
import { Tiers } from "./Tiers";

const TONES: Record<string, Tone> = { ready: "good", loading: "info", waiting: "info", draining: "warn", drained: "warn", leaving: "warn", failed: "bad", lost: "bad" };
const SAID: Record<string, string> = { waiting: "waiting for a model", lost: "lost", "?": "unknown" };

/** A thing that did not change is the same object: of 500 agents those are drawn that did. */
export const AgentRow = memo(function AgentRow({ agent }: { agent: Agent }) {
  const slots = agent.slots_total || agent.desired_slots_total;
  return (
    <div class="agent-box">
      <div class="agent">
        <div class="agent-name">
          <b class="clip" title={agent.id}>{agent.name ?? agent.id}</b>
          <Badge tone={TONES[agent.state]}>{SAID[agent.state] ?? agent.state}</Badge>
        </div>
        <div class="agent-slots">
          <Slots busy={agent.slots_processing} total={agent.slots_total} label={`${agent.slots_processing} of ${agent.slots_total} slots are busy`} />
          <span class="num small muted">{agent.slots_processing}/{slots}</span>
        </div>
        <div class="agent-model clip" title={agent.model_path ?? undefined}>{agent.model ?? fileName(agent.model_path) ?? <span class="muted">none</span>}</div>
        <div class="agent-fact right"><span class="agent-label">Tokens/s</span><span class="num">{rate(agent.tokens_per_second)}</span></div>
        <div class="agent-fact right"><span class="agent-label">Cache</span><span class="num">{percent(agent.cache_hit_ratio)}</span></div>
        <div class="agent-fact"><span class="agent-label">Version</span><span class="clip muted small" title={[agent.build, agent.host && `on ${agent.host}`, agent.pid && `process ${agent.pid}`].filter(Boolean).join(", ")}>{agent.version ?? "–"}</span></div>
        <AgentActions agent={agent} />
      </div>
      <Loading agent={agent} />
      <Held agent={agent} />
      <Tiers agent={agent} />
      {agent.issue_details.map((issue) => (
        <div class="agent-issue" key={issue.kind}>
          <Icon name="alert" size={16} />
          <div class="grow">
            <p class="wrap-any"><b>{issue.detail}</b></p>
            {issue.action && <p class="small"><span class="muted">What Paddler does:</span> {issue.action}</p>}
            {issue.remedy && <p class="small"><span class="muted">What you can do:</span> {issue.remedy}</p>}
          </div>
        </div>
      ))}
    </div>
  );
});

function Held({ agent }: { agent: Agent }) {
  if (!agent.slots_total || !agent.context_size) return null;
  const parts = [`${count(agent.held_tokens)} of ${count(agent.context_size)} tokens in ${plural(agent.held_sequences, "sequence")}`, `keeps ${count(agent.max_parked)} ended at most`];
  if (agent.saved_tokens || agent.restored_tokens) parts.push(`host memory: ${count(agent.saved_tokens)} tokens in ${bytes(agent.saved_bytes)}, ${count(agent.restored_tokens)} came back`);
  return (
    <div class="agent-loading">
      <span class="small muted">KV cache</span>
      <Bar value={agent.held_tokens} total={agent.context_size} label={`KV cache of ${agent.name ?? agent.id}`} />
      <span class="num small muted">{parts.join("; ")}</span>
    </div>
  );
}

function Loading({ agent }: { agent: Agent }) {
  if (agent.download_filename) {
    const total = agent.download_indeterminate ? null : agent.download_total || null;
    return (
      <div class="agent-loading">
        <span class="small muted clip">Downloading {agent.download_filename}</span>
        <Bar value={agent.download_current} total={total} label={`Download of ${agent.download_filename}`} />
        <span class="num small muted">{bytes(agent.download_current)}{total === null ? "" : ` of ${bytes(total)}`}</span>
      </div>
    );
  }
  if (agent.state !== "loading") return null;
  return (
    <div class="agent-loading">
      <span class="small muted clip">{agent.phase ?? "Loading"}</span>
      <Bar value={agent.progress ?? 0} total={agent.progress === null ? null : 1} label={`Loading of ${agent.name ?? agent.id}`} />
      <span class="num small muted">{agent.progress === null ? "" : percent(agent.progress)}</span>
    </div>
  );
}

function fileName(path: string | null): string | null {
  return path === null ? null : (path.split("/").at(-1) ?? path);
}
