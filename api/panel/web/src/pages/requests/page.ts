import type { PageInfo } from "../../app/pages";

export const page: PageInfo = { title: "Requests", icon: "M4 6h10M4 12h16M4 18h7M18 4l3 2-3 2M15 16l3 2-3 2", order: 2 };
