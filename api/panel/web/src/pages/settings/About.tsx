import { agents } from "../../data/live";
import type { Settings } from "./types";

export function About({ settings }: { settings: Settings }) {
  const builds = [...new Set([...agents.value.values()].map((one) => one.build).filter((one): one is string => one !== null))].sort();
  return (
    <section class="card stack" aria-label="Versions">
      <h2>Versions</h2>
      <dl class="facts">
        <dt>This balancer</dt><dd>Paddler {settings.version}, Python {settings.python_version}</dd>
        <dt>Process</dt><dd class="wrap-any">{settings.pid} on {settings.host}</dd>
        {builds.map((build, index) => <><dt key={`${build}-dt`}>{index === 0 ? "Agents compute with" : ""}</dt><dd key={build} class="wrap-any">{build}</dd></>)}
      </dl>
    </section>
  );
}
