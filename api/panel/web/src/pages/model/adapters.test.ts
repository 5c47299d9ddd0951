// @vitest-environment node
import { describe, expect, test } from "vitest";
import { adapterDraft, placeOf, readAdapter } from "./adapters";
import type { Adapter } from "./types";

const HUGGING_FACE = { repo_id: "a/b", filename: "dir/c.gguf", revision: "main" };
const ADAPTERS: Adapter[] = [
  { path: "/a.gguf", scale: -0.5 },
  { path: "/a.gguf" },
  { LocalToAgent: "/a.gguf", scale: 1 },
  { HuggingFace: HUGGING_FACE, scale: 0.5 },
  { Url: { url: "https://example.org/t.gguf", sha256: "a".repeat(64) } },
];

describe("an adapter", () => {
  test.each(ADAPTERS)("that nobody touches stays as it is: %j", (adapter) => {
    expect(readAdapter(adapterDraft(adapter))).toEqual({ adapter });
  });

  test("keeps where it is when its scale changes", () => {
    expect(readAdapter({ ...adapterDraft(ADAPTERS[4]!), scale: "0,25" })).toEqual({ adapter: { ...ADAPTERS[4], scale: 0.25 } });
  });

  test("is a reference of the kind that its address is", () => {
    const read = (path: string) => readAdapter({ ...adapterDraft(ADAPTERS[4]!), path });
    expect(read("/b.gguf")).toEqual({ adapter: { LocalToAgent: "/b.gguf", scale: 1 } });
    expect(read("agent:///b.gguf")).toEqual({ adapter: { LocalToAgent: "/b.gguf", scale: 1 } });
    expect(read("https://example.org/b.gguf")).toEqual({ adapter: { Url: { url: "https://example.org/b.gguf" }, scale: 1 } });
    expect(read(placeOf({ HuggingFace: HUGGING_FACE }))).toEqual({ adapter: { HuggingFace: HUGGING_FACE, scale: 1 } });
  });

  test.each([[" ", "1", "path"], ["/a", "x", "scale"], ["/a", " ", "scale"], ["agent://", "1", "path"]])("%j with the scale %j is refused", (path, scale, words) => {
    expect(readAdapter({ path, scale })).toEqual({ error: expect.stringContaining(words) });
  });
});
