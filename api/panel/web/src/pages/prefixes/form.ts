/** What the form of a prefix holds: text, as it is typed. */
export interface Draft {
  name: string;
  tenant: string;
  kind: Kind;
  text: string;
}

export type Kind = "system" | "messages" | "prompt";

/** By field, as the balancer names them. */
export type Problems = Record<string, string>;

export const NEW_PREFIX: Draft = { name: "", tenant: "", kind: "system", text: "" };

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;
const NAME_RULE = "Letters, digits, dots, dashes and underscores, at most 63, a letter or digit first.";

/** The body of a request; what is wrong is written into `problems`, the text's under `text`. */
export function readDraft(draft: Draft, problems: Problems): object {
  const name = draft.name.trim();
  const tenant = draft.tenant.trim();
  if (!NAME.test(name)) problems.name = NAME_RULE;
  if (tenant !== "" && !NAME.test(tenant)) problems.tenant = NAME_RULE;
  if (draft.text.trim() === "") problems.text = "There is nothing here yet.";
  return { name, ...(tenant === "" ? {} : { tenant }), ...contentOf(draft, problems) };
}

function contentOf({ kind, text }: Draft, problems: Problems): object {
  if (kind === "system") return { messages: [{ role: "system", content: text }] };
  if (kind === "prompt") return { prompt: text };
  if (problems.text !== undefined) return {};
  let told: unknown;
  try {
    told = JSON.parse(text);
  } catch (error) {
    problems.text = `This is no JSON: ${error instanceof Error ? error.message : String(error)}`;
    return {};
  }
  if (Array.isArray(told)) return { messages: told };
  if (typeof told === "object" && told !== null && "messages" in told) {
    const { messages, tools } = told as { messages: unknown; tools?: unknown };
    return tools === undefined ? { messages } : { messages, tools };
  }
  problems.text = "A list of messages, or an object with messages and tools.";
  return {};
}

/** Where the balancer's problem belongs: all that is not name or tenant is the text's. */
export function fieldOf(param: string): string {
  return param === "name" || param === "tenant" ? param : "text";
}
