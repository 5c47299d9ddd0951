// @vitest-environment node
import { expect, test } from "vitest";
import { ApiError } from "./api";
import { AWAY, troubleOf } from "./trouble";

test("no answer, and an end in order, are a balancer that is away", () => {
  for (const error of [undefined, new TypeError("aborted"), new ApiError("The balancer cannot be reached.", 0)]) expect(troubleOf(error)).toBe(AWAY);
});

test.each([
  [403, "This API key has not the scope `management`.", "log in with a key that has the scope management"],
  [421, "The panel was called as 'evil.example'. Call it by its address.", null],
  [400, "`topics` has 'new'.", "Reload the panel"],
])("%i is a refusal that says why and what to do", (status, message, remedy) => {
  const trouble = troubleOf(new ApiError(message, status, "some_code"));
  expect(trouble.isRefusal).toBe(true);
  expect(trouble.said).toContain(message);
  expect(trouble.said).not.toContain("Offline");
  expect(trouble.remedy).toEqual(remedy === null ? null : expect.stringContaining(remedy));
});

test("what is no error of the balancer's is not said to be its own", () => {
  const trouble = troubleOf(new ApiError("<html>Forbidden</html>", 403));
  expect(trouble).toMatchObject({ isRefusal: true, said: expect.stringContaining("not by the balancer: it was answered with 403") });
  expect(trouble.said).not.toContain("html");
  expect(troubleOf(new ApiError("", 502)).said).toContain("502");
});

test("a balancer that is there and cannot serve now says why", () => {
  const trouble = troubleOf(new ApiError("Redis cannot be reached, which has the sessions.", 503, "queue_unavailable"));
  expect(trouble).toMatchObject({ isRefusal: false, said: expect.stringContaining("Redis cannot be reached"), remedy: null });
});
