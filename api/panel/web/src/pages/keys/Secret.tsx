import { Alert } from "../../ui/Alert";
import { Button } from "../../ui/Button";
import { Copy } from "../../ui/Copy";
import { Dialog } from "../../ui/Dialog";
import type { NewKey } from "./types";

/** The one time that a key can be read. It is not closed by accident: only by the button. */
export function Secret({ made, onClose }: { made: NewKey & { isRotated: boolean }; onClose: () => void }) {
  return (
    <Dialog title={made.isRotated ? `New secret of ${made.key.name}` : `Key ${made.key.name}`} onClose={() => undefined} foot={<Button kind="primary" onClick={onClose}>I have put it away</Button>}>
      <Alert tone="warn"><p>This is the only time that the key is shown: nobody stores it. Copy it now.</p></Alert>
      <Copy label="API key" text={made.secret} />
      {made.key.scopes.includes("inference") && (
        <>
          <p class="muted small">It goes where OpenAI's or Anthropic's clients take an API key, or into a header:</p>
          <Copy label="header" text={`Authorization: Bearer ${made.secret}`} />
        </>
      )}
    </Dialog>
  );
}
