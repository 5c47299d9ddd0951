import type { Model } from "./types";

export type SourceKind = "None" | "HuggingFace" | "Url" | "LocalToAgent";

/** Where a file comes from, as it is being written. What another kind had is kept while one tries them. */
export interface Source {
  kind: SourceKind;
  repo: string;
  file: string;
  revision: string;
  url: string;
  sha256: string;
  path: string;
}

export const NO_SOURCE: Source = { kind: "None", repo: "", file: "", revision: "main", url: "", sha256: "", path: "" };

export function sourceOf(model: Model): Source {
  if (model === "None") return NO_SOURCE;
  if ("HuggingFace" in model) {
    const { repo_id, filename, revision } = model.HuggingFace;
    return { ...NO_SOURCE, kind: "HuggingFace", repo: repo_id, file: filename, revision };
  }
  if ("LocalToAgent" in model) return { ...NO_SOURCE, kind: "LocalToAgent", path: model.LocalToAgent };
  return { ...NO_SOURCE, kind: "Url", url: model.Url.url, sha256: model.Url.sha256 ?? "" };
}

const HUGGING_FACE = /^https?:\/\/(?:www\.)?(?:huggingface\.co|hf\.co)\/([^/]+\/[^/]+)\/(?:blob|resolve|raw)\/([^/]+)\/([^?#]+)/;

/** The source with an address put into one of its fields: one that says more than the field is taken apart. */
export function withAddress(source: Source, field: "repo" | "url" | "path", text: string): Source {
  const given = text.trim();
  const found = HUGGING_FACE.exec(given);
  if (found) {
    const [repo, revision, file] = found.slice(1).map((part) => decodeURIComponent(part)) as [string, string, string];
    return { ...source, kind: "HuggingFace", repo, revision, file };
  }
  if (given.startsWith("agent://")) return { ...source, kind: "LocalToAgent", path: given.slice("agent://".length) };
  if (field !== "url" && /^https?:\/\//.test(given)) return { ...source, kind: "Url", url: given };
  return { ...source, [field]: text };
}

/** The model, and what is wrong with the fields by their names. */
export function modelOf(source: Source): { model: Model; errors: Partial<Record<keyof Source, string>> } {
  const errors: Partial<Record<keyof Source, string>> = {};
  const { repo, file, revision, url, sha256, path } = trimmed(source);
  switch (source.kind) {
    case "None":
      return { model: "None", errors };
    case "HuggingFace":
      if (!/^[^/\s]+\/[^/\s]+$/.test(repo)) errors.repo = "Owner and name, such as Qwen/Qwen3-0.6B-GGUF; or paste the address of the file's page.";
      if (!file) errors.file = "The file in the repository, such as model-Q4_K_M.gguf.";
      if (!revision) errors.revision = "A branch, a tag or a commit; usually main.";
      return { model: { HuggingFace: { repo_id: repo, filename: file, revision } }, errors };
    case "Url":
      if (!isWebAddress(url)) errors.url = "An address that begins with https:// or http:// and names a file.";
      if (sha256 && !/^[0-9a-f]{64}$/i.test(sha256)) errors.sha256 = "64 hexadecimal digits, as sha256sum writes them; or nothing.";
      return { model: { Url: sha256 ? { url, sha256 } : { url } }, errors };
    case "LocalToAgent":
      if (!path) errors.path = "The path of a file on each agent's machine, such as /models/model.gguf.";
      return { model: { LocalToAgent: path }, errors };
  }
}

function trimmed(source: Source): Source {
  const entries = Object.entries(source).map(([name, value]) => [name, value.trim()]);
  return Object.fromEntries(entries) as unknown as Source;
}

function isWebAddress(text: string): boolean {
  try {
    const { protocol, hostname } = new URL(text);
    return ["http:", "https:"].includes(protocol) && hostname !== "";
  } catch {
    return false;
  }
}

/** In one line, for people: what `paddler model use` would take. */
export function addressOf(model: Model): string {
  if (model === "None") return "none";
  if ("HuggingFace" in model) {
    const { repo_id, filename, revision } = model.HuggingFace;
    return `https://huggingface.co/${repo_id}/resolve/${encodeURIComponent(revision)}/${encodeURI(filename)}`;
  }
  if ("LocalToAgent" in model) return model.LocalToAgent.startsWith("/") ? `agent://${model.LocalToAgent}` : model.LocalToAgent;
  return model.Url.sha256 ? `${model.Url.url} (sha256 ${model.Url.sha256})` : model.Url.url;
}

/** What to call it: the name of its file. */
export function fileNameOf(model: Model): string {
  if (model === "None") return "no model";
  if ("Url" in model) return model.Url.url.split(/[?#]/)[0]!.split("/").at(-1) || model.Url.url;
  const path = "HuggingFace" in model ? model.HuggingFace.filename : model.LocalToAgent;
  return path.split("/").at(-1) || path;
}
