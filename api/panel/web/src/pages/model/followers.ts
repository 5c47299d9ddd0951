import { agents } from "../../data/live";
import type { Follower } from "./rollout";

/** The agents of a pool, as they are now. */
export function followersOf(pool: string): Follower[] {
  return [...agents.value.values()].filter((agent) => agent.pool === pool) as Follower[];
}
