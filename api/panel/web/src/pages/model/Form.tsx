import { useState } from "preact/hooks";
import { SelectField, TextField } from "../../ui/Field";
import { ActionBar } from "./ActionBar";
import { Conflict } from "./Conflict";
import type { Editing } from "./editing";
import { History } from "./History";
import { ParameterGroups } from "./ParameterGroups";
import { Review } from "./Review";
import { RolloutCard } from "./RolloutCard";
import { SourceFields } from "./SourceFields";
import { TemplateCard } from "./TemplateCard";

type Dialogs = "review" | "history" | "conflict" | null;

/** All that can be said of a pool's state, the progress of what was said last, and what is about to be. */
export function Form({ editing }: { editing: Editing }) {
  const [dialog, open] = useState<Dialogs>(null);
  const draft = editing.draft.value;
  const base = editing.base.value;
  if (draft === null || base === null) return null;
  const errors = editing.errors.value;
  return (
    <>
      <RolloutCard editing={editing} onHistory={() => open("history")} />
      <section class="card stack" aria-labelledby="model-files">
        <h2 id="model-files">Files</h2>
        <SourceFields legend="Model" path="model" source={draft.model} errors={errors} onSource={(model) => editing.edit({ model })} />
        <SourceFields
          legend="Multimodal projection"
          hint="Lets a model see images: usually a file named mmproj-*.gguf, beside the model."
          path="multimodal_projection"
          source={draft.projection}
          errors={errors}
          onSource={(projection) => editing.edit({ projection })}
        />
        <div class="model-pair">
          <TextField
            label="Further names"
            hint="Names that requests may give as model, beside the pool's and the file's; with commas between them. No two pools share one."
            placeholder="gpt-4o, my-model"
            value={draft.aliases}
            error={errors.get("aliases")}
            onValue={(aliases) => editing.edit({ aliases })}
          />
          <SelectField
            label="How it is rolled out"
            hint="In turn: at least half of the slots go on serving while agents load. All at once is faster, and requests wait meanwhile."
            value={draft.rollout}
            options={[["rolling", "In turn"], ["all_at_once", "All at once"]]}
            onValue={(rollout) => editing.edit({ rollout: rollout as typeof draft.rollout })}
          />
        </div>
      </section>
      <TemplateCard editing={editing} />
      <ParameterGroups editing={editing} />
      <ActionBar editing={editing} onReview={() => open("review")} onConflict={() => open("conflict")} />
      {dialog === "review" && <Review editing={editing} onClose={() => open(null)} onConflict={() => open("conflict")} />}
      {dialog === "history" && <History editing={editing} onClose={() => open(null)} />}
      {dialog === "conflict" && <Conflict editing={editing} onClose={() => open(null)} onDone={() => open(editing.isDirty.value && editing.errors.value.size === 0 ? "review" : null)} />}
    </>
  );
}
