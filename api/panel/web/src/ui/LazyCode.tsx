import type { ComponentProps, ComponentType } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { CodeEditor } from "./CodeEditor";

type Props = ComponentProps<typeof CodeEditor>;

/** The code editor, which is loaded when one is shown; meanwhile, and where it cannot be loaded, a plain field. Who is
 * already writing in that goes on in the editor. */
export function LazyCode(props: Props) {
  const [Loaded, setLoaded] = useState<ComponentType<Props> | null>(null);
  const area = useRef<HTMLTextAreaElement>(null);
  const cursor = useRef<number | null>(null);
  useEffect(() => {
    let current = true;
    import("./CodeEditor").then((module) => {
      if (!current) return;
      if (area.current !== null && document.activeElement === area.current) cursor.current = area.current.selectionStart;
      setLoaded(() => module.CodeEditor);
    }, () => undefined);
    return () => { current = false; };
  }, []);
  if (Loaded !== null) return <Loaded {...props} cursor={cursor.current} />;
  return <textarea ref={area} class="input mono" aria-label={props.label} value={props.value} readOnly={props.onValue === undefined} onInput={(event) => props.onValue?.(event.currentTarget.value)} />;
}
