import { useEffect, useState } from "preact/hooks";
import { call } from "../../data/api";
import type { Prefix } from "./types";

const LOOK_AGAIN_MS = 2_000;

/** Those of a pool, `null` before they are known; read again after a change and every two seconds. */
export function usePrefixes(pool: string): [prefixes: Prefix[] | null, error: string | null, readAgain: () => void] {
  const [prefixes, setPrefixes] = useState<Prefix[] | null>(null);
  const [error, setError] = useState<string | null>(null);
  const [turn, setTurn] = useState(0);
  useEffect(() => { setPrefixes(null); }, [pool]);
  useEffect(() => {
    const controller = new AbortController();
    const read = async () => {
      try {
        const found = await call<{ prefixes: Prefix[] }>(pathOf(pool), { signal: controller.signal });
        setPrefixes(found.prefixes);
        setError(null);
      } catch (problem) {
        if (!controller.signal.aborted) setError(problem instanceof Error ? problem.message : String(problem));
      }
    };
    void read();
    const timer = setInterval(() => void read(), LOOK_AGAIN_MS);
    return () => { clearInterval(timer); controller.abort(); };
  }, [pool, turn]);
  return [prefixes, error, () => setTurn((before) => before + 1)];
}

export function pathOf(pool: string, name?: string): string {
  const path = `/api/v1/pools/${encodeURIComponent(pool)}/prefixes`;
  return name === undefined ? path : `${path}/${encodeURIComponent(name)}`;
}
