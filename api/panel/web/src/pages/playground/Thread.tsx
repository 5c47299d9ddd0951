import { useEffect, useLayoutEffect, useMemo, useRef } from "preact/hooks";
import { Empty } from "../../ui/Empty";
import { AssistantTurnView } from "./AssistantTurnView";
import { type Conversation, type Turn, chosen, isRunning } from "./model";
import { ToolTurnView } from "./ToolTurnView";
import { UserTurnView } from "./UserTurnView";

const NEAR_PX = 80;

export function Thread({ conversation }: { conversation: Conversation }) {
  const ref = useRef<HTMLDivElement>(null);
  useFollowEnd(ref, conversation);
  const { turns } = conversation;
  const last = turns.at(-1);
  const newest = turns.findLastIndex((turn) => turn.role === "user");
  const isBusy = last?.role === "assistant" && last.answers.some(isRunning);
  return (
    <>
      <div ref={ref} class="pg-thread" role="log" aria-label="Messages" aria-live="off" tabIndex={0}>
        {turns.length === 0 && (
          <Empty title="Ask the model something">
            <p>Messages go through the same queue as those of any client. Below each answer stand the agent that gave it, the time to its first token, its speed and what of the prompt was cached.</p>
          </Empty>
        )}
        {turns.map((turn, at) => (
          <Kept key={turn.id} conversation={conversation} turn={turn} isLast={at === turns.length - 1} isNewest={at >= newest} isBusy={isBusy} />
        ))}
      </div>
      <p class="sr-only" role="status">{said(last, isBusy)}</p>
    </>
  );
}

/** Drawn again only when its own turn has changed: the others stay as they are while one is written. */
function Kept({ conversation, turn, isLast, isNewest, isBusy }: { conversation: Conversation; turn: Turn; isLast: boolean; isNewest: boolean; isBusy: boolean }) {
  return useMemo(() => {
    switch (turn.role) {
      case "user":
        return <UserTurnView conversationId={conversation.id} turn={turn} isBusy={isBusy} isNewest={isNewest} />;
      case "tool":
        return <ToolTurnView turn={turn} />;
      case "assistant":
        return <AssistantTurnView conversationId={conversation.id} turn={turn} model={conversation.setup.model} isLast={isLast} isBusy={isBusy} />;
    }
  }, [turn, conversation.id, conversation.setup.model, isLast, isNewest, isBusy]);
}

/** For screen readers: that an answer is there, not each of its words. */
function said(last: Turn | undefined, isBusy: boolean): string {
  if (last?.role !== "assistant") return "";
  if (isBusy) return "Answering";
  const { state } = chosen(last);
  return state === "failed" ? "The answer failed" : state === "stopped" ? "Stopped" : "The answer is there";
}

/** Stays at the end while it is there; whoever has scrolled up reads on undisturbed. */
function useFollowEnd(ref: { current: HTMLDivElement | null }, conversation: Conversation): void {
  const isAtEnd = useRef(true);
  useEffect(() => {
    const thread = ref.current;
    if (thread === null) return;
    const look = () => { isAtEnd.current = thread.scrollHeight - thread.scrollTop - thread.clientHeight < NEAR_PX; };
    thread.addEventListener("scroll", look, { passive: true });
    return () => thread.removeEventListener("scroll", look);
  }, []);
  useLayoutEffect(() => { isAtEnd.current = true; }, [conversation.id, conversation.turns.length]);
  useLayoutEffect(() => {
    const thread = ref.current;
    if (thread !== null && isAtEnd.current) thread.scrollTop = thread.scrollHeight;
  });
}
