// An image file as upright RGBA pixels, in strips: a photo of a phone as a whole would not fit everywhere.

import { ImageError, readImageFile } from "./image_file.js";
import { jpegSize } from "./jpeg_coefficients.js";
import { scaledJpeg } from "./jpeg_scaled.js";
import { scaleOf } from "./prepare.js";

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

/**
 * An image file, decoded. A large JPEG file comes at a reduced scale if `spec`, the input of a model, says so.
 * @returns width and height upright; `original`, those in the file; `box`, where the image is; `draw` on a context;
 *   `strips` of RGBA over black; `close`
 */
export async function decode(bytes, spec = null) {
  const { type, clean, orientation } = readImageFile(bytes);
  const turned = orientation >= 5, upright = ([width, height]) => (turned ? [height, width] : [width, height]);
  const size = type === "image/jpeg" && spec?.jpeg_scaling ? jpegSize(bytes) : null;
  const reduction = size ? reductionOf(upright(size), spec) : 1;
  const reduced = reduction > 1 ? scaledJpeg(bytes, reduction) : null;
  const bitmap = await bitmapOf(reduced ?? clean);
  const [width, height] = upright([bitmap.width, bitmap.height]);
  const original = reduced ? upright(size) : [width, height];
  const turn = TURNS[orientation](bitmap.width, bitmap.height);
  const draw = (context, scale, top) => {
    context.setTransform(scale, 0, 0, scale, 0, -top * scale);
    context.transform(...turn);
    context.drawImage(bitmap, 0, 0);
  };
  return {
    width,
    height,
    original,
    box: boxOf([width, height], original, reduced ? reduction : 1, orientation),
    draw,
    strips: (first, end) => strips({ width, draw }, first, end),
    close: () => bitmap.close(),
  };
}

async function bitmapOf(source) {
  const bitmap = await createImageBitmap(source, { colorSpaceConversion: "none" }).catch(() => {
    throw new ImageError("the browser can't decode this image: it is damaged, or of an unusual kind");
  });
  if (bitmap.width * bitmap.height <= MAX_PIXELS) return bitmap;
  throw new ImageError(`${bitmap.width} x ${bitmap.height} pixels, the maximum is ${MAX_PIXELS}`);
}

/** csg.images._reduction: 8, 4 or 2, the largest with which an image still has twice the sides that it will get. */
function reductionOf(size, spec) {
  const scale = scaleOf(size, spec);
  return [8, 4, 2].find((reduction) => 2 * scale * reduction <= 1) ?? 1;
}

/** csg.images._box: a reduced image has parts of pixels at its right and bottom, or where these are after the turn. */
function boxOf(size, original, reduction, orientation) {
  const [width, height] = original.map((side) => side / reduction);
  const left = [2, 3, 6, 7].includes(orientation) ? size[0] - width : 0;
  const top = [3, 4, 7, 8].includes(orientation) ? size[1] - height : 0;
  return [left, top, Math.min(left + width, size[0]), Math.min(top + height, size[1])];
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
