import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef } from "preact/hooks";
import { Button } from "./Button";
import { Icon } from "./Icon";

interface Props {
  title: string;
  onClose: () => void;
  wide?: boolean;
  /** The buttons, the one that does it last. */
  foot?: ComponentChildren;
  children: ComponentChildren;
}

/** Browsers close a dialog at the second Escape, whatever it says of that: one that is still wanted comes back. */
function reopen(dialog: HTMLDialogElement): void {
  setTimeout(() => { if (dialog.isConnected && !dialog.open) dialog.showModal(); });
}

/** A modal dialog while it is rendered. The browser keeps focus inside, closes it on Escape and gives focus back. */
export function Dialog({ title, onClose, wide, foot, children }: Props) {
  const ref = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    const dialog = ref.current;
    const before = document.activeElement;
    dialog?.showModal();
    return () => {
      dialog?.close();
      if (before instanceof HTMLElement && before.isConnected) before.focus();
    };
  }, []);
  return (
    <dialog
      ref={ref}
      class={wide ? "dialog wide" : "dialog"}
      aria-labelledby={id}
      onCancel={(event) => { event.preventDefault(); onClose(); }}
      onClose={(event) => reopen(event.currentTarget)}
      onPointerDown={(event) => { if (event.target === ref.current) onClose(); }}
    >
      <div class="dialog-head">
        <h2 id={id}>{title}</h2>
        <Button kind="quiet" small icon aria-label="Close" onClick={onClose}><Icon name="close" /></Button>
      </div>
      <div class="dialog-body">{children}</div>
      {foot && <div class="dialog-foot">{foot}</div>}
    </dialog>
  );
}
