import { useState } from "preact/hooks";
import { useLocation, useRoute } from "wouter-preact";
import { count } from "../../data/format";
import { pools } from "../../data/live";
import { currentPool } from "../../data/pool";
import { Page } from "../../ui/Page";
import { PoolSelect } from "../../ui/PoolSelect";
import { Tabs } from "../../ui/Tabs";
import { DeadLetters } from "./DeadLetters";
import { Detail } from "./Detail";
import { EndedList } from "./EndedList";
import { arranged, isKnown, useRequests } from "./feed";
import { LiveList } from "./LiveList";
import "./style.css";

type Tab = "live" | "ended" | "dead";

export default function Requests() {
  const [tab, setTab] = useState<Tab>("live");
  const [, navigate] = useLocation();
  const [isOpen, params] = useRoute("/requests/:id");
  const pool = currentPool.value;
  useRequests();
  const dead = pools.value.get(pool)?.dead_letters ?? 0;
  const tabs = [
    ["live", <>Live <Number value={isKnown.value ? arranged.value.unfinished.length : null} /></>],
    ["ended", <>Just ended <Number value={arranged.value.ended.length} /></>],
    ["dead", <>Dead letters <Number value={dead} /></>],
  ] as const;
  return (
    <Page title="Requests" actions={<PoolSelect />}>
      <Tabs label="Requests" tabs={tabs} current={tab} onCurrent={setTab}>
        {tab === "live" && <LiveList />}
        {tab === "ended" && <EndedList ended={arranged.value.ended} />}
        {tab === "dead" && <DeadLetters key={pool} pool={pool} number={dead} />}
      </Tabs>
      {isOpen && <Detail key={params.id} id={decodeURIComponent(params.id)} onClose={() => navigate("/requests")} />}
    </Page>
  );
}

function Number({ value }: { value: number | null }) {
  return value === null || value === 0 ? null : <span class="badge num">{count(value)}</span>;
}
