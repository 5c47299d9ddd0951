import { Alert } from "../../ui/Alert";
import type { Previewed } from "./usePreview";

const SOURCES = { given: "what you write", override: "the template that is set", model: "the model's own template" };

/** The prompt as the model would get it, or what is wrong with the template. */
export function PreviewPane({ found }: { found: Previewed }) {
  const { told, trouble, isOld } = found;
  return (
    <div class={isOld ? "model-preview old" : "model-preview"} aria-busy={isOld}>
      <div class="spread">
        <h3>The prompt</h3>
        {told !== null && told.prompt !== null && <span class="muted small">{told.prompt.length.toLocaleString("en")} characters, by {told.agent_name ?? told.agent}</span>}
      </div>
      {trouble !== null && <Alert tone="warn">{trouble}</Alert>}
      {told?.error && (
        <Alert tone="bad">
          <p>{told.line !== null && <strong>Line {told.line}: </strong>}{withoutLine(told.error)}</p>
        </Alert>
      )}
      {told !== null && told.prompt !== null && (
        <pre class="model-prompt" tabIndex={0} aria-label={`The prompt by ${SOURCES[told.source]}`}>{marked(told.prompt)}</pre>
      )}
      {told?.is_cut && <p class="muted small">The prompt is longer; these are its first 100,000 characters.</p>}
      {told === null && trouble === null && <div class="skeleton" role="status" aria-label="Rendering" />}
    </div>
  );
}

/** The line is told beside it. */
function withoutLine(error: string): string {
  const text = error.replace(/^the (?:model's )?chat template (?:does not compile: line \d+: |fails on these messages: |refuses these messages: )/, "");
  return text === error ? error : text.charAt(0).toUpperCase() + text.slice(1);
}

/** Tokens of control, as most models write them, set off from the text. */
function marked(prompt: string) {
  return prompt.split(/(<\|[^|<>\n]{1,60}\|>|<\/?s>|\[\/?INST\]|<(?:start|end)_of_turn>)/).map((part, index) => (index % 2 === 1 ? <mark key={index}>{part}</mark> : part));
}
