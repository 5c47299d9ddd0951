import type { ComponentProps, ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { CodeEditor } from "./CodeEditor";

type Props = ComponentProps<typeof CodeEditor>;

/** The code editor, which is loaded when one is shown; meanwhile, and where it cannot be loaded, a plain field. */
export function LazyCode(props: Props) {
  const [Loaded, setLoaded] = useState<ComponentType<Props> | null>(null);
  useEffect(() => {
    let current = true;
    import("./CodeEditor").then((module) => { if (current) setLoaded(() => module.CodeEditor); }, () => undefined);
    return () => { current = false; };
  }, []);
  if (Loaded !== null) return <Loaded {...props} />;
  return <textarea class="input mono" aria-label={props.label} value={props.value} readOnly={props.onValue === undefined} onInput={(event) => props.onValue?.(event.currentTarget.value)} />;
}
