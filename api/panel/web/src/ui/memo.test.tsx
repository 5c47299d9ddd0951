import { render } from "@testing-library/preact";
import { expect, test } from "vitest";
import { memo } from "./memo";

test("the same object is not drawn again", () => {
  let draws = 0;
  const Row = memo(({ thing }: { thing: object }) => { draws += 1; return <p>{JSON.stringify(thing)}</p>; });
  const same = { n: 1 };
  const { rerender } = render(<Row thing={same} />);
  rerender(<Row thing={same} />);
  expect(draws).toBe(1);
  rerender(<Row thing={{ n: 1 }} />);
  expect(draws).toBe(2);
});
