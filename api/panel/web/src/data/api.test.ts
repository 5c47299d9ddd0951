// @vitest-environment node
import { beforeEach, expect, test, vi } from "vitest";
import { ApiError, call, needsLogin } from "./api";

beforeEach(() => { needsLogin.value = false; });

function answer(status: number, body: string, headers: Record<string, string> = {}) {
  return vi.spyOn(globalThis, "fetch").mockImplementation(() => Promise.resolve(new Response(body, { status, headers })));
}

async function failure(): Promise<ApiError> {
  return call("/api/v1/pools").then(() => { throw new Error("it did not fail"); }, (error: unknown) => error as ApiError);
}

test("an error says what its envelope says", async () => {
  answer(503, JSON.stringify({ error: { message: "Redis cannot be reached.", code: "queue_unavailable", param: null } }), { "retry-after": "1" });
  const error = await failure();
  expect(error).toMatchObject({ message: "Redis cannot be reached.", status: 503, code: "queue_unavailable", retryAfter: 1 });
});

test("an error in plain words is those words, an empty one says its number", async () => {
  answer(504, "waited too long");
  expect((await failure()).message).toBe("waited too long");
  answer(500, "");
  expect((await failure()).message).toContain("500");
  answer(502, "<html><h1>Bad Gateway</h1></html>", { "content-type": "text/html" });
  expect((await failure()).message).toBe("The balancer has answered with 502.");
});

test("401 shows the login page", async () => {
  answer(401, JSON.stringify({ error: { message: "Log in." } }));
  await failure();
  expect(needsLogin.value).toBe(true);
});

test("what changes something has the header that other origins cannot send; what only reads has not", async () => {
  const sent = answer(200, "{}");
  await call("/api/v1/pools");
  await call("/api/v1/agent/x/drain", { method: "POST" });
  const [read, write] = sent.mock.calls.map(([, init]) => new Headers(init?.headers));
  expect(read?.has("x-paddler-panel")).toBe(false);
  expect(write?.get("x-paddler-panel")).toBe("1");
});

test("no answer at all is an error of status 0", async () => {
  vi.spyOn(globalThis, "fetch").mockRejectedValue(new TypeError("Failed to fetch"));
  expect(await failure()).toMatchObject({ status: 0 });
});
