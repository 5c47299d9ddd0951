import { placeOf, scaleOf } from "./adapters";
import { escaped } from "./draft";
import { addressOf } from "./source";
import type { Adapter, Model, Parameter, State, Value } from "./types";

const OWN_PATHS = ["model", "multimodal_projection", "chat_template_override", "use_chat_template_override", "aliases", "rollout"] as const;
export const PREFIX = "inference_parameters.";
const LABELS: Record<string, string> = {
  model: "Model",
  multimodal_projection: "Multimodal projection",
  chat_template_override: "Chat template",
  use_chat_template_override: "Which template",
  aliases: "Further names",
  rollout: "How it is rolled out",
};

/** One field that differs. `reloads`: agents load their model anew for it. */
export interface Change { path: string; label: string; before: string; after: string; reloads: boolean }

/** The place of a value in a state: a field of it, or `inference_parameters.<name>`. */
export function valueAt(state: State, path: string): unknown {
  return path.startsWith(PREFIX) ? state.inference_parameters[path.slice(PREFIX.length)] : state[path as keyof State];
}

export function withValue(state: State, path: string, value: unknown): State {
  if (!path.startsWith(PREFIX)) return { ...state, [path]: value };
  return { ...state, inference_parameters: { ...state.inference_parameters, [path.slice(PREFIX.length)]: value as Value } };
}

/** Paths of all that differs, in the order of the form. A parameter that either does not have is none: it is being
 * written. */
export function changedPaths(before: State, after: State): string[] {
  const names = Object.keys(before.inference_parameters).filter((name) => name in after.inference_parameters);
  return [...OWN_PATHS, ...names.map((name) => PREFIX + name)].filter((path) => !isSame(valueAt(before, path), valueAt(after, path)));
}

export function changesBetween(before: State, after: State, parameters: readonly Parameter[]): Change[] {
  return changedPaths(before, after).map((path) => ({
    path,
    label: LABELS[path] ?? path.slice(PREFIX.length),
    before: shown(path, valueAt(before, path)),
    after: shown(path, valueAt(after, path)),
    reloads: path === "model" || path === "multimodal_projection" || parameters.some((one) => one.needs_reload && path === PREFIX + one.name),
  }));
}

/** Whether two values of JSON are the same, whatever the order of the keys. */
export function isSame(one: unknown, other: unknown): boolean {
  if (Object.is(one, other)) return true;
  if (typeof one !== "object" || typeof other !== "object" || one === null || other === null) return false;
  const [left, right] = [one, other] as [Record<string, unknown>, Record<string, unknown>];
  const keys = new Set([...Object.keys(left), ...Object.keys(right)]);
  return Array.isArray(one) === Array.isArray(other) && [...keys].every((key) => isSame(left[key] ?? null, right[key] ?? null));
}

function shown(path: string, value: unknown): string {
  switch (path) {
    case "model":
    case "multimodal_projection":
      return addressOf(value as Model);
    case "chat_template_override":
      return templateSize(value as State["chat_template_override"]);
    case "use_chat_template_override":
      return value ? "yours" : "the model's own";
    case "rollout":
      return value === "rolling" ? "in turn" : "all at once";
  }
  if (Array.isArray(value)) return value.length === 0 ? "none" : value.map(shownItem).join(", ");
  return value === null || value === undefined ? "none" : String(value);
}

function shownItem(item: string | Adapter): string {
  return typeof item === "string" ? escaped(item) : `${placeOf(item)} × ${scaleOf(item)}`;
}

function templateSize(template: State["chat_template_override"]): string {
  if (template === null) return "none";
  const lines = template.content.split("\n").length;
  return lines === 1 ? "1 line" : `${lines} lines`;
}
