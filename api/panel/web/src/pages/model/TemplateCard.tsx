import { useState } from "preact/hooks";
import { Button } from "../../ui/Button";
import { LazyCode } from "../../ui/LazyCode";
import { toast, toastError } from "../../ui/Toast";
import { ownTemplate } from "./client";
import { ConversationFields } from "./ConversationFields";
import { EXAMPLE, type Conversation } from "./conversation";
import type { Editing } from "./editing";
import { followersOf } from "./followers";
import { PreviewPane } from "./PreviewPane";
import { usePreview } from "./usePreview";

/** The chat template: the model's own or another one, and what it makes of a conversation while it is written. */
export function TemplateCard({ editing }: { editing: Editing }) {
  const [conversation, converse] = useState<Conversation>(EXAMPLE);
  const { usesTemplate, template } = editing.draft.value!;
  const error = editing.errors.value.get("chat_template_override") ?? editing.errors.value.get("use_chat_template_override");
  return (
    <section class="card stack" aria-labelledby="model-template">
      <h2 id="model-template">Chat template</h2>
      <div class="choices" role="radiogroup" aria-labelledby="model-template">
        {([[false, "The model's own"], [true, "Yours"]] as const).map(([uses, shown]) => (
          <label key={shown} class={uses === usesTemplate ? "choice chosen" : "choice"}>
            <input type="radio" name="model-template-choice" checked={uses === usesTemplate} onChange={() => editing.edit({ usesTemplate: uses })} />
            {shown}
          </label>
        ))}
      </div>
      {usesTemplate ? <Yours editing={editing} conversation={conversation} converse={converse} error={error} /> : <Own template={template} />}
    </section>
  );
}

function Own({ template }: { template: string }) {
  return (
    <p class="muted">
      Agents write prompts with the template in the file of the model.
      {template !== "" && " The one that you have written is kept, and is not used."}
    </p>
  );
}

interface YoursProps { editing: Editing; conversation: Conversation; converse: (value: Conversation) => void; error: string | undefined }

function Yours({ editing, conversation, converse, error }: YoursProps) {
  const { template } = editing.draft.value!;
  const serving = followersOf(editing.pool).find((agent) => agent.slots_total > 0);
  const found = usePreview(editing.pool, template, conversation, serving?.id);
  return (
    <>
      <p class="muted">Jinja, as it would stand in the model's file. It is given <code>messages</code>, <code>tools</code>, <code>add_generation_prompt</code>, <code>bos_token</code> and <code>eos_token</code>.</p>
      <div class="model-template">
        <div class="stack-small">
          <div class="spread">
            <h3>The template</h3>
            <StartFromOwn editing={editing} agentId={serving?.id} />
          </div>
          <LazyCode label="Chat template" language="jinja" value={template} wrongLine={found.isOld ? null : found.told?.line ?? null} onValue={(value) => editing.edit({ template: value })} />
          {error && <p class="model-error" role="alert">{error}</p>}
          <ConversationFields value={conversation} onValue={converse} />
        </div>
        <PreviewPane found={found} />
      </div>
    </>
  );
}

function StartFromOwn({ editing, agentId }: { editing: Editing; agentId: string | undefined }) {
  const [isAsking, setAsking] = useState(false);
  const start = async () => {
    if (agentId === undefined) return;
    setAsking(true);
    try {
      const own = await ownTemplate(agentId);
      if (own === null) toast("The model has no template of its own.", "bad");
      else editing.edit({ template: own });
    } catch (error) {
      toastError(error);
    } finally {
      setAsking(false);
    }
  };
  return (
    <Button small busy={isAsking} disabled={agentId === undefined} title={agentId === undefined ? "No agent serves a model yet" : undefined} onClick={() => void start()}>
      Start from the model's own
    </Button>
  );
}
