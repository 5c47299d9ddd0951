import { expect, test } from "vitest";
import { PARAMETERS } from "./fixtures";
import { grouped } from "./ParameterGroups";

const names = (sought: string) => grouped(PARAMETERS, sought).flatMap(([, members]) => members.map((one) => one.name));

test("parameters are found by name, by meaning and by what they are about", () => {
  expect(grouped(PARAMETERS, "").map(([group]) => group)).toEqual(["Engine", "Sampling", "DRY"]);
  expect(names("top p")).toEqual(["top_p"]);
  expect(names("VARIED")).toEqual(["temperature"]);
  expect(names("engine cache")).toEqual(["k_cache_dtype"]);
  expect(names("nonsense")).toEqual([]);
});
