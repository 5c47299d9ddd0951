import type { PageInfo } from "../../app/pages";

export const page: PageInfo = {
  title: "Model",
  icon: "M12 3 4 7.500v9L12 21l8-4.500v-9zM4 7.500 12 12l8-4.500M12 12v9",
  order: 3,
};
