/** What is done to conversations: each function gives a new one back and leaves the old as it was. */
import {
  type Answer,
  type AssistantTurn,
  type Conversation,
  NO_ROUTE,
  type Picture,
  type Setup,
  type Turn,
  chosen,
  newId,
} from "./model";

const MAX_TITLE = 48;

export function emptySetup(model: string): Setup {
  return {
    model,
    system: "",
    values: {},
    tools: "",
    toolChoice: "auto",
    parallelCalls: true,
    form: "text",
    schema: "",
    grammar: "",
  };
}

export function newConversation(setup: Setup, now: number): Conversation {
  return { id: newId(), title: "Untitled", isNamed: false, createdAt: now, changedAt: now, setup, turns: [] };
}

export function newAnswer(now: number, key: string): Answer {
  return {
    id: newId(),
    text: "",
    thought: "",
    calls: [],
    sampled: [],
    finish: null,
    state: "waiting",
    error: null,
    requestId: null,
    lastEventId: null,
    key,
    route: { ...NO_ROUTE },
    handedOverFrom: [],
    place: null,
    stats: { sentAt: now, firstAt: null, lastAt: null, numPieces: 0, tokens: null, piecesThen: 0, promptTokens: null, cachedTokens: null },
  };
}

export function rename(conversation: Conversation, title: string): Conversation {
  const named = title.trim();
  return named === "" ? conversation : { ...conversation, title: named.slice(0, 200), isNamed: true };
}

/** A new question at the end, and an empty answer for each choice. */
export function ask(conversation: Conversation, text: string, pictures: Picture[], answers: Answer[], now: number): Conversation {
  const turns: Turn[] = [...conversation.turns, { id: newId(), role: "user", text, pictures }, answering(answers)];
  return titled({ ...conversation, turns, changedAt: now });
}

/** The question of a turn again in other words: what came behind it is gone. */
export function askAgain(conversation: Conversation, turnId: string, text: string, answers: Answer[], now: number): Conversation {
  const at = indexOf(conversation, turnId);
  const turn = conversation.turns[at];
  if (turn?.role !== "user") return conversation;
  const turns: Turn[] = [...conversation.turns.slice(0, at), { ...turn, text }, answering(answers)];
  return titled({ ...conversation, turns, changedAt: now });
}

/** Another answer in the place of one; the earlier ones stay to choose from, and what came behind is gone. */
export function regenerate(conversation: Conversation, turnId: string, answers: Answer[], now: number): Conversation {
  const at = indexOf(conversation, turnId);
  const turn = conversation.turns[at];
  if (turn?.role !== "assistant") return conversation;
  const again: AssistantTurn = { ...turn, answers: [...turn.answers, ...answers], chosen: turn.answers.length };
  return { ...conversation, turns: [...conversation.turns.slice(0, at), again], changedAt: now };
}

export function choose(conversation: Conversation, turnId: string, number: number): Conversation {
  return withTurn(conversation, turnId, (turn) =>
    turn.role === "assistant" && number >= 0 && number < turn.answers.length ? { ...turn, chosen: number } : turn,
  );
}

/** Results of calls, and an answer to them. */
export function giveResults(conversation: Conversation, results: { callId: string; name: string; text: string }[], answers: Answer[], now: number): Conversation {
  const given: Turn[] = results.map((result) => ({ id: newId(), role: "tool", ...result }));
  return { ...conversation, turns: [...conversation.turns, ...given, answering(answers)], changedAt: now };
}

export function withAnswers(conversation: Conversation, answers: readonly Answer[]): Conversation {
  const byId = new Map(answers.map((answer) => [answer.id, answer]));
  const turns = conversation.turns.map((turn): Turn => {
    if (turn.role !== "assistant" || !turn.answers.some((answer) => byId.has(answer.id))) return turn;
    return { ...turn, answers: turn.answers.map((answer) => byId.get(answer.id) ?? answer) };
  });
  return { ...conversation, turns };
}

/** What the answers with these ids are an answer to. */
export function turnsBefore(conversation: Conversation, answerId: string): Turn[] {
  const at = conversation.turns.findIndex((turn) => turn.role === "assistant" && turn.answers.some((answer) => answer.id === answerId));
  return conversation.turns.slice(0, Math.max(at, 0));
}

export function answersOf(conversation: Conversation): Answer[] {
  return conversation.turns.flatMap((turn) => (turn.role === "assistant" ? turn.answers : []));
}

export function picturesOf(conversation: Conversation): Picture[] {
  return conversation.turns.flatMap((turn) => (turn.role === "user" ? turn.pictures : []));
}

/** For a file: everything, but the pictures' bytes. */
export function asJson(conversation: Conversation): string {
  return `${JSON.stringify({ paddler: "conversation", version: 1, ...conversation }, null, 2)}\n`;
}

/** For reading: the turns with the chosen answers. */
export function asMarkdown(conversation: Conversation): string {
  const parts = [`# ${conversation.title}`];
  if (conversation.setup.system.trim()) parts.push(`**System**\n\n${conversation.setup.system.trim()}`);
  for (const turn of conversation.turns) {
    if (turn.role === "user") {
      const pictures = turn.pictures.map((picture) => `*(image: ${picture.name})*`);
      parts.push(["**You**", turn.text, ...pictures].filter(Boolean).join("\n\n"));
    } else if (turn.role === "tool") {
      parts.push(`**Result of ${turn.name}**\n\n${fenced(turn.text, "")}`);
    } else {
      const answer = chosen(turn);
      const calls = answer.calls.map((call) => `*calls ${call.name}*\n\n${fenced(call.arguments, "json")}`);
      const name = answer.route.agent ? `**${conversation.setup.model}** (${answer.route.agent})` : `**${conversation.setup.model}**`;
      parts.push([name, answer.thought && quoted(answer.thought), answer.text, ...calls].filter(Boolean).join("\n\n"));
    }
  }
  return `${parts.join("\n\n")}\n`;
}

export function fileName(conversation: Conversation, ending: string): string {
  const stem = conversation.title.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-+|-+$/g, "");
  return `${stem.slice(0, 60) || "conversation"}.${ending}`;
}

function answering(answers: Answer[]): AssistantTurn {
  return { id: newId(), role: "assistant", answers, chosen: 0 };
}

function titled(conversation: Conversation): Conversation {
  if (conversation.isNamed) return conversation;
  const first = conversation.turns.find((turn) => turn.role === "user");
  const words = (first?.role === "user" ? first.text : "").trim().replace(/\s+/g, " ");
  if (words === "") return conversation;
  const title = words.length <= MAX_TITLE ? words : `${words.slice(0, MAX_TITLE).replace(/\s+\S*$/, "")} …`;
  return { ...conversation, title };
}

function indexOf(conversation: Conversation, turnId: string): number {
  return conversation.turns.findIndex((turn) => turn.id === turnId);
}

function withTurn(conversation: Conversation, turnId: string, change: (turn: Turn) => Turn): Conversation {
  return { ...conversation, turns: conversation.turns.map((turn) => (turn.id === turnId ? change(turn) : turn)) };
}

function fenced(text: string, language: string): string {
  const longest = Math.max(2, ...[...text.matchAll(/`+/g)].map((match) => match[0].length));
  const fence = "`".repeat(longest + 1);
  return `${fence}${language}\n${text}\n${fence}`;
}

function quoted(text: string): string {
  return text.trim().split("\n").map((line) => `> ${line}`).join("\n");
}
