import { signal } from "@preact/signals";
import { call, needsLogin } from "./api";
import type { Me } from "./types";

/** Who looks; null before the balancer has said. */
export const me = signal<Me | null>(null);

/** The tabs of a browser have one cookie: who logs in or out in one does so in all, and they hear of it at once. */
const tabs = typeof BroadcastChannel === "undefined" ? null : new BroadcastChannel("paddler-session");
tabs?.addEventListener("message", () => void loadMe().catch(() => undefined)); // the live feed tells of a balancer that is away

export async function loadMe(): Promise<void> {
  me.value = await call<Me>("/panel/api/me");
  needsLogin.value = me.value.needs_key && !me.value.logged_in;
}

/** Throws `ApiError`. */
export async function login(key: string): Promise<void> {
  me.value = await call<Me>("/panel/api/login", { method: "POST", body: { key } });
  needsLogin.value = false;
  tabs?.postMessage("login");
}

export async function logout(): Promise<void> {
  await call("/panel/api/logout", { method: "POST" });
  needsLogin.value = true;
  tabs?.postMessage("logout");
  await loadMe();
}
