import { expect, test } from "vitest";
import { type Sent, readEvents } from "./sse";

const STREAM = `: queued position=3 eta_ms=1200
: x-paddler-agent: a1
data: {"text":"Zwölf ☃ 🦆"}
id: default.x:17

data: one
data: two

: keepalive
data: [DONE]

`;
const EXPECTED: Sent[] = [
  { kind: "comment", text: "queued position=3 eta_ms=1200" },
  { kind: "comment", text: "x-paddler-agent: a1" },
  { kind: "event", data: '{"text":"Zwölf ☃ 🦆"}', id: "default.x:17" },
  { kind: "event", data: "one\ntwo", id: null },
  { kind: "comment", text: "keepalive" },
  { kind: "event", data: "[DONE]", id: null },
];

function streamOf(chunks: Uint8Array[], after?: Error): ReadableStream<Uint8Array> {
  let at = 0;
  return new ReadableStream({
    pull(controller) {
      const chunk = chunks[at++];
      if (chunk) controller.enqueue(chunk);
      else if (after) controller.error(after);
      else controller.close();
    },
  });
}

async function all(stream: ReadableStream<Uint8Array>): Promise<Sent[]> {
  const found: Sent[] = [];
  for await (const sent of readEvents(stream)) found.push(sent);
  return found;
}

test("wherever bytes are cut, the events are the same", async () => {
  const bytes = new TextEncoder().encode(STREAM);
  for (let size = 1; size <= bytes.length; size++) {
    const chunks: Uint8Array[] = [];
    for (let at = 0; at < bytes.length; at += size) chunks.push(bytes.slice(at, at + size));
    expect(await all(streamOf(chunks))).toEqual(EXPECTED);
  }
});

test("line ends of other systems are line ends", async () => {
  const bytes = new TextEncoder().encode(STREAM.replaceAll("\n", "\r\n"));
  for (const cut of [1, 2, 7, bytes.length]) {
    const chunks: Uint8Array[] = [];
    for (let at = 0; at < bytes.length; at += cut) chunks.push(bytes.slice(at, at + cut));
    expect(await all(streamOf(chunks))).toEqual(EXPECTED);
  }
});

test("what came before the connection broke is read, and that it broke is told", async () => {
  const found: Sent[] = [];
  const broken = streamOf([new TextEncoder().encode("data: a\n\ndata: half")], new TypeError("network error"));
  await expect(async () => {
    for await (const sent of readEvents(broken)) found.push(sent);
  }).rejects.toThrow("network error");
  expect(found).toEqual([{ kind: "event", data: "a", id: null }]);
});

test("who stops reading lets go of the connection", async () => {
  let cancelled = false;
  const endless = new ReadableStream<Uint8Array>({
    pull: (controller) => controller.enqueue(new TextEncoder().encode("data: x\n\n")),
    cancel: () => void (cancelled = true),
  });
  for await (const _ of readEvents(endless)) break;
  expect(cancelled).toBe(true);
});
