import type { PageInfo } from "../../app/pages";

export const page: PageInfo = { title: "Playground", icon: "M4 5h16v11H11l-5 4v-4H4zM8 9h8M8 12h5", order: 4 };
