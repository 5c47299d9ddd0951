// @vitest-environment node
import { expect, test } from "vitest";
import { Echoes } from "./echoes";

test("what comes back late is an echo, once", () => {
  const echoes = new Echoes();
  for (const text of ["a", "ab", "abc"]) echoes.tell(text);
  expect(echoes.has("ab")).toBe(true);
  expect(echoes.has("a")).toBe(false);
});

test("states that were set together come back as the last of them", () => {
  const echoes = new Echoes();
  for (const text of ["a", "ab"]) echoes.tell(text);
  expect(echoes.has("ab")).toBe(true);
  expect(echoes.has("ab")).toBe(false);
});

test("what the owner sets itself is none, and nothing told before it counts any more", () => {
  const echoes = new Echoes();
  echoes.tell("a");
  expect(echoes.has("another")).toBe(false);
  expect(echoes.has("a")).toBe(false);
});
