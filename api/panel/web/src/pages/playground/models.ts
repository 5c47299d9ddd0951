/** Which models there are, and what they can do. */
import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { call } from "../../data/api";
import { pools } from "../../data/live";

export interface Model {
  id: string;
  abilities?: string[];
  meta?: { n_ctx: number; n_embd: number };
}

/** A balancer's list is up to a second old, and so is what it knows of each pool: the live feed may be ahead of both. */
const KNOWN_FOR_MS = 2500;

export const models = signal<readonly Model[] | null>(null);

async function loadModels(): Promise<void> {
  const listed = await call<{ data: Model[] }>("/v1/models");
  models.value = listed.data;
}

/** Keeps `models` as they are while the fleet changes. */
export function useModels(onError: (error: unknown) => void): void {
  const fleet = [...pools.value.values()].map(({ name, agents, models: served }) => [name, agents, ...served].join()).join(";");
  useEffect(() => {
    loadModels().catch(onError);
    const again = setTimeout(() => loadModels().catch(() => undefined), KNOWN_FOR_MS);
    return () => clearTimeout(again);
  }, [fleet]);
}

export function canGenerate(model: Model): boolean {
  return model.abilities === undefined || model.abilities.includes("generate");
}

export function canEmbed(model: Model): boolean {
  return model.abilities === undefined || model.abilities.includes("embed");
}

/** Why no image can be sent; null where one can, or where nobody knows. */
export function whyNoImages(model: Model | undefined): string | null {
  // Agents in front of another server cannot say; they tell no `tokenize` either.
  if (model?.abilities === undefined || model.abilities.includes("see") || !model.abilities.includes("tokenize")) return null;
  return `No agent of ${model.id} reads images: start one with --multimodal-projection.`;
}
