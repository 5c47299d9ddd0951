import { request } from "./api";

export interface Message { event: string; data: string }

/** Splits a stream of server-sent events (HTML Standard, 9.2.6) as it comes in. Comments are nothing. */
export class EventParser {
  private rest = "";
  private event = "";
  private data: string[] = [];

  push(text: string): Message[] {
    const lines = (this.rest + text).split(/\r\n|\n|\r(?!$)/);
    this.rest = lines.pop() ?? "";
    const found: Message[] = [];
    for (const line of lines) {
      if (line === "") {
        if (this.data.length > 0) found.push({ event: this.event || "message", data: this.data.join("\n") });
        this.event = "";
        this.data = [];
        continue;
      }
      const [, field = "", value = ""] = /^([^:]*):? ?([\s\S]*)$/.exec(line) ?? [];
      if (field === "event") this.event = value;
      else if (field === "data") this.data.push(value);
    }
    return found;
  }
}

interface Options {
  method?: "GET" | "POST";
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal;
  /** Called for whatever comes, comments included. */
  onBytes?: () => void;
  onResponse?: (response: Response) => void;
}

/** Read a stream of events to its end. Unlike `EventSource` it sends headers, and tells what an error says. */
export async function follow(path: string, { onBytes, onResponse, ...options }: Options, onMessage: (message: Message) => void): Promise<void> {
  const response = await request(path, { ...options, headers: { accept: "text/event-stream", ...options.headers } });
  onResponse?.(response);
  if (response.body === null) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const parser = new EventParser();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    onBytes?.();
    for (const message of parser.push(value)) onMessage(message);
  }
}
