// @vitest-environment node
import { expect, test } from "vitest";
import { apply, collection } from "./collections";

test("what did not change stays the same object, what has gone is gone", () => {
  apply("things", { reset: true, set: { a: { n: 1 }, b: { n: 2 } } });
  const before = collection<{ n: number }>("things").value;
  apply("things", { set: { b: { n: 3 } }, gone: ["c"] });
  const after = collection<{ n: number }>("things").value;
  expect(after.get("a")).toBe(before.get("a"));
  expect(after.get("b")).toEqual({ n: 3 });
  apply("things", { gone: ["a"] });
  expect([...collection("things").value.keys()]).toEqual(["b"]);
});

test("a reset forgets what was there before", () => {
  apply("others", { set: { a: 1 } });
  apply("others", { reset: true, set: { b: 2 } });
  expect([...collection("others").value]).toEqual([["b", 2]]);
});
