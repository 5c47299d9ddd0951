import { signal } from "@preact/signals";

/** An answer that is an error, in OpenAI's envelope or in plain words. `status` 0: there was no answer. */
export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly code: string | null = null,
    readonly param: string | null = null,
    /** Seconds after which to try again. */
    readonly retryAfter: number | null = null,
  ) {
    super(message);
    this.name = "ApiError";
  }
}

/** What the balancer wants on whatever changes something: no page of another origin can send it unasked. */
export const WRITES = { "x-paddler-panel": "1" } as const;

/** True once an answer has said that nobody is logged in here; the shell shows the login page then. */
export const needsLogin = signal(false);

interface Options {
  method?: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  /** Sent as JSON. */
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

/** The answer itself, for streams and headers. Paths begin with a slash. Throws `ApiError` for any other than 2xx. */
export async function request(path: string, { method = "GET", body, headers, signal }: Options = {}): Promise<Response> {
  const sent: Record<string, string> = { ...(method === "GET" ? {} : WRITES), ...headers };
  if (body !== undefined) sent["content-type"] = "application/json";
  let response: Response;
  try {
    response = await fetch(path, { method, headers: sent, body: body === undefined ? undefined : JSON.stringify(body), signal, credentials: "same-origin" });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError("The balancer cannot be reached.", 0);
  }
  if (response.ok) return response;
  if (response.status === 401 && path !== "/panel/api/login") needsLogin.value = true;
  throw await readError(response);
}

/** The answer's JSON; undefined for one without a body. Throws `ApiError`. */
export async function call<T>(path: string, options?: Options): Promise<T> {
  const response = await request(path, options);
  const text = await response.text();
  return (text === "" ? undefined : JSON.parse(text)) as T;
}

export async function readError(response: Response): Promise<ApiError> {
  const text = await response.text().catch(() => "");
  const retry = Number(response.headers.get("retry-after") ?? NaN);
  const retryAfter = Number.isFinite(retry) ? retry : null;
  const told = envelope(text);
  const isPage = response.headers.get("content-type")?.startsWith("text/html"); // a proxy's own, for people
  if (told === null) return new ApiError((!isPage && text.trim()) || `The balancer has answered with ${response.status}.`, response.status, null, null, retryAfter);
  return new ApiError(told.message, response.status, told.code ?? null, told.param ?? null, retryAfter);
}

function envelope(text: string): { message: string; code?: string | null; param?: string | null } | null {
  try {
    const error: unknown = JSON.parse(text)?.error;
    return typeof error === "object" && error !== null && typeof (error as { message?: unknown }).message === "string" ? (error as { message: string }) : null;
  } catch {
    return null;
  }
}
