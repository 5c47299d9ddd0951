import type { PageInfo } from "../../app/pages";

export const page: PageInfo = {
  title: "Settings",
  icon: "M4 7h9M17 7h3M4 17h3M11 17h9M15 4.500a2.500 2.500 0 1 0 0 5 2.500 2.500 0 0 0 0-5zM9 14.500a2.500 2.500 0 1 0 0 5 2.500 2.500 0 0 0 0-5z",
  order: 9,
};
