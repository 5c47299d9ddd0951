/** Where agents find the fleet, as this balancer does. */
export interface Joining {
  /** Without a password. */
  redis_url: string;
  redis_prefix: string;
  /** Only the balancer's own machine reaches that. */
  is_local: boolean;
  has_secret: boolean;
  /** Of files that the balancer has for TLS; the agent's machine needs its own. */
  file_flags: readonly string[];
}

const DEFAULT_PREFIX = "paddler";

export function agentCommand({ redis_url, redis_prefix }: Joining, { name, slots, pool }: { name: string; slots: string; pool: string }): string {
  const parts = ["paddler agent", `--slots ${slots}`];
  if (name !== "") parts.push(`--name ${name}`);
  if (pool !== "default") parts.push(`--pool ${pool}`);
  parts.push(`--redis-url ${quoted(redis_url)}`);
  if (redis_prefix !== DEFAULT_PREFIX) parts.push(`--redis-prefix ${quoted(redis_prefix)}`);
  return parts.join(" ");
}

/** What is wrong with a name that would need quoting in a shell. */
export function checkName(name: string): string | null {
  return name === "" || /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(name) ? null : "Letters, digits, dots, dashes and underscores, a letter or digit first.";
}

export function checkSlots(slots: string): string | null {
  return /^[1-9][0-9]{0,2}$/.test(slots) && Number(slots) <= 256 ? null : "A whole number from 1 to 256.";
}

/** For any POSIX shell. */
function quoted(text: string): string {
  return /^[A-Za-z0-9_@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`;
}
