/** The conversations of this page, and what runs in them. It goes on while another page is shown. */
import { computed, signal } from "@preact/signals";
import { call } from "../../data/api";
import { toldAs } from "./errors";
import { Following, type Net, browserNet } from "./follow";
import {
  answersOf,
  ask,
  askAgain,
  choose,
  emptySetup,
  giveResults,
  newAnswer,
  newConversation,
  picturesOf,
  regenerate,
  rename,
  turnsBefore,
  withAnswers,
} from "./history";
import { type Answer, type Conversation, type Picture, type Setup, isRunning, newId } from "./model";
import { paced } from "./paced";
import { POLL_MS, type Progress, noteProgress } from "./progress";
import { requestOf } from "./request";
import type { Shelf } from "./shelf";
import type { Tabs, Word } from "./tabs";

const KEEP_EVERY_MS = 1000;
/** For so long after its end, or without a word of it, the queue may still know a request. */
const KNOWN_FOR_MS = 10 * 60_000;
/** Another tab that follows an answer says so within this. */
const SAID_WITHIN_MS = 300;
const LOOK_AGAIN_MS = 3000;

export class Talks {
  readonly all = signal<readonly Conversation[]>([]);
  readonly currentId = signal<string | null>(null);
  readonly current = computed(() => this.all.value.find((one) => one.id === this.currentId.value) ?? null);
  /** Set when the browser does not keep what is written here. */
  readonly trouble = signal<string | null>(null);
  readonly isLoaded = signal(false);
  private readonly running = new Map<string, { following: Following; answers: readonly Answer[] }>();
  private readonly keepers = new Map<string, ReturnType<typeof setTimeout>>();
  /** Conversations in which an answer comes that another tab may follow, and whether it has said so. */
  private readonly elsewhere = new Map<string, boolean>();

  constructor(
    private readonly shelf: Shelf,
    private readonly net: Net = browserNet,
    private readonly tabs: Tabs | null = null,
  ) {
    tabs?.hear((word) => { if (this.isLoaded.peek()) this.hear(word); });
  }

  async load(): Promise<void> {
    try {
      const kept = await this.shelf.load();
      this.all.value = kept;
      this.currentId.value ??= kept[0]?.id ?? null;
    } catch {
      this.trouble.value = "This browser keeps nothing here: conversations are gone when the page is closed.";
    }
    this.isLoaded.value = true;
    for (const conversation of this.all.value) void this.lookAfter(conversation);
  }

  open(id: string): void {
    this.currentId.value = id;
  }

  begin(model: string): Conversation {
    const before = this.current.value?.setup;
    // The next conversation is asked for as the last one was; who wants less clears it.
    const conversation = newConversation(before ? structuredClone(before) : emptySetup(model), this.net.now());
    this.all.value = [conversation, ...this.all.value];
    this.currentId.value = conversation.id;
    return conversation;
  }

  rename(id: string, title: string): void {
    this.change(id, (conversation) => rename(conversation, title));
  }

  setUp(id: string, setup: Partial<Setup>): void {
    this.change(id, (conversation) => ({ ...conversation, setup: { ...conversation.setup, ...setup } }));
  }

  choose(id: string, turnId: string, number: number): void {
    this.change(id, (conversation) => choose(conversation, turnId, number));
  }

  async remove(id: string): Promise<void> {
    const conversation = this.find(id);
    if (conversation === undefined) return;
    this.stop(id);
    this.forget(id);
    await this.shelf.drop(conversation).catch(() => undefined);
    this.tabs?.say({ kind: "dropped", id });
  }

  /** In this tab or in another. */
  isRunning(id: string): boolean {
    return this.running.has(id) || hasRunning(this.find(id));
  }

  /** Each of these throws an `Error` with words for a setting that is wrong; nothing has changed then. */
  async ask(id: string, text: string, pictures: readonly (Picture & { url: string })[]): Promise<void> {
    for (const { url, ...picture } of pictures) await this.shelf.keepPicture(picture, url).catch(() => undefined);
    const urls = new Map(pictures.map(({ id: name, url }) => [name, url]));
    const kept = pictures.map(({ url: _, ...picture }) => picture);
    await this.send(id, (conversation, answers) => ask(conversation, text, kept, answers, this.net.now()), urls);
  }

