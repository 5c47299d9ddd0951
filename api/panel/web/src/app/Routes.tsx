import type { ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Redirect, Route, Switch, useLocation } from "wouter-preact";
import { Alert } from "../ui/Alert";
import { Button } from "../ui/Button";
import { PAGES, type KnownPage } from "./pages";

/** `#/fleet` and whatever is below it is the page `fleet`; it finds the rest with wouter's `useRoute` or `Route`. */
export function Routes() {
  return (
    <Switch>
      {PAGES.map((page) => (
        <Route key={page.name} path={`/${page.name}/*?`}><Loaded page={page} /></Route>
      ))}
      <Route><Redirect to="/fleet" replace /></Route>
    </Switch>
  );
}

function Loaded({ page }: { page: KnownPage }) {
  const [Content, setContent] = useState<ComponentType | null>(null);
  const [failed, setFailed] = useState(false);
  const [tries, setTries] = useState(0);
  useEffect(() => {
    let current = true;
    setFailed(false);
    page.load().then(
      (module) => { if (current) setContent(() => module.default); },
      () => { if (current) setFailed(true); },
    );
    return () => { current = false; };
  }, [page, tries]);
  useEffect(() => { document.title = `${page.title} · Paddler`; }, [page]);
  useFocusOnHeading(Content !== null);
  if (failed) {
    return (
      <Alert tone="bad">
        <p>This page could not be loaded: the balancer is away, or was replaced by one with another panel.</p>
        <div class="row"><Button small onClick={() => setTries(tries + 1)}>Try again</Button><Button small onClick={() => location.reload()}>Reload the panel</Button></div>
      </Alert>
    );
  }
  return Content === null ? <div class="skeleton" aria-label="Loading" role="status" /> : <Content />;
}

let isFirst = true;

/** After navigation a screen reader begins at the page's heading; at the first visit the browser begins by itself. */
function useFocusOnHeading(isThere: boolean): void {
  const [path] = useLocation();
  const name = path.split("/")[1];
  useEffect(() => {
    if (!isThere) return;
    if (!isFirst) document.querySelector<HTMLElement>("#main h1")?.focus({ preventScroll: true });
    isFirst = false;
    window.scrollTo(0, 0);
  }, [isThere, name]);
}
