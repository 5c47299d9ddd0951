/** Strokes in a box of 24, of this page alone. */
export const SEND = "M4 12 20 4l-5 16-4-7zM11 13l9-9";
export const STOP = "M7 7h10v10H7z";
export const AGAIN = "M19 12a7 7 0 1 1-2-5l2 2M19 4v5h-5";
export const PENCIL = "m4 20 1-4L16 5l3 3L8 19zM14 7l3 3";
export const TRASH = "M5 7h14M9 7V4h6v3M7 7l1 13h8l1-13M10.500 11v5M13.500 11v5";
export const DOWNLOAD = "M12 4v11M7.500 11l4.500 4.500 4.500-4.500M5 20h14";
export const IMAGE = "M4 5h16v14H4zM4 16l5-5 4 4 2.500-2.500L20 17M15.500 9h.1";
export const SLIDERS = "M4 7h9M17 7h3M15 5v4M4 17h3M11 17h9M9 15v4";
export const LIST = "M5 6h14M5 12h14M5 18h14";
export const BACK = "m15 5-7 7 7 7";
export const WRENCH = "M14.500 6.500a4 4 0 0 1 5-1.500l-2.800 2.800.5 1.500 1.500.5L21 7.500a4 4 0 0 1-5.500 4.500L8 19.500 4.500 16 12 8.500c.3-1 1-1.600 2.500-2z";
