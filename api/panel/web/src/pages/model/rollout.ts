import type { Agent } from "../../data/types";

export type Application = "Fresh" | "Applied" | "AttemptedAndRetrying" | "Stuck" | "AttemptedAndNotAppliable";
/** What the live data has of an agent beside what the fleet's page reads. */
export type Follower = Agent & { state_application_status: Application };

/** What agents are to apply; `wantsModel` false: nothing is to be served. */
export interface Wanted { version: number; wantsModel: boolean }

/** How an agent stands to the version that is wanted. `pinned` was started with a model and follows no state; `idle` has
 * nothing to do, as no model is wanted. */
export type Standing = "applied" | "idle" | "behind" | "working" | "retrying" | "stuck" | "failed" | "pinned" | "lost";

export const WORDS: Record<Standing, string> = {
  applied: "Applied",
  idle: "Waits for a model",
  behind: "Not yet heard",
  working: "At work",
  retrying: "Trying again",
  stuck: "Stuck",
  failed: "Needs your help",
  pinned: "Pinned",
  lost: "Lost",
};

export function standingOf(agent: Follower, { version, wantsModel }: Wanted): Standing {
  if (agent.state === "lost") return "lost";
  if (agent.desired_version === null) return "pinned";
  if (agent.desired_version < version) return "behind";
  switch (agent.state_application_status) {
    case "Applied":
      return "applied";
    case "AttemptedAndRetrying":
      return "retrying";
    case "Stuck":
      return "stuck";
    case "AttemptedAndNotAppliable":
      return "failed";
    default:
      return wantsModel || agent.slots_total > 0 ? "working" : "idle";
  }
}

/** What an agent that is at work does, in a few words. */
export function workOf(agent: Follower): string {
  if (agent.download_filename) return `downloads ${agent.download_filename}`;
  if (agent.state === "loading") return agent.phase ? `loads: ${agent.phase}` : "loads the model";
  if (agent.state === "ready" || agent.state === "draining" || agent.state === "leaving") return "goes on serving, and waits for its turn";
  return agent.state === "waiting" ? "gets ready" : agent.state;
}

export interface Progress {
  /** Agents that follow the state, and how many serve what it wants. */
  total: number;
  applied: number;
  troubled: number;
  /** Agents with a model of their own. */
  pinned: number;
}

export function progressOf(agents: readonly Follower[], wanted: Wanted): Progress {
  const standings = agents.map((agent) => standingOf(agent, wanted)).filter((one) => one !== "lost");
  const count = (...kinds: Standing[]) => standings.filter((one) => kinds.includes(one)).length;
  const pinned = count("pinned");
  return { total: standings.length - pinned, applied: count("applied", "idle"), troubled: count("failed", "stuck", "retrying"), pinned };
}

/** The state of the roll-out in one sentence. */
export function headline({ total, applied, troubled, pinned }: Progress, { version, wantsModel }: Wanted): string {
  if (version === 0) return "Nobody has set a state for this pool: its agents wait until one is set.";
  if (total === 0) return pinned > 0 ? "No agent follows this state: those here were started with a model of their own." : "No agent is here yet; those that come will follow this state.";
  if (!wantsModel && applied === total) return total === 1 ? "No model is wanted: the agent waits." : `No model is wanted: all ${total} agents wait.`;
  const who = total === 1 ? "The agent serves" : `All ${total} agents serve`;
  if (applied === total) return `${who} version ${version}.`;
  const trouble = troubled === 0 ? "" : troubled === 1 ? " One has trouble." : ` ${troubled} have trouble.`;
  return `${applied} of ${total} agents ${applied === 1 ? "serves" : "serve"} version ${version}.${trouble}`;
}
