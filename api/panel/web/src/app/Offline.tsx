import { useEffect, useState } from "preact/hooks";
import { connection, reconnect, system } from "../data/live";
import type { Trouble } from "../data/trouble";
import { Button } from "../ui/Button";
import { Icon } from "../ui/Icon";

/** Says that what is shown is old and why, what can be done about it, and when the next try is. */
export function Offline() {
  const now = connection.value;
  if (now.state === "offline") return <OfflineBanner retryAt={now.retryAt} trouble={now.trouble} />;
  if (!system.value.redis) {
    return <div class="offline" role="status"><Icon name="alert" />The balancer cannot reach Redis. Requests are refused until it can; what is shown may be old.</div>;
  }
  return null;
}

function OfflineBanner({ retryAt, trouble }: { retryAt: number; trouble: Trouble }) {
  const [left, setLeft] = useState(0);
  useEffect(() => {
    const look = () => setLeft(Math.max(0, Math.ceil((retryAt - Date.now()) / 1000)));
    look();
    const timer = setInterval(look, 250);
    return () => clearInterval(timer);
  }, [retryAt]);
  return (
    <div class="offline" role="status">
      <Icon name="alert" />
      <span>{trouble.said}</span>
      {trouble.remedy !== null && <span>{trouble.remedy}</span>}
      <span aria-hidden="true">{left > 0 ? `Next try in ${left} s.` : "Trying."}</span>
      <Button small onClick={reconnect}>Try now</Button>
    </div>
  );
}
