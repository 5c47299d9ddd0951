import { useState } from "preact/hooks";
import { Button } from "../../ui/Button";
import { Dialog } from "../../ui/Dialog";
import { type Column, Table } from "../../ui/Table";
import type { Answer, Sampled } from "./model";

const MAX_SHOWN = 500;

/** How likely each token was, where `logprobs` asked for it. */
export function Probabilities({ answer }: { answer: Answer }) {
  const [isOpen, setOpen] = useState(false);
  if (answer.sampled.length === 0) return null;
  const rows = answer.sampled.slice(0, MAX_SHOWN).map((sampled, at) => ({ ...sampled, at }));
  return (
    <>
      <Button kind="quiet" small onClick={() => setOpen(true)}>Probabilities</Button>
      {isOpen && (
        <Dialog wide title="How likely each token was" onClose={() => setOpen(false)}>
          <p class="muted small">By the model's own distribution, before anything is left out or penalised.{answer.sampled.length > MAX_SHOWN && ` The first ${MAX_SHOWN} of ${answer.sampled.length}.`}</p>
          <Table label="Tokens" columns={COLUMNS} rows={rows} rowKey={(row) => String(row.at)} />
        </Dialog>
      )}
    </>
  );
}

const COLUMNS: readonly Column<Sampled & { at: number }>[] = [
  { id: "at", head: "#", right: true, cell: (row) => row.at + 1 },
  { id: "token", head: "Token", cell: (row) => <code>{shown(row.token)}</code> },
  { id: "p", head: "Probability", right: true, cell: (row) => percent(row.logprob) },
  { id: "top", head: "Likeliest", cell: (row) => row.top.map((one) => `${shown(one.token)} ${percent(one.logprob)}`).join("   ") },
];

function percent(logprob: number): string {
  return `${(Math.exp(logprob) * 100).toFixed(1)} %`;
}

function shown(token: string): string {
  return JSON.stringify(token).slice(1, -1);
}
