import { call } from "../../data/api";
import { confirm } from "../../ui/Confirm";
import { toast, toastError } from "../../ui/Toast";

function path(collection: "requests" | "dead_letters", id: string, end: string): string {
  return `/api/v1/${collection}/${encodeURIComponent(id)}${end}`;
}

/** Asked first; true if it was told to stop. */
export async function cancelRequest(id: string): Promise<boolean> {
  const yes = await confirm({
    title: "Cancel this request?",
    body: `${id} stops, and its client is told so. What it has said so far stays with the client.`,
    action: "Cancel request",
    danger: true,
  });
  if (!yes) return false;
  return told(async () => {
    const { outcome } = await call<{ outcome: "cancelled" | "cancelling" | "ended" }>(path("requests", id, "/cancel"), { method: "POST" });
    toast({ cancelled: "The request is cancelled.", cancelling: "The request stops at its agent's next step.", ended: "The request had ended already." }[outcome], "good");
  });
}

/** Asked first; true if it waits again. */
export async function requeue(id: string): Promise<boolean> {
  const yes = await confirm({
    title: "Give this request another life?",
    body: `${id} begins anew, in the background. It lost one agent after the other: if it is what killed them, it will do so again.`,
    action: "Requeue",
  });
  return yes && told(async () => {
    await call(path("dead_letters", id, "/requeue"), { method: "POST" });
    toast("It waits again, in the background.", "good");
  });
}

/** Asked first; true if it is forgotten. */
export async function drop(id: string): Promise<boolean> {
  const yes = await confirm({ title: "Drop this dead letter?", body: `${id} is forgotten, and cannot be requeued.`, action: "Drop", danger: true });
  return yes && told(async () => {
    await call(path("dead_letters", id, ""), { method: "DELETE" });
    toast("The dead letter is dropped.", "good");
  });
}

async function told(act: () => Promise<void>): Promise<boolean> {
  try {
    await act();
    return true;
  } catch (error) {
    toastError(error);
    return false;
  }
}
