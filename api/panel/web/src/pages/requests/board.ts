import type { RequestClass, Row } from "./types";

const CLASSES: Record<RequestClass, number> = { interactive: 0, normal: 1, batch: 2 };

/** A request and where it stands: how many are served before it, if no KV cache matters; null once it is given away. */
export interface Placed {
  row: Row;
  position: number | null;
}

export interface Arranged {
  /** What agents have, the longest first, then what waits, in order. */
  unfinished: readonly Placed[];
  num_given: number;
  /** The latest first. */
  ended: readonly Row[];
}

export const NOTHING: Arranged = { unfinished: [], num_given: 0, ended: [] };

export function arrange(rows: Iterable<Row>, pool: string): Arranged {
  const given: Row[] = [];
  const waiting: Row[] = [];
  const ended: Row[] = [];
  for (const row of rows) {
    if (row.pool !== pool) continue;
    if (row.ended_at_ms !== undefined) ended.push(row);
    else if (row.state === undefined || row.state === "waiting") waiting.push(row);
    else given.push(row);
  }
  given.sort((one, other) => begun(one) - begun(other) || compare(one.id, other.id));
  waiting.sort(inOrder);
  ended.sort((one, other) => (other.ended_at_ms ?? 0) - (one.ended_at_ms ?? 0));
  return {
    unfinished: [...given.map((row) => ({ row, position: null })), ...waiting.map((row, position) => ({ row, position }))],
    num_given: given.length,
    ended,
  };
}

function begun(row: Row): number {
  return row.started_at_ms ?? row.accepted_at_ms;
}

function inOrder(one: Row, other: Row): number {
  const byClass = CLASSES[one.served_as ?? one.class] - CLASSES[other.served_as ?? other.class];
  // What has one score is in the order of the ids, as Redis has it: by bytes, which ids have alike in UTF-16.
  return byClass || (one.score ?? 0) - (other.score ?? 0) || compare(one.id, other.id);
}

function compare(one: string, other: string): number {
  return one < other ? -1 : one > other ? 1 : 0;
}

export interface Filter {
  search: string;
  state: string;
  class: string;
  tenant: string;
}

export const EVERYTHING: Filter = { search: "", state: "", class: "", tenant: "" };

export function isEverything(filter: Filter): boolean {
  return !filter.search.trim() && !filter.state && !filter.class && !filter.tenant;
}

/** Those that have every word of the search, and what was chosen. */
export function filtered(placed: readonly Placed[], filter: Filter): readonly Placed[] {
  if (isEverything(filter)) return placed;
  const words = filter.search.toLowerCase().split(/\s+/).filter(Boolean);
  return placed.filter(
    ({ row }) =>
      (!filter.state || (row.state ?? "waiting") === filter.state) &&
      (!filter.class || row.class === filter.class) &&
      (!filter.tenant || row.tenant === filter.tenant) &&
      words.every((word) => textOf(row).includes(word)),
  );
}

/** A row that has not changed is the same object, and its text is made once. */
const texts = new WeakMap<Row, string>();

function textOf(row: Row): string {
  let text = texts.get(row);
  if (text === undefined) {
    text = [row.id, row.tenant, row.model, row.agent_name, row.class].join(" ").toLowerCase();
    texts.set(row, text);
  }
  return text;
}

/** Whether a search is the id of a request, which may have ended. */
export function isRequestId(text: string): boolean {
  return /^[a-z0-9][a-z0-9._-]*\.[A-Za-z0-9_-]{22}$/i.test(text.trim());
}
