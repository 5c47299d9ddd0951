import { SelectField, TextField } from "../../ui/Field";
import type { LimitsDraft, Problems } from "./form";
import type { RequestClass } from "./types";

const CLASSES = [["interactive", "Interactive"], ["normal", "Normal"], ["batch", "Batch"]] as const;

const NONE = "No limit";
const ITS_OWN = "As the balancer says";

const NUMBERS = [
  ["requests_per_minute", "Requests per minute", "Calls; several choices of one call count once.", NONE],
  ["tokens_per_minute", "Tokens per minute", "Of prompts, cached ones too, and of answers.", NONE],
  ["max_in_flight", "Requests at once", "That wait or run; each choice is one.", NONE],
  ["daily_tokens", "Tokens per day", "A day in UTC.", NONE],
  ["max_file_bytes", "Bytes of files", "That all keys of its tenant store together.", ITS_OWN],
  ["max_open_batches", "Open batches", "Of its tenant, that have not ended.", ITS_OWN],
  ["max_batch_lines", "Lines of open batches", "Of all of them together.", ITS_OWN],
] as const;

export function LimitsFields({ draft, onDraft, problems }: { draft: LimitsDraft; onDraft: (draft: LimitsDraft) => void; problems: Problems }) {
  const set = (part: Partial<LimitsDraft>) => onDraft({ ...draft, ...part });
  return (
    <div class="key-fields">
      {NUMBERS.map(([name, label, hint, placeholder]) => (
        <TextField key={name} label={label} hint={hint} placeholder={placeholder} inputMode="numeric" autocomplete="off" value={draft[name]} error={problems[`limits.${name}`]} onValue={(value) => set({ [name]: value })} />
      ))}
      <SelectField label="Class" hint="Of requests that name none." value={draft.default_class} options={CLASSES} error={problems["limits.default_class"]} onValue={(value) => set({ default_class: value as RequestClass })} />
      <SelectField label="Highest class" hint="Whatever a request asks for." value={draft.max_class} options={CLASSES} error={problems["limits.max_class"]} onValue={(value) => set({ max_class: value as RequestClass })} />
      <TextField label="Weight" hint="2 is twice the share of 1 while others wait." inputMode="decimal" autocomplete="off" value={draft.weight} error={problems["limits.weight"]} onValue={(weight) => set({ weight })} />
    </div>
  );
}