  async askAgain(id: string, turnId: string, text: string): Promise<void> {
    await this.send(id, (conversation, answers) => askAgain(conversation, turnId, text, answers, this.net.now()));
  }

  async regenerate(id: string, turnId: string): Promise<void> {
    await this.send(id, (conversation, answers) => regenerate(conversation, turnId, answers, this.net.now()));
  }

  async giveResults(id: string, results: { callId: string; name: string; text: string }[]): Promise<void> {
    await this.send(id, (conversation, answers) => giveResults(conversation, results, answers, this.net.now()));
  }

  stop(id: string): void {
    const here = this.running.get(id);
    if (here !== undefined) here.following.stop();
    else if (this.isRunning(id)) this.tabs?.say({ kind: "stop", id });
  }

  pictures(ids: readonly string[]): Promise<Map<string, string>> {
    return this.shelf.pictures(ids).catch(() => new Map<string, string>());
  }

  private async send(id: string, next: (conversation: Conversation, answers: Answer[]) => Conversation, urls = new Map<string, string>()): Promise<void> {
    const before = this.find(id);
    if (before === undefined || this.isRunning(id)) return;
    const numChoices = Math.max(1, Math.min(8, Math.trunc(Number(before.setup.values.n ?? 1)) || 1));
    const answers = Array.from({ length: numChoices }, () => newAnswer(this.net.now(), numChoices === 1 ? newId() : ""));
    const after = next(before, answers);
    const known = await this.urlsFor(after, urls);
    const first = answers[0] as Answer;
    const asked = requestOf(after, turnsBefore(after, first.id), known);
    this.replace(after);
    this.keep(after.id, 0);
    this.follow(after.id, answers, asked);
  }

  private async urlsFor(conversation: Conversation, given: Map<string, string>): Promise<Map<string, string>> {
    const missing = picturesOf(conversation).map((picture) => picture.id).filter((id) => !given.has(id));
    return new Map([...given, ...(missing.length ? await this.pictures(missing) : [])]);
  }

  private follow(id: string, answers: Answer[], asked: { body: unknown; headers: Record<string, string> } | null): void {
    const first = answers[0] as Answer;
    let isKnown = first.requestId !== null;
    const show = paced(() => {
      this.show(id, answers);
      // From now on a page that is reloaded can go on with it.
      if (!isKnown && first.requestId !== null) this.keep(id, 0);
      isKnown = first.requestId !== null;
    });
    const following = new Following(answers, show, this.net);
    this.running.set(id, { following, answers });
    const watching = new AbortController();
    void this.watch(answers, show, watching.signal);
    void following.run(asked).then(() => {
      watching.abort();
      this.running.delete(id);
      this.show(id, answers);
      this.keep(id, 0);
    });
  }

  private show(id: string, answers: readonly Answer[]): void {
    this.change(id, (conversation) => withAnswers(conversation, copied(answers)), KEEP_EVERY_MS);
  }

  /** Place and counts, while somebody can see them. */
  private async watch(answers: readonly Answer[], show: () => void, signal: AbortSignal): Promise<void> {
    const first = answers[0] as Answer;
    while (!signal.aborted) {
      await this.net.sleep(POLL_MS, signal);
      if (signal.aborted) return;
      if (first.requestId === null || document.hidden || answers.length > 1) continue;
      const progress = await call<Progress>(`/api/v1/requests/${encodeURIComponent(first.requestId)}`, { signal }).catch(() => null);
      if (progress === null || signal.aborted) continue;
      noteProgress(first, progress);
      show();
    }
  }

