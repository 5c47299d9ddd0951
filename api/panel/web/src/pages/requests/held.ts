import { useEffect, useRef, useState } from "preact/hooks";

const REST_MS = 200;

/** What is given, but while the reader scrolls what was given before: a list that moves away under them cannot be read,
 * and a frame has enough to draw. `onScroll` is to be told of scrolling. */
export function useHeldWhileScrolling<T>(now: T): [shown: T, onScroll: () => void] {
  const held = useRef(now);
  const timer = useRef<ReturnType<typeof setTimeout>>();
  const [isScrolling, setScrolling] = useState(false);
  useEffect(() => () => clearTimeout(timer.current), []);
  if (!isScrolling) held.current = now;
  const onScroll = () => {
    clearTimeout(timer.current);
    timer.current = setTimeout(() => setScrolling(false), REST_MS);
    setScrolling(true);
  };
  return [held.current, onScroll];
}
