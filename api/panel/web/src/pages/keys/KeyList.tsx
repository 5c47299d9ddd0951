import { useState } from "preact/hooks";
import type { ComponentChildren } from "preact";
import { call } from "../../data/api";
import { dateTime } from "../../data/format";
import { Alert } from "../../ui/Alert";
import { Badge, type Tone } from "../../ui/Badge";
import { Button } from "../../ui/Button";
import { confirm } from "../../ui/Confirm";
import { Empty } from "../../ui/Empty";
import { Table, type Column } from "../../ui/Table";
import { toast, toastError } from "../../ui/Toast";
import { ChangeLimits, RotateKey } from "./ChangeKey";
import { pathOf } from "./data";
import { limitsIn } from "./form";
import type { ApiKey } from "./types";

const TONES: Record<ApiKey["state"], Tone> = { active: "good", revoked: "bad", expired: "warn" };

interface Props {
  keys: ApiKey[] | null;
  error: string | null;
  onChange: () => void;
  create: ComponentChildren;
}

export function KeyList({ keys, error, onChange, create }: Props) {
  const [changing, setChanging] = useState<{ key: ApiKey; what: "limits" | "secret" } | null>(null);
  if (error !== null) return <Alert tone="bad"><p>{error}</p><Button small onClick={onChange}>Try again</Button></Alert>;
  if (keys === null) return <div class="skeleton" role="status" aria-label="Loading" />;
  if (keys.length === 0) {
    return (
      <Empty title="There are no keys: everybody on this machine may use the fleet">
        <p>Services listen on loopback addresses alone while that is so. With the first key everybody needs one, and each key can have limits and a tenant whose usage is counted.</p>
        {create}
      </Empty>
    );
  }
  const done = () => { setChanging(null); onChange(); };
  const columns: readonly Column<ApiKey>[] = [
    { id: "name", head: "Key", cell: (key) => <span class="key-name"><b>{key.name}</b><span class="mono muted small">{key.id}</span><Narrow apiKey={key} /></span> },
    { id: "state", head: "State", cell: ({ state }) => <Badge tone={TONES[state]}>{state}</Badge> },
    { id: "tenant", head: "Tenant", cell: ({ tenant }) => tenant },
    { id: "scopes", head: "Scopes", cell: ({ scopes }) => <span class="key-badges">{scopes.map((scope) => <Badge key={scope} tone={scope === "management" ? "accent" : "plain"}>{scope}</Badge>)}</span> },
    { id: "limits", head: "Limits", cell: ({ limits }) => <LimitsOf limits={limits} /> },
    { id: "times", head: "Times", cell: (key) => <Times apiKey={key} /> },
    {
      id: "actions",
      head: <span class="sr-only">Actions</span>,
      right: true,
      cell: (key) => (
        <span class="key-actions">
          {key.state === "active" ? (
            <>
              <Button small aria-label={`Limits of ${key.name}`} onClick={() => setChanging({ key, what: "limits" })}>Limits</Button>
              <Button small aria-label={`Rotate ${key.name}`} onClick={() => setChanging({ key, what: "secret" })}>Rotate</Button>
              <Button small aria-label={`Revoke ${key.name}`} onClick={() => void revoke(key, keys).then((yes) => { if (yes) onChange(); })}>Revoke</Button>
            </>
          ) : (
            <Button small aria-label={`Forget ${key.name}`} onClick={() => void forget(key, keys).then((yes) => { if (yes) onChange(); })}>Forget</Button>
          )}
        </span>
      ),
    },
  ];
  return (
    <>
      <div class="card flush key-table"><Table label="API keys" columns={columns} rows={keys} rowKey={({ id }) => id} /></div>
      {changing?.what === "limits" && <ChangeLimits apiKey={changing.key} onClose={() => setChanging(null)} onDone={done} />}
      {changing?.what === "secret" && <RotateKey apiKey={changing.key} onClose={() => setChanging(null)} onDone={done} />}
    </>
  );
}

/** What has no column of its own on a narrow page. */
function Narrow({ apiKey: { tenant, scopes, expires_at } }: { apiKey: ApiKey }) {
  return <span class="key-narrow small">{tenant} · {scopes.join(", ")}{expires_at && ` · expires ${dateTime(Date.parse(expires_at))}`}</span>;
}

function LimitsOf({ limits }: { limits: ApiKey["limits"] }) {
  const said = limitsIn(limits);
  const classes = limits.default_class === limits.max_class ? `class ${limits.max_class}` : `class ${limits.default_class}, at most ${limits.max_class}`;
  return (
    <span class="key-limits small">
      <span>{said.length === 0 ? <span class="muted">No limits</span> : said.join(" · ")}</span>
      <span class="muted">{classes}{limits.weight === 1 ? "" : ` · weight ${limits.weight}`}</span>
    </span>
  );
}

function Times({ apiKey: { created_at, expires_at, revoked_at, rotated_at } }: { apiKey: ApiKey }) {
  const said: [string, string | null][] = [["Made", created_at], ["Rotated", rotated_at], ["Expires", expires_at], ["Revoked", revoked_at]];
  return <span class="key-times small">{said.map(([word, at]) => at !== null && <span key={word} class="nowrap"><span class="muted">{word}</span> {dateTime(Date.parse(at))}</span>)}</span>;
}

/** Asked first; true if it was done. */
async function revoke(key: ApiKey, keys: readonly ApiKey[]): Promise<boolean> {
  const isLast = !keys.some((one) => one.id !== key.id && one.state === "active" && one.scopes.includes("management"));
  const yes = await confirm({
    title: `Revoke ${key.name}?`,
    body: (
      <>
        <p>All balancers refuse it within a second, and it cannot be brought back. What it has begun goes on.</p>
        {key.scopes.includes("management") && isLast && <Alert tone="warn">It is the last one with the scope management: nobody can use this panel then, and another key has to be made with <code>paddler keys create</code>.</Alert>}
      </>
    ),
    action: "Revoke key",
    danger: true,
  });
  return yes && told(`${key.name} is revoked.`, () => call(pathOf(key, "/revoke"), { method: "POST" }));
}

/** Asked first; true if it was done. */
async function forget(key: ApiKey, keys: readonly ApiKey[]): Promise<boolean> {
  const yes = await confirm({
    title: `Forget ${key.name}?`,
    body: keys.length === 1
      ? "It goes from the list. It is the last key: everybody on this machine is let in again without one, and nobody from elsewhere."
      : "It goes from the list; usage that was counted for it stays, without its name.",
    action: "Forget key",
    danger: true,
  });
  return yes && told(`${key.name} is forgotten.`, () => call(pathOf(key), { method: "DELETE" }));
}

async function told(done: string, act: () => Promise<unknown>): Promise<boolean> {
  try {
    await act();
    toast(done, "good");
    return true;
  } catch (error) {
    toastError(error);
    return false;
  }
}
