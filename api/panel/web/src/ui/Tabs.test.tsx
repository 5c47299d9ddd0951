import { fireEvent, render, screen } from "@testing-library/preact";
import { useState } from "preact/hooks";
import { expect, test } from "vitest";
import { Tabs } from "./Tabs";

const TABS = [["one", "One"], ["two", "Two"], ["three", "Three"]] as const;

function Example() {
  const [current, setCurrent] = useState<"one" | "two" | "three">("one");
  return <Tabs label="Example" tabs={TABS} current={current} onCurrent={setCurrent}>{current}</Tabs>;
}

test("arrows, Home and End move among the tabs, around the ends", () => {
  render(<Example />);
  const list = screen.getByRole("tablist");
  const seen = ["ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft", "Home", "End"].map((key) => {
    fireEvent.keyDown(list, { key });
    return screen.getByRole("tabpanel").textContent;
  });
  expect(seen).toEqual(["two", "three", "one", "three", "one", "three"]);
  expect(screen.getAllByRole("tab").map((tab) => tab.tabIndex)).toEqual([-1, -1, 0]);
});
