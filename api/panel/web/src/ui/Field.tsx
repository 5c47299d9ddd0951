import type { ComponentChildren, JSX } from "preact";
import { useId } from "preact/hooks";

interface Around {
  label: ComponentChildren;
  hint?: ComponentChildren;
  error?: string | null;
}

/** What a control must carry so that its label, hint and error are read with it. */
interface Ties {
  id: string;
  "aria-describedby"?: string;
  "aria-invalid"?: "true";
}

/** A control with its label, hint and error. `children` draws the control with the given attributes. */
export function Field({ label, hint, error, children }: Around & { children: (ties: Ties) => ComponentChildren }) {
  const id = useId();
  const described = [hint && `${id}-hint`, error && `${id}-error`].filter(Boolean).join(" ");
  return (
    <div class="field">
      <label for={id}>{label}</label>
      {children({ id, "aria-describedby": described || undefined, "aria-invalid": error ? "true" : undefined })}
      {hint && <span class="hint" id={`${id}-hint`}>{hint}</span>}
      {error && <span class="error" id={`${id}-error`} role="alert">{error}</span>}
    </div>
  );
}

type Text = Around & { value: string; onValue: (value: string) => void } & Omit<JSX.IntrinsicElements["input"], "value" | "label">;

export function TextField({ label, hint, error, value, onValue, ...rest }: Text) {
  return (
    <Field label={label} hint={hint} error={error}>
      {(ties) => <input class="input" value={value} onInput={(event) => onValue(event.currentTarget.value)} {...ties} {...rest} />}
    </Field>
  );
}

type Area = Around & { value: string; onValue: (value: string) => void } & Omit<JSX.IntrinsicElements["textarea"], "value" | "label">;

export function TextArea({ label, hint, error, value, onValue, ...rest }: Area) {
  return (
    <Field label={label} hint={hint} error={error}>
      {(ties) => <textarea class="input" value={value} onInput={(event) => onValue(event.currentTarget.value)} {...ties} {...rest} />}
    </Field>
  );
}

type Choice = Around & { value: string; onValue: (value: string) => void; options: readonly (readonly [value: string, shown: string])[]; disabled?: boolean };

export function SelectField({ label, hint, error, value, onValue, options, disabled }: Choice) {
  return (
    <Field label={label} hint={hint} error={error}>
      {(ties) => (
        <select class="input" value={value} disabled={disabled} onChange={(event) => onValue(event.currentTarget.value)} {...ties}>
          {options.map(([one, shown]) => <option key={one} value={one}>{shown}</option>)}
        </select>
      )}
    </Field>
  );
}

export function CheckField({ label, hint, checked, onChecked, disabled }: { label: ComponentChildren; hint?: ComponentChildren; checked: boolean; onChecked: (checked: boolean) => void; disabled?: boolean }) {
  const id = useId();
  return (
    <div class="field">
      <label class="row-tight" for={id}>
        <input type="checkbox" id={id} checked={checked} disabled={disabled} aria-describedby={hint ? `${id}-hint` : undefined} onChange={(event) => onChecked(event.currentTarget.checked)} />
        {label}
      </label>
      {hint && <span class="hint" id={`${id}-hint`}>{hint}</span>}
    </div>
  );
}
