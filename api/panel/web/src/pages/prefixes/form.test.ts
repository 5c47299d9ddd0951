import { describe, expect, it } from "vitest";
import { fieldOf, NEW_PREFIX, readDraft, type Draft, type Problems } from "./form";

function read(more: Partial<Draft>): [object, Problems] {
  const problems: Problems = {};
  return [readDraft({ ...NEW_PREFIX, name: "rules", text: "Be brief.", ...more }, problems), problems];
}

describe("the form of a prefix", () => {
  it("sends a system message, a prompt, or what is in the JSON", () => {
    expect(read({})[0]).toEqual({ name: "rules", messages: [{ role: "system", content: "Be brief." }] });
    expect(read({ kind: "prompt", tenant: "acme" })[0]).toEqual({ name: "rules", tenant: "acme", prompt: "Be brief." });
    const messages = [{ role: "user", content: "a book" }];
    expect(read({ kind: "messages", text: JSON.stringify(messages) })[0]).toEqual({ name: "rules", messages });
    expect(read({ kind: "messages", text: JSON.stringify({ messages, tools: [] }) })[0]).toEqual({ name: "rules", messages, tools: [] });
  });

  it("says which field is wrong", () => {
    expect(Object.keys(read({ name: "a b", tenant: "-", text: " " })[1]).sort()).toEqual(["name", "tenant", "text"]);
    for (const text of ["{", "3", '{"tools": []}', "null"]) expect(read({ kind: "messages", text })[1]).toHaveProperty("text");
  });

  it("shows what the balancer says where it belongs", () => {
    expect(["name", "tenant", "messages[0].role", "prompt", "tools"].map(fieldOf)).toEqual(["name", "tenant", "text", "text", "text"]);
  });
});
