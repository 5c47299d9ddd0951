import { computed, effect, signal } from "@preact/signals";

export type Theme = "system" | "light" | "dark";

const KEY = "paddler.theme";
const media = window.matchMedia?.("(prefers-color-scheme: dark)");
const systemIsDark = signal(media?.matches ?? false);
media?.addEventListener("change", (event) => { systemIsDark.value = event.matches; });

const stored = localStorage.getItem(KEY);
export const theme = signal<Theme>(stored === "light" || stored === "dark" ? stored : "system");
export const isDark = computed(() => (theme.value === "system" ? systemIsDark.value : theme.value === "dark"));

effect(() => { document.documentElement.dataset.theme = isDark.value ? "dark" : "light"; });

export function setTheme(next: Theme): void {
  theme.value = next;
  if (next === "system") localStorage.removeItem(KEY);
  else localStorage.setItem(KEY, next);
}
