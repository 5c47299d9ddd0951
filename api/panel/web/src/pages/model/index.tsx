import { useEffect } from "preact/hooks";
import { useLocation, useRoute } from "wouter-preact";
import { choosePool, currentPool, poolNames } from "../../data/pool";
import { Alert } from "../../ui/Alert";
import { Button } from "../../ui/Button";
import { Page } from "../../ui/Page";
import { editingOf, hasUnsaved } from "./editing";
import { Form } from "./Form";
import "./style.css";

/** `#/model/POOL`: what a pool is to serve and how. */
export default function ModelPage() {
  const pool = usePool();
  const editing = editingOf(pool);
  useEffect(() => { void editing.load(); }, [editing]);
  useEffect(() => {
    const look = () => void editing.look();
    window.addEventListener("focus", look);
    return () => window.removeEventListener("focus", look);
  }, [editing]);
  useEffect(() => {
    const ask = (event: BeforeUnloadEvent) => { if (hasUnsaved()) event.preventDefault(); };
    window.addEventListener("beforeunload", ask);
    return () => window.removeEventListener("beforeunload", ask);
  }, []);
  const trouble = editing.trouble.value;
  return (
    <Page title="Model" actions={<PoolChoice pool={pool} />}>
      {trouble !== null && (
        <Alert tone="bad">
          <p>{trouble.message}</p>
          <Button small onClick={() => void editing.load()}>Try again</Button>
        </Alert>
      )}
      {editing.draft.value === null ? trouble === null && <div class="skeleton model-loading" role="status" aria-label="Loading" /> : <Form key={pool} editing={editing} />}
    </Page>
  );
}

/** The pool of the address, else the one that other pages show. */
function usePool(): string {
  const [, params] = useRoute<{ pool?: string }>("/model/:pool?");
  const named = params?.pool;
  useEffect(() => { if (named) choosePool(named); }, [named]);
  return named || currentPool.value;
}

function PoolChoice({ pool }: { pool: string }) {
  const [, go] = useLocation();
  const names = [...new Set([...poolNames.value, pool])].sort();
  if (names.length < 2) return null;
  return (
    <label class="row-tight">
      <span class="muted">Pool</span>
      <select class="input" aria-label="Pool" value={pool} onChange={(event) => go(`/model/${encodeURIComponent(event.currentTarget.value)}`)}>
        {names.map((name) => <option key={name} value={name}>{name}</option>)}
      </select>
    </label>
  );
}
