/** Strokes in a box of 24; all of them drawn for this panel. */
export const ICONS = {
  alert: "M12 4 2.8 19.500h18.400zM12 10v4.500M12 17v.2",
  check: "m4.500 12.500 5 5 10-11",
  close: "M6 6l12 12M18 6 6 18",
  copy: "M9 9h10.500v10.500H9zM15 9V4.500H4.500V15H9",
  fleet: "M4 5h16v6H4zM4 14h16v6H4zM7.500 8h.1M7.500 17h.1M11 8h6M11 17h6",
  info: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zM12 11v5.500M12 7.500v.2",
  moon: "M20 14.500A8.300 8.300 0 0 1 9.500 4a8.300 8.300 0 1 0 10.500 10.500z",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2.500v2M12 19.500v2M2.500 12h2M19.500 12h2M5.300 5.300l1.400 1.400M17.300 17.300l1.400 1.400M5.300 18.700l1.400-1.400M17.300 6.700l1.400-1.400",
  system: "M3 5h18v11H3zM9 20h6M12 16v4",
  plus: "M12 5v14M5 12h14",
  logout: "M10 4H5v16h5M15 8l4 4-4 4M19 12H9",
  paddle: "M13 6.500c2.200-2.700 5.400-4 7.200-2.700 1.300 1.800 0 5-2.700 7.200-1.700 1.400-3.300 1.300-4.400.3-1-1.100-1.500-3.100-.1-4.800zM13.100 10.900 4.800 19.200M3.600 18l2.400 2.400",
  more: "M5 12h.1M12 12h.1M19 12h.1",
  chevron: "m9 5 7 7-7 7",
  search: "M10.500 4a6.500 6.500 0 1 0 0 13 6.500 6.500 0 0 0 0-13zM15.500 15.500 20.500 20.500",
} as const;

export type IconName = keyof typeof ICONS;

/** `path` is for a page's own. It says nothing to a screen reader: text stands beside it, or a label around it. */
export function Icon({ name, path, size = 18 }: { name?: IconName; path?: string; size?: number }) {
  return (
    <svg viewBox="0 0 24 24" width={size} height={size} fill="none" stroke="currentColor" stroke-width="1.8" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">
      <path d={path ?? (name ? ICONS[name] : "")} />
    </svg>
  );
}
