import { expect, test } from "vitest";
import { asCsv, cosines, heatOf, length, pairsOf, textsOf } from "./vectors";

test("lines are texts, empty ones are none", () => {
  expect(textsOf(" a \n\nb\r\n  \n")).toEqual(["a", "b"]);
});

test("cosines of a direction, its opposite, a right angle, and nothing", () => {
  const matrix = cosines([[2, 0], [-1, 0], [0, 3], [0, 0], [1, 1]]);
  expect(matrix[0]).toEqual([1, -1, 0, 0, expect.closeTo(Math.SQRT1_2)]);
  expect(matrix.every((row, one) => row.every((value, other) => value === matrix[other]?.[one]))).toBe(true);
  expect(matrix[3]?.[3]).toBe(0);
});

test("the most alike come first, each pair once", () => {
  expect(pairsOf([[1, 0.2, 0.9], [0.2, 1, 0.5], [0.9, 0.5, 1]], 2)).toEqual([{ one: 0, other: 2, cosine: 0.9 }, { one: 1, other: 2, cosine: 0.5 }]);
});

test("colours use the range that is there", () => {
  const heat = heatOf([[1, 0.2, 0.7], [0.2, 1, 0.45], [0.7, 0.45, 1]]);
  expect([heat(0.2), heat(0.7), heat(1)]).toEqual([0, 1, 1]);
  expect(heat(0.45)).toBeCloseTo(0.5);
  expect(heatOf([[1]])(1)).toBe(1);
});

test("a file of cells holds whatever a text has", () => {
  expect(asCsv(['a "b", c', "=SUM(A1)"], [[1, -0.5], [2, 3]], ["0", "1"])).toBe('text,0,1\r\n"a ""b"", c",1,-0.5\r\n\'=SUM(A1),2,3\r\n');
});

test("lengths", () => {
  expect(length([3, 4])).toBe(5);
});
