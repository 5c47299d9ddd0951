import { useEffect, useState } from "preact/hooks";
import { ApiError } from "../../data/api";
import { dateTime } from "../../data/format";
import { Alert } from "../../ui/Alert";
import { Badge } from "../../ui/Badge";
import { Button } from "../../ui/Button";
import { Dialog } from "../../ui/Dialog";
import { toast } from "../../ui/Toast";
import { changesBetween } from "./changes";
import { ChangeTable } from "./ChangeTable";
import { readHistory, readVersion, rollBack } from "./client";
import type { Editing } from "./editing";
import { fileNameOf } from "./source";
import type { VersionInfo, Versioned } from "./types";

type Seen = VersionInfo & Versioned;

/** The versions that there were, how each differs from now, and the way back to it. */
export function History({ editing, onClose }: { editing: Editing; onClose: () => void }) {
  const [versions, setVersions] = useState<readonly VersionInfo[] | null>(null);
  const [seen, see] = useState<Seen | null>(null);
  const [trouble, setTrouble] = useState<string | null>(null);
  const [isBusy, setBusy] = useState(false);
  const { version: current } = editing.base.value!;
  const attempt = async (act: () => Promise<void>) => {
    setBusy(true);
    setTrouble(null);
    try {
      await act();
    } catch (error) {
      setTrouble(error instanceof Error ? error.message : String(error));
    } finally {
      setBusy(false);
    }
  };
  useEffect(() => {
    void attempt(async () => {
      await editing.look();
      setVersions((await readHistory(editing.pool)).history);
    });
  }, [editing]);
  const back = (version: number) => attempt(async () => {
    try {
      const made = await rollBack(editing.pool, version, current);
      toast(`Version ${version} is set again, as version ${made}.`, "good");
      await editing.look();
      onClose();
    } catch (error) {
      if (error instanceof ApiError && error.status === 412) await editing.look();
      throw error;
    }
  });
  const isDirty = editing.isDirty.value;
  return (
    <Dialog
      title={seen === null ? "History" : `Version ${seen.version}`}
      wide
      onClose={onClose}
      foot={seen !== null && (
        <>
          <Button onClick={() => see(null)}>Back to the list</Button>
          <Button kind="primary" busy={isBusy} disabled={seen.version === current || isDirty} onClick={() => void back(seen.version)}>Roll back to version {seen.version}</Button>
        </>
      )}
    >
      {trouble !== null && <Alert tone="bad">{trouble}</Alert>}
      {seen !== null ? (
        <Differences editing={editing} seen={seen} />
      ) : versions === null ? (
        trouble === null && <div class="skeleton" role="status" aria-label="Loading" />
      ) : versions.length === 0 ? (
        <p class="muted">Nobody has set a state for this pool yet.</p>
      ) : (
        <ol class="model-versions" reversed>
          {versions.map((one) => (
            <li key={one.version}>
              <div class="grow">
                <strong>Version {one.version}</strong> {one.version === current && <Badge tone="good">now</Badge>}
                <p class="muted small wrap-any">{dateTime(one.updated_ms)}, by {one.author}</p>
              </div>
              <Button small busy={isBusy} aria-label={`Look at version ${one.version}`} onClick={() => void attempt(async () => see(await readVersion(editing.pool, one.version, editing.known.value)))}>Look</Button>
            </li>
          ))}
        </ol>
      )}
    </Dialog>
  );
}

function Differences({ editing, seen }: { editing: Editing; seen: Seen }) {
  const base = editing.base.value!;
  const changes = changesBetween(base.state, seen.state, editing.known.value);
  return (
    <>
      <p class="muted">{dateTime(seen.updated_ms)}, by {seen.author}. It serves {fileNameOf(seen.state.model)}.</p>
      {editing.isDirty.value && <Alert tone="warn">The form has changes that are not set: apply or discard them before you roll back.</Alert>}
      {changes.length === 0 ? <p>It is the same as what is set now.</p> : <><h3>What a roll-back changes</h3><ChangeTable changes={changes} before={base.state} after={seen.state} /></>}
    </>
  );
}
