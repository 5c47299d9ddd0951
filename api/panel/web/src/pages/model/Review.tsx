import { useState } from "preact/hooks";
import { Alert } from "../../ui/Alert";
import { Button } from "../../ui/Button";
import { Dialog } from "../../ui/Dialog";
import { toast, toastError } from "../../ui/Toast";
import { ChangeTable } from "./ChangeTable";
import type { Editing } from "./editing";
import { followersOf } from "./followers";

/** What would be set, before it is. */
export function Review({ editing, onClose, onConflict }: { editing: Editing; onClose: () => void; onConflict: () => void }) {
  const [isApplying, setApplying] = useState(false);
  const base = editing.base.value!;
  const state = editing.read.value!.state;
  const changes = editing.changes.value;
  const apply = async () => {
    setApplying(true);
    try {
      if (await editing.apply()) {
        toast(`Version ${editing.base.value!.version} is set.`, "good");
        onClose();
      } else if (editing.newer.value !== null) onConflict();
    } catch (error) {
      toastError(error);
    } finally {
      setApplying(false);
    }
  };
  const refused = [...editing.refused.value.values()];
  return (
    <Dialog
      title="Apply these changes?"
      wide
      onClose={onClose}
      foot={
        <>
          <Button onClick={onClose}>Back</Button>
          <Button kind="primary" busy={isApplying} disabled={changes.length === 0} onClick={() => void apply()}>Apply</Button>
        </>
      }
    >
      {refused.map((message) => <Alert key={message} tone="bad">{message}</Alert>)}
      {changes.length === 0 ? <p class="muted">Nothing differs from what is set.</p> : <Effect reloads={changes.some((one) => one.reloads)} rollout={state.rollout} agents={followersOf(editing.pool).length} />}
      <ChangeTable changes={changes} before={base.state} after={state} />
    </Dialog>
  );
}

function Effect({ reloads, rollout, agents }: { reloads: boolean; rollout: string; agents: number }) {
  if (!reloads) return <p class="muted">Nothing is loaded anew: requests that come about two seconds from now go by it.</p>;
  if (rollout === "all_at_once") return <Alert tone="warn">All agents load the model anew at once: requests wait meanwhile. What runs is handed over, and none is lost.</Alert>;
  return <p class="muted">Agents load the model anew{agents > 1 ? ", in turn: at least half of the slots go on serving" : "; requests wait meanwhile"}. What runs is handed over, and none is lost.</p>;
}
