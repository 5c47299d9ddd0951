import { useEffect, useState } from "preact/hooks";
import { Link } from "wouter-preact";
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
  const joining = useAnswer<Joining>("/panel/api/joining");
  const [name, setName] = useState("");
  const [slots, setSlots] = useState("4");
  const [pool, setPool] = useState("default");
  const state = useAnswer<{ model: unknown }>(`/api/v1/pools/${pool}/balancer_desired_state`);
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
          {joining.file_flags.length > 0 && <Alert tone="warn">This Redis speaks TLS with files that are on the balancer's machine, and the command names none: add <code>{joining.file_flags.map((flag) => `${flag} FILE`).join(" ")}</code>, with files of the agent's machine.</Alert>}
          {joining.has_secret && <Alert>The address of Redis is shown without its password: put it into a file and add <code>--redis-password-file FILE</code>.</Alert>}
          {state !== null && (state.model === "None"
            ? <Alert tone="warn">No model is set for this pool, and an agent waits until one is: choose it on the page <Link href={`/model/${pool}`}>Model</Link>, or add <code>--model FILE</code> to serve a file of the agent's machine.</Alert>
            : <p class="small">It loads the model that the pool's desired state names and appears here at once. It is ready when it has that model: one that it must fetch first takes as long as that takes.</p>)}
        </>
      )}
    </div>
  );
}

function useAnswer<T>(path: string): T | null {
  const [answer, setAnswer] = useState<T | null>(null);
  useEffect(() => {
    const controller = new AbortController();
    setAnswer(null);
    call<T>(path, { signal: controller.signal }).then(setAnswer, () => undefined);
    return () => controller.abort();
  }, [path]);
  return answer;
}
