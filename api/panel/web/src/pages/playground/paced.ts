/**
 * Calls that come as often as a screen can show them, and never take more than a third of the time.
 *
 * The returned function may be called as often as something changes; the last call is always heard.
 */
export function paced(work: () => void, least = 33, now: () => number = () => performance.now()): () => void {
  let timer: ReturnType<typeof setTimeout> | null = null;
  let last = -Infinity;
  let cost = 0;
  return () => {
    if (timer !== null) return;
    const wait = Math.max(0, last + Math.max(least, 3 * cost) - now());
    timer = setTimeout(() => {
      timer = null;
      const began = now();
      work();
      last = now();
      cost = last - began;
    }, wait);
  };
}
