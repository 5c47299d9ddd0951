import { useState } from "preact/hooks";
import { Button } from "../../ui/Button";
import { confirm } from "../../ui/Confirm";
import { Dialog } from "../../ui/Dialog";
import { TextField } from "../../ui/Field";
import { Icon } from "../../ui/Icon";
import { save } from "./download";
import { asJson, asMarkdown, fileName } from "./history";
import { DOWNLOAD, PENCIL, TRASH } from "./icons";
import type { Conversation } from "./model";
import { talks } from "./open";

/** `onDone`: one was chosen. */
export function ConversationList({ onDone }: { onDone?: () => void }) {
  const [renaming, setRenaming] = useState<Conversation | null>(null);
  const [saving, setSaving] = useState<Conversation | null>(null);
  const begin = () => {
    talks.begin(talks.current.value?.setup.model ?? "");
    onDone?.();
  };
  const remove = async (conversation: Conversation) => {
    const body = `“${conversation.title}” is deleted from this browser, and kept nowhere else.`;
    if (await confirm({ title: "Delete the conversation?", body, action: "Delete", danger: true })) await talks.remove(conversation.id);
  };
  return (
    <div class="stack-small">
      <Button onClick={begin}><Icon name="plus" />New conversation</Button>
      <ul class="pg-list">
        {talks.all.value.map((one) => (
          <li key={one.id} class={one.id === talks.currentId.value ? "pg-item current" : "pg-item"}>
            <button
              type="button"
              class="pg-open clip"
              aria-current={one.id === talks.currentId.value ? "true" : undefined}
              title={one.title}
              onClick={() => { talks.open(one.id); onDone?.(); }}
            >
              {talks.isRunning(one.id) && <span class="pg-dot" role="img" aria-label="Answering" />}
              {one.title}
            </button>
            <span class="pg-item-actions">
              <Button kind="quiet" small icon aria-label={`Rename ${one.title}`} title="Rename" onClick={() => setRenaming(one)}><Icon path={PENCIL} size={15} /></Button>
              <Button kind="quiet" small icon aria-label={`Export ${one.title}`} title="Export" onClick={() => setSaving(one)}><Icon path={DOWNLOAD} size={15} /></Button>
              <Button kind="quiet" small icon aria-label={`Delete ${one.title}`} title="Delete" onClick={() => void remove(one)}><Icon path={TRASH} size={15} /></Button>
            </span>
          </li>
        ))}
      </ul>
      <p class="muted small">Kept in this browser alone.</p>
      {renaming && <Rename conversation={renaming} onClose={() => setRenaming(null)} />}
      {saving && <Export conversation={saving} onClose={() => setSaving(null)} />}
    </div>
  );
}

function Rename({ conversation, onClose }: { conversation: Conversation; onClose: () => void }) {
  const [title, setTitle] = useState(conversation.title);
  const done = (event: Event) => {
    event.preventDefault();
    talks.rename(conversation.id, title);
    onClose();
  };
  return (
    <Dialog title="Rename the conversation" onClose={onClose} foot={<><Button onClick={onClose}>Cancel</Button><Button kind="primary" disabled={title.trim() === ""} onClick={done}>Rename</Button></>}>
      <form onSubmit={done}><TextField label="Name" value={title} maxLength={200} onValue={setTitle} autofocus /></form>
    </Dialog>
  );
}

function Export({ conversation, onClose }: { conversation: Conversation; onClose: () => void }) {
  const markdown = () => save(fileName(conversation, "md"), "text/markdown", asMarkdown(conversation));
  const json = () => save(fileName(conversation, "json"), "application/json", asJson(conversation));
  return (
    <Dialog title="Export the conversation" onClose={onClose} foot={<><Button onClick={markdown}>Markdown</Button><Button kind="primary" onClick={json}>JSON</Button></>}>
      <p>Markdown has the chosen answers, for reading. JSON has every answer with its times, agent and settings; images are named, without their bytes.</p>
    </Dialog>
  );
}
