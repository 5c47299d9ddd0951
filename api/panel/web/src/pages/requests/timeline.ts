import { count } from "../../data/format";
import type { EventName, RequestEvent, RequestTimeline } from "./types";

export type PhaseName = "waiting" | "starting" | "prompt" | "answer" | "again";

export const PHASES: Record<PhaseName, { title: string; meaning: string }> = {
  waiting: { title: "Waited", meaning: "in the buffer, for a slot" },
  starting: { title: "On its way", meaning: "given to an agent, not begun" },
  prompt: { title: "Prompt", meaning: "the agent read the prompt" },
  answer: { title: "Answer", meaning: "tokens came" },
  again: { title: "Handed over", meaning: "went on elsewhere" },
};

export const EVENTS: Record<EventName, string> = {
  accepted: "Accepted",
  buffered: "Buffered: no slot was free",
  delivered: "Given to an agent",
  opened: "Begun by the agent",
  first_token: "First token",
  handed_over: "Handed over",
  ended: "Ended",
};

/** A stretch of a request's life; `start` and `end` are ms since it was accepted. */
export interface Phase {
  name: PhaseName;
  start: number;
  end: number;
}

const BEGINS: Partial<Record<EventName, PhaseName>> = {
  accepted: "waiting",
  delivered: "starting",
  opened: "prompt",
  first_token: "answer",
  handed_over: "again",
};

/** What it did when, without gaps, up to now or to its end. Stretches of no length are left out. */
export function phasesOf(timeline: RequestTimeline): Phase[] {
  const end = lengthOf(timeline);
  const begun = timeline.events.filter((event) => BEGINS[event.event] !== undefined);
  return begun.flatMap((event, index) => {
    const name = BEGINS[event.event] as PhaseName;
    const next = begun[index + 1]?.after_ms ?? end;
    return next > event.after_ms ? [{ name, start: event.after_ms, end: next }] : [];
  });
}

/** ms from its acceptance to its end, or to now. */
export function lengthOf(timeline: RequestTimeline): number {
  const ended = timeline.events.find((event) => event.event === "ended");
  const accepted = timeline.events[0]?.at_ms ?? timeline.now_ms;
  return Math.max(0, ended?.after_ms ?? Math.round(timeline.now_ms - accepted));
}

export function isOver(timeline: RequestTimeline): boolean {
  return timeline.state === "done" || timeline.state === "failed" || timeline.state === "cancelled";
}

/** Each event with the ms since the one before it. */
export function stepsOf(events: readonly RequestEvent[]): (RequestEvent & { since_ms: number })[] {
  return events.map((event, index) => ({ ...event, since_ms: event.after_ms - (events[index - 1]?.after_ms ?? 0) }));
}

/** How often an agent has begun it, in words. The fence `attempt` also grows when it comes back, and is for machines. */
export function begun(opens: number): string {
  return opens === 0 ? "not yet" : opens === 1 ? "once" : `${count(opens)} times`;
}

/** Tokens per second of the answer; null before there are two of them. */
export function speedOf(timeline: RequestTimeline): number | null {
  const first = timeline.events.find((event) => event.event === "first_token");
  if (first === undefined || timeline.tokens < 2) return null;
  const ms = lengthOf(timeline) - first.after_ms;
  return ms > 0 ? ((timeline.tokens - 1) / ms) * 1000 : null;
}
