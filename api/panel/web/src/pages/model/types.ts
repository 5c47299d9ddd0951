/** The desired state of a pool, as `paddler/desired/schema.py` has it. */

export interface HuggingFace { repo_id: string; filename: string; revision: string }
export interface WebFile { url: string; sha256?: string | null }
/** A file by one of the first four; `path` is what `LocalToAgent` is. */
export interface Adapter { path?: string; LocalToAgent?: string; HuggingFace?: HuggingFace; Url?: WebFile; scale?: number }
export type Value = number | string | boolean | null | readonly string[] | readonly number[] | readonly Adapter[];

export type Model =
  | "None"
  | { HuggingFace: HuggingFace }
  | { LocalToAgent: string }
  | { Url: WebFile };

export type Rollout = "rolling" | "all_at_once";

export interface State {
  model: Model;
  multimodal_projection: Model;
  chat_template_override: { content: string } | null;
  use_chat_template_override: boolean;
  aliases: readonly string[];
  rollout: Rollout;
  inference_parameters: Readonly<Record<string, Value>>;
}

/** A state of which what is ours may be missing: it then is as by default. */
export type Told = Pick<State, "model" | "multimodal_projection" | "chat_template_override" | "use_chat_template_override" | "inference_parameters"> & Partial<State>;

export interface Versioned { version: number; state: State }

/** One inference parameter, described by what checks it: `GET /api/v1/inference_parameters`. */
export interface Parameter {
  name: string;
  group: string;
  meaning: string;
  kind: "integer" | "number" | "boolean" | "choice" | "text" | "texts" | "numbers" | "adapters";
  default: Value;
  minimum: number | null;
  maximum: number | null;
  choices: readonly string[] | null;
  max_length: number | null;
  max_items: number | null;
  off: string | null;
  is_nullable: boolean;
  needs_reload: boolean;
  is_ours: boolean;
}

export interface VersionInfo { version: number; updated_ms: number; author: string }

/** A whole document, as `PUT` takes it. */
export function complete(told: Told, parameters: readonly Parameter[]): State {
  const defaults = Object.fromEntries(parameters.map((one) => [one.name, one.default]));
  return {
    model: told.model,
    multimodal_projection: told.multimodal_projection,
    chat_template_override: told.chat_template_override ?? null,
    use_chat_template_override: told.use_chat_template_override,
    aliases: told.aliases ?? [],
    rollout: told.rollout ?? "rolling",
    inference_parameters: { ...defaults, ...told.inference_parameters },
  };
}
