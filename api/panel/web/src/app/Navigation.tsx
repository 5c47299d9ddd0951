import { Link, useLocation } from "wouter-preact";
import { connection } from "../data/live";
import { logout, me } from "../data/session";
import { Button } from "../ui/Button";
import { Icon } from "../ui/Icon";
import { toastError } from "../ui/Toast";
import { PAGES } from "./pages";
import { ThemeSwitch } from "./ThemeSwitch";

export function Navigation() {
  const [path] = useLocation();
  const current = path.split("/")[1];
  return (
    <nav class="nav" aria-label="Pages">
      <Link class="brand" href="/fleet"><Icon name="paddle" size={22} />Paddler</Link>
      <ul>
        {PAGES.map(({ name, title, icon }) => (
          <li key={name}>
            <Link href={`/${name}`} aria-current={name === current ? "page" : undefined}><Icon path={icon} /><span class="clip">{title}</span></Link>
          </li>
        ))}
      </ul>
      <div class="nav-foot">
        <LiveState />
        <div class="row-tight">
          <ThemeSwitch />
          {me.value?.logged_in && (
            <Button kind="quiet" small icon aria-label="Log out" title="Log out" onClick={() => void logout().catch(toastError)}><Icon name="logout" /></Button>
          )}
        </div>
      </div>
    </nav>
  );
}

function LiveState() {
  const now = connection.value;
  const state = now.state === "offline" && now.trouble.isRefusal ? "refused" : now.state;
  const said = { connecting: "Connecting", online: "Live", offline: "Offline", refused: "Refused" }[state];
  return <div class={now.state === "offline" ? "live-state off" : "live-state"}><i />{said}{me.value?.name ? ` as ${me.value.name}` : ""}</div>;
}
