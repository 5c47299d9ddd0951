import { signal } from "@preact/signals";
import { call, needsLogin } from "./api";
import type { Me } from "./types";

/** Who looks; null before the balancer has said. */
export const me = signal<Me | null>(null);

export async function loadMe(): Promise<void> {
  me.value = await call<Me>("/panel/api/me");
  needsLogin.value = me.value.needs_key && !me.value.logged_in;
}

/** Throws `ApiError`. */
export async function login(key: string): Promise<void> {
  me.value = await call<Me>("/panel/api/login", { method: "POST", body: { key } });
  needsLogin.value = false;
}

export async function logout(): Promise<void> {
  await call("/panel/api/logout", { method: "POST" });
  needsLogin.value = true;
  await loadMe();
}
