import { useState } from "preact/hooks";
import { dateTime } from "../../data/format";
import { Button } from "../../ui/Button";
import { Dialog } from "../../ui/Dialog";
import { ChangeTable } from "./ChangeTable";
import { changesBetween } from "./changes";
import type { Editing } from "./editing";
import type { Side } from "./rebase";

/** Somebody else has set another version: what they changed, and how to go on. */
export function Conflict({ editing, onClose, onDone }: { editing: Editing; onClose: () => void; onDone: () => void }) {
  const [picks, pick] = useState<ReadonlyMap<string, Side>>(new Map());
  const [base, newer, read] = [editing.base.value, editing.newer.value, editing.read.value];
  if (base === null || newer === null || read === null) return null;
  const known = editing.known.value;
  const theirs = changesBetween(base.state, newer.state, known);
  const mine = changesBetween(newer.state, read.state, known);
  const done = (act: () => void) => () => { act(); onDone(); };
  return (
    <Dialog
      title={`Version ${newer.version} has been set meanwhile`}
      wide
      onClose={onClose}
      foot={
        <>
          <Button onClick={onClose}>Not now</Button>
          <Button onClick={done(() => editing.takeTheirs())}>Discard mine</Button>
          <Button kind="primary" onClick={done(() => editing.goOn(picks))}>Go on from version {newer.version}</Button>
        </>
      }
    >
      {newer.info && <p class="muted">By {newer.info.author}, {dateTime(newer.info.updated_ms)}. Nothing of yours has been set, and nothing is lost.</p>}
      <h3>What they changed</h3>
      {theirs.length === 0 ? <p class="muted">Nothing that is still different.</p> : <ChangeTable changes={theirs} before={base.state} after={newer.state} heads={["Before", "Theirs"]} />}
      {newer.clashes.length > 0 && (
        <>
          <h3>Changed by both</h3>
          {newer.clashes.map((path) => {
            const change = mine.find((one) => one.path === path);
            return change && <Clash key={path} label={change.label} theirs={change.before} mine={change.after} value={picks.get(path) ?? "mine"} onValue={(side) => pick(new Map(picks).set(path, side))} />;
          })}
        </>
      )}
    </Dialog>
  );
}

function Clash({ label, theirs, mine, value, onValue }: { label: string; theirs: string; mine: string; value: Side; onValue: (side: Side) => void }) {
  return (
    <fieldset class="model-clash">
      <legend><code>{label}</code></legend>
      {([["mine", "Yours", mine], ["theirs", "Theirs", theirs]] as const).map(([side, shown, text]) => (
        <label key={side} class={side === value ? "choice chosen" : "choice"}>
          <input type="radio" name={`clash-${label}`} checked={side === value} onChange={() => onValue(side)} />
          {shown}: <span class="wrap-any">{text}</span>
        </label>
      ))}
    </fieldset>
  );
}
