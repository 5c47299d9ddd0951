/**
 * One request from sending it to its end, over as many connections as it takes.
 *
 * 1. Send. While no answer has come it may be sent again: its `Idempotency-Key` makes that the same request.
 * 2. Read events. Each has an id, the last of which is where to go on.
 * 3. The connection breaks, or the balancer stops: go on at `/v1/requests/<id>/stream` behind that id.
 * 4. Stopped by its user: say so to the server, and read on to the end, which comes within a step.
 */
import { WRITES } from "../../data/api";
import { type Chunk, applyChunk } from "./chunks";
import { readComment, readHeaders } from "./comments";
import { codeOf, isError, retryAfterOf, toldAs, toldOf } from "./errors";
import type { Answer, Route } from "./model";
import { readEvents } from "./sse";

export const PATIENCE_MS = 60_000;
export const STOP_PATIENCE_MS = 5000;
const FIRST_PAUSE_MS = 400;
const MAX_PAUSE_MS = 5000;

export interface Net {
  fetch: (path: string, init: RequestInit) => Promise<Response>;
  now: () => number;
  sleep: (ms: number, signal: AbortSignal) => Promise<void>;
}

export const browserNet: Net = {
  fetch: (path, init) => fetch(path, { credentials: "same-origin", ...init }),
  now: () => Date.now(),
  sleep: (ms, signal) =>
    new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
    }),
};

type Ending = "over" | "broken";

/** Changes its answers as they come, and calls `changed` each time. `run` once. */
export class Following {
  private readonly leaving = new AbortController();
  private isStopped = false;
  private isCancelSent = false;
  /** Agent, attempt and cache come as three comments. */
  private told: Partial<Route> = {};

  constructor(
    private readonly answers: readonly Answer[],
    private readonly changed: () => void,
    private readonly net: Net = browserNet,
  ) {}

  private get first(): Answer {
    return this.answers[0] as Answer;
  }

  private get canResume(): boolean {
    return this.first.key !== "";
  }

  /** `asked` null: go on with one that was sent earlier and has an id. Never throws. */
  async run(asked: { body: unknown; headers: Record<string, string> } | null): Promise<void> {
    try {
      await this.follow(asked);
    } catch (error) {
      if (!this.isStopped) this.fail(toldAs("interrupted", `This page failed: ${(error as Error).message}`));
    }
    this.end();
  }

  /** Tells the server. What has been said stays. */
  stop(): void {
    if (this.isStopped) return;
    this.isStopped = true;
    for (const answer of this.answers) answer.state = "stopping";
    this.changed();
    if (!this.canResume) this.leaving.abort(); // Leaving is what cancels it.
    else this.cancelOnServer();
  }

  /** Stops reading; the request goes on on the server, and may be followed again. */
  leave(): void {
    this.leaving.abort();
  }

  private async follow(asked: { body: unknown; headers: Record<string, string> } | null): Promise<void> {
    let deadline = this.net.now() + PATIENCE_MS;
    let pause = FIRST_PAUSE_MS;
    while (!this.leaving.signal.aborted) {
      const before = this.first.lastEventId;
      const ending = await this.once(asked);
      if (ending === "over" || this.leaving.signal.aborted) return;
      if (!this.canResume) return this.fail(toldAs("interrupted", "The connection broke. Several answers at once cannot be gone on with."));
      if (this.first.lastEventId !== before) [deadline, pause] = [this.net.now() + PATIENCE_MS, FIRST_PAUSE_MS];
      if (this.net.now() > deadline) return this.fail(toldAs("offline", "The connection broke and could not be made again."));
      if (!this.isStopped) for (const answer of this.answers) answer.state = "broken";
      this.changed();
      await this.net.sleep(pause, this.leaving.signal);
      pause = Math.min(pause * 2, MAX_PAUSE_MS);
    }
  }

  /** One connection. */
  private async once(asked: { body: unknown; headers: Record<string, string> } | null): Promise<Ending> {
    let response: Response;
    try {
      response = await this.net.fetch(...this.connection(asked));
    } catch {
      return "broken";
    }
    if (!response.ok || response.body === null) return this.refused(response);
    this.opened(response.headers);
    try {
      for await (const sent of readEvents(response.body)) {
        if (sent.kind === "comment") {
          this.heard(sent.text);
          continue;
        }
        if (sent.data === "[DONE]") return "over";
        this.routed(this.told);
        this.told = {};
        const value = JSON.parse(sent.data) as unknown;
        if (isError(value)) {
          if (codeOf(value) === "shutting_down" && this.canResume) return "broken";
          this.fail(toldOf(value, 0));
          return "over";
        }
        applyChunk(this.answers, value as Chunk, this.net.now());
        if (sent.id !== null) this.first.lastEventId = sent.id;
        this.changed();
      }
    } catch (error) {
      if (error instanceof SyntaxError) throw error;
    }
    return "broken";
  }

