import { useEffect, useRef, useState } from "preact/hooks";
import { Button } from "../../ui/Button";
import { TextArea } from "../../ui/Field";
import { Icon } from "../../ui/Icon";
import { toastError } from "../../ui/Toast";
import { PENCIL } from "./icons";
import type { Picture, UserTurn } from "./model";
import { talks } from "./open";

export function UserTurnView({ conversationId, turn, isBusy, isNewest }: { conversationId: string; turn: UserTurn; isBusy: boolean; isNewest: boolean }) {
  const [draft, setDraft] = useState<string | null>(null);
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => { if (draft !== null) box.current?.querySelector("textarea")?.focus(); }, [draft !== null]);
  const again = () => {
    if (draft === null || (draft.trim() === "" && turn.pictures.length === 0)) return;
    talks.askAgain(conversationId, turn.id, draft).then(() => setDraft(null), toastError);
  };
  return (
    <article class="pg-turn pg-user" aria-label="You">
      <div class="pg-bubble" ref={box}>
        <Pictures pictures={turn.pictures} />
        {draft === null ? <p class="pg-plain">{turn.text}</p> : (
          <div class="stack-small">
            <TextArea label="Message" value={draft} onValue={setDraft} hint={isNewest ? undefined : "Everything below this message is replaced."} />
            <div class="row">
              <Button small kind="primary" onClick={again}>Send again</Button>
              <Button small onClick={() => setDraft(null)}>Cancel</Button>
            </div>
          </div>
        )}
      </div>
      {draft === null && (
        <Button class="pg-quiet" kind="quiet" small icon disabled={isBusy} aria-label="Edit and send again" title="Edit and send again" onClick={() => setDraft(turn.text)}><Icon path={PENCIL} size={15} /></Button>
      )}
    </article>
  );
}

function Pictures({ pictures }: { pictures: readonly Picture[] }) {
  const [urls, setUrls] = useState<ReadonlyMap<string, string>>(new Map());
  const ids = pictures.map((picture) => picture.id).join();
  useEffect(() => {
    if (ids !== "") void talks.pictures(ids.split(",")).then(setUrls);
  }, [ids]);
  if (pictures.length === 0) return null;
  return (
    <div class="row">
      {pictures.map((picture) => {
        const url = urls.get(picture.id);
        return url === undefined ? <span key={picture.id} class="badge">{picture.name}</span> : <img key={picture.id} class="pg-picture" src={url} alt={picture.name} />;
      })}
    </div>
  );
}
