import { useEffect, useState } from "preact/hooks";
import { call } from "../../data/api";
import { isOnline } from "../../data/live";
import { Alert } from "../../ui/Alert";
import { Button } from "../../ui/Button";
import { Page } from "../../ui/Page";
import "./settings.css";
import { About } from "./About";
import { Addresses } from "./Addresses";
import { Appearance } from "./Appearance";
import { Limits } from "./Limits";
import { Processes } from "./Processes";
import { Redis } from "./Redis";
import type { Settings } from "./types";

const REFRESH_MS = 5000;

export default function SettingsPage() {
  const [settings, setSettings] = useState<Settings | null>(null);
  const [error, setError] = useState<string | null>(null);
  const [asked, setAsked] = useState(0);
  const online = isOnline.value;
  useEffect(() => {
    const controller = new AbortController();
    const load = () => call<Settings>("/panel/api/settings", { signal: controller.signal }).then(
      (found) => { setSettings(found); setError(null); },
      (problem: unknown) => { if (!controller.signal.aborted) setError(problem instanceof Error ? problem.message : String(problem)); },
    );
    void load();
    const timer = setInterval(() => { if (!document.hidden) void load(); }, REFRESH_MS);
    return () => { controller.abort(); clearInterval(timer); };
  }, [asked, online]);
  return (
    <Page title="Settings" actions={<Button onClick={() => setAsked(asked + 1)}>Refresh</Button>}>
      {error !== null && online && <Alert tone="bad">{error}</Alert>}
      {settings === null ? <div class="skeleton" role="status" aria-label="Loading" /> : (
        <div class="settings">
          <div class="stack">
            <Addresses services={settings.services} needsKey={settings.is_key_needed} />
            <Limits limits={settings.limits} />
          </div>
          <div class="stack">
            <Redis redis={settings.redis} />
            <Processes processes={settings.processes} version={settings.version} />
            <About settings={settings} />
            <Appearance />
          </div>
        </div>
      )}
    </Page>
  );
}
