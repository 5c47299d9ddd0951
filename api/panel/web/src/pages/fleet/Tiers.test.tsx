import { cleanup, render, screen, within } from "@testing-library/preact";
import { afterEach, expect, test } from "vitest";
import type { Agent, Tier } from "../../data/types";
import { Tiers } from "./Tiers";

const NONE: Tier = { tier: "ram", hits: 0, misses: 0, tokens: 0, saved_ms: 0, refused: 0, failures: 0, bytes: 0, blocks: 0, bytes_per_second: null };

function show(...tiers: Partial<Tier>[]): void {
  render(<Tiers agent={{ id: "a", name: "one", tiers: tiers.map((one) => ({ ...NONE, ...one })) } as Agent} />);
}

afterEach(cleanup);

test("a row per tier, in words", () => {
  show({ blocks: 12, bytes: 70_000_000 }, { tier: "disk", hits: 9, misses: 1, tokens: 2304, saved_ms: 7600, bytes_per_second: 412_000_000 });
  const [, ram, disk] = within(screen.getByRole("table")).getAllByRole("row").map((row) => Array.from(row.children, (cell) => cell.textContent));
  expect(ram).toEqual(["Host memory", "12 blocks, 70.0 MB", "–", "0", "0 ms", "–", "–"]);
  expect(disk).toEqual(["Disk", "–", "9 of 10", "2,304", "7.6 s", "412", "–"]);
  expect(screen.getByText("Behind the KV cache: host memory, disk; 7.6 s of prefill saved")).toBeTruthy();
});

test("trouble is told without unfolding", () => {
  show({ tier: "shared", refused: 2, failures: 1 });
  expect(screen.getByText(/3 refused or failed$/)).toBeTruthy();
  expect(screen.getByText("2, 1")).toBeTruthy();
});

test("nothing of an agent without tiers, or of an older one", () => {
  show();
  expect(document.querySelector("details")).toBeNull();
  cleanup();
  render(<Tiers agent={{ id: "a", name: "one" } as Agent} />);
  expect(document.querySelector("details")).toBeNull();
});

test("a tier of a newer version has the name that it gives itself", () => {
  show({ tier: "tape", blocks: 1, bytes: 5 });
  expect(screen.getByText("tape")).toBeTruthy();
});
