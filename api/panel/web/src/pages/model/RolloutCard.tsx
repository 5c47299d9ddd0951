import { useEffect } from "preact/hooks";
import { Badge, type Tone } from "../../ui/Badge";
import { Bar } from "../../ui/Bar";
import { Button } from "../../ui/Button";
import { AgentRow } from "./AgentRow";
import type { Editing } from "./editing";
import { followersOf } from "./followers";
import { headline, progressOf, standingOf, type Follower, type Progress, type Standing, type Wanted } from "./rollout";
import { fileNameOf } from "./source";

const ORDER: readonly Standing[] = ["failed", "stuck", "retrying", "working", "behind", "applied", "idle", "pinned", "lost"];
const MAX_SHOWN = 12;

/** What is set now, and how far the agents are with it. */
export function RolloutCard({ editing, onHistory }: { editing: Editing; onHistory: () => void }) {
  const { version, state } = editing.base.value!;
  const own = followersOf(editing.pool);
  const wanted = { version, wantsModel: state.model !== "None" };
  const progress = progressOf(own, wanted);
  const newest = Math.max(0, ...own.map((agent) => agent.desired_version ?? 0));
  useEffect(() => { if (newest > version) void editing.look(); }, [newest, version, editing]);
  const [tone, word] = verdict(progress, version);
  return (
    <section class="card stack" aria-labelledby="model-rollout">
      <div class="spread">
        <div class="row"><h2 id="model-rollout">Roll-out</h2><Badge tone={tone}>{word}</Badge></div>
        <Button small onClick={onHistory}>History</Button>
      </div>
      <dl class="facts">
        <dt>Model</dt>
        <dd class="wrap-any"><strong>{fileNameOf(state.model)}</strong>{state.multimodal_projection !== "None" && `, with ${fileNameOf(state.multimodal_projection)}`}</dd>
        <dt>Version</dt>
        <dd>{version === 0 ? "none is set" : version}</dd>
      </dl>
      <p role="status">{headline(progress, wanted)}</p>
      {progress.total > 0 && version > 0 && <Bar value={progress.applied} total={progress.total} label="Agents that serve this version" />}
      <Agents agents={own} wanted={wanted} />
    </section>
  );
}

function Agents({ agents, wanted }: { agents: readonly Follower[]; wanted: Wanted }) {
  const place = (agent: Follower) => ORDER.indexOf(standingOf(agent, wanted));
  const sorted = [...agents].sort((one, other) => place(one) - place(other) || (one.name ?? one.id).localeCompare(other.name ?? other.id));
  if (sorted.length === 0) return null;
  return (
    <>
      <ul class="model-agents">
        {sorted.slice(0, MAX_SHOWN).map((agent) => <AgentRow key={agent.id} agent={agent} wanted={wanted} />)}
      </ul>
      {sorted.length > MAX_SHOWN && <p class="muted small">And {sorted.length - MAX_SHOWN} more; the page Fleet has them all.</p>}
    </>
  );
}

function verdict({ total, applied, troubled }: Progress, version: number): [Tone, string] {
  if (version === 0) return ["info", "Not set"];
  if (troubled > 0) return ["bad", "Trouble"];
  if (total === 0) return ["plain", "No agents"];
  return applied === total ? ["good", "Applied"] : ["accent", "Rolling out"];
}
