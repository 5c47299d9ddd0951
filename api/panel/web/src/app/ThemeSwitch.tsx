import { Button } from "../ui/Button";
import { Icon } from "../ui/Icon";
import { setTheme, theme, type Theme } from "./theme";

const NEXT: Record<Theme, Theme> = { system: "light", light: "dark", dark: "system" };
const SAID: Record<Theme, string> = { system: "as the system", light: "light", dark: "dark" };

export function ThemeSwitch() {
  const now = theme.value;
  const icon = ({ system: "system", light: "sun", dark: "moon" } as const)[now];
  const label = `Colours: ${SAID[now]}. Change to ${SAID[NEXT[now]]}`;
  return <Button kind="quiet" small icon aria-label={label} title={label} onClick={() => setTheme(NEXT[now])}><Icon name={icon} /></Button>;
}
