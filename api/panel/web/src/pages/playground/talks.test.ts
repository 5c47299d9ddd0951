import { expect, test } from "vitest";
import type { Net } from "./follow";
import { ask, emptySetup, newAnswer, newConversation } from "./history";
import { type Conversation, chosen } from "./model";
import { memoryShelf } from "./shelf";
import type { Tabs, Word } from "./tabs";
import { Talks } from "./talks";

function says(text: string): Net & { bodies: { messages: unknown[] }[] } {
  const bodies: { messages: unknown[] }[] = [];
  return {
    bodies,
    now: () => 1_000_000,
    sleep: () => new Promise(() => undefined),
    fetch: async (_, init) => {
      if (init.body) bodies.push(JSON.parse(init.body as string) as { messages: unknown[] });
      const chunk = { choices: [{ index: 0, delta: { content: text }, finish_reason: "stop" }] };
      return new Response(`data: ${JSON.stringify(chunk)}\nid: default.x:5\n\ndata: [DONE]\n\n`, { headers: { "x-paddler-request-id": "default.x" } });
    },
  };
}

async function done(talks: Talks, id: string): Promise<Conversation> {
  while (talks.isRunning(id)) await new Promise((resolve) => setTimeout(resolve));
  const found = talks.all.value.find((one) => one.id === id);
  if (found === undefined) throw new Error("gone");
  return found;
}

function lastText(conversation: Conversation): string {
  const last = conversation.turns.at(-1);
  return last?.role === "assistant" ? chosen(last).text : "";
}

async function kept(shelf: ReturnType<typeof memoryShelf>, until: (all: Conversation[]) => boolean): Promise<Conversation[]> {
  for (;;) {
    const all = await shelf.load();
    if (until(all)) return all;
    await new Promise((resolve) => setTimeout(resolve));
  }
}

test("turns are sent with what came before them, and kept", async () => {
  const [shelf, net] = [memoryShelf(), says("Hi.")];
  const talks = new Talks(shelf, net);
  await talks.load();
  const { id } = talks.begin("m");
  await talks.ask(id, "one", []);
  await done(talks, id);
  await talks.ask(id, "two", []);
  expect(lastText(await done(talks, id))).toBe("Hi.");
  expect(net.bodies[1]?.messages).toEqual([{ role: "user", content: "one" }, { role: "assistant", content: "Hi." }, { role: "user", content: "two" }]);
  const [stored] = await kept(shelf, (all) => all[0]?.turns.length === 4 && lastText(all[0]) !== "");
  expect(stored?.title).toBe("one");
});

test("regenerating sends what stands before the answer", async () => {
  const net = says("Hi.");
  const talks = new Talks(memoryShelf(), net);
  const { id } = talks.begin("m");
  await talks.ask(id, "one", []);
  const before = await done(talks, id);
  await talks.regenerate(id, before.turns[1]?.id ?? "");
  const after = await done(talks, id);
  expect(net.bodies[1]?.messages).toEqual(net.bodies[0]?.messages);
  expect(after.turns[1]).toMatchObject({ chosen: 1 });
});

test("a setting that is wrong changes nothing", async () => {
  const talks = new Talks(memoryShelf(), says("x"));
  const { id } = talks.begin("m");
  talks.setUp(id, { tools: "{" });
  await expect(talks.ask(id, "one", [])).rejects.toThrow("Tools");
  expect(talks.current.value?.turns).toEqual([]);
});

test("what was being written when the page was closed goes on where it was", async () => {
  const shelf = memoryShelf();
  const open = { ...newAnswer(999_000, "k"), state: "streaming" as const, text: "Hel", requestId: "default.x", lastEventId: "default.x:3" };
  const conversation = ask(newConversation(emptySetup("m"), 1), "one", [], [open], 2);
  await shelf.keep(conversation);
  const talks = new Talks(shelf, says("lo"));
  await talks.load();
  expect(lastText(await done(talks, conversation.id))).toBe("Hello");
});

test("what nobody can know any more is said to be lost", async () => {
  const shelf = memoryShelf();
  const open = { ...newAnswer(0, "k"), state: "waiting" as const };
  await shelf.keep(ask(newConversation(emptySetup("m"), 1), "one", [], [open], 2));
  const talks = new Talks(shelf, says("x"));
  await talks.load();
  const last = talks.all.value[0]?.turns.at(-1);
  expect(last?.role === "assistant" && chosen(last).error?.code).toBe("interrupted");
});

