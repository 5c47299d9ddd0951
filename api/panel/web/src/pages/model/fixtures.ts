import type { Parameter, State } from "./types";

const NUMBER = { group: "Sampling", meaning: "", choices: null, max_length: null, max_items: null, off: null, is_nullable: false, needs_reload: false, is_ours: false };

/** One parameter of each kind, for tests. */
export const PARAMETERS: readonly Parameter[] = [
  { ...NUMBER, name: "context_size", group: "Engine", meaning: "Tokens that all slots share.", kind: "integer", default: 8192, minimum: 64, maximum: 2 ** 31 - 1, needs_reload: true },
  { ...NUMBER, name: "temperature", meaning: "Higher is more varied.", kind: "number", default: 0.8, minimum: null, maximum: 1000 },
  { ...NUMBER, name: "top_p", kind: "number", default: 0.8, minimum: 0, maximum: 1, off: "1" },
  { ...NUMBER, name: "k_cache_dtype", group: "Engine", kind: "choice", default: "F16", minimum: null, maximum: null, choices: ["F32", "F16", "Q8_0"], needs_reload: true },
  { ...NUMBER, name: "ignore_eos", kind: "boolean", default: false, minimum: null, maximum: null },
  { ...NUMBER, name: "model_name", group: "Engine", kind: "text", default: null, minimum: null, maximum: null, max_length: 12, is_nullable: true, needs_reload: true },
  { ...NUMBER, name: "dry_sequence_breakers", group: "DRY", kind: "texts", default: ["\n", ":"], minimum: null, maximum: null, max_length: 4, max_items: 3 },
  { ...NUMBER, name: "tensor_split", group: "Engine", kind: "numbers", default: [], minimum: 0, maximum: null, max_items: 3, needs_reload: true },
  { ...NUMBER, name: "lora_adapters", group: "Engine", kind: "adapters", default: [], minimum: null, maximum: null, needs_reload: true },
];

export const STATE: State = {
  model: { LocalToAgent: "/models/a.gguf" },
  multimodal_projection: "None",
  chat_template_override: null,
  use_chat_template_override: false,
  aliases: [],
  rollout: "rolling",
  inference_parameters: Object.fromEntries(PARAMETERS.map((one) => [one.name, one.default])),
};
