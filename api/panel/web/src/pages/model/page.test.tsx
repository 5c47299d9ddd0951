import { cleanup, fireEvent, render, screen, waitFor, within } from "@testing-library/preact";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Router } from "wouter-preact";
import { memoryLocation } from "wouter-preact/memory-location";
import { apply } from "../../data/collections";
import { Balancer } from "./fakeBalancer";
import ModelPage from "./index";

// jsdom has the element without what makes it modal.
HTMLDialogElement.prototype.showModal = function showModal() { this.open = true; };
HTMLDialogElement.prototype.close = function close() { this.open = false; };

let balancer: Balancer;
let pools = 0;

beforeEach(() => {
  balancer = new Balancer();
  vi.stubGlobal("fetch", balancer.fetch);
  const { hook } = memoryLocation({ path: `/model/pool-${++pools}` });
  render(<Router hook={hook}><ModelPage /></Router>);
});

afterEach(() => {
  cleanup();
  vi.unstubAllGlobals();
});

const input = (name: string) => screen.findByLabelText<HTMLInputElement>(name);
const type = (field: HTMLElement, value: string) => fireEvent.input(field, { target: { value } });

test("a change is reviewed, and then it is set", async () => {
  type(await input("Path"), "/models/b.gguf");
  type(await input("top_p"), "0.5");
  fireEvent.click(await screen.findByRole("button", { name: "Review and apply" }));
  const dialog = within(await screen.findByRole("dialog"));
  expect(dialog.getByText("agent:///models/b.gguf").tagName).toBe("INS");
  fireEvent.click(dialog.getByRole("button", { name: "Apply" }));
  await waitFor(() => expect(screen.queryByRole("dialog")).toBeNull());
  expect(balancer.state).toMatchObject({ model: { LocalToAgent: "/models/b.gguf" }, inference_parameters: { top_p: 0.5 } });
  expect(screen.queryByRole("region", { name: "Changes" })).toBeNull();
});

test("what is wrong is said at its field, and nothing can be set", async () => {
  type(await input("context_size"), "3");
  expect(await screen.findByText("It is at least 64.")).toBeTruthy();
  expect((await screen.findByRole<HTMLButtonElement>("button", { name: "Review and apply" })).disabled).toBe(true);
  fireEvent.click(screen.getByRole("button", { name: "Back to the default of context_size" }));
  await waitFor(() => expect(screen.queryByRole("region", { name: "Changes" })).toBeNull());
});

test("who is second sees what the first has changed, and goes on from there", async () => {
  type(await input("top_p"), "0.5");
  fireEvent.click(await screen.findByRole("button", { name: "Review and apply" }));
  balancer.sets({ aliases: ["theirs"] });
  fireEvent.click(within(await screen.findByRole("dialog")).getByRole("button", { name: "Apply" }));
  const button = await screen.findByRole("button", { name: "Go on from version 2" });
  expect(screen.getByText("theirs").tagName).toBe("INS");
  fireEvent.click(button);
  fireEvent.click(await screen.findByRole("button", { name: "Apply" }));
  await waitFor(() => expect(balancer.version).toBe(3));
  expect(balancer.state).toMatchObject({ aliases: ["theirs"], inference_parameters: { top_p: 0.5 } });
});

test("an agent that cannot apply it says why, and what can be done", async () => {
  const pool = `pool-${pools}`;
  const issue = { kind: "ModelFileDoesNotExist", detail: "there is no file", action: "It watches.", remedy: "Put it there." };
  const agent = { id: "a", name: "one", pool, state: "ready", slots_total: 2, model_path: "/old.gguf", desired_version: 1, state_application_status: "AttemptedAndNotAppliable", issue_details: [issue] };
  await input("Path");
  apply("agents", { set: { [`${pool}/a`]: agent } });
  const card = within(await screen.findByRole("region", { name: "Roll-out" }));
  expect(await card.findByText("Put it there.")).toBeTruthy();
  expect(card.getByText("Needs your help")).toBeTruthy();
  expect(card.getByText("serves /old.gguf")).toBeTruthy();
});

test("versions can be looked at", async () => {
  await input("Path");
  fireEvent.click(screen.getByRole("button", { name: "History" }));
  fireEvent.click(await screen.findByRole("button", { name: "Look at version 1" }));
  expect(await screen.findByText("It is the same as what is set now.")).toBeTruthy();
});
