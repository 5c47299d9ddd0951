/** The conversation with which a template is tried. */
export type Role = "system" | "user" | "assistant" | "tool";

export interface Turn { role: Role; content: string }

export interface Conversation {
  turns: readonly Turn[];
  hasTools: boolean;
  /** With the words that begin an answer. */
  beginsAnswer: boolean;
}

export const ROLES: readonly Role[] = ["system", "user", "assistant", "tool"];

export const EXAMPLE: Conversation = {
  turns: [
    { role: "system", content: "You are a helpful assistant." },
    { role: "user", content: "What is the capital of France?" },
    { role: "assistant", content: "Paris." },
    { role: "user", content: "And of Italy?" },
  ],
  hasTools: false,
  beginsAnswer: true,
};

const TOOL = {
  type: "function",
  function: {
    name: "get_weather",
    description: "The weather at a place now.",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
};

/** What the balancer takes. A turn of a tool answers a call that the turn before it has made. */
export function asked({ turns, hasTools, beginsAnswer }: Conversation): { messages: unknown[]; tools?: unknown[]; add_generation_prompt: boolean } {
  const messages: Record<string, unknown>[] = [];
  turns.forEach(({ role, content }, index) => {
    if (role !== "tool") return messages.push({ role, content });
    const id = `call_${index}`;
    const before = messages.at(-1);
    if (before?.role === "assistant") before.tool_calls = [...((before.tool_calls as unknown[] | undefined) ?? []), { id, type: "function", function: { name: "get_weather", arguments: '{"city": "Rome"}' } }];
    return messages.push({ role, content, tool_call_id: id });
  });
  return { messages, ...(hasTools ? { tools: [TOOL] } : {}), add_generation_prompt: beginsAnswer };
}
