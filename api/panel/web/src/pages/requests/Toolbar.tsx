import { useMemo } from "preact/hooks";
import { SelectField, TextField } from "../../ui/Field";
import type { Filter, Placed } from "./board";

const STATES = [["", "Any state"], ["running", "Running"], ["assigned", "Assigned"], ["waiting", "Waiting"]] as const;
const CLASSES = [["", "Any class"], ["interactive", "Interactive"], ["normal", "Normal"], ["batch", "Batch"]] as const;

export function Toolbar({ filter, onFilter, rows }: { filter: Filter; onFilter: (filter: Filter) => void; rows: readonly Placed[] }) {
  const names = useMemo(() => [...new Set(rows.map(({ row }) => row.tenant))].sort(), [rows]);
  // What was chosen stays a choice when its last request has gone.
  const tenants = filter.tenant && !names.includes(filter.tenant) ? [...names, filter.tenant] : names;
  const set = (part: Partial<Filter>) => onFilter({ ...filter, ...part });
  return (
    <div class="request-filters">
      <TextField label="Search" type="search" placeholder="Id, tenant, model, agent" spellcheck={false} value={filter.search} onValue={(search) => set({ search })} />
      <SelectField label="State" value={filter.state} options={STATES} onValue={(state) => set({ state })} />
      <SelectField label="Class" value={filter.class} options={CLASSES} onValue={(chosen) => set({ class: chosen })} />
      <SelectField label="Tenant" value={filter.tenant} options={[["", "Any tenant"], ...tenants.map((one) => [one, one] as const)]} onValue={(tenant) => set({ tenant })} />
    </div>
  );
}
