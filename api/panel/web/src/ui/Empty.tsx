import type { ComponentChildren } from "preact";
import { Icon, type IconName } from "./Icon";

/** Where there is nothing: what would be here, and how it comes. */
export function Empty({ title, icon = "paddle", children }: { title: string; icon?: IconName; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <Icon name={icon} />
      <h2>{title}</h2>
      {children}
    </div>
  );
}
