import type { ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Alert } from "../../ui/Alert";

/** A part of the page that is fetched when it is first shown. */
export function lazy<Props extends object>(load: () => Promise<ComponentType<Props>>): ComponentType<Props> {
  let known: ComponentType<Props> | null = null;
  return function Lazy(props: Props) {
    const [Content, setContent] = useState<ComponentType<Props> | null>(() => known);
    const [failed, setFailed] = useState(false);
    useEffect(() => {
      load().then(
        (content) => {
          known = content;
          setContent(() => content);
        },
        () => setFailed(true),
      );
    }, []);
    if (failed) return <Alert tone="bad">This could not be loaded. Reload the panel when the balancer is back.</Alert>;
    return Content === null ? <div class="skeleton" role="status" aria-label="Loading" /> : <Content {...props} />;
  };
}
