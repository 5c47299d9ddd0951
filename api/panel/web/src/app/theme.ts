import { computed, effect, signal } from "@preact/signals";

export type Theme = "system" | "light" | "dark";

const KEY = "paddler.theme";
const media = window.matchMedia?.("(prefers-color-scheme: dark)");
const systemIsDark = signal(media?.matches ?? false);
media?.addEventListener("change", (event) => { systemIsDark.value = event.matches; });

function stored(): Theme {
  const kept = localStorage.getItem(KEY);
  return kept === "light" || kept === "dark" ? kept : "system";
}

export const theme = signal<Theme>(stored());
// Told of what other tabs change alone; without a key, of all.
window.addEventListener("storage", ({ key }) => { if (key === KEY || key === null) theme.value = stored(); });
export const isDark = computed(() => (theme.value === "system" ? systemIsDark.value : theme.value === "dark"));

effect(() => { document.documentElement.dataset.theme = isDark.value ? "dark" : "light"; });

export function setTheme(next: Theme): void {
  theme.value = next;
  if (next === "system") localStorage.removeItem(KEY);
  else localStorage.setItem(KEY, next);
}
