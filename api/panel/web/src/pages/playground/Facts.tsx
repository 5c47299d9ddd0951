import { count, rate } from "../../data/format";
import { Badge } from "../../ui/Badge";
import { type Answer, isRunning } from "./model";
import { asSeconds, statsOf } from "./stats";

/** The line below an answer: what it has cost, and which way it went. */
export function Facts({ answer }: { answer: Answer }) {
  const { firstTokenMs, tokensPerS, isEstimate, tokens, promptTokens, cachedTokens } = statsOf(answer);
  const { agent, attempt } = answer.route;
  const about = isEstimate && isRunning(answer) ? "≈ " : "";
  if (firstTokenMs === null && agent === null && promptTokens === null) return null;
  return (
    <dl class="pg-facts">
      {firstTokenMs !== null && <Fact name="First token" title="From sending to the first token">{asSeconds(firstTokenMs)}</Fact>}
      {tokensPerS !== null && <Fact name="Speed" title="Tokens after the first one, by the time between them">{about}{rate(tokensPerS)} tokens/s</Fact>}
      {tokens !== null && <Fact name="Output">{about}{count(tokens)} tokens</Fact>}
      {promptTokens !== null && (
        <Fact name="Prompt" title="How much of it was in the agent's KV cache, and so not computed">
          {count(promptTokens)} tokens, {count(cachedTokens ?? 0)} cached
        </Fact>
      )}
      {agent !== null && <Fact name="Agent" title={answer.requestId ?? undefined}>{agent}</Fact>}
      {attempt !== null && attempt > 1 && (
        <Fact name="Handed over">
          <Badge tone="info" title="An agent was lost or left; another went on where it was">
            {answer.handedOverFrom.length > 0 ? `from ${answer.handedOverFrom.join(", ")}` : "before its first word"}
          </Badge>
        </Fact>
      )}
    </dl>
  );
}

function Fact({ name, title, children }: { name: string; title?: string; children: preact.ComponentChildren }) {
  return <div title={title}><dt>{name}</dt><dd>{children}</dd></div>;
}
