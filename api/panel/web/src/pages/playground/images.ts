/** Images that are attached: what the server takes (`docs/vision.md`), looked at before they are sent. */
import { type Picture, newId } from "./model";

export const TYPES = ["image/png", "image/jpeg", "image/gif", "image/webp"];
export const MAX_PICTURES = 8;
export const MAX_BYTES = 16 * 1024 * 1024;

export type Attached = Picture & { url: string };

/** Throws an `Error` with words. */
export async function attach(file: File, already: number): Promise<Attached> {
  if (already >= MAX_PICTURES) throw new Error(`At most ${MAX_PICTURES} images in a request.`);
  if (!TYPES.includes(file.type)) throw new Error(`${file.name}: PNG, JPEG, GIF or WebP.`);
  if (file.size > MAX_BYTES) throw new Error(`${file.name}: ${Math.ceil(file.size / 1024 / 1024)} MiB; an image has 16 MiB at most.`);
  return { id: newId(), name: file.name, type: file.type, bytes: file.size, url: await dataUrl(file) };
}

function dataUrl(file: File): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result as string);
    reader.onerror = () => reject(new Error(`${file.name} cannot be read.`));
    reader.readAsDataURL(file);
  });
}
