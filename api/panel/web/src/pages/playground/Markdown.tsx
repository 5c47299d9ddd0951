import { useMemo, useRef } from "preact/hooks";
import { copyText } from "../../ui/Copy";
import { GrowingMarkdown, toHtml } from "./markdown";

const SAYS_SO_MS = 2000;

/** What a model has written; while it writes only the last block is drawn again. */
export function Markdown({ text, isOver }: { text: string; isOver: boolean }) {
  const growing = useRef(new GrowingMarkdown());
  const whole = useMemo(() => (isOver ? toHtml(text) : null), [isOver, isOver && text]);
  if (whole !== null) return <div class="md" onClick={onClick}><Html html={whole} /></div>;
  const tail = growing.current.grow(text);
  return (
    <div class="md" onClick={onClick}>
      {growing.current.blocks.map((html, at) => <Html key={at} html={html} />)}
      {tail.kind === "html" ? <Html key="tail" html={tail.html} /> : (
        <div key="code" class="md-code">
          <div class="md-code-head"><span class="md-language">{tail.language}</span><button type="button" class="md-copy" aria-label="Copy the code">Copy</button></div>
          <pre tabIndex={0}><code>{tail.text}</code></pre>
        </div>
      )}
    </div>
  );
}

function Html({ html }: { html: string }) {
  return useMemo(() => <div class="md-block" dangerouslySetInnerHTML={{ __html: html }} />, [html]);
}

/** Buttons within HTML have no handlers of their own. */
function onClick(event: Event): void {
  const button = (event.target as Element).closest<HTMLButtonElement>(".md-copy");
  const code = button?.closest(".md-code")?.querySelector("code")?.textContent;
  if (!button || code == null) return;
  void copyText(code.replace(/\n$/, "")).then((done) => {
    button.textContent = done ? "Copied" : "Select and copy by hand";
    setTimeout(() => { button.textContent = "Copy"; }, SAYS_SO_MS);
  });
}
