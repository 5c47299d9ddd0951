import type { UsageRow } from "./types";

export type Measure = "tokens" | "output_tokens" | "prompt_tokens" | "requests";
export type By = "key" | "model" | "tenant";

/** So many have a colour of their own; the others are one. */
export const MAX_SERIES = 4;

export interface DaySeries {
  name: string;
  /** One a day. */
  values: number[];
  total: number;
}

export interface Days {
  days: string[];
  series: DaySeries[];
}

export function measured(row: UsageRow, measure: Measure): number {
  return measure === "tokens" ? row.prompt_tokens + row.output_tokens : row[measure];
}

export function nameOf(row: UsageRow, by: By): string {
  if (by === "key") return row.key_name || row.key || "(unknown key)";
  return row[by] || (by === "model" ? "(none served it)" : "(unknown)");
}

/** All days from the first to the last, both included, in UTC. */
export function daysBetween(first: string, last: string): string[] {
  const found: string[] = [];
  for (let day = new Date(`${first}T00:00:00Z`); day <= new Date(`${last}T00:00:00Z`); day.setUTCDate(day.getUTCDate() + 1)) {
    found.push(day.toISOString().slice(0, 10));
  }
  return found;
}

/** The day so many before another. */
export function dayBefore(day: string, days: number): string {
  const found = new Date(`${day}T00:00:00Z`);
  found.setUTCDate(found.getUTCDate() - days);
  return found.toISOString().slice(0, 10);
}

/** A row of numbers for each of those that used most, the others together as the last. */
export function byDay(rows: readonly UsageRow[], first: string, last: string, by: By, measure: Measure): Days {
  const days = daysBetween(first, last);
  const at = new Map(days.map((day, index) => [day, index]));
  const found = new Map<string, DaySeries>();
  for (const row of rows) {
    const index = at.get(row.date ?? "");
    if (index === undefined) continue;
    const id = by === "key" ? (row.key ?? "") : nameOf(row, by);
    const series = found.get(id) ?? { name: nameOf(row, by), values: days.map(() => 0), total: 0 };
    found.set(id, series);
    const value = measured(row, measure);
    series.values[index] = (series.values[index] ?? 0) + value;
    series.total += value;
  }
  const most = [...found.values()].filter((one) => one.total > 0).sort((one, other) => other.total - one.total || (one.name < other.name ? -1 : 1));
  const rest = most.splice(most.length > MAX_SERIES ? MAX_SERIES - 1 : MAX_SERIES);
  if (rest.length) {
    const values = days.map((_, index) => rest.reduce((sum, one) => sum + (one.values[index] ?? 0), 0));
    most.push({ name: `${rest.length} others`, values, total: rest.reduce((sum, one) => sum + one.total, 0) });
  }
  return { days, series: most };
}

/** Rows alike in key and model together, who used most first. */
export function totals(rows: readonly UsageRow[]): UsageRow[] {
  const found = new Map<string, UsageRow>();
  for (const row of rows) {
    const place = JSON.stringify([row.tenant, row.key, row.model]);
    const sum = found.get(place);
    if (sum === undefined) found.set(place, { ...row, date: undefined });
    else for (const name of ["requests", "prompt_tokens", "cached_tokens", "output_tokens"] as const) sum[name] += row[name];
  }
  return [...found.values()].sort((one, other) => measured(other, "tokens") - measured(one, "tokens"));
}
