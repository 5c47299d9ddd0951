/** What a chat completion takes beside its messages: meanings and ranges, as `docs/sampling.md` has them. */

export type Kind = "number" | "whole" | "switch" | "lines" | "json" | "word" | "choice";

export interface Param {
  name: string;
  group: string;
  kind: Kind;
  help: string;
  min?: number;
  max?: number;
  step?: number;
  /** What holds where the field is empty and the pool says nothing else. */
  fallback?: string;
  options?: readonly string[];
  /** Of `lines`: how many, and of how many characters. */
  maxLines?: number;
  maxChars?: number;
  /** Sent as a header, not in the body. */
  header?: string;
}

const WHOLE = 2 ** 31 - 1;

const LENGTH: Param[] = [
  { name: "max_tokens", group: "Length", kind: "whole", min: 1, max: WHOLE, fallback: "the context", help: "Ends the answer after so many tokens." },
  { name: "stop", group: "Length", kind: "lines", maxLines: 16, maxChars: 4096, help: "Texts that end the answer and are not part of it, one in each line." },
  { name: "ignore_eos", group: "Length", kind: "switch", help: "Never ends by itself." },
  { name: "n", group: "Length", kind: "whole", min: 1, max: 8, fallback: "1", help: "So many answers to choose from, each a request of its own." },
];

const RANDOMNESS: Param[] = [
  { name: "temperature", group: "Randomness", kind: "number", min: 0, max: 2, step: 0.1, fallback: "0.8", help: "0 always takes the likeliest token; more is more surprising." },
  { name: "seed", group: "Randomness", kind: "whole", min: -(2 ** 53 - 1), max: 2 ** 53 - 1, fallback: "random", help: "The same seed gives the same text on the same agent build." },
  { name: "top_k", group: "Randomness", kind: "whole", min: -1, max: WHOLE, fallback: "80", help: "Only the k likeliest tokens; 0 or -1 is off." },
  { name: "top_p", group: "Randomness", kind: "number", min: 0, max: 1, step: 0.05, fallback: "0.8", help: "The likeliest tokens that together reach p; 1 is off." },
  { name: "min_p", group: "Randomness", kind: "number", min: 0, max: 1, step: 0.01, fallback: "0.05", help: "Tokens at least that fraction as likely as the best; 0 is off." },
  { name: "typical_p", group: "Randomness", kind: "number", min: 0, max: 1, step: 0.05, fallback: "1", help: "Tokens whose surprise is nearest to the mean one; 1 is off." },
  { name: "top_n_sigma", group: "Randomness", kind: "number", min: -1000, max: 1000, step: 0.1, fallback: "-1", help: "Tokens within n standard deviations of the best; 0 or less is off." },
  { name: "min_keep", group: "Randomness", kind: "whole", min: 0, max: WHOLE, fallback: "0", help: "How many tokens top_p, min_p, typical_p and xtc leave at least." },
  { name: "xtc_probability", group: "Randomness", kind: "number", min: 0, max: 1, step: 0.05, fallback: "0", help: "How often all but the least likely of the tokens above the threshold are left out." },
  { name: "xtc_threshold", group: "Randomness", kind: "number", min: 0, max: 1, step: 0.05, fallback: "0.1", help: "That threshold; above 0.5 is off." },
  { name: "dynatemp_range", group: "Randomness", kind: "number", min: 0, max: 1000, step: 0.1, fallback: "0", help: "The temperature is up to so much lower or higher, by the entropy." },
  { name: "dynatemp_exponent", group: "Randomness", kind: "number", min: 0, max: 100, step: 0.1, fallback: "1", help: "How entropy maps to it." },
];

const REPETITION: Param[] = [
  { name: "repeat_penalty", group: "Repetition", kind: "number", min: 0.01, max: 10, step: 0.05, fallback: "1.1", help: "Divides the logits of tokens that the answer has; 1 is off." },
  { name: "frequency_penalty", group: "Repetition", kind: "number", min: -2, max: 2, step: 0.1, fallback: "0", help: "Subtracted once for every time a token occurred." },
  { name: "presence_penalty", group: "Repetition", kind: "number", min: -2, max: 2, step: 0.1, fallback: "0.8", help: "Subtracted if a token occurred." },
  { name: "repeat_last_n", group: "Repetition", kind: "whole", min: -1, max: WHOLE, fallback: "-1", help: "How many tokens of the answer these three look at; -1 is all." },
  { name: "dry_multiplier", group: "Repetition", kind: "number", min: 0, max: 1000, step: 0.1, fallback: "0", help: "DRY: weight of the penalty for going on with a repetition; 0 is off." },
  { name: "dry_base", group: "Repetition", kind: "number", min: 1, max: 100, step: 0.05, fallback: "1.75", help: "It grows by that with every token of the repetition." },
  { name: "dry_allowed_length", group: "Repetition", kind: "whole", min: 0, max: WHOLE, fallback: "2", help: "How long a repetition costs nothing." },
  { name: "dry_penalty_last_n", group: "Repetition", kind: "whole", min: -1, max: WHOLE, fallback: "64", help: "How many tokens DRY looks at; -1 is the whole context, 0 is off." },
  { name: "dry_sequence_breakers", group: "Repetition", kind: "json", fallback: '["\\n", ":", "\\"", "*"]', help: "Texts that end a repetition: a JSON list of up to 16, each of 1 to 40 characters." },
];

