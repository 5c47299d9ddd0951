import { computed, signal } from "@preact/signals";
import { pools } from "./live";

const KEY = "paddler.pool";
const DEFAULT = "default";
const chosen = signal(localStorage.getItem(KEY) ?? DEFAULT);

export const poolNames = computed(() => [...pools.value.keys()].sort());
/** The pool that pages are about which show one. */
export const currentPool = computed(() => (poolNames.value.length === 0 || poolNames.value.includes(chosen.value) ? chosen.value : DEFAULT));

export function choosePool(name: string): void {
  localStorage.setItem(KEY, name);
  chosen.value = name;
}
