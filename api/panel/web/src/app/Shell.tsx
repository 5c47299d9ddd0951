import { useEffect, useState } from "preact/hooks";
import { Router } from "wouter-preact";
import { useHashLocation } from "wouter-preact/use-hash-location";
import { needsLogin } from "../data/api";
import { startLive } from "../data/live";
import { loadMe, me } from "../data/session";
import { ConfirmHost } from "../ui/Confirm";
import { ToastHost } from "../ui/Toast";
import { Login } from "./Login";
import { Navigation } from "./Navigation";
import { Offline } from "./Offline";
import { Routes } from "./Routes";

const LOOK_AGAIN_MS = 2000;

export function Shell() {
  useMe();
  if (needsLogin.value) return <><Login /><ToastHost /></>;
  if (me.value === null) return null;
  return <Inside />;
}

/** Asks who looks until somebody answers. */
function useMe(): void {
  const [tries, setTries] = useState(0);
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    loadMe().catch(() => { timer = setTimeout(() => setTries(tries + 1), LOOK_AGAIN_MS); });
    return () => clearTimeout(timer);
  }, [tries]);
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
