import { beforeEach, expect, test } from "vitest";
import { Following, type Net, noteRoute } from "./follow";
import { newAnswer } from "./history";
import type { Answer } from "./model";

const ID = "default.x";
const HEADERS = { "x-paddler-request-id": ID, "x-paddler-agent": "a1", "x-paddler-attempt": "1" };

interface Sent { path: string; method: string; headers: Record<string, string>; body: string | null }
type Reply = (sent: Sent, signal: AbortSignal) => Promise<Response> | Response;

/** A server that answers as it is told, one connection after the other. */
class Script implements Net {
  readonly sent: Sent[] = [];
  private at = 0;
  clock = 0;

  constructor(private readonly replies: Reply[]) {}

  now = () => (this.clock += 10);
  sleep: Net["sleep"] = async (ms) => void (this.clock += ms);
  fetch = async (path: string, init: RequestInit): Promise<Response> => {
    const sent = { path, method: init.method ?? "GET", headers: init.headers as Record<string, string>, body: (init.body as string | undefined) ?? null };
    this.sent.push(sent);
    if (path.endsWith("/cancel")) return new Response("{}");
    const reply = this.replies[this.at++];
    if (reply === undefined) throw new TypeError("failed to fetch");
    return reply(sent, init.signal as AbortSignal);
  };

  get paths(): string[] {
    return this.sent.map((one) => `${one.method} ${one.path}`);
  }
}

/** No time passes until somebody leaves. */
function untilLeft(_: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve()));
}

function event(text: string, offset: number): string {
  return `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content: text }, finish_reason: null }] })}\nid: ${ID}:${offset}\n\n`;
}

const END = `data: ${JSON.stringify({ choices: [{ index: 0, delta: {}, finish_reason: "stop" }] })}\n\ndata: [DONE]\n\n`;

/** A body that ends, or breaks off with an error. */
function stream(text: string, { breaks = false, headers = HEADERS as Record<string, string> } = {}): Reply {
  return () => {
    const body = new ReadableStream<Uint8Array>({
      start(controller) {
        controller.enqueue(new TextEncoder().encode(text));
        if (!breaks) controller.close();
      },
      pull(controller) {
        if (breaks) controller.error(new TypeError("network error"));
      },
    });
    return new Response(body, { headers });
  };
}

function refusal(status: number, code: string): Reply {
  return () => new Response(JSON.stringify({ error: { message: "no", code, type: "x", param: null } }), { status });
}

const unreachable: Reply = () => { throw new TypeError("failed to fetch"); };

let answer: Answer;
beforeEach(() => { answer = newAnswer(0, "key-1"); });

async function run(script: Script, answers = [answer]): Promise<Following> {
  const following = new Following(answers, () => undefined, script);
  await following.run({ body: { model: "m" }, headers: { "X-Request-Class": "batch" } });
  return following;
}

test("an answer from its question to its end", async () => {
  const script = new Script([stream(event("Hel", 10) + event("lo", 20) + END)]);
  await run(script);
  expect([answer.text, answer.state, answer.finish, answer.requestId, answer.lastEventId]).toEqual(["Hello", "done", "stop", ID, `${ID}:20`]);
  expect(answer.route.agent).toBe("a1");
  expect(script.sent[0]?.headers).toMatchObject({ "X-On-Disconnect": "wait", "Idempotency-Key": "key-1", "X-Request-Class": "batch", "x-paddler-panel": "1" });
});

test("a broken connection goes on behind the last event", async () => {
  const script = new Script([stream(event("Hel", 10), { breaks: true }), unreachable, refusal(503, "queue_unavailable"), stream(event("lo", 20) + END)]);
  await run(script);
  expect([answer.text, answer.state]).toEqual(["Hello", "done"]);
  expect(script.paths).toEqual(["POST /v1/chat/completions", ...Array(3).fill(`GET /v1/requests/${ID}/stream`)]);
  expect(script.sent[3]?.headers).toMatchObject({ "Last-Event-ID": `${ID}:10`, "X-On-Disconnect": "wait" });
});

test("a stream that ends without its end is a broken one", async () => {
  const script = new Script([stream(event("Hel", 10)), stream(event("lo", 20) + END)]);
  await run(script);
  expect(answer.text).toBe("Hello");
});

test("a balancer that stops is gone on from", async () => {
  const stopping = `data: ${JSON.stringify({ error: { message: "stopping", code: "shutting_down" } })}\n\ndata: [DONE]\n\n`;
  await run(new Script([stream(event("Hel", 10) + stopping), stream(event("lo", 20) + END)]));
  expect([answer.text, answer.state]).toEqual(["Hello", "done"]);
});

test("one whose sending broke is sent again as the same request", async () => {
  const script = new Script([unreachable, stream(event("x", 1) + END)]);
  await run(script);
  expect(script.paths).toEqual(Array(2).fill("POST /v1/chat/completions"));
  expect(new Set(script.sent.map((one) => one.headers["Idempotency-Key"]))).toEqual(new Set(["key-1"]));
  expect(answer.state).toBe("done");
});