  private connection(asked: { body: unknown; headers: Record<string, string> } | null): [string, RequestInit] {
    const { requestId, lastEventId, key } = this.first;
    const headers: Record<string, string> = { ...WRITES, "X-SSE-Keepalive": "comments" };
    if (this.canResume) headers["X-On-Disconnect"] = "wait";
    if (requestId !== null && this.canResume) {
      if (lastEventId !== null) headers["Last-Event-ID"] = lastEventId;
      const path = `/v1/requests/${encodeURIComponent(requestId)}/stream`;
      return [path, { headers, signal: this.leaving.signal, cache: "no-store" }];
    }
    if (asked === null) throw new Error("there is nothing to send");
    if (this.canResume) headers["Idempotency-Key"] = key;
    const sent = { ...headers, ...asked.headers, "Content-Type": "application/json" };
    return ["/v1/chat/completions", { method: "POST", headers: sent, body: JSON.stringify(asked.body), signal: this.leaving.signal }];
  }

  private opened(headers: Headers): void {
    const { requestId, route, place } = readHeaders(headers);
    for (const answer of this.answers) {
      answer.requestId ??= requestId;
      if (answer.state === "broken") answer.state = answer.stats.firstAt === null ? "waiting" : "streaming";
      if (place !== null && answer.stats.firstAt === null) answer.place = place;
    }
    this.routed(route);
    if (this.isStopped) this.cancelOnServer();
    this.changed();
  }

  private heard(comment: string): void {
    const said = readComment(comment);
    if (said.kind === "unknown") return;
    if (said.kind === "route") {
      Object.assign(this.told, said.route);
      return;
    }
    for (const answer of this.answers) {
      if (said.kind === "opened") answer.place = null;
      if (said.kind === "queued") answer.place = said.place;
    }
    this.changed();
  }

  private routed(route: Partial<Route>): void {
    for (const answer of this.answers) noteRoute(answer, route);
  }

  private async refused(response: Response): Promise<Ending> {
    const body = await response.json().catch(() => null);
    const told = toldOf(body, response.status, retryAfterOf(response.headers));
    // A request that has been begun is gone on with once the balancer, or a proxy's way to it, is there again.
    const isPassing = [502, 503, 504].includes(response.status) && !["request_lost", "start_timeout", "item_timeout", "buffer_full"].includes(told.code);
    if (isPassing && this.first.requestId !== null && this.canResume) return "broken";
    this.fail(told);
    return "over";
  }

  private fail(error: NonNullable<Answer["error"]>): void {
    for (const answer of this.answers) {
      if (this.isStopped && error.code === "cancelled") continue;
      answer.error = error;
      if (!this.isStopped) answer.state = "failed";
    }
  }

  private end(): void {
    for (const answer of this.answers) {
      answer.place = null;
      if (this.isStopped) {
        answer.state = "stopped";
        answer.error = null;
      } else if (answer.state !== "failed" && !this.leaving.signal.aborted) answer.state = "done";
    }
    this.changed();
  }

  private cancelOnServer(): void {
    const { requestId } = this.first;
    if (requestId === null || this.isCancelSent) return;
    this.isCancelSent = true;
    const path = `/v1/requests/${encodeURIComponent(requestId)}/cancel`;
    void this.net.fetch(path, { method: "POST", headers: WRITES, keepalive: true }).catch(() => { this.isCancelSent = false; });
    void this.net.sleep(STOP_PATIENCE_MS, this.leaving.signal).then(() => this.leaving.abort());
  }
}

/** An agent that goes on with what another has begun is told of apart. */
export function noteRoute(answer: Answer, route: Partial<Route>): void {
  const { agent, attempt } = answer.route;
  if (route.attempt != null && attempt !== null && route.attempt > attempt && agent !== null) {
    answer.handedOverFrom.push(agent);
    answer.route = { agent: route.agent ?? null, attempt: route.attempt, cache: route.cache ?? null };
    return;
  }
  answer.route = {
    agent: route.agent ?? agent,
    attempt: route.attempt ?? attempt,
    cache: route.cache ?? answer.route.cache,
  };
}
