import { expect, test } from "vitest";
import { readComment, readHeaders } from "./comments";

test.each([
  ["queued", { kind: "queued", place: null }],
  ["queued position=0", { kind: "queued", place: { position: 0, etaMs: null } }],
  ["queued position=3 eta_ms=1200", { kind: "queued", place: { position: 3, etaMs: 1200 } }],
  ["keepalive", { kind: "opened" }],
  ["x-paddler-agent: host: 8", { kind: "route", route: { agent: "host: 8" } }],
  ["x-paddler-attempt: 2", { kind: "route", route: { attempt: 2 } }],
  ["x-paddler-cache: partial", { kind: "route", route: { cache: "partial" } }],
  ["something newer", { kind: "unknown" }],
  ["queuedish", { kind: "unknown" }],
])("%s", (text, said) => {
  expect(readComment(text)).toEqual(said);
});

test("headers tell the same, as far as it was known", () => {
  const headers = new Headers({ "x-paddler-request-id": "default.x", "x-queue-position": "2" });
  expect(readHeaders(headers)).toEqual({
    requestId: "default.x",
    route: { agent: null, attempt: null, cache: null },
    place: { position: 2, etaMs: null },
  });
  expect(readHeaders(new Headers({ "x-paddler-agent": "a", "x-paddler-attempt": "1", "x-paddler-cache": "hit" })).route).toEqual({ agent: "a", attempt: 1, cache: "hit" });
});