  /** An answer that comes is another tab's, or goes on here once nobody says that it is theirs. */
  private async lookAfter({ id }: Conversation): Promise<void> {
    if (this.elsewhere.has(id) || this.running.has(id)) return;
    for (let pause = 0; ; pause = LOOK_AGAIN_MS) {
      if (pause > 0) await this.net.sleep(pause, new AbortController().signal);
      this.elsewhere.set(id, false);
      if (this.tabs !== null && hasRunning(this.find(id))) {
        this.tabs.say({ kind: "who", id });
        await this.net.sleep(SAID_WITHIN_MS, new AbortController().signal);
      }
      const conversation = this.find(id);
      if (this.elsewhere.get(id) && hasRunning(conversation)) continue;
      this.elsewhere.delete(id);
      if (conversation !== undefined && !this.running.has(id)) this.goOn(conversation);
      return;
    }
  }

  private hear(word: Word): void {
    switch (word.kind) {
      case "kept": return this.take(word.conversation);
      case "dropped":
        this.running.get(word.id)?.following.stop();
        return this.forget(word.id);
      case "who": return void (this.running.has(word.id) && this.tabs?.say({ kind: "mine", id: word.id }));
      case "mine": return void (this.elsewhere.has(word.id) && this.elsewhere.set(word.id, true));
      case "stop": return this.running.get(word.id)?.following.stop();
    }
  }

  /** As another tab has kept it; an answer that comes here is newer here. */
  private take(conversation: Conversation): void {
    const here = this.running.get(conversation.id);
    const taken = here === undefined ? conversation : withAnswers(conversation, copied(here.answers));
    if (this.find(taken.id) === undefined) this.all.value = [taken, ...this.all.peek()];
    else this.replace(taken);
    void this.lookAfter(taken);
  }

  /** What ran when the page was closed goes on where it was, if the queue may know it; of anything else the end is told. */
  private goOn(conversation: Conversation): void {
    const open = answersOf(conversation).filter(isRunning);
    const first = open[0];
    if (first === undefined) return;
    const answers = open.map((answer) => structuredClone(answer));
    const isRecent = this.net.now() - first.stats.sentAt < KNOWN_FOR_MS;
    if (open.length === 1 && first.key !== "" && isRecent && first.requestId !== null) {
      this.follow(conversation.id, answers, null);
      return;
    }
    for (const answer of answers) {
      answer.state = "failed";
      answer.error = toldAs("interrupted", "The page was closed before the answer had come.");
    }
    this.show(conversation.id, answers);
  }

  private forget(id: string): void {
    clearTimeout(this.keepers.get(id));
    this.keepers.delete(id);
    this.all.value = this.all.value.filter((one) => one.id !== id);
    if (this.currentId.value === id) this.currentId.value = this.all.value[0]?.id ?? null;
  }

  private find(id: string): Conversation | undefined {
    return this.all.peek().find((one) => one.id === id);
  }

  private change(id: string, how: (conversation: Conversation) => Conversation, afterMs = 0): void {
    const before = this.find(id);
    if (before === undefined) return;
    const after = how(before);
    if (after === before) return;
    this.replace(after);
    this.keep(id, afterMs);
  }

  private replace(conversation: Conversation): void {
    this.all.value = this.all.peek().map((one) => (one.id === conversation.id ? conversation : one));
  }

  /** At most once in a while, the last state always. */
  private keep(id: string, afterMs = KEEP_EVERY_MS): void {
    if (afterMs > 0 && this.keepers.has(id)) return;
    clearTimeout(this.keepers.get(id));
    const keeper = setTimeout(() => {
      this.keepers.delete(id);
      const conversation = this.find(id);
      if (conversation === undefined || conversation.turns.length === 0) return;
      this.shelf.keep(conversation).catch(() => {
        this.trouble.value = "This browser has no more room: what is new is gone when the page is closed.";
      });
      this.tabs?.say({ kind: "kept", conversation });
    }, afterMs);
    this.keepers.set(id, keeper);
  }
}

function hasRunning(conversation: Conversation | undefined): boolean {
  return conversation !== undefined && answersOf(conversation).some(isRunning);
}

/** What is drawn must not change under it. */
function copied(answers: readonly Answer[]): Answer[] {
  return answers.map((answer) => ({ ...answer, stats: { ...answer.stats } }));
}
