/** What is computed of vectors in the browser. */

export const MAX_TEXTS = 256;
/** A larger matrix cannot be read any more, and is a long table. */
export const MAX_SHOWN = 32;

/** The texts of a field, one in each line; empty lines are none. */
export function textsOf(field: string): string[] {
  return field.split("\n").map((line) => line.trim()).filter((line) => line !== "");
}

/** The cosine of each two, from -1 to 1. A vector of zeros has 0 with all. */
export function cosines(vectors: readonly (readonly number[])[]): number[][] {
  const units = vectors.map(unit);
  const matrix = units.map(() => new Array<number>(units.length).fill(0));
  units.forEach((one, row) => {
    for (let column = row; column < units.length; column++) {
      const value = clipped(dot(one, units[column] as Float64Array));
      (matrix[row] as number[])[column] = value;
      (matrix[column] as number[])[row] = value;
    }
  });
  return matrix;
}

export interface Pair {
  one: number;
  other: number;
  cosine: number;
}

/** The most alike first. */
export function pairsOf(matrix: readonly (readonly number[])[], most: number): Pair[] {
  const pairs: Pair[] = [];
  matrix.forEach((row, one) => row.forEach((cosine, other) => other > one && pairs.push({ one, other, cosine })));
  return pairs.sort((a, b) => b.cosine - a.cosine).slice(0, most);
}

/** Of the range that is there: differences between texts are often small ones. The diagonal tells nothing. */
export function heatOf(matrix: readonly (readonly number[])[]): (cosine: number) => number {
  const others = matrix.flatMap((row, one) => row.filter((_, other) => other !== one));
  const [least, most] = [Math.min(...others), Math.max(...others)];
  return (cosine) => (others.length === 0 || most === least ? 1 : Math.min(1, Math.max(0, (cosine - least) / (most - least))));
}

export function length(vector: readonly number[]): number {
  return Math.hypot(...vector);
}

/** RFC 4180: a row for each text, with its numbers behind it. */
export function asCsv(texts: readonly string[], rows: readonly (readonly number[])[], heads: readonly string[]): string {
  const lines = [["text", ...heads], ...texts.map((text, at) => [text, ...(rows[at] ?? []).map(String)])];
  return `${lines.map((line) => line.map(quoted).join(",")).join("\r\n")}\r\n`;
}

function quoted(cell: string): string {
  // A spreadsheet takes a cell that begins like that for a formula, unless it is a number.
  const safe = /^[=+\-@\t\r]/.test(cell) && Number.isNaN(Number(cell)) ? `'${cell}` : cell;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function unit(vector: readonly number[]): Float64Array {
  const size = length(vector);
  return Float64Array.from(vector, (value) => (size === 0 ? 0 : value / size));
}

function dot(one: Float64Array, other: Float64Array): number {
  let sum = 0;
  for (let at = 0; at < one.length; at++) sum += (one[at] as number) * (other[at] ?? 0);
  return sum;
}

function clipped(cosine: number): number {
  return Math.min(1, Math.max(-1, cosine));
}
