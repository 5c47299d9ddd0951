import { duration } from "../../data/format";
import { isOver, lengthOf, PHASES, phasesOf, type Phase } from "./timeline";
import type { RequestTimeline } from "./types";

/** A request's life from left to right, each stretch as long as it took. */
export function TimeLine({ timeline }: { timeline: RequestTimeline }) {
  const phases = phasesOf(timeline);
  const total = lengthOf(timeline);
  const said = phases.map((phase) => `${PHASES[phase.name].title} ${duration(phase.end - phase.start)}`).join(", ");
  return (
    <figure class="stack-small">
      <div class={isOver(timeline) ? "time-line" : "time-line going"} role="img" aria-label={said || "It has just begun"}>
        {phases.map((phase) => <Stretch key={`${phase.name} ${phase.start}`} phase={phase} />)}
      </div>
      <div class="spread muted small num"><span>0</span><span>{duration(total)}{isOver(timeline) ? "" : " so far"}</span></div>
      <figcaption class="time-legend">
        {phases.map((phase) => (
          <span key={`${phase.name} ${phase.start}`} class={`of-${phase.name}`} title={PHASES[phase.name].meaning}>
            <i />{PHASES[phase.name].title} <b class="num">{duration(phase.end - phase.start)}</b>
          </span>
        ))}
      </figcaption>
    </figure>
  );
}

function Stretch({ phase }: { phase: Phase }) {
  // By the CSSOM, as the content security policy forbids style attributes.
  return <span class={`of-${phase.name}`} title={PHASES[phase.name].meaning} ref={(node) => node?.style.setProperty("--long", String(phase.end - phase.start))} />;
}
