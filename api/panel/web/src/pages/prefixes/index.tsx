import { useState } from "preact/hooks";
import { currentPool } from "../../data/pool";
import { Button } from "../../ui/Button";
import { Icon } from "../../ui/Icon";
import { Page } from "../../ui/Page";
import { PoolSelect } from "../../ui/PoolSelect";
import { usePrefixes } from "./data";
import { PinPrefix } from "./PinPrefix";
import { PrefixList } from "./PrefixList";
import "./style.css";

/** What many requests of a pool begin with, and which agents have it at hand. */
export default function Prefixes() {
  const pool = currentPool.value;
  const [isPinning, setPinning] = useState(false);
  const [prefixes, error, readAgain] = usePrefixes(pool);
  const isEmpty = prefixes !== null && prefixes.length === 0;
  const pin = <Button kind="primary" onClick={() => setPinning(true)}><Icon name="plus" />Pin a prefix</Button>;
  return (
    <Page title="Prefixes" actions={<><PoolSelect />{!isEmpty && pin}</>}>
      <PrefixList pool={pool} prefixes={prefixes} error={error} onChange={readAgain} pin={pin} />
      {isPinning && <PinPrefix pool={pool} onClose={() => setPinning(false)} onPinned={() => { setPinning(false); readAgain(); }} />}
    </Page>
  );
}
