import { Badge } from "../../ui/Badge";
import { LazyCode } from "../../ui/LazyCode";
import type { Change } from "./changes";
import type { State } from "./types";

interface Props {
  changes: readonly Change[];
  before: State;
  after: State;
  /** What the columns are called. */
  heads?: readonly [before: string, after: string];
}

/** What differs, field by field, and the template line by line. */
export function ChangeTable({ changes, before, after, heads = ["Now", "Then"] }: Props) {
  const [old, young] = [before, after].map((state) => state.chat_template_override?.content ?? "") as [string, string];
  const hasTemplate = changes.some(({ path }) => path === "chat_template_override");
  return (
    <div class="stack">
      <dl class="model-changes">
        {changes.map((change) => (
          <div key={change.path} data-path={change.path}>
            <dt><code>{change.label}</code>{change.reloads && <Badge>reload</Badge>}</dt>
            <dd>
              <span class="sr-only">{heads[0]}: </span><del>{change.before}</del>
              <span aria-hidden="true"> → </span>
              <span class="sr-only">{heads[1]}: </span><ins>{change.after}</ins>
            </dd>
          </div>
        ))}
      </dl>
      {hasTemplate && (
        <div class="stack-small model-diff">
          <h3>The template, line by line</h3>
          <LazyCode key={`${old.length} ${young.length}`} label="Changes of the chat template" language="jinja" value={young} original={old} />
        </div>
      )}
    </div>
  );
}
