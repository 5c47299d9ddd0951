import { render, screen } from "@testing-library/preact";
import { expect, test } from "vitest";
import { TextField } from "./Field";

test("label, hint and error are read with their control", () => {
  render(<TextField label="Slots" hint="Requests at once." error="A whole number." value="x" onValue={() => undefined} />);
  const input = screen.getByLabelText("Slots");
  const described = (input.getAttribute("aria-describedby") ?? "").split(" ").map((id) => document.getElementById(id)?.textContent);
  expect(described).toEqual(["Requests at once.", "A whole number."]);
  expect(input.getAttribute("aria-invalid")).toBe("true");
});
