import type { ComponentChildren } from "preact";
import { Icon } from "./Icon";

export function Alert({ tone = "info", children }: { tone?: "info" | "warn" | "bad"; children: ComponentChildren }) {
  return (
    <div class={`alert ${tone}`} role={tone === "bad" ? "alert" : undefined}>
      <Icon name={tone === "info" ? "info" : "alert"} />
      <div class="grow">{children}</div>
    </div>
  );
}
