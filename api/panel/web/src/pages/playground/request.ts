/** From a conversation to the request that asks for its next answer. */
import { type Answer, type AssistantTurn, type Call, type Conversation, type Picture, type Setup, type Turn, chosen } from "./model";
import { PARAMS, faultOf, readValue } from "./params";
import { faultIn, readSchema, readTools } from "./schema";

export interface Asked {
  body: Record<string, unknown>;
  headers: Record<string, string>;
  numChoices: number;
}

type Part = { type: "text"; text: string } | { type: "image_url"; image_url: { url: string } };

/** What keeps it from being sent, with the field's name; empty for nothing. */
export function faultsOf(setup: Setup): string[] {
  const faults = PARAMS.flatMap((param) => {
    const fault = faultOf(param, setup.values[param.name] ?? "");
    return fault === null ? [] : [`${param.name}: ${fault}`];
  });
  const tools = faultIn(readTools, setup.tools);
  if (tools !== null) faults.push(`Tools: ${tools}`);
  if (setup.form === "json_schema") {
    const schema = setup.schema.trim() === "" ? "A schema is missing." : faultIn(readSchema, setup.schema);
    if (schema !== null) faults.push(`Schema: ${schema}`);
  }
  if (setup.form === "grammar" && setup.grammar.trim() === "") faults.push("Grammar: a grammar is missing.");
  const hasTools = setup.tools.trim() !== "" && setup.toolChoice !== "none";
  if (hasTools && setup.form !== "text") faults.push("Tools and a form of the answer exclude each other: leave one out, or set the tool choice to none.");
  if (hasTools && setup.values.logprobs === "true") faults.push("Tools and logprobs exclude each other: leave one out, or set the tool choice to none.");
  if (setup.values.top_logprobs && setup.values.logprobs !== "true") faults.push("top_logprobs: needs logprobs.");
  if (setup.values.background === "true" && Number(setup.values.n ?? 1) > 1) faults.push("background: is for one answer; set n to 1.");
  return faults;
}

/**
 * The request for what comes behind `turns`. `urls` are data URLs of pictures, by id.
 *
 * Throws an `Error` when a setting is wrong.
 */
export function requestOf(conversation: Conversation, turns: readonly Turn[], urls: ReadonlyMap<string, string>): Asked {
  const { setup } = conversation;
  const faults = faultsOf(setup);
  if (faults[0] !== undefined) throw new Error(faults[0]);
  const body: Record<string, unknown> = { model: setup.model, messages: messagesOf(setup.system, turns, urls) };
  const headers: Record<string, string> = {};
  for (const param of PARAMS) {
    const text = setup.values[param.name] ?? "";
    if (text === "" || (param.kind === "switch" && text !== "true")) continue;
    if (param.header) headers[param.header] = text.trim();
    else body[param.name] = readValue(param, text);
  }
  body.prompt_cache_key ??= conversation.id;
  addForm(body, setup);
  if (setup.tools.trim() !== "") {
    body.tools = readTools(setup.tools);
    body.tool_choice = toolChoiceOf(setup.toolChoice);
    if (!setup.parallelCalls) body.parallel_tool_calls = false;
  }
  body.stream = true;
  body.stream_options = { include_usage: true };
  return { body, headers, numChoices: typeof body.n === "number" ? body.n : 1 };
}

function addForm(body: Record<string, unknown>, setup: Setup): void {
  switch (setup.form) {
    case "text":
      break;
    case "json_object":
      body.response_format = { type: "json_object" };
      break;
    case "json_schema":
      body.response_format = { type: "json_schema", json_schema: { name: "answer", schema: readSchema(setup.schema) } };
      break;
    case "grammar":
      body.grammar = setup.grammar;
      break;
  }
}

function toolChoiceOf(choice: string): unknown {
  if (["auto", "none", "required"].includes(choice)) return choice;
  return { type: "function", function: { name: choice } };
}

export function messagesOf(system: string, turns: readonly Turn[], urls: ReadonlyMap<string, string>): unknown[] {
  const messages: unknown[] = system.trim() === "" ? [] : [{ role: "system", content: system }];
  for (const turn of turns) {
    switch (turn.role) {
      case "user":
        messages.push({ role: "user", content: contentOf(turn.text, turn.pictures, urls) });
        break;
      case "tool":
        messages.push({ role: "tool", tool_call_id: turn.callId, content: turn.text });
        break;
      case "assistant": {
        const message = messageOf(turn);
        if (message !== null) messages.push(message);
      }
    }
  }
  return messages;
}

/** Those whose arguments are there to their end: `max_tokens` or a stop may cut the last one off. */
export function wholeCalls(answer: Answer): Call[] {
  return answer.calls.filter((call) => call.name !== "" && isJson(call.arguments));
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

function messageOf(turn: AssistantTurn): unknown {
  const { text, thought } = chosen(turn);
  const calls = wholeCalls(chosen(turn));
  // One that failed at once has said nothing that could be repeated to the model.
  if (!text && !thought && calls.length === 0) return null;
  const message: Record<string, unknown> = { role: "assistant", content: text || (calls.length ? null : "") };
  if (thought) message.reasoning_content = thought;
  if (calls.length) {
    message.tool_calls = calls.map((call) => ({ id: call.id, type: "function", function: { name: call.name, arguments: call.arguments } }));
  }
  return message;
}

function contentOf(text: string, pictures: readonly Picture[], urls: ReadonlyMap<string, string>): string | Part[] {
  const images: Part[] = pictures.flatMap((picture) => {
    const url = urls.get(picture.id);
    return url === undefined ? [] : [{ type: "image_url", image_url: { url } }];
  });
  if (images.length === 0) return text;
  return text === "" ? images : [{ type: "text", text }, ...images];
}
