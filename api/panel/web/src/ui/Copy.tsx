import { useState } from "preact/hooks";
import { Button } from "./Button";
import { Icon } from "./Icon";
import { toast } from "./Toast";

const SAYS_SO_MS = 2000;

/** Text to be copied: a command, an address, a key. `label` says what it is. */
export function Copy({ text, label }: { text: string; label: string }) {
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    if (await copyText(text)) {
      setCopied(true);
      setTimeout(() => setCopied(false), SAYS_SO_MS);
    } else {
      toast("The browser did not let us copy; select the text and copy it by hand.", "bad");
    }
  };
  return (
    <div class="copy">
      <pre tabIndex={0} aria-label={label}>{text}</pre>
      <Button icon aria-label={copied ? "Copied" : `Copy ${label}`} title="Copy" onClick={() => void copy()}><Icon name={copied ? "check" : "copy"} /></Button>
    </div>
  );
}

/** False where it cannot be done. `navigator.clipboard` is there over HTTPS and on localhost alone. */
export async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "sr-only";
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}
