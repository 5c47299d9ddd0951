import { addressOf, modelOf, NO_SOURCE, withAddress } from "./source";
import type { Adapter } from "./types";

/** An adapter as it is being written: a path on the agents' machines, or an address. `given` is what was read: it stays
 * as it is, with its checksum, while nobody writes another path. */
export interface AdapterDraft { path: string; scale: string; given?: Adapter }

/** Where its file is, in one line. */
export function placeOf({ path, LocalToAgent, HuggingFace, Url }: Adapter): string {
  if (HuggingFace) return addressOf({ HuggingFace });
  return Url ? Url.url : (path ?? LocalToAgent ?? "");
}

export function scaleOf({ scale }: Adapter): number {
  return scale ?? 1;
}

export function adapterDraft(given: Adapter): AdapterDraft {
  return { path: placeOf(given), scale: String(scaleOf(given)), given };
}

export function readAdapter({ path, scale: written, given }: AdapterDraft): { adapter: Adapter } | { error: string } {
  if (path.trim() === "") return { error: "Each needs the path of a file on the agents' machines, or its address; remove what is not needed." };
  const scale = Number(written.trim().replace(",", "."));
  if (written.trim() === "" || !Number.isFinite(scale)) return { error: "A scale is a number; 1 is what the adapter was trained for." };
  if (given !== undefined && path === placeOf(given)) return { adapter: scale === scaleOf(given) ? given : { ...given, scale } };
  const { model, errors } = modelOf(withAddress({ ...NO_SOURCE, kind: "LocalToAgent" }, "path", path));
  const [error] = Object.values(errors);
  if (error !== undefined || model === "None") return { error: error ?? "This is no path and no address." };
  return { adapter: { ...model, scale } };
}
