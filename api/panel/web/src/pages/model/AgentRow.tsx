import { bytes } from "../../data/format";
import { Badge, type Tone } from "../../ui/Badge";
import { Bar } from "../../ui/Bar";
import { standingOf, WORDS, workOf, type Follower, type Standing, type Wanted } from "./rollout";

const TONES: Record<Standing, Tone> = { applied: "good", idle: "plain", behind: "plain", working: "accent", retrying: "warn", stuck: "warn", failed: "bad", pinned: "plain", lost: "bad" };

/** How one agent stands, what it waits for, and what can be done where it does not get further. */
export function AgentRow({ agent, wanted }: { agent: Follower; wanted: Wanted }) {
  const standing = standingOf(agent, wanted);
  const isBusy = standing === "working" || standing === "retrying" || standing === "stuck";
  return (
    <li class="model-agent" data-standing={standing}>
      <div class="spread">
        <strong class="clip">{agent.name ?? agent.id}</strong>
        <Badge tone={TONES[standing]}>{WORDS[standing]}</Badge>
      </div>
      <p class="muted small wrap-any">{about(agent, standing)}</p>
      {isBusy && <Download agent={agent} />}
      {agent.issue_details.map(({ kind, detail, action, remedy }) => (
        <div key={kind} class="model-issue">
          <p><strong>{detail}</strong></p>
          <dl>
            <dt>What Paddler does</dt>
            <dd>{action}</dd>
            <dt>What you can do</dt>
            <dd>{remedy}</dd>
          </dl>
        </div>
      ))}
    </li>
  );
}

function about(agent: Follower, standing: Standing): string {
  const served = agent.slots_total > 0 && agent.model_path ? `serves ${agent.model_path}` : "serves nothing";
  if (standing === "working") return workOf(agent);
  if (standing === "pinned") return `${served}, which it was started with`;
  return agent.slots_total === 0 && standing === "applied" ? "has nothing to serve" : served;
}

function Download({ agent }: { agent: Follower }) {
  if (agent.download_filename) {
    const total = agent.download_indeterminate || agent.download_total === 0 ? null : agent.download_total;
    return (
      <div class="model-download">
        <Bar value={agent.download_current} total={total} label={`Download of ${agent.download_filename}`} />
        <span class="num small muted">{bytes(agent.download_current)}{total !== null && ` of ${bytes(total)}`}</span>
      </div>
    );
  }
  if (agent.progress !== null) return <Bar value={Math.round(agent.progress * 100)} total={100} label="Loading" />;
  return null;
}
