import { choosePool, currentPool, poolNames } from "../data/pool";

/** Which pool a page is about; nothing while there is one alone. */
export function PoolSelect() {
  if (poolNames.value.length < 2) return null;
  return (
    <label class="row-tight">
      <span class="muted">Pool</span>
      <select class="input" value={currentPool.value} onChange={(event) => choosePool(event.currentTarget.value)}>
        {poolNames.value.map((name) => <option key={name} value={name}>{name}</option>)}
      </select>
    </label>
  );
}
