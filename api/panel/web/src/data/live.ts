import { batch, computed, effect, signal } from "@preact/signals";
import { call, needsLogin } from "./api";
import { apply, collection, type Change } from "./collections";
import { merged } from "./history";
import { follow } from "./sse";
import { troubleOf, type Trouble } from "./trouble";
import type { Agent, Pool, Sample, System } from "./types";

/** `connecting` is before the first message; `offline` says since when, why, and when the next try is. */
export type Connection = { state: "connecting" } | { state: "online" } | { state: "offline"; since: number; retryAt: number; trouble: Trouble };

export const connection = signal<Connection>({ state: "connecting" });
export const isOnline = computed(() => connection.value.state === "online");

export const agents = collection<Agent>("agents");
export const pools = collection<Pool>("pools");
export const system = computed<System>(() => (collection<System>("system").value.get("system") ?? { redis: true, worker: true }));
/** Of the last 15 minutes, the oldest first, by pool. */
export const history = signal<ReadonlyMap<string, readonly Sample[]>>(new Map());

export const FIRST_RETRY_MS = 500;
export const MAX_RETRY_MS = 15_000;
/** The balancer says something every 10 s at least; a connection that is silent for longer is dead. */
const SILENCE_MS = 25_000;

/** A tab that nobody looks at gives its connection back: browsers open six to an address by HTTP/1.1, for all tabs. */
const HIDDEN_MS = 30_000;

const ALWAYS = ["agents", "pools", "system"];
const wanted = signal<ReadonlyMap<string, number>>(new Map());
const topics = computed(() => [...new Set([...ALWAYS, ...wanted.value.keys()])].sort().join(","));

/** Follow a topic beside those of the fleet while a page shows it; returns how to stop. For `useEffect`. */
export function followTopic(topic: string): () => void {
  const add = (by: number) => {
    const next = new Map(wanted.peek());
    const count = (next.get(topic) ?? 0) + by;
    if (count > 0) next.set(topic, count);
    else next.delete(topic);
    wanted.value = next;
  };
  add(1);
  return () => add(-1);
}

/** The time before another try: doubled each time, and not the same for all who lost the same balancer. */
export function retryAfterMs(failures: number, random: () => number = Math.random): number {
  const full = Math.min(MAX_RETRY_MS, FIRST_RETRY_MS * 2 ** Math.min(failures, 10));
  return full / 2 + (full / 2) * random();
}

/** Samples were missed although no connection was lost. */
let historyIsOld = false;
let retryNow: (() => void) | null = null;

/** Do not wait for the time of the next try. */
export function reconnect(): void {
  retryNow?.();
}

/** Follow the balancer's live data from now on, whatever happens to the connection. Returns how to stop. */
export function startLive(): () => void {
  let stopped = false;
  let current: AbortController | null = null;
  const undo = effect(() => {
    void topics.value;
    current?.abort("topics"); // it is opened again with what is wanted now
  });
  const wake = () => reconnect();
  let hiding: ReturnType<typeof setTimeout> | undefined;
  let onShown: (() => void) | null = null;
  const look = () => {
    clearTimeout(hiding);
    if (document.hidden) hiding = setTimeout(() => current?.abort("hidden"), HIDDEN_MS);
    else { onShown?.(); wake(); }
  };
  window.addEventListener("online", wake);
  document.addEventListener("visibilitychange", look);
  void run();

  async function run(): Promise<void> {
    let failures = 0;
    while (!stopped) {
      current = new AbortController();
      const controller = current;
      let ended: unknown;
      try {
        await listen(controller, () => { failures = 0; });
      } catch (error) {
        ended = error;
      }
      if (stopped || needsLogin.value) return;
      if (controller.signal.aborted && controller.signal.reason === "topics") continue;
      if (controller.signal.aborted && controller.signal.reason === "hidden") {
        if (document.hidden) await new Promise<void>((resolve) => { onShown = resolve; });
        onShown = null;
        historyIsOld = true;
        continue;
      }
      const wait = retryAfterMs(failures++);
      const before = connection.peek();
      connection.value = {
        state: "offline",
        since: before.state === "offline" ? before.since : Date.now(),
        retryAt: Date.now() + wait,
        trouble: troubleOf(ended),
      };
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, wait);
        retryNow = () => { clearTimeout(timer); resolve(); };
      });
      retryNow = null;
    }
  }

  return () => {
    stopped = true;
    undo();
    clearTimeout(hiding);
    onShown?.();
    document.removeEventListener("visibilitychange", look);
    window.removeEventListener("online", wake);
    current?.abort();
    reconnect();
  };
}

async function listen(controller: AbortController, onMessage: () => void): Promise<void> {
  let silence: ReturnType<typeof setTimeout> | undefined;
  const heard = () => {
    clearTimeout(silence);
    silence = setTimeout(() => controller.abort("silence"), SILENCE_MS);
  };
  heard();
  try {
    const path = `/panel/api/live?topics=${topics.peek()}`;
    await follow(path, { signal: controller.signal, onBytes: heard }, ({ event, data }) => {
      onMessage();
      take(event, JSON.parse(data));
      if (connection.peek().state === "online" && !historyIsOld) return;
      connection.value = { state: "online" };
      historyIsOld = false;
      void loadHistory();
    });
  } finally {
    clearTimeout(silence);
  }
}

/** One message: every topic that has changed, at once. */
function take(event: string, data: Record<string, Change> | Sample[]): void {
  batch(() => {
    if (event === "samples") history.value = merged(history.peek(), data as Sample[]);
    else for (const [topic, change] of Object.entries(data as Record<string, Change>)) apply(topic, change);
  });
}

async function loadHistory(): Promise<void> {
  try {
    const { samples } = await call<{ samples: Sample[] }>("/panel/api/history");
    history.value = merged(history.peek(), samples);
  } catch {
    // It comes with the next connection; what is heard from now on is shown meanwhile.
  }
}
