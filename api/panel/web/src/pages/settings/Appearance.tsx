import { setTheme, theme, type Theme } from "../../app/theme";
import { logout, me } from "../../data/session";
import { Button } from "../../ui/Button";
import { SelectField } from "../../ui/Field";
import { toastError } from "../../ui/Toast";

const THEMES = [["system", "As the system"], ["light", "Light"], ["dark", "Dark"]] as const;

/** On a narrow screen the navigation has no room for these two. */
export function Appearance() {
  return (
    <section class="card stack" aria-label="This browser">
      <h2>This browser</h2>
      <SelectField label="Colours" value={theme.value} options={THEMES} onValue={(value) => setTheme(value as Theme)} />
      {me.value?.logged_in && (
        <div class="spread"><span>Logged in with the key <b>{me.value.name}</b></span><Button onClick={() => void logout().catch(toastError)}>Log out</Button></div>
      )}
    </section>
  );
}
