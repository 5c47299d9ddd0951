import { ICONS } from "../../ui/Icon";
import type { PageInfo } from "../../app/pages";

export const page: PageInfo = { title: "Fleet", icon: ICONS.fleet, order: 1 };
