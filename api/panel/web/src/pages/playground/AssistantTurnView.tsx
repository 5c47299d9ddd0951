import { Alert } from "../../ui/Alert";
import { Button } from "../../ui/Button";
import { copyText } from "../../ui/Copy";
import { Icon } from "../../ui/Icon";
import { toast, toastError } from "../../ui/Toast";
import { Calls } from "./Calls";
import { Facts } from "./Facts";
import { AGAIN, BACK } from "./icons";
import { Markdown } from "./Markdown";
import { type Answer, type AssistantTurn, chosen, isRunning } from "./model";
import { Probabilities } from "./Probabilities";
import { talks } from "./open";
import { waitingFor } from "./stats";

interface Props {
  conversationId: string;
  turn: AssistantTurn;
  model: string;
  isLast: boolean;
  isBusy: boolean;
}

export function AssistantTurnView({ conversationId, turn, model, isLast, isBusy }: Props) {
  const answer = chosen(turn);
  const running = isRunning(answer);
  const again = () => void talks.regenerate(conversationId, turn.id).catch(toastError);
  return (
    <article class="pg-turn pg-answer" aria-label={`Answer of ${model}`} aria-busy={running ? "true" : undefined}>
      <Thought answer={answer} />
      {answer.text !== "" && <Markdown text={answer.text} isOver={!running} />}
      <Calls key={answer.id} conversationId={conversationId} answer={answer} canAnswer={isLast && !isBusy} />
      {running && <p class="pg-waiting"><span class="pg-spin" aria-hidden="true" />{waitingFor(answer)}</p>}
      <Ending answer={answer} />
      {answer.error && <Failure answer={answer} onAgain={isBusy ? null : again} />}
      <Facts answer={answer} />
      {!running && (
        <div class="row pg-actions">
          <Choices conversationId={conversationId} turn={turn} isBusy={isBusy} />
          <Button kind="quiet" small disabled={isBusy} onClick={again} title={isLast ? "Another answer" : "Another answer; everything below is replaced"}><Icon path={AGAIN} size={15} />Regenerate</Button>
          {answer.text !== "" && <Button kind="quiet" small onClick={() => void copy(answer.text)}><Icon name="copy" size={15} />Copy</Button>}
          <Probabilities answer={answer} />
        </div>
      )}
    </article>
  );
}

function Thought({ answer }: { answer: Answer }) {
  if (answer.thought === "") return null;
  const isThinking = isRunning(answer) && answer.text === "" && answer.calls.length === 0;
  return (
    <details class="pg-thought">
      <summary>{isThinking ? "Thinking …" : "What it thought"}</summary>
      <p class="pg-plain" tabIndex={0}>{answer.thought}</p>
    </details>
  );
}

function Ending({ answer }: { answer: Answer }) {
  if (answer.state === "stopped") return <p class="muted small">Stopped. The agent's slot is free again.</p>;
  if (answer.state !== "done") return null;
  if (answer.finish === "length") return <p class="muted small">Cut off: the bound of tokens, or the end of the context, was reached.</p>;
  if (answer.text === "" && answer.calls.length === 0) return <p class="muted small">The model said nothing.</p>;
  return null;
}

function Failure({ answer, onAgain }: { answer: Answer; onAgain: (() => void) | null }) {
  const { error } = answer;
  if (error === null) return null;
  return (
    <Alert tone="bad">
      <p><strong>{error.message}</strong></p>
      {error.remedy && <p>{error.remedy}</p>}
      {error.retryAfter !== null && <p class="small">The server says: try again in {error.retryAfter} s.</p>}
      {error.canRetry && onAgain && <p><Button small onClick={onAgain}>Try again</Button></p>}
    </Alert>
  );
}

function Choices({ conversationId, turn, isBusy }: { conversationId: string; turn: AssistantTurn; isBusy: boolean }) {
  const total = turn.answers.length;
  if (total < 2) return null;
  const to = (number: number) => talks.choose(conversationId, turn.id, number);
  return (
    <span class="row-tight" role="group" aria-label="Answers to choose from">
      <Button kind="quiet" small icon aria-label="Answer before" disabled={isBusy || turn.chosen === 0} onClick={() => to(turn.chosen - 1)}><Icon path={BACK} size={15} /></Button>
      <span class="num small">{turn.chosen + 1} of {total}</span>
      <Button kind="quiet" small icon aria-label="Answer after" disabled={isBusy || turn.chosen === total - 1} onClick={() => to(turn.chosen + 1)}><Icon name="chevron" size={15} /></Button>
    </span>
  );
}

async function copy(text: string): Promise<void> {
  const done = await copyText(text);
  toast(done ? "Copied as Markdown." : "The browser did not let us copy; select the text and copy it by hand.", done ? "good" : "bad");
}
