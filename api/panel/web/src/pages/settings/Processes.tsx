import { dateTime } from "../../data/format";
import { Alert } from "../../ui/Alert";
import { Badge } from "../../ui/Badge";
import { Table } from "../../ui/Table";
import type { Process } from "./types";

export function Processes({ processes, version }: { processes: Process[] | null; version: string }) {
  const versions = new Set(processes?.map((one) => one.version));
  return (
    <section class="card flush" aria-label="Processes">
      <div class="pad spread"><h2>Processes</h2>{versions.size > 1 && <Badge tone="warn">{versions.size} versions</Badge>}</div>
      {processes === null ? (
        <div class="pad"><Alert tone="warn">This balancer's user of Redis may not look for processes; <code>paddler acl</code> prints what it is to have.</Alert></div>
      ) : (
        <Table
          label="Processes that run"
          rows={processes}
          rowKey={(one) => `${one.host}/${one.pid}/${one.kind}/${one.name}`}
          columns={[
            { id: "kind", head: "Process", cell: (one) => <span class="nowrap">{one.kind}{one.name && <span class="muted"> {one.name}</span>}</span> },
            { id: "where", head: "Host", cell: (one) => <span class="nowrap">{one.host}, {one.pid}</span> },
            { id: "version", head: "Version", cell: (one) => (one.version === version ? one.version : <Badge tone="warn">{one.version}</Badge>) },
            { id: "since", head: "Since", cell: (one) => <span class="nowrap">{dateTime(one.since_at_ms)}</span> },
          ]}
        />
      )}
    </section>
  );
}