test("what is deleted is gone from the browser", async () => {
  const shelf = memoryShelf();
  const talks = new Talks(shelf, says("x"));
  const { id } = talks.begin("m");
  await talks.ask(id, "one", []);
  await done(talks, id);
  await kept(shelf, (all) => all.length === 1);
  await talks.remove(id);
  expect(await shelf.load()).toEqual([]);
  expect(talks.current.value).toBeNull();
});

test("the next conversation is set up as the last one", () => {
  const talks = new Talks(memoryShelf(), says("x"));
  const { id } = talks.begin("m");
  talks.setUp(id, { values: { temperature: "0" } });
  const next = talks.begin("m");
  talks.setUp(id, { values: { temperature: "1" } });
  expect(next.setup.values).toEqual({ temperature: "0" });
});

test("a new name is kept before anything else can happen to the page", async () => {
  const shelf = memoryShelf();
  const talks = new Talks(shelf, says("x"));
  const { id } = talks.begin("m");
  await talks.ask(id, "one", []);
  await done(talks, id);
  talks.rename(id, "Mine");
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect((await shelf.load())[0]?.title).toBe("Mine");
});

/** Two tabs of one browser, the second opened before or after something has happened in the first. */
function browser() {
  const shelf = memoryShelf();
  const hearing: ((word: Word) => void)[] = [];
  const said: Word["kind"][] = [];
  const tabs = (): Tabs => {
    let own: (word: Word) => void = () => undefined;
    return {
      say: (word) => {
        said.push(word.kind);
        hearing.filter((one) => one !== own).forEach((one) => queueMicrotask(() => one(structuredClone(word))));
      },
      hear: (listener) => { own = listener; hearing.push(listener); },
    };
  };
  return { said, open: (net: Net) => new Talks(shelf, net, tabs()), close: () => hearing.shift() };
}

/** Time that goes by, and answers that come when they are let. */
function slow(text: string) {
  let release: () => void = () => undefined;
  const held = new Promise<void>((resolve) => { release = resolve; });
  const net = says(text);
  const sent: string[] = [];
  return {
    ...net,
    sent,
    release,
    sleep: (ms: number) => new Promise<void>((resolve) => void setTimeout(resolve, ms / 100)), // a hundred times as fast
    fetch: async (path: string, init: RequestInit) => {
      sent.push(path);
      await held;
      return net.fetch(path, init);
    },
  };
}

async function until(fact: () => boolean): Promise<void> {
  while (!fact()) await new Promise((resolve) => setTimeout(resolve, 1));
}

const titles = (talks: Talks) => talks.all.value.map(({ title }) => title);

test("what one tab does to a conversation the other one shows", async () => {
  const { open } = browser();
  const [one, other] = [open(says("Hi.")), open(says("x"))];
  await Promise.all([one.load(), other.load()]);
  const { id } = one.begin("m");
  await one.ask(id, "hello", []);
  await until(() => titles(other).includes("hello") && !other.isRunning(id));
  expect(lastText(other.all.value[0] as Conversation)).toBe("Hi.");
  other.rename(id, "Mine");
  await until(() => titles(one).includes("Mine"));
  await one.remove(id);
  await until(() => other.all.value.length === 0);
});

test("an answer is followed by one tab, whichever asks for it; the others can stop it", async () => {
  const { open, said } = browser();
  const [first, second] = [slow("Hi."), slow("x")];
  const one = open(first);
  await one.load();
  const { id } = one.begin("m");
  await one.ask(id, "hello", []);
  await until(() => said.includes("kept"));
  const other = open(second);
  await other.load();
  expect(other.isRunning(id)).toBe(true);
  await other.ask(id, "and this?", []);
  await until(() => said.filter((kind) => kind === "mine").length > 1);
  expect(second.sent).toEqual([]);
  expect(lastText(other.all.value[0] as Conversation)).toBe("");
  other.stop(id);
  first.release();
  await until(() => !other.isRunning(id));
  expect(other.all.value[0]?.turns).toHaveLength(2);
});

test("an answer whose tab is gone goes on in another", async () => {
  const { open, close } = browser();
  const [first, second] = [slow("never"), slow("lo")];
  const [one, other] = [open(first), open(second)];
  await Promise.all([one.load(), other.load()]);
  const { id } = one.begin("m");
  await one.ask(id, "hello", []);
  await until(() => other.isRunning(id));
  close();
  await until(() => !other.isRunning(id));
  // Nothing had come of it that could be gone on with.
  const last = other.all.value[0]?.turns.at(-1);
  expect(last?.role === "assistant" && chosen(last).error?.code).toBe("interrupted");
});
