import { expect, test, vi } from "vitest";

test("colours follow the system until somebody chooses, and again after", async () => {
  let onChange: ((event: { matches: boolean }) => void) | undefined;
  window.matchMedia = vi.fn().mockReturnValue({ matches: false, addEventListener: (_: string, listener: typeof onChange) => { onChange = listener; } });
  localStorage.clear();
  const { isDark, setTheme } = await import("./theme");
  expect(isDark.value).toBe(false);
  onChange?.({ matches: true });
  expect(document.documentElement.dataset.theme).toBe("dark");
  setTheme("light");
  expect(document.documentElement.dataset.theme).toBe("light");
  expect(localStorage.getItem("paddler.theme")).toBe("light");
  setTheme("system");
  expect(document.documentElement.dataset.theme).toBe("dark");
  expect(localStorage.getItem("paddler.theme")).toBeNull();

  localStorage.setItem("paddler.theme", "dark"); // as another tab does
  window.dispatchEvent(new StorageEvent("storage", { key: "paddler.theme" }));
  onChange?.({ matches: false });
  expect(document.documentElement.dataset.theme).toBe("dark");
  localStorage.clear();
  window.dispatchEvent(new StorageEvent("storage", { key: null }));
  expect(document.documentElement.dataset.theme).toBe("light");
});
