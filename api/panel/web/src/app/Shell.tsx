import { useEffect, useState } from "preact/hooks";
import { Router } from "wouter-preact";
import { useHashLocation } from "wouter-preact/use-hash-location";
import { needsLogin } from "../data/api";
import { startLive } from "../data/live";
import { loadMe, me } from "../data/session";
import { Alert } from "../ui/Alert";
import { ConfirmHost } from "../ui/Confirm";
import { ToastHost } from "../ui/Toast";
import { Login } from "./Login";
import { Navigation } from "./Navigation";
import { Offline } from "./Offline";
import { Routes } from "./Routes";

const LOOK_AGAIN_MS = 2000;

export function Shell() {
  const trouble = useMe();
  if (needsLogin.value) return <><Login /><ToastHost /></>;
  if (me.value === null) return trouble === null ? null : <main class="login"><Alert tone="warn">{trouble} Trying again.</Alert></main>;
  return <Inside />;
}

/** Asks who looks until somebody answers; why nobody does. */
function useMe(): string | null {
  const [tries, setTries] = useState(0);
  const [trouble, setTrouble] = useState<string | null>(null);
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    loadMe().catch((error: unknown) => {
      setTrouble(error instanceof Error ? error.message : String(error));
      timer = setTimeout(() => setTries(tries + 1), LOOK_AGAIN_MS);
    });
    return () => clearTimeout(timer);
  }, [tries]);
  return trouble;
}

function Inside() {
  useEffect(startLive, []);
  return (
    <Router hook={useHashLocation}>
      <a class="skip" href="#main" onClick={skip}>Skip to the page</a>
      <div class="shell">
        <Navigation />
        <div>
          <Offline />
          <main id="main" class="main" tabIndex={-1}><Routes /></main>
        </div>
      </div>
      <ConfirmHost />
      <ToastHost />
    </Router>
  );
}

/** The hash is the route, so a link cannot jump. */
function skip(event: Event): void {
  event.preventDefault();
  document.getElementById("main")?.focus();
}
