import { useState } from "preact/hooks";
import { ApiError, call } from "../../data/api";
import { Alert } from "../../ui/Alert";
import { Button } from "../../ui/Button";
import { Dialog } from "../../ui/Dialog";
import { SelectField } from "../../ui/Field";
import { toast } from "../../ui/Toast";
import { pathOf, rotateKey } from "./data";
import { draftOf, readLimits, type Problems } from "./form";
import { LimitsFields } from "./LimitsFields";
import type { ApiKey } from "./types";

interface Props {
  apiKey: ApiKey;
  onClose: () => void;
  onDone: () => void;
}

export function ChangeLimits({ apiKey, onClose, onDone }: Props) {
  const [draft, setDraft] = useState(draftOf(apiKey.limits));
  const [problems, setProblems] = useState<Problems>({});
  const [failed, isBusy, run] = useAction(onDone);
  const save = () => {
    const found: Problems = {};
    const limits = readLimits(draft, found);
    setProblems(found);
    if (Object.keys(found).length > 0) return;
    void run(async () => {
      await call(pathOf(apiKey, "/limits"), { method: "PUT", body: limits });
      toast(`${apiKey.name} has other limits.`, "good");
    });
  };
  return (
    <Dialog wide title={`Limits of ${apiKey.name}`} onClose={onClose} foot={<><Button onClick={onClose}>Cancel</Button><Button kind="primary" busy={isBusy} onClick={save}>Save limits</Button></>}>
      {failed !== null && <Alert tone="bad">{failed}</Alert>}
      <LimitsFields draft={draft} problems={problems} onDraft={setDraft} />
    </Dialog>
  );
}

const OVERLAPS = [["0", "At once"], ["3600000", "After an hour"], ["86400000", "After a day"], ["604800000", "After a week"]] as const;

export function RotateKey({ apiKey, onClose, onDone }: Props) {
  const [overlap, setOverlap] = useState("3600000");
  const [failed, isBusy, run] = useAction(onDone);
  const rotate = () => void run(() => rotateKey(apiKey, Number(overlap)));
  return (
    <Dialog title={`Give ${apiKey.name} a new secret?`} onClose={onClose} foot={<><Button onClick={onClose}>Cancel</Button><Button kind="primary" busy={isBusy} onClick={rotate}>Make a new secret</Button></>}>
      {failed !== null && <Alert tone="bad">{failed}</Alert>}
      <p>Limits, tenant and usage stay as they are. A panel that is logged in with this key must log in with the new secret.</p>
      <SelectField label="The present secret stops working" value={overlap} options={OVERLAPS} onValue={setOverlap} />
    </Dialog>
  );
}

/** What the balancer refuses is said in the dialog, which stays open then. */
function useAction(onDone: () => void): [failed: string | null, isBusy: boolean, run: (act: () => Promise<void>) => Promise<void>] {
  const [failed, setFailed] = useState<string | null>(null);
  const [isBusy, setBusy] = useState(false);
  const run = async (act: () => Promise<void>) => {
    setBusy(true);
    setFailed(null);
    try {
      await act();
      onDone();
    } catch (problem) {
      setFailed(problem instanceof ApiError ? problem.message : String(problem));
      setBusy(false);
    }
  };
  return [failed, isBusy, run];
}
