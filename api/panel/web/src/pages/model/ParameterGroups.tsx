import { useMemo, useState } from "preact/hooks";
import { TextField } from "../../ui/Field";
import { isSame, PREFIX } from "./changes";
import { parameterDraft } from "./draft";
import type { Editing } from "./editing";
import { ParameterField } from "./ParameterField";
import type { Parameter } from "./types";

const OPEN_AT_FIRST = ["Engine", "Sampling"];

/** Every inference parameter, by what it is about. */
export function ParameterGroups({ editing }: { editing: Editing }) {
  const [sought, seek] = useState("");
  const known = editing.known.value;
  const groups = useMemo(() => grouped(known, sought), [known, sought]);
  return (
    <section class="card stack" aria-labelledby="model-parameters">
      <div class="spread">
        <h2 id="model-parameters">Inference parameters</h2>
        <div class="model-seek"><TextField label={<span class="sr-only">Find a parameter</span>} type="search" placeholder="Find a parameter" value={sought} onValue={seek} /></div>
      </div>
      <p class="muted small">Sampling holds for requests that say nothing of it. Where an agent was given a flag of its own, such as <code>--context-size</code>, that flag wins.</p>
      {groups.length === 0 && <p class="muted">No parameter is about “{sought}”.</p>}
      {groups.map(([group, members]) => <Group key={group} name={group} members={members} editing={editing} isSought={sought !== ""} />)}
    </section>
  );
}

function Group({ name, members, editing, isSought }: { name: string; members: readonly Parameter[]; editing: Editing; isSought: boolean }) {
  const draft = editing.draft.value!;
  const errors = editing.errors.value;
  const isOther = (one: Parameter) => !isSame(draft.parameters[one.name], parameterDraft(one, one.default));
  const others = members.filter(isOther).length;
  const isWrong = members.some((one) => errors.has(PREFIX + one.name));
  const [isOpen, setOpen] = useState(OPEN_AT_FIRST.includes(name));
  return (
    <details class="model-group" open={isOpen || isSought || isWrong} onToggle={(event) => { if (!isSought) setOpen(event.currentTarget.open); }}>
      <summary>
        <h3>{name}</h3>
        <span class="muted small">{others === 0 ? "as by default" : `${others} of ${members.length} not as by default`}</span>
      </summary>
      <div class="model-parameters">
        {members.map((one) => (
          <ParameterField
            key={one.name}
            parameter={one}
            value={draft.parameters[one.name]!}
            isOther={isOther(one)}
            error={errors.get(PREFIX + one.name)}
            onValue={(value) => editing.editParameter(one.name, value)}
          />
        ))}
      </div>
    </details>
  );
}

/** In the server's order; of those that are sought in name or meaning. */
export function grouped(known: readonly Parameter[], sought: string): [string, Parameter[]][] {
  const words = sought.toLowerCase().split(/\s+/).filter(Boolean);
  const groups = new Map<string, Parameter[]>();
  for (const one of known) {
    const text = `${one.name} ${one.name.replaceAll("_", " ")} ${one.group} ${one.meaning}`.toLowerCase();
    if (words.every((word) => text.includes(word))) groups.set(one.group, [...(groups.get(one.group) ?? []), one]);
  }
  return [...groups];
}
