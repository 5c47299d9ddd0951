import { CheckField, SelectField, TextArea, TextField } from "../../ui/Field";
import { type Param, faultOf, rangeOf } from "./params";

/** One setting of a request. The text in its field is what is kept, good or bad. */
export function ParamField({ param, text, onText }: { param: Param; text: string; onText: (text: string) => void }) {
  const range = rangeOf(param);
  const hint = [param.help, range && `${range.charAt(0).toUpperCase()}${range.slice(1)}.`].filter(Boolean).join(" ");
  const shared = { label: <code>{param.name}</code>, hint, error: faultOf(param, text), value: text, onValue: onText };
  switch (param.kind) {
    case "switch":
      return <CheckField label={<code>{param.name}</code>} hint={hint} checked={text === "true"} onChecked={(checked) => onText(checked ? "true" : "")} />;
    case "choice":
      return <SelectField {...shared} options={[["", `${param.fallback} (default)`], ...(param.options ?? []).map((one) => [one, one] as const)]} />;
    case "lines":
    case "json":
      return <TextArea {...shared} rows={2} placeholder={param.fallback} spellcheck={false} />;
    case "number":
    case "whole":
      return <TextField {...shared} inputMode="decimal" placeholder={param.fallback} autocomplete="off" />;
    case "word":
      return <TextField {...shared} placeholder={param.fallback} autocomplete="off" />;
  }
}
