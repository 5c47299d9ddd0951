import { Button } from "../../ui/Button";
import { confirm } from "../../ui/Confirm";
import { Icon } from "../../ui/Icon";
import type { Editing } from "./editing";

/** What is about to be changed, always in sight while something is. */
export function ActionBar({ editing, onReview, onConflict }: { editing: Editing; onReview: () => void; onConflict: () => void }) {
  if (!editing.isDirty.value && editing.newer.value === null) return null;
  const wrong = editing.errors.value.size;
  const newer = editing.newer.value;
  const number = editing.changes.value.length;
  const discard = async () => {
    const isSure = await confirm({ title: "Discard your changes?", body: "The form goes back to what is set.", action: "Discard", danger: true });
    if (isSure) editing.discard();
  };
  return (
    <div class="model-actions" role="region" aria-label="Changes">
      <div class="grow" role="status">
        <strong>{number === 1 ? "1 change" : `${number} changes`}</strong>
        {newer !== null ? <p class="small">Version {newer.version} has been set meanwhile{newer.info ? ` by ${newer.info.author}` : ""}.</p> : wrong > 0 && <Wrong editing={editing} />}
      </div>
      <Button onClick={() => void discard()}>Discard</Button>
      {newer !== null ? (
        <Button kind="primary" onClick={onConflict}>See what has changed</Button>
      ) : (
        <Button kind="primary" disabled={wrong > 0 || number === 0} onClick={onReview}>Review and apply</Button>
      )}
    </div>
  );
}

function Wrong({ editing }: { editing: Editing }) {
  const [[path, message] = ["", ""]] = [...editing.errors.value];
  return <p class="small model-error"><Icon name="alert" size={14} /> <code>{path}</code>: {message}</p>;
}
