import { render } from "preact";
import "./style/tokens.css";
import "./style/base.css";
import "./style/ui.css";
import "./style/shell.css";
import "./app/theme";
import { Shell } from "./app/Shell";

const root = document.getElementById("app");
if (root) render(<Shell />, root);