test("after a minute of trying it says that nobody can be reached", async () => {
  const script = new Script([stream(event("Hel", 10), { breaks: true })]);
  await run(script);
  expect([answer.state, answer.error?.code, answer.text]).toEqual(["failed", "offline", "Hel"]);
  expect(script.clock).toBeGreaterThan(60_000);
});

test.each<[string, Reply[], string, boolean]>([
  ["refused before it began", [refusal(503, "buffer_full")], "buffer_full", true],
  ["refused for a setting", [refusal(400, "invalid_field")], "invalid_field", false],
  ["forgotten when it is asked for again", [stream(event("a", 1), { breaks: true }), refusal(404, "request_not_found")], "request_not_found", false],
  ["failed on the agent", [stream(`data: {"error": {"message": "broke", "code": "engine_failed"}}\n\ndata: [DONE]\n\n`)], "engine_failed", false],
  ["lost by Redis", [stream(event("a", 1), { breaks: true }), refusal(503, "request_lost")], "request_lost", true],
])("%s: told in words with a remedy", async (_, replies, code, canRetry) => {
  await run(new Script(replies));
  expect(answer.state).toBe("failed");
  expect(answer.error).toMatchObject({ code, canRetry });
  expect(answer.error?.remedy).not.toBe("");
});

test("stopping tells the server, and keeps what was said until then", async () => {
  let push: (text: string) => void = () => undefined;
  let close: () => void = () => undefined;
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      push = (text) => controller.enqueue(new TextEncoder().encode(text));
      close = () => controller.close();
    },
  });
  const script = new Script([() => new Response(body, { headers: HEADERS })]);
  script.sleep = untilLeft;
  const seen: string[] = [];
  const following = new Following([answer], () => seen.push(answer.text), script);
  const over = following.run({ body: {}, headers: {} });
  push(event("Hel", 10));
  while (!seen.includes("Hel")) await new Promise((resolve) => setTimeout(resolve));
  following.stop();
  following.stop();
  expect(answer.state).toBe("stopping");
  push(event("lo", 20));
  push(`data: {"error": {"message": "The request was cancelled.", "code": "cancelled"}}\n\ndata: [DONE]\n\n`);
  close();
  await over;
  expect([answer.text, answer.state, answer.error]).toEqual(["Hello", "stopped", null]);
  expect(script.paths).toEqual(["POST /v1/chat/completions", `POST /v1/requests/${ID}/cancel`]);
});

test("stopped before it has an id, it is cancelled once it has", async () => {
  let answerNow: (response: Response) => void = () => undefined;
  const script = new Script([() => new Promise((resolve) => { answerNow = resolve; })]);
  script.sleep = untilLeft;
  const following = new Following([answer], () => undefined, script);
  const over = following.run({ body: {}, headers: {} });
  following.stop();
  expect(script.paths).toEqual(["POST /v1/chat/completions"]);
  answerNow(await stream(": queued position=0\n")({ path: "", method: "", headers: {}, body: null }, new AbortController().signal));
  while (script.paths.length < 2) await new Promise((resolve) => setTimeout(resolve));
  expect(script.paths[1]).toBe(`POST /v1/requests/${ID}/cancel`);
  following.leave();
  await over;
  expect(answer.state).toBe("stopped");
});

test("several choices are left, not cancelled by id: leaving ends them", async () => {
  const answers = [newAnswer(0, ""), newAnswer(0, "")];
  const script = new Script([stream(event("a", 1), { breaks: true })]);
  await run(script, answers);
  expect(script.sent[0]?.headers["X-On-Disconnect"]).toBeUndefined();
  expect(script.sent[0]?.headers["Idempotency-Key"]).toBeUndefined();
  expect(answers.map((one) => one.error?.code)).toEqual(["interrupted", "interrupted"]);
});

test("who goes on with it is told, with who had it before", async () => {
  const comments = ": x-paddler-agent: a2\n: x-paddler-attempt: 2\n: x-paddler-cache: miss\n";
  await run(new Script([stream(event("Hel", 10) + comments + event("lo", 20) + END)]));
  expect(answer.route).toEqual({ agent: "a2", attempt: 2, cache: "miss" });
  expect(answer.handedOverFrom).toEqual(["a1"]);
});

test("the place in the queue comes from headers and comments, and goes with the first word", async () => {
  const seen: (number | undefined)[] = [];
  const headers = { "x-paddler-request-id": ID, "x-queue-position": "4" };
  const script = new Script([stream(": queued position=2 eta_ms=900\n: keepalive\n" + event("a", 1) + END, { headers })]);
  const following = new Following([answer], () => seen.push(answer.place?.position), script);
  await following.run({ body: {}, headers: {} });
  expect(seen.slice(0, 3)).toEqual([4, 2, undefined]);
  expect(answer.place).toBeNull();
});

test("the same attempt heard twice is no hand-over", () => {
  noteRoute(answer, { agent: "a1", attempt: 1 });
  noteRoute(answer, { agent: "a1", attempt: 1, cache: "hit" });
  expect(answer.handedOverFrom).toEqual([]);
  expect(answer.route).toEqual({ agent: "a1", attempt: 1, cache: "hit" });
});
