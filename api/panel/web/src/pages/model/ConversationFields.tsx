import { Button } from "../../ui/Button";
import { CheckField } from "../../ui/Field";
import { Icon } from "../../ui/Icon";
import { ROLES, type Conversation, type Role, type Turn } from "./conversation";

/** The example conversation, turn by turn. */
export function ConversationFields({ value, onValue }: { value: Conversation; onValue: (value: Conversation) => void }) {
  const { turns } = value;
  const set = (next: readonly Turn[]) => onValue({ ...value, turns: next });
  const change = (index: number, part: Partial<Turn>) => set(turns.map((turn, at) => (at === index ? { ...turn, ...part } : turn)));
  return (
    <details class="model-conversation">
      <summary>Example conversation <span class="muted small">{turns.length} {turns.length === 1 ? "turn" : "turns"}</span></summary>
      <div class="stack-small">
        {turns.map(({ role, content }, index) => (
          <div key={index} class="model-turn">
            <select class="input" aria-label={`Role of turn ${index + 1}`} value={role} onChange={(event) => change(index, { role: event.currentTarget.value as Role })}>
              {ROLES.map((one) => <option key={one} value={one}>{one}</option>)}
            </select>
            <textarea class="input" rows={1} aria-label={`Text of turn ${index + 1}`} value={content} onInput={(event) => change(index, { content: event.currentTarget.value })} />
            <Button kind="quiet" small icon aria-label={`Remove turn ${index + 1}`} disabled={turns.length === 1} onClick={() => set(turns.toSpliced(index, 1))}><Icon name="close" size={14} /></Button>
          </div>
        ))}
        <div class="row">
          <Button small onClick={() => set([...turns, { role: turns.at(-1)?.role === "user" ? "assistant" : "user", content: "" }])}><Icon name="plus" size={14} />Add a turn</Button>
          <CheckField label="With a tool" checked={value.hasTools} onChecked={(hasTools) => onValue({ ...value, hasTools })} />
          <CheckField label="With the beginning of the answer" checked={value.beginsAnswer} onChecked={(beginsAnswer) => onValue({ ...value, beginsAnswer })} />
        </div>
      </div>
    </details>
  );
}