const MIROSTAT: Param[] = [
  { name: "mirostat", group: "Mirostat", kind: "choice", options: ["0", "1", "2"], fallback: "0", help: "1 or 2 aims at a surprise instead of truncating; 0 is off." },
  { name: "mirostat_tau", group: "Mirostat", kind: "number", min: 0, max: 100, step: 0.5, fallback: "5", help: "That surprise, in bits." },
  { name: "mirostat_eta", group: "Mirostat", kind: "number", min: 0, max: 1, step: 0.05, fallback: "0.1", help: "How fast it learns." },
];

const TOKENS: Param[] = [
  { name: "logit_bias", group: "Tokens", kind: "json", help: 'Added to the logits of tokens: {"id": bias}, or [["text", bias]]; -100 or false bans.' },
  { name: "logprobs", group: "Tokens", kind: "switch", help: "Shows how likely each token was. Not together with tools." },
  { name: "top_logprobs", group: "Tokens", kind: "whole", min: 0, max: 20, fallback: "0", help: "And so many likeliest tokens at its place; needs logprobs." },
];

const TEMPLATE: Param[] = [
  { name: "chat_template_kwargs", group: "Template", kind: "json", help: 'Variables of the chat template: {"enable_thinking": false} switches thinking off.' },
];

const DELIVERY: Param[] = [
  { name: "class", group: "Delivery", kind: "choice", options: ["interactive", "normal", "batch"], fallback: "normal", header: "X-Request-Class", help: "Which requests come first." },
  { name: "timeout", group: "Delivery", kind: "whole", min: 1, max: 86_400_000, fallback: "the balancer's", header: "X-Request-Timeout", help: "Milliseconds within which a slot must become free." },
  { name: "prompt_cache_key", group: "Delivery", kind: "word", maxChars: 1024, fallback: "this conversation", help: "Of agents that hold as much of the prompt, the one it was with is preferred." },
  { name: "background", group: "Delivery", kind: "switch", help: "Goes on on the server when this page is closed, until it is done." },
];

export const PARAMS: readonly Param[] = [...LENGTH, ...RANDOMNESS, ...REPETITION, ...MIROSTAT, ...TOKENS, ...TEMPLATE, ...DELIVERY];
export const GROUPS: readonly string[] = [...new Set(PARAMS.map((param) => param.group))];

export type Value = number | boolean | string | string[] | object;

/** What a field's text means. Throws an `Error` with words for whoever typed it. */
export function readValue(param: Param, text: string): Value {
  switch (param.kind) {
    case "number":
    case "whole":
      return readNumber(param, text);
    case "switch":
      return text === "true";
    case "lines": {
      const lines = text.split("\n").filter((line) => line !== "").map(unescaped);
      if (lines.length > (param.maxLines ?? WHOLE)) throw new Error(`At most ${param.maxLines} lines.`);
      if (lines.some((line) => line.length > (param.maxChars ?? WHOLE))) throw new Error(`At most ${param.maxChars} characters in a line.`);
      return lines;
    }
    case "word":
      if (text.length > (param.maxChars ?? WHOLE)) throw new Error(`At most ${param.maxChars} characters.`);
      return text;
    case "choice":
      if (!param.options?.includes(text)) throw new Error(`One of ${param.options?.join(", ")}.`);
      return param.name === "mirostat" ? Number(text) : text;
    case "json": {
      const value = readJson(text);
      if (typeof value !== "object" || value === null) throw new Error("A JSON object or list.");
      return value;
    }
  }
}

/** What is wrong with a field; null for nothing, and for nothing in it. */
export function faultOf(param: Param, text: string): string | null {
  if (text === "") return null;
  try {
    readValue(param, text);
    return null;
  } catch (error) {
    return (error as Error).message;
  }
}

export function rangeOf(param: Param): string {
  if (param.min === undefined || param.max === undefined) return "";
  const high = param.max === WHOLE ? "" : param.max === 2 ** 53 - 1 ? "" : String(param.max);
  if (param.min === -(2 ** 53 - 1)) return "any whole number";
  return high ? `${param.min} to ${high}` : `${param.min} or more`;
}

function readNumber(param: Param, text: string): number {
  const value = Number(text.trim());
  if (text.trim() === "" || !Number.isFinite(value)) throw new Error("A number.");
  if (param.kind === "whole" && !Number.isInteger(value)) throw new Error("A whole number.");
  const { min = -Infinity, max = Infinity } = param;
  if (value < min || value > max) throw new Error(`From ${rangeOf(param).replace(" or more", " up")}.`);
  return value;
}

/** Parses, and says where it stops to be JSON. */
export function readJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    const words = (error as Error).message;
    const at = /position (\d+)/.exec(words)?.[1];
    if (at === undefined) throw new Error(`This is no JSON: ${words}`);
    const before = text.slice(0, Number(at)).split("\n");
    throw new Error(`This is no JSON, at line ${before.length}, column ${(before.at(-1)?.length ?? 0) + 1}.`);
  }
}

function unescaped(line: string): string {
  return line.replaceAll(/\\(n|t|\\)/g, (_, letter: string) => (letter === "n" ? "\n" : letter === "t" ? "\t" : "\\"));
}
