import { Button } from "../../ui/Button";
import { Icon } from "../../ui/Icon";
import type { AdapterDraft } from "./adapters";

/** Some short texts; ends of lines are written \n. */
export function Texts({ label, values, most, onValues }: { label: string; values: readonly string[]; most: number | null; onValues: (values: string[]) => void }) {
  return (
    <div class="model-texts">
      {values.map((value, index) => (
        <span key={index} class="model-text">
          <input class="input mono" aria-label={`${label}, number ${index + 1}`} value={value} onInput={(event) => onValues(values.with(index, event.currentTarget.value))} />
          <Button kind="quiet" small icon aria-label={`Remove number ${index + 1} of ${label}`} onClick={() => onValues(values.toSpliced(index, 1))}><Icon name="close" size={14} /></Button>
        </span>
      ))}
      <Button small disabled={most !== null && values.length >= most} onClick={() => onValues([...values, ""])}><Icon name="plus" size={14} />Add one</Button>
    </div>
  );
}

export function Adapters({ values, onValues }: { values: readonly AdapterDraft[]; onValues: (values: AdapterDraft[]) => void }) {
  const set = (index: number, part: Partial<AdapterDraft>) => onValues(values.map((one, at) => (at === index ? { ...one, ...part } : one)));
  return (
    <div class="stack-small">
      {values.map(({ path, scale }, index) => (
        <div key={index} class="model-adapter">
          <input class="input mono" aria-label={`Path or address of adapter ${index + 1}`} placeholder="/models/adapter.gguf, or an address" value={path} onInput={(event) => set(index, { path: event.currentTarget.value })} />
          <input class="input num" aria-label={`Scale of adapter ${index + 1}`} inputMode="decimal" value={scale} onInput={(event) => set(index, { scale: event.currentTarget.value })} />
          <Button kind="quiet" small icon aria-label={`Remove adapter ${index + 1}`} onClick={() => onValues(values.toSpliced(index, 1))}><Icon name="close" size={14} /></Button>
        </div>
      ))}
      <div><Button small onClick={() => onValues([...values, { path: "", scale: "1" }])}><Icon name="plus" size={14} />Add an adapter</Button></div>
    </div>
  );
}
