import { Copy } from "../../ui/Copy";
import { Alert } from "../../ui/Alert";
import type { Service } from "./types";

const WHAT: Record<string, string> = {
  inference: "Clients send requests here: OpenAI's, Anthropic's and Paddler's own protocol.",
  openai: "OpenAI's and Anthropic's routes alone.",
  management: "Operators and scripts look after the fleet here.",
  panel: "This panel.",
};

export function Addresses({ services, needsKey }: { services: Service[]; needsKey: boolean }) {
  return (
    <section class="card stack" aria-label="Addresses">
      <h2>Addresses of this balancer</h2>
      <Alert tone={needsKey ? "info" : "warn"}>
        {needsKey ? "Every call needs an API key." : <>There are no API keys: whoever reaches an address may do anything. <code>paddler keys create NAME --scope management</code> makes the first one, and closes the fleet to everybody without a key.</>}
      </Alert>
      {services.map(({ name, flag, url }) => (
        <div key={name} class="stack-small">
          <div class="spread"><b>{name}</b><code class="muted">{flag}</code></div>
          <Copy text={url} label={`address of ${name}`} />
          <p class="muted small">{WHAT[name]}</p>
        </div>
      ))}
    </section>
  );
}
