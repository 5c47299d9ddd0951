import { bytes, count, duration, rate } from "../../data/format";
import type { Agent, Tier } from "../../data/types";
import { Table, type Column } from "../../ui/Table";

const NAMES: Record<string, string> = { ram: "Host memory", disk: "Disk", peer: "Other agents", shared: "Shared store" };

const COLUMNS: readonly Column<Tier>[] = [
  { id: "tier", head: "Tier", cell: ({ tier }) => NAMES[tier] ?? tier },
  { id: "holds", head: "Holds", cell: ({ blocks, bytes: size }) => (blocks || size ? `${count(blocks)} blocks, ${bytes(size)}` : "–"), right: true },
  { id: "found", head: "Found", cell: ({ hits, misses }) => (hits + misses ? `${count(hits)} of ${count(hits + misses)}` : "–"), right: true },
  { id: "tokens", head: "Tokens back", cell: ({ tokens }) => count(tokens), right: true },
  { id: "saved", head: "Prefill saved", cell: ({ saved_ms }) => duration(saved_ms), right: true },
  { id: "speed", head: "MB/s", cell: ({ bytes_per_second }) => rate(bytes_per_second === null ? null : bytes_per_second / 1e6), right: true },
  { id: "trouble", head: "Refused, failed", cell: ({ refused, failures }) => (refused || failures ? `${count(refused)}, ${count(failures)}` : "–"), right: true },
];

/** What lies behind the agent's KV cache, folded: most look at it when they wonder what it is good for. */
export function Tiers({ agent }: { agent: Agent }) {
  const tiers = agent.tiers ?? [];
  if (tiers.length === 0) return null;
  const saved = tiers.reduce((sum, { saved_ms }) => sum + saved_ms, 0);
  const troubles = tiers.reduce((sum, { refused, failures }) => sum + refused + failures, 0);
  const parts = [tiers.map(({ tier }) => (NAMES[tier] ?? tier).toLowerCase()).join(", "), `${duration(saved)} of prefill saved`];
  if (troubles > 0) parts.push(`${count(troubles)} refused or failed`);
  return (
    <details class="agent-tiers">
      <summary class="small muted">Behind the KV cache: {parts.join("; ")}</summary>
      <Table label={`Tiers of ${agent.name ?? agent.id}`} columns={COLUMNS} rows={tiers} rowKey={({ tier }) => tier} />
    </details>
  );
}
