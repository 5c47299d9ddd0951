import { useState } from "preact/hooks";
import { Button } from "../../ui/Button";
import { Icon } from "../../ui/Icon";
import { Page } from "../../ui/Page";
import { Tabs } from "../../ui/Tabs";
import { CreateKey } from "./CreateKey";
import { shownOnce, useKeys } from "./data";
import { KeyList } from "./KeyList";
import { Secret } from "./Secret";
import { UsageView } from "./UsageView";
import "./style.css";

type Tab = "keys" | "usage";
const TABS = [["keys", "Keys"], ["usage", "Usage"]] as const;

export default function Keys() {
  const [tab, setTab] = useState<Tab>("keys");
  const [isCreating, setCreating] = useState(false);
  const [keys, error, readAgain] = useKeys();
  const isFirst = keys !== null && keys.length === 0;
  const create = <Button kind="primary" onClick={() => setCreating(true)}><Icon name="plus" />{isFirst ? "Create the first key" : "Create a key"}</Button>;
  return (
    <Page title="Keys and usage" actions={tab === "keys" && !isFirst && create}>
      <Tabs label="Keys and usage" tabs={TABS} current={tab} onCurrent={setTab}>
        {tab === "keys" ? <KeyList keys={keys} error={error} onChange={readAgain} create={create} /> : <UsageView />}
      </Tabs>
      {isCreating && <CreateKey isFirst={isFirst} onClose={() => setCreating(false)} onCreated={() => { setCreating(false); readAgain(); }} />}
      {shownOnce.value !== null && <Secret made={shownOnce.value} onClose={() => { shownOnce.value = null; readAgain(); }} />}
    </Page>
  );
}
