import { useState } from "preact/hooks";
import { Badge } from "../../ui/Badge";
import { Button } from "../../ui/Button";
import { TextArea } from "../../ui/Field";
import { Icon } from "../../ui/Icon";
import { toastError } from "../../ui/Toast";
import { WRENCH } from "./icons";
import { type Answer, type Call, isRunning } from "./model";
import { talks } from "./open";
import { wholeCalls } from "./request";

/** The calls of an answer; while it is the last one, their results are typed in here and sent back together. */
export function Calls({ conversationId, answer, canAnswer }: { conversationId: string; answer: Answer; canAnswer: boolean }) {
  const [results, setResults] = useState<Record<string, string>>({});
  const whole = wholeCalls(answer);
  if (answer.calls.length === 0) return null;
  const canSend = canAnswer && !isRunning(answer) && whole.length > 0;
  const send = () => {
    const given = whole.map((call) => ({ callId: call.id, name: call.name, text: results[call.id] ?? "" }));
    talks.giveResults(conversationId, given).catch(toastError);
  };
  return (
    <div class="stack-small">
      {answer.calls.map((call, at) => (
        <section key={call.id || at} class="pg-call" aria-label={`Call of ${call.name}`}>
          <h3 class="row-tight"><Icon path={WRENCH} size={15} /><code>{call.name}</code>{!isRunning(answer) && !whole.includes(call) && <Badge tone="warn">cut off</Badge>}</h3>
          <pre class="pg-json" tabIndex={0}>{pretty(call)}</pre>
          {canSend && whole.includes(call) && (
            <TextArea label="Its result" placeholder='{"rain": true}' rows={2} value={results[call.id] ?? ""} onValue={(text) => setResults({ ...results, [call.id]: text })} />
          )}
        </section>
      ))}
      {canSend && (
        <div class="row">
          <Button kind="primary" small onClick={send}>{whole.length === 1 ? "Send the result" : "Send the results"}</Button>
          <span class="muted small">As text or JSON; the model reads it as it is.</span>
        </div>
      )}
    </div>
  );
}

function pretty(call: Call): string {
  try {
    return JSON.stringify(JSON.parse(call.arguments), null, 2);
  } catch {
    return call.arguments;
  }
}
