import { useState } from "preact/hooks";
import { ApiError } from "../../data/api";
import { Alert } from "../../ui/Alert";
import { Button } from "../../ui/Button";
import { Dialog } from "../../ui/Dialog";
import { CheckField, SelectField, TextField } from "../../ui/Field";
import { createKey } from "./data";
import { NEW_KEY, readKey, type KeyDraft, type Problems } from "./form";
import { LimitsFields } from "./LimitsFields";
import type { Scope } from "./types";

const SCOPES: readonly (readonly [Scope, string, string])[] = [
  ["inference", "Inference", "Requests, responses, files and batches."],
  ["management", "Management", "This panel, the operator's routes, metrics, and keys."],
  ["agent", "Agent", "Where Redis is, for agents that ask a balancer; nothing else."],
];

const EXPIRES = [["", "Never"], ["7", "In 7 days"], ["30", "In 30 days"], ["90", "In 90 days"], ["365", "In a year"], ["date", "At a time"]] as const;

interface Props {
  /** With it everybody needs a key, so it must be one that can make others. */
  isFirst: boolean;
  onClose: () => void;
  onCreated: () => void;
}

export function CreateKey({ isFirst, onClose, onCreated }: Props) {
  const [draft, setDraft] = useState<KeyDraft>(isFirst ? { ...NEW_KEY, name: "operator", scopes: ["inference", "management"] } : NEW_KEY);
  const [problems, setProblems] = useState<Problems>({});
  const [failed, setFailed] = useState<string | null>(null);
  const [isBusy, setBusy] = useState(false);
  const set = (part: Partial<KeyDraft>) => {
    setDraft((before) => ({ ...before, ...part }));
    setProblems({});
  };

  const submit = async (event: Event) => {
    event.preventDefault();
    const found: Problems = {};
    const body = readKey(draft, Date.now(), found);
    setProblems(found);
    setFailed(null);
    if (Object.keys(found).length > 0) return;
    setBusy(true);
    try {
      await createKey(body);
      onCreated();
    } catch (problem) {
      setBusy(false);
      if (problem instanceof ApiError && problem.param !== null) setProblems({ [problem.param]: problem.message });
      setFailed(problem instanceof Error ? problem.message : String(problem));
    }
  };

  return (
    <Dialog
      wide
      title={isFirst ? "Create the first key" : "Create a key"}
      onClose={onClose}
      foot={<><Button onClick={onClose}>Cancel</Button><Button kind="primary" type="submit" form="create-key" busy={isBusy}>Create key</Button></>}
    >
      {isFirst && <Alert tone="warn"><p>From now on everybody needs a key, programs that use the fleet without one too. This panel goes on with the one you make here.</p></Alert>}
      {failed !== null && <Alert tone="bad">{failed}</Alert>}
      <form id="create-key" class="stack" novalidate onSubmit={(event) => void submit(event)}>
        <div class="key-fields">
          <TextField label="Name" hint="Shown in lists and in usage." autocomplete="off" spellcheck={false} value={draft.name} error={problems.name} onValue={(name) => set({ name })} />
          <TextField label="Tenant" hint="Who pays; several keys may have one." placeholder={draft.name.trim() || "As the name"} autocomplete="off" spellcheck={false} value={draft.tenant} error={problems.tenant} onValue={(tenant) => set({ tenant })} />
          <SelectField label="Expires" value={draft.expires} options={EXPIRES} error={draft.expires === "date" ? null : problems.expires_at} onValue={(expires) => set({ expires })} />
          {draft.expires === "date" && <TextField label="On" type="datetime-local" value={draft.expires_on} error={problems.expires_at} onValue={(expires_on) => set({ expires_on })} />}
        </div>
        <fieldset class="key-scopes">
          <legend>Scopes</legend>
          {SCOPES.map(([scope, label, hint]) => (
            <CheckField
              key={scope}
              label={label}
              hint={isFirst && scope === "management" ? "The first key needs it: nobody could make another." : hint}
              checked={draft.scopes.includes(scope)}
              disabled={isFirst && scope === "management"}
              onChecked={(on) => set({ scopes: SCOPES.map(([one]) => one).filter((one) => (one === scope ? on : draft.scopes.includes(one))) })}
            />
          ))}
          {problems.scopes && <span class="key-error small" role="alert">{problems.scopes}</span>}
        </fieldset>
        <h3>Limits</h3>
        <LimitsFields draft={draft.limits} problems={problems} onDraft={(limits) => set({ limits })} />
      </form>
    </Dialog>
  );
}
