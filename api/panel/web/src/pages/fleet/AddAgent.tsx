import { useEffect, useState } from "preact/hooks";
import { call } from "../../data/api";
import { poolNames } from "../../data/pool";
import { Alert } from "../../ui/Alert";
import { Button } from "../../ui/Button";
import { Copy } from "../../ui/Copy";
import { Dialog } from "../../ui/Dialog";
import { SelectField, TextField } from "../../ui/Field";
import { agentCommand, checkName, checkSlots, type Joining } from "./command";

/** The command that adds an agent to this fleet, put together. */
export function AddAgent({ onClose }: { onClose: () => void }) {
  return (
    <Dialog title="Add an agent" onClose={onClose} foot={<Button kind="primary" onClick={onClose}>Done</Button>}>
      <AgentCommand />
    </Dialog>
  );
}

export function AgentCommand() {
  const joining = useJoining();
  const [name, setName] = useState("");
  const [slots, setSlots] = useState("4");
  const [pool, setPool] = useState("default");
  const wrongName = checkName(name);
  const wrongSlots = checkSlots(slots);
  const names = [...new Set(["default", ...poolNames.value])];
  return (
    <div class="stack">
      <div class="fields">
        <TextField label="Name" hint="A label; else the host's name." placeholder="agent-2" value={name} onValue={setName} error={wrongName} />
        <TextField label="Slots" hint="Requests at once." inputMode="numeric" value={slots} onValue={setSlots} error={wrongSlots} />
        {names.length > 1 && <SelectField label="Pool" value={pool} onValue={setPool} options={names.map((one) => [one, one] as const)} />}
      </div>
      {joining !== null && wrongName === null && wrongSlots === null && (
        <>
          <p>Run this where the model is to be computed:</p>
          <Copy label="command that adds an agent" text={agentCommand(joining, { name, slots, pool })} />
          {joining.is_local && <Alert>This Redis listens on this machine alone. For agents on other machines the fleet needs one that they reach.</Alert>}
          {joining.has_secret && <Alert>The address of Redis is shown without its password: put it into a file and add <code>--redis-password-file FILE</code>.</Alert>}
        </>
      )}
    </div>
  );
}

function useJoining(): Joining | null {
  const [joining, setJoining] = useState<Joining | null>(null);
  useEffect(() => {
    const controller = new AbortController();
    call<Joining>("/panel/api/joining", { signal: controller.signal }).then(setJoining, () => undefined);
    return () => controller.abort();
  }, []);
  return joining;
}
