import type { PageInfo } from "../../app/pages";

export const page: PageInfo = { title: "Prefixes", icon: "M12 17v5M8 3h8l-1 7 3 4H6l3-4z", order: 6 };
