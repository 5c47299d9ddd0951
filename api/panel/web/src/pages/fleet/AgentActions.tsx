import { useState } from "preact/hooks";
import { call } from "../../data/api";
import { plural } from "../../data/format";
import type { Agent } from "../../data/types";
import { Button } from "../../ui/Button";
import { confirm } from "../../ui/Confirm";
import { toast, toastError } from "../../ui/Toast";

export function AgentActions({ agent }: { agent: Agent }) {
  const [busy, setBusy] = useState(false);
  const name = agent.name ?? agent.id;
  const path = `/api/v1/agent/${encodeURIComponent(agent.id)}`;
  const runs = agent.slots_processing > 0 ? `${plural(agent.slots_processing, "request")} run on it now.` : "Nothing runs on it now.";

  const tell = async (done: string, order: () => Promise<unknown>) => {
    setBusy(true);
    try {
      await order();
      toast(done, "good");
    } catch (error) {
      toastError(error);
    } finally {
      setBusy(false);
    }
  };
  const drain = async () => {
    const body = `It takes no new request and finishes what runs. It stays with its model loaded until you undrain it. ${runs}`;
    if (await confirm({ title: `Drain ${name}?`, body, action: "Drain" })) await tell(`${name} drains.`, () => call(`${path}/drain`, { method: "POST" }));
  };
  const remove = async () => {
    const body = `Its process ends. It lets what runs end within its grace time; other agents go on with the rest, and no client notices. ${runs}`;
    if (await confirm({ title: `Remove ${name}?`, body, action: "Remove", danger: true })) await tell(`${name} leaves.`, () => call(path, { method: "DELETE" }));
  };
  const cannot = agent.state === "leaving" || agent.state === "lost";
  return (
    <div class="agent-actions">
      {agent.is_draining
        ? <Button small busy={busy} disabled={cannot} aria-label={`Undrain ${name}`} onClick={() => void tell(`${name} takes requests again.`, () => call(`${path}/undrain`, { method: "POST" }))}>Undrain</Button>
        : <Button small busy={busy} disabled={cannot} aria-label={`Drain ${name}`} onClick={() => void drain()}>Drain</Button>}
      <Button small kind="quiet" disabled={cannot || busy} aria-label={`Remove ${name}`} onClick={() => void remove()}>Remove</Button>
    </div>
  );
}
