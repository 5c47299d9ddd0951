import type { ComponentChildren } from "preact";

/** The frame of every page: its heading, which takes focus after navigation, and what can be done on all of it. */
export function Page({ title, actions, children }: { title: string; actions?: ComponentChildren; children: ComponentChildren }) {
  return (
    <>
      <div class="page-head">
        <h1 tabIndex={-1}>{title}</h1>
        {actions && <div class="row">{actions}</div>}
      </div>
      {children}
    </>
  );
}
