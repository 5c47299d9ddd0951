import { PARAMETERS, STATE } from "./fixtures";
import type { State } from "./types";

/** A balancer with one state, as far as a form asks for it. */
export class Balancer {
  version = 1;
  state: State = STATE;
  refuses: { message: string; param: string } | null = null;

  readonly fetch = async (path: string, { method = "GET", body, headers }: RequestInit = {}): Promise<Response> => {
    if (path.endsWith("/inference_parameters")) return Response.json({ parameters: PARAMETERS });
    if (path.endsWith("/history")) return Response.json({ current: this.version, history: [{ version: this.version, updated_ms: 7, author: "somebody" }] });
    if (path.includes("/history/")) return Response.json({ version: this.version, updated_ms: 7, author: "somebody", balancer_desired_state: this.state });
    if (method === "PUT") {
      if (this.refuses) return Response.json({ error: this.refuses }, { status: 400 });
      if (new Headers(headers).get("if-match") !== `"${this.version}"`) return Response.json({ error: { message: "other version" } }, { status: 412 });
      this.state = JSON.parse(String(body)) as State;
      this.version += 1;
      return new Response(null, { status: 204, headers: { etag: `"${this.version}"` } });
    }
    return Response.json(this.state, { headers: { etag: `"${this.version}"` } });
  };

  sets(part: Partial<State>): void {
    this.state = { ...this.state, ...part };
    this.version += 1;
  }
}
