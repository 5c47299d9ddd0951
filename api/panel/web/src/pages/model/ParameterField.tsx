import { useId } from "preact/hooks";
import { Badge } from "../../ui/Badge";
import { Button } from "../../ui/Button";
import type { AdapterDraft } from "./adapters";
import { parameterDraft, rangeOf, type ParameterDraft } from "./draft";
import { Adapters, Texts } from "./ListFields";
import type { Parameter } from "./types";

interface Props {
  parameter: Parameter;
  value: ParameterDraft;
  /** It is not as by default. */
  isOther: boolean;
  error: string | undefined;
  onValue: (value: ParameterDraft) => void;
}

/** One parameter: its control, what it means, what it may be, and the way back to the default. */
export function ParameterField({ parameter, value, isOther, error, onValue }: Props) {
  const id = useId();
  const described = `${id}-hint${error ? ` ${id}-error` : ""}`;
  const isList = parameter.kind === "texts" || parameter.kind === "adapters";
  const ties = { id, "aria-describedby": described, "aria-invalid": error ? ("true" as const) : undefined };
  const group = isList ? { role: "group", "aria-labelledby": `${id}-name`, "aria-describedby": described } as const : {};
  return (
    <div class={isList ? "model-parameter wide" : "model-parameter"} {...group}>
      <div class="model-parameter-head">
        {isList ? <strong id={`${id}-name`}><code>{parameter.name}</code></strong> : <label for={id}><code>{parameter.name}</code></label>}
        {parameter.needs_reload && <Badge title="Agents load the model anew when it changes">reload</Badge>}
        {isOther && (
          <Button kind="quiet" small aria-label={`Back to the default of ${parameter.name}`} onClick={() => onValue(parameterDraft(parameter, parameter.default))}>
            Default
          </Button>
        )}
      </div>
      <Control parameter={parameter} value={value} onValue={onValue} ties={ties} />
      {error && <p id={`${id}-error`} class="model-error" role="alert">{error}</p>}
      <p id={`${id}-hint`} class="muted small">{parameter.meaning} <Limits parameter={parameter} /></p>
    </div>
  );
}

function Limits({ parameter }: { parameter: Parameter }) {
  const parts: string[] = [];
  if (parameter.kind === "integer" || parameter.kind === "number") parts.push(rangeOf(parameter));
  if (parameter.off !== null) parts.push(`${parameter.off} is off`);
  if (parameter.kind === "numbers") parts.push(`with commas between them, each ${rangeOf(parameter)}`);
  else if (parameter.kind !== "adapters" && parameter.kind !== "texts" && parameter.default !== null) parts.push(`default ${String(parameter.default)}`);
  return parts.length === 0 ? null : <span class="model-limits">{capital(parts.join("; "))}.</span>;
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

interface ControlProps {
  parameter: Parameter;
  value: ParameterDraft;
  onValue: (value: ParameterDraft) => void;
  ties: { id: string; "aria-describedby": string; "aria-invalid": "true" | undefined };
}

function Control({ parameter, value, onValue, ties }: ControlProps) {
  switch (parameter.kind) {
    case "boolean":
      return <input type="checkbox" checked={value === true} onChange={(event) => onValue(event.currentTarget.checked)} {...ties} />;
    case "choice":
      return (
        <select class="input" value={String(value)} onChange={(event) => onValue(event.currentTarget.value)} {...ties}>
          {(parameter.choices ?? []).map((one) => <option key={one} value={one}>{one}</option>)}
        </select>
      );
    case "texts":
      return <Texts label={parameter.name} values={value as readonly string[]} most={parameter.max_items} onValues={onValue} />;
    case "adapters":
      return <Adapters values={value as readonly AdapterDraft[]} onValues={onValue} />;
    case "text":
      return <input class="input" value={String(value)} onInput={(event) => onValue(event.currentTarget.value)} {...ties} />;
    default:
      return <input class="input num" inputMode={parameter.kind === "integer" && (parameter.minimum ?? -1) >= 0 ? "numeric" : "text"} autocomplete="off" value={String(value)} onInput={(event) => onValue(event.currentTarget.value)} {...ties} />;
  }
}
