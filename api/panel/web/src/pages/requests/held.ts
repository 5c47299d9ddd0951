import { useEffect, useRef, useState } from "preact/hooks";

const REST_MS = 200;

/** What `read` gives, but while the reader scrolls what it gave before: a list that moves away under them cannot be read,
 * and a frame has enough to draw. Signals that it reads do not draw anything anew meanwhile. `onScroll` is to be told of
 * scrolling. */
export function useHeldWhileScrolling<T>(read: () => T): [shown: T, onScroll: () => void] {
  const held = useRef<T>();
  const timer = useRef<ReturnType<typeof setTimeout>>();
  const [isScrolling, setScrolling] = useState(false);
  useEffect(() => () => clearTimeout(timer.current), []);
  if (!isScrolling || held.current === undefined) held.current = read();
  const onScroll = () => {
    clearTimeout(timer.current);
    timer.current = setTimeout(() => setScrolling(false), REST_MS);
    setScrolling(true);
  };
  return [held.current, onScroll];
}
