import { useRef, useState } from "preact/hooks";
import { Button } from "../../ui/Button";
import { Icon } from "../../ui/Icon";
import { toast, toastError } from "../../ui/Toast";
import { IMAGE, SEND, STOP } from "./icons";
import { type Attached, TYPES, attach } from "./images";
import { type Conversation, chosen, isRunning } from "./model";
import { models, whyNoImages } from "./models";
import { talks } from "./open";
import { faultsOf } from "./request";

export function Composer({ conversation, onSetup }: { conversation: Conversation; onSetup: () => void }) {
  const [text, setText] = useState("");
  const [pictures, setPictures] = useState<readonly Attached[]>([]);
  const files = useRef<HTMLInputElement>(null);
  const last = conversation.turns.at(-1);
  const running = last?.role === "assistant" && last.answers.some(isRunning);
  const isStopping = last?.role === "assistant" && chosen(last).state === "stopping";
  const model = models.value?.find((one) => one.id === conversation.setup.model);
  const noImages = whyNoImages(model);
  const faults = faultsOf(conversation.setup);
  const canSend = !running && conversation.setup.model !== "" && faults.length === 0 && (text.trim() !== "" || pictures.length > 0);

  const send = () => {
    if (!canSend) return;
    talks.ask(conversation.id, text, pictures).then(
      () => { setText(""); setPictures([]); },
      toastError,
    );
  };
  const add = async (list: Iterable<File>) => {
    let now = pictures;
    for (const file of list) {
      if (noImages !== null) return toast(noImages, "bad");
      try {
        now = [...now, await attach(file, now.length)];
      } catch (error) {
        toastError(error);
      }
    }
    setPictures(now);
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  };
  const onPaste = (event: ClipboardEvent) => {
    const pasted = [...(event.clipboardData?.files ?? [])];
    if (pasted.length === 0) return;
    event.preventDefault();
    void add(pasted);
  };
  const onDrop = (event: DragEvent) => {
    event.preventDefault();
    void add([...(event.dataTransfer?.files ?? [])]);
  };
  return (
    <form class="pg-composer" onSubmit={(event) => { event.preventDefault(); send(); }} onDrop={onDrop} onDragOver={(event) => event.preventDefault()}>
      {faults[0] !== undefined && <p class="pg-fault small" role="alert">{faults[0]} <button type="button" class="pg-link" onClick={onSetup}>Open the settings</button></p>}
      {pictures.length > 0 && (
        <ul class="row pg-attached" aria-label="Attached images">
          {pictures.map((one) => (
            <li key={one.id} class="row-tight">
              <img class="pg-thumb" src={one.url} alt={one.name} />
              <Button kind="quiet" small icon aria-label={`Remove ${one.name}`} onClick={() => setPictures(pictures.filter((other) => other !== one))}><Icon name="close" size={14} /></Button>
            </li>
          ))}
        </ul>
      )}
      <div class="pg-write">
        <textarea class="input" aria-label="Message" placeholder="Write a message" rows={2} value={text} onInput={(event) => setText(event.currentTarget.value)} onKeyDown={onKeyDown} onPaste={onPaste} />
        <div class="pg-buttons">
          <input ref={files} type="file" hidden multiple accept={TYPES.join()} onChange={(event) => { void add([...(event.currentTarget.files ?? [])]); event.currentTarget.value = ""; }} />
          <Button icon aria-label="Attach images" title={noImages ?? "PNG, JPEG, GIF or WebP"} aria-describedby={noImages ? "pg-no-images" : undefined} disabled={noImages !== null} onClick={() => files.current?.click()}><Icon path={IMAGE} /></Button>
          {running ? (
            <Button kind="danger" busy={isStopping} onClick={() => talks.stop(conversation.id)}><Icon path={STOP} />Stop</Button>
          ) : (
            <Button type="submit" kind="primary" disabled={!canSend}><Icon path={SEND} />Send</Button>
          )}
        </div>
      </div>
      <p class="muted small">
        Enter sends, Shift and Enter begin a line.
        {noImages && <span id="pg-no-images"> {noImages}</span>}
      </p>
    </form>
  );
}
