import { signal } from "@preact/signals";
import { Button } from "./Button";
import { Icon } from "./Icon";

type Tone = "plain" | "good" | "bad";
interface Toast { id: number; text: string; tone: Tone }

const STAYS_MS = 6000;
const MAX_SHOWN = 4;
const shown = signal<readonly Toast[]>([]);
let lastId = 0;

/** Tell what has happened, for some seconds; what went wrong stays until it is closed. */
export function toast(text: string, tone: Tone = "plain"): void {
  const id = ++lastId;
  shown.value = [...shown.value.filter((one) => one.text !== text), { id, text, tone }].slice(-MAX_SHOWN);
  if (tone !== "bad") setTimeout(() => close(id), STAYS_MS);
}

/** Tell what an error says. */
export function toastError(error: unknown): void {
  toast(error instanceof Error ? error.message : String(error), "bad");
}

function close(id: number): void {
  shown.value = shown.value.filter((one) => one.id !== id);
}

/** Where they are shown: once, in the shell. */
export function ToastHost() {
  return (
    <div class="toasts" role="status" aria-live="polite">
      {shown.value.map(({ id, text, tone }) => (
        <div key={id} class={`toast ${tone}`}>
          <p>{text}</p>
          <Button kind="quiet" small icon aria-label="Close message" onClick={() => close(id)}><Icon name="close" size={16} /></Button>
        </div>
      ))}
    </div>
  );
}
