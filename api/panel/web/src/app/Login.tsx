import { useState } from "preact/hooks";
import { ApiError } from "../data/api";
import { login } from "../data/session";
import { Button } from "../ui/Button";
import { Copy } from "../ui/Copy";
import { TextField } from "../ui/Field";
import { Icon } from "../ui/Icon";

export function Login() {
  const [key, setKey] = useState("");
  const [error, setError] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const submit = async (event: Event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      await login(key.trim());
    } catch (problem) {
      setError(problem instanceof ApiError ? problem.message : String(problem));
      setBusy(false);
    }
  };
  return (
    <main class="login">
      <form class="card" onSubmit={(event) => void submit(event)}>
        <div class="brand"><Icon name="paddle" size={26} />Paddler</div>
        <h1>Log in</h1>
        <TextField
          label="API key"
          hint="One with the scope management. It is not stored in this browser."
          type="password"
          autocomplete="current-password"
          spellcheck={false}
          autofocus
          required
          value={key}
          onValue={setKey}
          error={error}
        />
        <Button kind="primary" type="submit" busy={busy}>Log in</Button>
        <details>
          <summary class="muted small">There is no such key yet?</summary>
          <div class="stack-small">
            <p class="muted small">On a machine that reaches the fleet's Redis:</p>
            <Copy label="command that makes a key" text="paddler keys create panel --scope management" />
          </div>
        </details>
      </form>
    </main>
  );
}
