import { useState } from "preact/hooks";
import { ApiError, call } from "../../data/api";
import { Alert } from "../../ui/Alert";
import { Button } from "../../ui/Button";
import { Dialog } from "../../ui/Dialog";
import { SelectField, TextArea, TextField } from "../../ui/Field";
import { toast } from "../../ui/Toast";
import { pathOf } from "./data";
import { fieldOf, NEW_PREFIX, readDraft, type Draft, type Kind, type Problems } from "./form";

const KINDS: readonly (readonly [Kind, string])[] = [
  ["system", "A system message"],
  ["messages", "Messages, as JSON"],
  ["prompt", "A raw prompt"],
];

const HINTS: Record<Kind, string> = {
  system: "Conversations that begin with exactly this message find it computed.",
  messages: "A list of messages, or an object with messages and tools, as a client sends them.",
  prompt: "Prompts of /v1/completions that begin with this text find it computed.",
};

interface Props {
  pool: string;
  onClose: () => void;
  onPinned: () => void;
}

export function PinPrefix({ pool, onClose, onPinned }: Props) {
  const [draft, setDraft] = useState<Draft>(NEW_PREFIX);
  const [problems, setProblems] = useState<Problems>({});
  const [failed, setFailed] = useState<string | null>(null);
  const [isBusy, setBusy] = useState(false);
  const set = (part: Partial<Draft>) => {
    setDraft((before) => ({ ...before, ...part }));
    setProblems({});
  };

  const submit = async (event: Event) => {
    event.preventDefault();
    const found: Problems = {};
    const body = readDraft(draft, found);
    setProblems(found);
    setFailed(null);
    if (Object.keys(found).length > 0) return;
    setBusy(true);
    try {
      const made = await call<{ name: string }>(pathOf(pool), { method: "POST", body });
      toast(`${made.name} is pinned.`, "good");
      onPinned();
    } catch (problem) {
      setBusy(false);
      if (problem instanceof ApiError && problem.param !== null) setProblems({ [fieldOf(problem.param)]: problem.message });
      else setFailed(problem instanceof Error ? problem.message : String(problem));
    }
  };

  return (
    <Dialog
      wide
      title="Pin a prefix"
      onClose={onClose}
      foot={<><Button onClick={onClose}>Cancel</Button><Button kind="primary" type="submit" form="pin-prefix" busy={isBusy}>Pin</Button></>}
    >
      {failed !== null && <Alert tone="bad">{failed}</Alert>}
      <form id="pin-prefix" class="stack" novalidate onSubmit={(event) => void submit(event)}>
        <div class="prefix-fields">
          <TextField label="Name" hint="One that is there already is replaced." autocomplete="off" spellcheck={false} value={draft.name} error={problems.name} onValue={(name) => set({ name })} />
          <TextField label="Tenant" hint="For its requests alone." placeholder="Everybody" autocomplete="off" spellcheck={false} value={draft.tenant} error={problems.tenant} onValue={(tenant) => set({ tenant })} />
          <SelectField label="What it is" value={draft.kind} options={KINDS} onValue={(kind) => set({ kind: kind as Kind })} />
        </div>
        <TextArea label="Text" hint={HINTS[draft.kind]} rows={10} spellcheck={false} value={draft.text} error={problems.text} onValue={(text) => set({ text })} />
      </form>
    </Dialog>
  );
}
