import { Icon } from "../../ui/Icon";
import { WRENCH } from "./icons";
import type { ToolTurn } from "./model";

export function ToolTurnView({ turn }: { turn: ToolTurn }) {
  return (
    <article class="pg-turn pg-tool" aria-label={`Result of ${turn.name}`}>
      <h3 class="row-tight small"><Icon path={WRENCH} size={15} />Result of {turn.name}</h3>
      <pre class="pg-json" tabIndex={0}>{turn.text}</pre>
    </article>
  );
}
