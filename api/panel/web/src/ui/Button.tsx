import type { ComponentChildren, JSX } from "preact";

type Kind = "plain" | "primary" | "danger" | "quiet";

export interface ButtonProps extends Omit<JSX.IntrinsicElements["button"], "size" | "icon"> {
  kind?: Kind;
  small?: boolean;
  /** Only an icon: give `aria-label` too. */
  icon?: boolean;
  /** It is at work: it cannot be pressed, and a screen reader is told. */
  busy?: boolean;
  children?: ComponentChildren;
}

export function Button({ kind = "plain", small, icon, busy, disabled, class: extra, ...rest }: ButtonProps) {
  const names = ["button", kind !== "plain" && kind, small && "small", icon && "icon", extra].filter(Boolean).join(" ");
  return <button type="button" class={names} disabled={Boolean(disabled) || busy} aria-busy={busy ? "true" : undefined} {...rest} />;
}
