import { describe, expect, test } from "vitest";
import { addressOf, fileNameOf, modelOf, NO_SOURCE, sourceOf, withAddress } from "./source";
import type { Model } from "./types";

const MODELS: Model[] = [
  "None",
  { HuggingFace: { repo_id: "Qwen/Qwen3-0.6B-GGUF", filename: "dir/Qwen3-0.6B-Q8_0.gguf", revision: "main" } },
  { LocalToAgent: "/models/a b.gguf" },
  { Url: { url: "https://example.org/m.gguf" } },
  { Url: { url: "https://example.org/m.gguf", sha256: "a".repeat(64) } },
];

describe("a source", () => {
  test.each(MODELS)("comes back as the model it was made of: %j", (model) => {
    expect(modelOf(sourceOf(model))).toEqual({ model, errors: {} });
  });

  test("takes apart the address of a page on Hugging Face, whatever field it is pasted into", () => {
    const address = " https://huggingface.co/Qwen/Qwen3-0.6B-GGUF/blob/refs%2Fpr%2F1/dir/Q8%20x.gguf?download=true";
    for (const field of ["repo", "url", "path"] as const) {
      expect(withAddress(NO_SOURCE, field, address)).toMatchObject({ kind: "HuggingFace", repo: "Qwen/Qwen3-0.6B-GGUF", revision: "refs/pr/1", file: "dir/Q8 x.gguf" });
    }
  });

  test("takes a path of the agents and any other address for what they are", () => {
    expect(withAddress(sourceOf("None"), "url", "agent:///models/m.gguf")).toMatchObject({ kind: "LocalToAgent", path: "/models/m.gguf" });
    expect(withAddress(NO_SOURCE, "repo", "https://example.org/m.gguf")).toMatchObject({ kind: "Url", url: "https://example.org/m.gguf" });
    expect(withAddress(NO_SOURCE, "repo", "Qwen/Q")).toMatchObject({ kind: "None", repo: "Qwen/Q" });
  });

  test.each([
    [{ kind: "HuggingFace", repo: "noslash", file: "", revision: " " }, ["repo", "file", "revision"]],
    [{ kind: "Url", url: "ftp://example.org/x", sha256: "beef" }, ["url", "sha256"]],
    [{ kind: "Url", url: "nothing" }, ["url"]],
    [{ kind: "LocalToAgent", path: "" }, ["path"]],
  ] as const)("says what is missing in %j", (part, wrong) => {
    expect(Object.keys(modelOf({ ...NO_SOURCE, ...part }).errors)).toEqual([...wrong]);
  });
});

test("models have names and addresses for people", () => {
  expect(MODELS.map(fileNameOf)).toEqual(["no model", "Qwen3-0.6B-Q8_0.gguf", "a b.gguf", "m.gguf", "m.gguf"]);
  expect(addressOf(MODELS[1]!)).toBe("https://huggingface.co/Qwen/Qwen3-0.6B-GGUF/resolve/main/dir/Qwen3-0.6B-Q8_0.gguf");
  expect(addressOf(MODELS[2]!)).toBe("agent:///models/a b.gguf");
});
