/** A response as server-sent events and comments, in the order in which they came. */
import { createParser } from "eventsource-parser";

export type Sent = { kind: "event"; data: string; id: string | null } | { kind: "comment"; text: string };

/**
 * Reads to the end. Throws what reading throws: the connection broke.
 *
 * Bytes are decoded and lines put together across chunks, wherever they were cut.
 */
export async function* readEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<Sent> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  const queue: Sent[] = [];
  const parser = createParser({
    onEvent: (event) => queue.push({ kind: "event", data: event.data, id: event.id ?? null }),
    onComment: (comment) => queue.push({ kind: "comment", text: comment.trim() }),
  });
  try {
    while (true) {
      const { done, value } = await reader.read();
      parser.feed(done ? decoder.decode() : decoder.decode(value, { stream: true }));
      yield* queue.splice(0);
      if (done) return;
    }
  } finally {
    // Whoever reads no further leaves: the server is told by the connection.
    await reader.cancel().catch(() => undefined);
  }
}
