import { useState } from "preact/hooks";
import { Button } from "../../ui/Button";
import { Dialog } from "../../ui/Dialog";
import { CheckField, SelectField, TextArea } from "../../ui/Field";
import { Tabs } from "../../ui/Tabs";
import { JsonEditor } from "./JsonEditor";
import type { Conversation, Form, Setup } from "./model";
import { talks } from "./open";
import { ParamField } from "./ParamField";
import { GROUPS, PARAMS } from "./params";
import { faultIn, readSchema, readTools } from "./schema";
import { EXAMPLE_SCHEMA, EXAMPLE_TOOLS } from "./examples";

type Part = "prompt" | "parameters" | "tools" | "form";
const PARTS = [["prompt", "System prompt"], ["parameters", "Parameters"], ["tools", "Tools"], ["form", "Form of the answer"]] as const;
const FORMS: readonly (readonly [Form, string])[] = [["text", "Free text"], ["json_object", "Any JSON object"], ["json_schema", "By a JSON schema"], ["grammar", "By a GBNF grammar"]];

export function SetupDialog({ conversation, onClose }: { conversation: Conversation; onClose: () => void }) {
  const [part, setPart] = useState<Part>("prompt");
  const set = (setup: Partial<Setup>) => talks.setUp(conversation.id, setup);
  const { setup } = conversation;
  return (
    <Dialog wide title="Set up this conversation" onClose={onClose} foot={<Button kind="primary" onClick={onClose}>Done</Button>}>
      <Tabs label="Settings" tabs={PARTS} current={part} onCurrent={setPart}>
        {part === "prompt" && <TextArea label="System prompt" rows={8} value={setup.system} onValue={(system) => set({ system })} hint="Stands before the conversation; empty for none." />}
        {part === "parameters" && <Parameters setup={setup} set={set} />}
        {part === "tools" && <Tools setup={setup} set={set} />}
        {part === "form" && <FormOfAnswer setup={setup} set={set} />}
      </Tabs>
    </Dialog>
  );
}

interface Part_ { setup: Setup; set: (setup: Partial<Setup>) => void }

function Parameters({ setup, set }: Part_) {
  const put = (name: string, text: string) => {
    const { [name]: _, ...others } = setup.values;
    set({ values: text === "" ? others : { ...others, [name]: text } });
  };
  return (
    <>
      <div class="spread">
        <p class="muted small">What is empty is left to the pool's desired state.</p>
        <Button small disabled={Object.keys(setup.values).length === 0} onClick={() => set({ values: {} })}>Clear all</Button>
      </div>
      {GROUPS.map((group) => (
        <fieldset key={group} class="pg-group">
          <legend>{group}</legend>
          {PARAMS.filter((param) => param.group === group).map((param) => <ParamField key={param.name} param={param} text={setup.values[param.name] ?? ""} onText={(text) => put(param.name, text)} />)}
        </fieldset>
      ))}
    </>
  );
}

function Tools({ setup, set }: Part_) {
  const fault = faultIn(readTools, setup.tools);
  const names = fault === null && setup.tools.trim() !== "" ? readTools(setup.tools).map((tool) => tool.function.name) : [];
  const choices = [["auto", "auto: when the model wants"], ["required", "required: one of them"], ["none", "none: the model does not hear of them"], ...names.map((name) => [name, `only ${name}`] as const)] as const;
  return (
    <>
      <JsonEditor label="Tools" text={setup.tools} onText={(tools) => set({ tools })} fault={fault} hint="A JSON list as OpenAI has it. Calls are shown in the answer; you type their results in." />
      <div class="row">
        <Button small onClick={() => set({ tools: EXAMPLE_TOOLS })}>Insert an example</Button>
        <Button small disabled={setup.tools === ""} onClick={() => set({ tools: "", toolChoice: "auto" })}>Remove all</Button>
      </div>
      <SelectField label="Tool choice" value={setup.toolChoice} options={choices} onValue={(toolChoice) => set({ toolChoice })} />
      <CheckField label="Several calls at once" checked={setup.parallelCalls} onChecked={(parallelCalls) => set({ parallelCalls })} />
    </>
  );
}

function FormOfAnswer({ setup, set }: Part_) {
  return (
    <>
      <SelectField label="Form" value={setup.form} options={FORMS} onValue={(form) => set({ form: form as Form })} hint="Enforced token by token." />
      {setup.form === "json_schema" && (
        <>
          <JsonEditor label="JSON schema" text={setup.schema} onText={(schema) => set({ schema })} fault={faultIn(readSchema, setup.schema)} hint="The model is not told of it: say in your message what you want, too." />
          <div class="row"><Button small onClick={() => set({ schema: EXAMPLE_SCHEMA })}>Insert an example</Button></div>
        </>
      )}
      {setup.form === "grammar" && <TextArea class="input mono" label="Grammar" rows={8} value={setup.grammar} onValue={(grammar) => set({ grammar })} hint="GBNF with the rule root, as llama.cpp's server takes it." placeholder={'root ::= "yes" | "no"'} />}
    </>
  );
}
