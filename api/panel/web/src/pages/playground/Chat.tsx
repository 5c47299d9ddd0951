import { useEffect, useState } from "preact/hooks";
import { Alert } from "../../ui/Alert";
import { Badge } from "../../ui/Badge";
import { Button } from "../../ui/Button";
import { Dialog } from "../../ui/Dialog";
import { Icon } from "../../ui/Icon";
import { toastError } from "../../ui/Toast";
import { Composer } from "./Composer";
import { ConversationList } from "./ConversationList";
import { LIST, SLIDERS } from "./icons";
import { canGenerate, models, useModels } from "./models";
import type { Conversation } from "./model";
import { loadTalks, talks } from "./open";
import { faultsOf } from "./request";
import { SetupDialog } from "./SetupDialog";
import { Thread } from "./Thread";

export function Chat() {
  const [shown, setShown] = useState<"setup" | "list" | null>(null);
  useEffect(() => {
    void loadTalks();
  }, []);
  useModels(toastError);
  const conversation = talks.current.value;
  useEffect(() => {
    if (talks.isLoaded.value && conversation === null) talks.begin(firstModel());
  }, [talks.isLoaded.value, conversation === null]);
  useFirstModel(conversation);
  if (conversation === null) return <div class="skeleton" role="status" aria-label="Loading" />;
  return (
    <div class="pg">
      <section class="pg-side card" aria-label="Conversations"><ConversationList /></section>
      <section class="pg-main card flush" aria-label="Conversation">
        <Head conversation={conversation} onSetup={() => setShown("setup")} onList={() => setShown("list")} />
        {talks.trouble.value && <Alert tone="warn">{talks.trouble.value}</Alert>}
        <Thread conversation={conversation} />
        <Composer key={conversation.id} conversation={conversation} onSetup={() => setShown("setup")} />
      </section>
      {shown === "setup" && <SetupDialog conversation={conversation} onClose={() => setShown(null)} />}
      {shown === "list" && <Dialog title="Conversations" onClose={() => setShown(null)}><ConversationList onDone={() => setShown(null)} /></Dialog>}
    </div>
  );
}

function Head({ conversation, onSetup, onList }: { conversation: Conversation; onSetup: () => void; onList: () => void }) {
  const { setup } = conversation;
  const known = (models.value ?? []).filter(canGenerate).map((model) => model.id);
  const names = setup.model && !known.includes(setup.model) ? [setup.model, ...known] : known;
  const numSet = Object.values(setup.values).filter((text) => text !== "").length;
  const faults = faultsOf(setup);
  return (
    <div class="pg-head">
      <Button class="pg-narrow" icon aria-label="Conversations" onClick={onList}><Icon path={LIST} /></Button>
      <h2 class="clip grow" title={conversation.title}>{conversation.title}</h2>
      <label class="row-tight">
        <span class="sr-only">Model</span>
        <select class="input pg-model" value={setup.model} onChange={(event) => talks.setUp(conversation.id, { model: event.currentTarget.value })}>
          {names.length === 0 && <option value="">No model yet</option>}
          {names.map((name) => <option key={name} value={name}>{name}</option>)}
        </select>
      </label>
      <Button onClick={onSetup}>
        <Icon path={SLIDERS} />
        <span class="pg-wide">Set up</span>
        {faults.length > 0 ? <Badge tone="bad"><span aria-hidden="true">!</span><span class="sr-only">something is wrong</span></Badge> : numSet > 0 && <Badge tone="accent" title={`${numSet} parameters are set`}>{numSet}</Badge>}
      </Button>
    </div>
  );
}

function firstModel(): string {
  return models.peek()?.find(canGenerate)?.id ?? "";
}

/** One that was begun before models were known gets the first. */
function useFirstModel(conversation: Conversation | null): void {
  const first = models.value?.find(canGenerate)?.id;
  useEffect(() => {
    if (conversation !== null && conversation.setup.model === "" && first) talks.setUp(conversation.id, { model: first });
  }, [conversation?.id, conversation?.setup.model, first]);
}
