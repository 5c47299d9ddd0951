import { cleanup, render, screen } from "@testing-library/preact";
import { afterEach, expect, test, vi } from "vitest";
import { AgentCommand } from "./AddAgent";
import type { Joining } from "./command";

const JOINING: Joining = { redis_url: "redis://10.0.0.1:6379/0", redis_prefix: "paddler", is_local: false, has_secret: false, file_flags: [] };

function show({ joining = JOINING, model = { LocalToAgent: "/m.gguf" } as unknown }): void {
  vi.stubGlobal("fetch", (path: string) => Promise.resolve(Response.json(path.endsWith("/joining") ? joining : { model })));
  render(<AgentCommand />);
}

afterEach(() => {
  cleanup();
  vi.unstubAllGlobals();
});

test("a fleet with a model: nothing is to be added, and nothing is promised", async () => {
  show({});
  expect(await screen.findByText(/loads the model that the pool's desired state names/)).toBeTruthy();
  expect(screen.queryByText(/No model is set/)).toBeNull();
  expect(screen.queryByText(/speaks TLS/)).toBeNull();
  expect(screen.queryByText(/seconds/)).toBeNull();
});

test("without a desired state it says what to do", async () => {
  show({ model: "None" });
  expect(await screen.findByText(/No model is set for this pool/)).toBeTruthy();
  expect(screen.getByRole("link", { name: "Model" }).getAttribute("href")).toBe("/model/default");
  expect(screen.getByText("--model FILE")).toBeTruthy();
});

test("files of TLS that the command cannot carry are named by their flags", async () => {
  show({ joining: { ...JOINING, redis_url: "rediss://10.0.0.1:6379/0", file_flags: ["--redis-tls-ca", "--redis-tls-cert"] } });
  expect(await screen.findByText("--redis-tls-ca FILE --redis-tls-cert FILE")).toBeTruthy();
});
