import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { Button } from "./Button";
import { Dialog } from "./Dialog";

interface Question {
  title: string;
  body: ComponentChildren;
  /** What the button that does it says: a verb. */
  action: string;
  danger?: boolean;
}

const asked = signal<(Question & { answer: (yes: boolean) => void }) | null>(null);

/** Whether the reader wants it; a question that was open is answered with no. */
export function confirm(question: Question): Promise<boolean> {
  asked.value?.answer(false);
  return new Promise((resolve) => {
    asked.value = { ...question, answer: (yes) => { asked.value = null; resolve(yes); } };
  });
}

/** Where questions are shown: once, in the shell. */
export function ConfirmHost() {
  const question = asked.value;
  if (question === null) return null;
  const { title, body, action, danger, answer } = question;
  return (
    <Dialog
      title={title}
      onClose={() => answer(false)}
      foot={
        <>
          <Button onClick={() => answer(false)}>Cancel</Button>
          <Button kind={danger ? "danger" : "primary"} onClick={() => answer(true)}>{action}</Button>
        </>
      }
    >
      {typeof body === "string" ? <p>{body}</p> : body}
    </Dialog>
  );
}
