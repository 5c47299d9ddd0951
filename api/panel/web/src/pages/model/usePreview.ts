import { useEffect, useState } from "preact/hooks";
import { ApiError } from "../../data/api";
import { preview, type Preview } from "./client";
import { asked, type Conversation } from "./conversation";

const REST_MS = 250;

/** `isOld`: a newer one has been asked for. `trouble` says why there is none. */
export interface Previewed { told: Preview | null; trouble: string | null; isOld: boolean }

const NONE: Previewed = { told: null, trouble: null, isOld: true };

/** What the template makes of the conversation, asked for when typing rests. `template` null: the one that is in use;
 * `stamp` asks anew. */
export function usePreview(pool: string, template: string | null, conversation: Conversation, stamp: unknown): Previewed {
  const [found, setFound] = useState<Previewed>(NONE);
  useEffect(() => {
    const controller = new AbortController();
    setFound((before) => ({ ...before, isOld: true }));
    const timer = setTimeout(async () => {
      try {
        const told = await preview(pool, { ...asked(conversation), chat_template: template }, controller.signal);
        setFound({ told, trouble: null, isOld: false });
      } catch (error) {
        if (controller.signal.aborted) return;
        setFound({ told: null, trouble: error instanceof ApiError ? error.message : String(error), isOld: false });
      }
    }, REST_MS);
    return () => {
      clearTimeout(timer);
      controller.abort();
    };
  }, [pool, template, conversation, stamp]);
  return found;
}
