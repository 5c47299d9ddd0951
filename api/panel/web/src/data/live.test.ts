// @vitest-environment node
import { expect, test } from "vitest";
import { MAX_RETRY_MS, retryAfterMs } from "./live";

test("tries come half a second apart at first, and a quarter of a minute at last", () => {
  const shortest = [0, 1, 2, 3, 10, 1000].map((failures) => retryAfterMs(failures, () => 0));
  expect(shortest).toEqual([250, 500, 1000, 2000, MAX_RETRY_MS / 2, MAX_RETRY_MS / 2]);
  expect(retryAfterMs(1000, () => 1)).toBe(MAX_RETRY_MS);
});
