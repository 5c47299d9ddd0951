import { useEffect, useState } from "preact/hooks";
import { ApiError, call } from "../../data/api";
import { clockTime, count, duration, plural, rate } from "../../data/format";
import { Alert } from "../../ui/Alert";
import { Badge } from "../../ui/Badge";
import { Button } from "../../ui/Button";
import { Dialog } from "../../ui/Dialog";
import { cancelRequest } from "./actions";
import { tellTime } from "./feed";
import { TONES } from "./RequestRow";
import { begun, EVENTS, isOver, speedOf, stepsOf } from "./timeline";
import { TimeLine } from "./TimeLine";
import type { RequestTimeline } from "./types";

const LOOK_AGAIN_MS = 1000;

/** What has happened to one request, looked at again every second until it has ended. */
export function Detail({ id, onClose }: { id: string; onClose: () => void }) {
  const [timeline, error, look] = useTimeline(id);
  const canCancel = timeline !== null && !isOver(timeline) && !timeline.is_cancelling;
  const foot = (
    <>
      {canCancel && <Button kind="danger" onClick={() => void cancelRequest(id).then(look)}>Cancel request</Button>}
      <Button onClick={onClose}>Close</Button>
    </>
  );
  return (
    <Dialog wide title="Time line of a request" onClose={onClose} foot={foot}>
      <p class="mono wrap-any">{id}</p>
      {error !== null && <Alert tone="bad">{error}</Alert>}
      {timeline === null && error === null && <div class="skeleton" role="status" aria-label="Loading" />}
      {timeline !== null && <Content timeline={timeline} />}
    </Dialog>
  );
}

function useTimeline(id: string): [RequestTimeline | null, string | null, () => void] {
  const [timeline, setTimeline] = useState<RequestTimeline | null>(null);
  const [error, setError] = useState<string | null>(null);
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const controller = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const look = async () => {
      let isLast = false;
      try {
        const found = await call<RequestTimeline>(`/api/v1/requests/${encodeURIComponent(id)}`, { signal: controller.signal });
        tellTime(found.now_ms);
        setTimeline(found);
        setError(null);
        isLast = isOver(found);
      } catch (problem) {
        if (controller.signal.aborted) return;
        setError(problem instanceof Error ? problem.message : String(problem));
        isLast = problem instanceof ApiError && (problem.status === 404 || problem.status === 400);
      }
      if (!isLast && !controller.signal.aborted) timer = setTimeout(() => void look(), LOOK_AGAIN_MS);
    };
    void look();
    return () => { controller.abort(); clearTimeout(timer); };
  }, [id, turn]);
  return [timeline, error, () => setTurn((before) => before + 1)];
}

function Content({ timeline }: { timeline: RequestTimeline }) {
  return (
    <>
      <div class="row">
        <Badge tone={timeline.is_cancelling ? "warn" : TONES[timeline.state]}>{timeline.is_cancelling ? "cancelling" : timeline.state}</Badge>
        {timeline.position !== null && <span class="muted">{timeline.position === 0 ? "next in line" : `${count(timeline.position)} before it`}</span>}
        {timeline.estimated_wait_ms !== null && <span class="muted">begins in about {duration(timeline.estimated_wait_ms)}</span>}
        {timeline.finish_reason && <span class="muted">finish reason: {timeline.finish_reason}</span>}
      </div>
      {timeline.error && <Alert tone="bad"><p><b>{timeline.error.code}</b>: {timeline.error.message}</p></Alert>}
      <TimeLine timeline={timeline} />
      <Facts timeline={timeline} />
      <Events timeline={timeline} />
    </>
  );
}

function Facts({ timeline }: { timeline: RequestTimeline }) {
  const speed = speedOf(timeline);
  const isPromoted = timeline.served_as !== timeline.class;
  const facts: [string, string][] = [
    ["Class", `${timeline.class}${isPromoted ? `, served as ${timeline.served_as}` : ""}${timeline.is_background ? ", in the background" : ""}`],
    ["Tenant", timeline.tenant],
    ["Pool", timeline.pool],
    ["Model", timeline.model ?? "–"],
    ["Agent", timeline.agent_name ?? timeline.agent ?? "–"],
    ["Begun", `${begun(timeline.opens)}${timeline.deaths ? `, ${plural(timeline.deaths, "agent")} lost` : ""}`],
    ["Prompt", `${count(timeline.prompt_tokens)} tokens${timeline.cached_tokens === null ? "" : `, ${count(timeline.cached_tokens)} of them from the cache`}`],
    ["Answer", `${count(timeline.tokens)} tokens${speed === null ? "" : `, ${rate(speed)} a second`}`],
  ];
  return <dl class="facts request-facts">{facts.map(([name, value]) => <div key={name}><dt>{name}</dt><dd class="wrap-any">{value}</dd></div>)}</dl>;
}

function Events({ timeline }: { timeline: RequestTimeline }) {
  return (
    <div class="table-wrap request-events" role="region" aria-label="Events" tabIndex={0}>
      <table class="table">
        <thead><tr><th scope="col">Event</th><th scope="col" class="right">At</th><th scope="col" class="right">After</th><th scope="col" class="right">Since the last</th></tr></thead>
        <tbody>
          {stepsOf(timeline.events).map((step) => (
            <tr key={`${step.event} ${step.at_ms}`}>
              <td>{EVENTS[step.event]}{step.times > 1 && ` (${step.times} times, this is the last)`}</td>
              <td class="num right">{clockTime(step.at_ms)}</td>
              <td class="num right">{duration(step.after_ms)}</td>
              <td class="num right">{step.since_ms > 0 ? `+ ${duration(step.since_ms)}` : ""}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
