// The input of a model for one image, as csg.images prepares it. A test compares the pixels.

import { resample } from "./resample.js";

const STRIDE = 8; // as csg.card
const MAX_SIDE = 8192; // as csg.images

/** The input of a model: pixels, Uint8Array (height, width, 3), and how much of it is the image. */
export function prepare(image, spec) {
  return spec.fit === "crop" ? cropped(image, spec) : padded(image, spec);
}

/** csg.images.prepare: the shorter side is resized, the centre cropped, both in one step. */
function cropped(image, spec) {
  const [first, top, end, bottom] = image.box;
  const across = end - first, down = bottom - top;
  const scale = Math.min(across, down) / spec.resize_shorter_side;
  const width = spec.width * scale, height = spec.height * scale;
  const left = first + (across - width) / 2, upper = top + (down - height) / 2;
  const box = [left, upper, Math.min(left + width, end), Math.min(upper + height, bottom)];
  const pixels = resample(image, [spec.width, spec.height], box);
  return { pixels, width: spec.width, height: spec.height, scaled: [spec.width, spec.height] };
}

/** csg.images.prepare_segmentation: resized as `scaleOf` says, padded at the right and the bottom. */
function padded(image, spec) {
  const scale = scaleOf(image.original, spec);
  const scaled = image.original.map((side) => Math.max(1, roundHalfEven(side * scale)));
  const pixels = resample(image, scaled, image.box);
  const width = spec.width ?? roundUp(scaled[0]), height = spec.height ?? roundUp(scaled[1]);
  const area = new Uint8Array(width * height * 3);
  for (let place = 0; place < area.length; place++) area[place] = spec.pad_colour[place % 3];
  for (let row = 0; row < scaled[1]; row++) {
    area.set(pixels.subarray(row * scaled[0] * 3, (row + 1) * scaled[0] * 3), row * width * 3);
  }
  return { pixels: area, width, height, scaled };
}

/** csg.images.scale_of: the factor by which an image of a size is resized. */
export function scaleOf(size, spec) {
  const scale = spec.resize_shorter_side ? spec.resize_shorter_side / Math.min(...size) : 1;
  if (spec.fit === "crop") return scale;
  const limited = Math.min(scale, Math.max(1, MAX_SIDE / Math.max(...size)));
  return spec.width && spec.height ? Math.min(limited, spec.width / size[0], spec.height / size[1]) : limited;
}

const roundUp = (side) => Math.ceil(side / STRIDE) * STRIDE;

/** Python's round. */
function roundHalfEven(value) {
  const low = Math.floor(value), rest = value - low;
  return rest === 0.5 ? low + (low % 2) : Math.round(value);
}
