import type { ComponentType } from "preact";

/** What the shell knows of a page before it is loaded: `pages/<name>/page.ts` exports one as `page`. */
export interface PageInfo {
  title: string;
  /** An icon's path in a box of 24. */
  icon: string;
  /** The place in the navigation, the first at 1. */
  order: number;
}

export interface KnownPage extends PageInfo {
  name: string;
  load: () => Promise<{ default: ComponentType }>;
}

// A page is there by being there: `page.ts` is in the first download, `index.tsx` comes when it is opened.
const infos = import.meta.glob<PageInfo>("../pages/*/page.ts", { eager: true, import: "page" });
const modules = import.meta.glob<{ default: ComponentType }>("../pages/*/index.tsx");

export const PAGES: readonly KnownPage[] = Object.entries(infos)
  .map(([path, info]) => {
    const name = path.split("/").at(-2) ?? "";
    const load = modules[`../pages/${name}/index.tsx`];
    if (load === undefined) throw new Error(`pages/${name} has no index.tsx`);
    return { ...info, name, load };
  })
  .sort((one, other) => one.order - other.order);
