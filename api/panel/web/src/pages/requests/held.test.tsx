import { act, render } from "@testing-library/preact";
import { expect, it, vi } from "vitest";
import { useHeldWhileScrolling } from "./held";

it("holds what it shows while the reader scrolls, and catches up after", () => {
  vi.useFakeTimers();
  let scroll = () => undefined as void;
  const Shown = ({ value }: { value: string }) => {
    const [held, onScroll] = useHeldWhileScrolling(() => value);
    scroll = onScroll;
    return <p>{held}</p>;
  };
  const { container, rerender } = render(<Shown value="a" />);
  rerender(<Shown value="b" />);
  expect(container.textContent).toBe("b");
  act(() => scroll());
  rerender(<Shown value="c" />);
  expect(container.textContent).toBe("b");
  act(() => { vi.advanceTimersByTime(150); scroll(); vi.advanceTimersByTime(150); });
  expect(container.textContent).toBe("b");
  act(() => { vi.advanceTimersByTime(100); });
  expect(container.textContent).toBe("c");
  vi.useRealTimers();
});
