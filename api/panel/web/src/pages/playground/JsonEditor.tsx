import { lazy } from "./lazy";

interface Props {
  label: string;
  text: string;
  onText: (text: string) => void;
  fault: string | null;
  hint: string;
}

// CodeMirror is larger than the rest of the page: it comes when JSON is edited.
const CodeBox = lazy(() => import("./CodeBox").then((module) => module.CodeBox));

export function JsonEditor({ label, text, onText, fault, hint }: Props) {
  return (
    <div class="field">
      <span class="label">{label}</span>
      <CodeBox label={label} text={text} onText={onText} isBad={fault !== null} description={fault === null ? hint : `${fault} ${hint}`} />
      <span class="hint">{hint}</span>
      {fault !== null && <span class="error" role="alert">{fault}</span>}
    </div>
  );
}
