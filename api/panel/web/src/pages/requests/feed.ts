import { batch, computed, effect, signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { collection } from "../../data/collections";
import { followTopic } from "../../data/live";
import { currentPool } from "../../data/pool";
import { arrange } from "./board";
import type { Row } from "./types";

const rows = collection<Row>("requests");
/** Tokens of the output so far by request id; under `now` the time by Redis's clock, told anew now and then. */
const told = collection<number>("request_tokens");

export const arranged = computed(() => arrange(rows.value.values(), currentPool.value));
/** False before the balancer has said anything of requests. */
export const isKnown = computed(() => told.value.has("now"));

export function tokensOf(id: string): number {
  return told.value.get(id) ?? 0;
}

/** The time by Redis's clock, told anew every second: what is as old as this is counted from it. */
export const serverNow = signal(Date.now());
const MAX_HEARD = 5;
let heard: number[] = [];

/** What is told is old when it is heard, by up to some seconds: what was least late of the last is nearest to the truth. */
export function tellTime(nowMs: number): void {
  heard = [...heard, nowMs - Date.now()].slice(-MAX_HEARD);
  tick();
}

function tick(): void {
  serverNow.value = Date.now() + (heard.length ? Math.max(...heard) : 0);
}

/** Follow the requests while a page shows them. */
export function useRequests(): void {
  useEffect(() => {
    // At once: the stream is opened anew for other topics.
    const undo = batch(() => ["requests", "request_tokens"].map(followTopic));
    const now = computed(() => told.value.get("now"));
    undo.push(effect(() => { if (now.value !== undefined) tellTime(now.value); }));
    const timer = setInterval(tick, 1000);
    return () => { clearInterval(timer); batch(() => undo.forEach((one) => one())); };
  }, []);
}
