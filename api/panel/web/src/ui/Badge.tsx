import type { ComponentChildren } from "preact";

export type Tone = "plain" | "good" | "warn" | "bad" | "info" | "accent";

export function Badge({ tone = "plain", title, children }: { tone?: Tone; title?: string; children: ComponentChildren }) {
  return <span class={tone === "plain" ? "badge" : `badge ${tone}`} title={title}>{children}</span>;
}
