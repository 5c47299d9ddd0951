// @vitest-environment node
import { expect, test } from "vitest";
import { EventParser } from "./sse";

test("an event is told when its empty line has come, however it is cut", () => {
  const parser = new EventParser();
  expect(parser.push("event: cha")).toEqual([]);
  expect(parser.push('nge\ndata: {"a"')).toEqual([]);
  expect(parser.push(":1}\n")).toEqual([]);
  expect(parser.push("\n")).toEqual([{ event: "change", data: '{"a":1}' }]);
});

test("comments are nothing, data of several lines is one", () => {
  const parser = new EventParser();
  expect(parser.push(":\n\ndata: one\ndata:two\n\n")).toEqual([{ event: "message", data: "one\ntwo" }]);
});

test("lines may end with CR LF, cut in the middle of it", () => {
  const parser = new EventParser();
  expect([...parser.push("data: one\r\n\r"), ...parser.push("\ndata: two\r\n\r\n")].map((one) => one.data)).toEqual(["one", "two"]);
});
