import { Empty } from "../../ui/Empty";
import { AgentCommand } from "./AddAgent";

export function NoAgents() {
  return (
    <section class="card" aria-label="No agents">
      <Empty title="No agents yet" icon="fleet">
        <p class="narrow">
          An agent is a process that has loaded a model and answers requests on its slots. Requests that come now wait in the
          buffer: start an agent and it takes them, in order. Start as many as you like, on as many machines.
        </p>
        <div class="narrow left"><AgentCommand /></div>
      </Empty>
    </section>
  );
}
