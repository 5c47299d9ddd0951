import { adapterDraft, readAdapter, type AdapterDraft } from "./adapters";
import { modelOf, sourceOf, type Source } from "./source";
import type { Adapter, Parameter, Rollout, State, Value } from "./types";

/** Numbers are texts while they are written: half of one is none. */
export type ParameterDraft = string | boolean | readonly string[] | readonly AdapterDraft[];

/** The form, as it is being filled in. */
export interface Draft {
  model: Source;
  projection: Source;
  usesTemplate: boolean;
  template: string;
  /** One a line, or with commas between them. */
  aliases: string;
  rollout: Rollout;
  parameters: Readonly<Record<string, ParameterDraft>>;
}

export function draftOf(state: State, parameters: readonly Parameter[]): Draft {
  return {
    model: sourceOf(state.model),
    projection: sourceOf(state.multimodal_projection),
    usesTemplate: state.use_chat_template_override,
    template: state.chat_template_override?.content ?? "",
    aliases: state.aliases.join(", "),
    rollout: state.rollout,
    parameters: Object.fromEntries(parameters.map((one) => [one.name, parameterDraft(one, state.inference_parameters[one.name] ?? null)])),
  };
}

export function parameterDraft({ kind }: Parameter, value: Value): ParameterDraft {
  switch (kind) {
    case "boolean":
      return value === true;
    case "texts":
      return (value as readonly string[]).map(escaped);
    case "numbers":
      return (value as readonly number[]).join(", ");
    case "adapters":
      return (value as readonly Adapter[]).map(adapterDraft);
    default:
      return value === null ? "" : String(value);
  }
}

export type Errors = ReadonlyMap<string, string>;

/** The state that the form says, and what is wrong by path: `model.repo`, `aliases`, `inference_parameters.top_p`. */
export function readDraft(draft: Draft, parameters: readonly Parameter[]): { state: State; errors: Errors } {
  const errors = new Map<string, string>();
  const read = (path: string, source: Source) => {
    const { model, errors: found } = modelOf(source);
    for (const [field, message] of Object.entries(found)) errors.set(`${path}.${field}`, message);
    return model;
  };
  const values: Record<string, Value> = {};
  for (const parameter of parameters) {
    const draw = draft.parameters[parameter.name];
    if (draw === undefined) continue;
    const found = readParameter(parameter, draw);
    if ("error" in found) errors.set(`inference_parameters.${parameter.name}`, found.error);
    else values[parameter.name] = found.value;
  }
  const aliases = draft.aliases.split(/[,\n]/).map((one) => one.trim()).filter(Boolean);
  const twice = aliases.find((one, index) => aliases.indexOf(one) < index);
  if (twice !== undefined) errors.set("aliases", `${twice} is there twice.`);
  if (draft.usesTemplate && draft.template.trim() === "") errors.set("chat_template_override", "There is no template yet: write one, start from the model's own, or use that.");
  return {
    state: {
      model: read("model", draft.model),
      multimodal_projection: read("multimodal_projection", draft.projection),
      chat_template_override: draft.template === "" ? null : { content: draft.template },
      use_chat_template_override: draft.usesTemplate,
      aliases,
      rollout: draft.rollout,
      inference_parameters: values,
    },
    errors,
  };
}

type Found = { value: Value } | { error: string };

export function readParameter(parameter: Parameter, draft: ParameterDraft): Found {
  switch (parameter.kind) {
    case "boolean":
    case "choice":
      return { value: draft as string | boolean };
    case "integer":
    case "number":
      return readNumber(parameter, String(draft));
    case "text":
      return readText(parameter, String(draft));
    case "texts":
      return readTexts(parameter, draft as readonly string[]);
    case "numbers":
      return readNumbers(parameter, String(draft));
    case "adapters":
      return readAdapters(draft as readonly AdapterDraft[]);
  }
}

function readNumber(parameter: Parameter, text: string): Found {
  const value = Number(text.trim().replace(",", "."));
  if (text.trim() === "" || !Number.isFinite(value)) return { error: `A number: ${rangeOf(parameter)}.` };
  if (parameter.kind === "integer" && !Number.isInteger(value)) return { error: `A whole number: ${rangeOf(parameter)}.` };
  if (value < (parameter.minimum ?? -Infinity) || value > (parameter.maximum ?? Infinity)) return { error: `It is ${rangeOf(parameter)}.` };
  return { value };
}

function readText({ max_length, is_nullable }: Parameter, text: string): Found {
  const value = text.trim();
  if (max_length !== null && value.length > max_length) return { error: `At most ${max_length} characters.` };
  return { value: value === "" && is_nullable ? null : value };
}

function readTexts({ max_items, max_length }: Parameter, drafts: readonly string[]): Found {
  const values = drafts.filter((one) => one !== "").map(unescaped);
  if (max_items !== null && values.length > max_items) return { error: `At most ${max_items} of them.` };
  if (max_length !== null && values.some((one) => one.length > max_length)) return { error: `Each has at most ${max_length} characters.` };
  return { value: values };
}

function readNumbers(parameter: Parameter, text: string): Found {
  const values: number[] = [];
  for (const one of text.split(/[,;\s]+/).filter(Boolean)) {
    const found = readNumber(parameter, one);
    if ("error" in found) return found;
    values.push(found.value as number);
  }
  if (parameter.max_items !== null && values.length > parameter.max_items) return { error: `At most ${parameter.max_items} of them.` };
  return { value: values };
}

function readAdapters(drafts: readonly AdapterDraft[]): Found {
  const value: Adapter[] = [];
  for (const draft of drafts) {
    const found = readAdapter(draft);
    if ("error" in found) return found;
    value.push(found.adapter);
  }
  return { value };
}

/** `0 to 1`, in words where one end is open. */
export function rangeOf({ kind, minimum, maximum }: Parameter): string {
  // What 32 bits hold is no limit that anybody would meet.
  const low = minimum === null || minimum <= -(2 ** 31) ? null : minimum;
  const high = maximum === null || maximum >= 2 ** 31 - 1 ? null : maximum;
  if (low === null && high === null) return kind === "integer" ? "any whole number" : "any number";
  if (low === null) return `at most ${high}`;
  return high === null ? `at least ${low}` : `${low} to ${high}`;
}

/** Ends of lines and tabs as one can type them. */
export function escaped(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n").replaceAll("\r", "\\r").replaceAll("\t", "\\t");
}

const MEANT: Record<string, string> = { n: "\n", r: "\r", t: "\t", "\\": "\\" };

export function unescaped(text: string): string {
  return text.replace(/\\([nrt\\])/g, (_, letter: string) => MEANT[letter] ?? letter);
}
