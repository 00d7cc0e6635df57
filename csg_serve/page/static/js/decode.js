// An image file as upright RGBA pixels, in strips: a photo of a phone as a whole would not fit everywhere.

import { ImageError, readImageFile } from "./image_file.js";

export const MAX_PIXELS = 89_478_485; // as csg.image_headers
const STRIP = 2 ** 21; // pixels

/** What to do for an EXIF orientation: the canvas transform for a stored image of width w and height h. */
const TURNS = {
  1: () => [1, 0, 0, 1, 0, 0],
  2: (w) => [-1, 0, 0, 1, w, 0],
  3: (w, h) => [-1, 0, 0, -1, w, h],
  4: (w, h) => [1, 0, 0, -1, 0, h],
  5: () => [0, 1, 1, 0, 0, 0],
  6: (w, h) => [0, 1, -1, 0, h, 0],
  7: (w, h) => [0, -1, -1, 0, h, w],
  8: (w) => [0, -1, 1, 0, 0, w],
};

/** The browser's decoded image: its size upright, `draw` on a context, and `strips` of RGBA over black. */
export async function decode(bytes) {
  const { clean, orientation } = readImageFile(bytes);
  const bitmap = await createImageBitmap(clean, { colorSpaceConversion: "none" }).catch(() => {
    throw new ImageError("the browser can't decode this image: it is damaged, or of an unusual kind");
  });
  if (bitmap.width * bitmap.height > MAX_PIXELS) {
    throw new ImageError(`${bitmap.width} x ${bitmap.height} pixels, the maximum is ${MAX_PIXELS}`);
  }
  const turned = orientation >= 5, turn = TURNS[orientation](bitmap.width, bitmap.height);
  const [width, height] = turned ? [bitmap.height, bitmap.width] : [bitmap.width, bitmap.height];
  const draw = (context, scale, top) => {
    context.setTransform(scale, 0, 0, scale, 0, -top * scale);
    context.transform(...turn);
    context.drawImage(bitmap, 0, 0);
  };
  return {
    width,
    height,
    original: [width, height],
    box: [0, 0, width, height],
    draw,
    strips: (first, end) => strips({ width, draw }, first, end),
    close: () => bitmap.close(),
  };
}

/** RGBA of the rows from `first` to `end`: each strip with its first row. */
function* strips({ width, draw }, first, end) {
  const rows = Math.min(end - first, Math.max(1, Math.floor(STRIP / width)));
  const canvas = new OffscreenCanvas(width, rows);
  const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
  context.imageSmoothingEnabled = false;
  for (let top = first; top < end; top += rows) {
    const count = Math.min(rows, end - top);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillRect(0, 0, width, rows); // black
    draw(context, 1, top);
    yield { top, count, rgba: context.getImageData(0, 0, width, count).data };
  }
}
