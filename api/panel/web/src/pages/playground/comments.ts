/** What a stream says beside its events, in comments and headers (`docs/headers.md`). */
import type { Place, Route } from "./model";

export type Said =
  | { kind: "queued"; place: Place | null }
  | { kind: "opened" }
  | { kind: "route"; route: Partial<Route> }
  | { kind: "unknown" };

export function readComment(text: string): Said {
  if (text === "keepalive") return { kind: "opened" };
  if (text === "queued" || text.startsWith("queued ")) {
    const facts = new Map(text.split(" ").map((word) => word.split("=", 2) as [string, string]));
    const position = whole(facts.get("position"));
    return { kind: "queued", place: position === null ? null : { position, etaMs: whole(facts.get("eta_ms")) } };
  }
  const [name, value] = text.split(/: (.*)/s, 2);
  switch (name) {
    case "x-paddler-agent":
      return { kind: "route", route: { agent: value ?? null } };
    case "x-paddler-attempt":
      return { kind: "route", route: { attempt: whole(value) } };
    case "x-paddler-cache":
      return { kind: "route", route: { cache: value ?? null } };
    default:
      return { kind: "unknown" };
  }
}

export interface Told {
  requestId: string | null;
  route: Route;
  place: Place | null;
}

export function readHeaders(headers: Headers): Told {
  const position = whole(headers.get("x-queue-position"));
  return {
    requestId: headers.get("x-paddler-request-id"),
    route: {
      agent: headers.get("x-paddler-agent"),
      attempt: whole(headers.get("x-paddler-attempt")),
      cache: headers.get("x-paddler-cache"),
    },
    place: position === null ? null : { position, etaMs: null },
  };
}

function whole(text: string | null | undefined): number | null {
  return text && /^[0-9]{1,15}$/.test(text) ? Number(text) : null;
}
