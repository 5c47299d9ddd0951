import type { PageInfo } from "../../app/pages";

export const page: PageInfo = { title: "Keys", icon: "M14.500 3a6.500 6.500 0 1 0 0 13 6.500 6.500 0 0 0 0-13zM16 8.200h.1M10 14l-7 7M5 19l2 2", order: 5 };
