import { signal } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { call } from "../../data/api";
import { reconnect } from "../../data/live";
import { login, me } from "../../data/session";
import type { ApiKey, NewKey } from "./types";

/** A secret that has not been put away yet. It outlives the page: the first key shows the login in between. */
export const shownOnce = signal<(NewKey & { isRotated: boolean }) | null>(null);

const LOOK_AGAIN_MS = 10_000;

/** All keys, `null` before they are known; read again after a change and now and then. */
export function useKeys(): [keys: ApiKey[] | null, error: string | null, readAgain: () => void] {
  const [keys, setKeys] = useState<ApiKey[] | null>(null);
  const [error, setError] = useState<string | null>(null);
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const controller = new AbortController();
    const read = async () => {
      try {
        const found = await call<{ keys: ApiKey[] }>("/api/v1/keys", { signal: controller.signal });
        setKeys(found.keys);
        setError(null);
      } catch (problem) {
        if (!controller.signal.aborted) setError(problem instanceof Error ? problem.message : String(problem));
      }
    };
    void read();
    const timer = setInterval(() => void read(), LOOK_AGAIN_MS);
    return () => { clearInterval(timer); controller.abort(); };
  }, [turn]);
  return [keys, error, () => setTurn((before) => before + 1)];
}

/** Throws `ApiError`. With the first key everybody needs one: then the panel goes on with that. */
export async function createKey(body: object): Promise<void> {
  const isOpen = me.peek()?.needs_key === false;
  const made = await call<NewKey>("/api/v1/keys", { method: "POST", body });
  shownOnce.value = { ...made, isRotated: false };
  if (!isOpen) return;
  await login(made.secret);
  reconnect(); // the live feed was opened without a key, and has ended
}

/** Throws `ApiError`. `overlapMs`: for how long the present secret is good beside the new one. */
export async function rotateKey(key: ApiKey, overlapMs: number): Promise<void> {
  const made = await call<NewKey>(pathOf(key, "/rotate"), { method: "POST", body: { overlap_ms: overlapMs } });
  shownOnce.value = { ...made, isRotated: true };
}

export function pathOf(key: ApiKey, end = ""): string {
  return `/api/v1/keys/${encodeURIComponent(key.id)}${end}`;
}
