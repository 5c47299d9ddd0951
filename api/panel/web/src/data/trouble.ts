import { ApiError } from "./api";

/** Why the live feed does not come, in words for who looks, and what they can do about it. */
export interface Trouble {
  /** There is an answer, and it is no: to ask again does not help before something is done. */
  isRefusal: boolean;
  said: string;
  remedy: string | null;
}

export const AWAY: Trouble = { isRefusal: false, said: "Offline: the balancer cannot be reached, and what is shown is old.", remedy: null };

const PROXY = "Look at what stands between this browser and the balancer.";
const LOG_IN = "Log out, and log in with a key that has the scope management.";
const RELOAD = "Reload the panel: another version may have been started meanwhile.";

/** `error` is what ended the feed; undefined where the balancer has ended it in order. */
export function troubleOf(error: unknown): Trouble {
  if (!(error instanceof ApiError) || error.status === 0) return AWAY;
  const { status, message } = error;
  const isOurs = error.code !== null;
  if (status >= 500 || status === 429) {
    return { isRefusal: false, said: `What is shown is old: ${isOurs ? message : `the balancer, or what stands before it, has answered with ${status}.`}`, remedy: isOurs ? null : PROXY };
  }
  if (!isOurs) return { isRefusal: true, said: `Refused, and not by the balancer: it was answered with ${status}. What is shown is old.`, remedy: PROXY };
  const said = `Refused, and what is shown is old: ${message}`;
  if (status === 403) return { isRefusal: true, said, remedy: LOG_IN };
  if (status === 421) return { isRefusal: true, said, remedy: null }; // its message has the three ways out
  return { isRefusal: true, said, remedy: RELOAD };
}
