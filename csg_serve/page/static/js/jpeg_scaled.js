// A JPEG file at 1/2, 1/4 or 1/8 of its size, to the bit as libjpeg decodes it: a smaller inverse DCT of each block,
// chroma at a larger one where that saves its enlargement, then the colours.

import { readCoefficients } from "./jpeg_coefficients.js";
import { inverse } from "./jpeg_inverse.js";

/** The image as ImageData; null if the file is of a kind that only the browser decodes, or damaged. */
export function scaledJpeg(bytes, reduction) {
  try {
    return imageOf(readCoefficients(bytes), 8 / reduction);
  } catch {
    return null;
  }
}

function imageOf({ width, height, components, colour }, side) {
  const most = { across: Math.max(...components.map((c) => c.across)), down: Math.max(...components.map((c) => c.down)) };
  const size = [Math.ceil((width * side) / 8), Math.ceil((height * side) / 8)];
  const planes = components.map((component) => {
    const plane = planeOf(component, { most, side, width, height });
    component.blocks = null; // frees its memory
    return enlarged(plane, side > 1, size);
  });
  return coloured(planes, size, colour);
}

/** The samples of a component; its blocks get the side that comes nearest to the largest component's. */
function planeOf(component, { most, side, width, height }) {
  let own = side;
  const fits = (sides) => (most.across * side) % (component.across * sides) === 0 && (most.down * side) % (component.down * sides) === 0;
  while (own < 8 && fits(own * 2)) own *= 2;
  const { stride, blocks, quantisation } = component, decode = inverse(own, quantisation);
  const samples = new Uint8ClampedArray((blocks.length / 64) * own * own), row = stride * own;
  for (let block = 0; block < blocks.length / 64; block++) {
    decode(blocks, 64 * block, samples, Math.floor(block / stride) * own * row + (block % stride) * own, row);
  }
  return {
    samples,
    row,
    width: Math.ceil((width * component.across * own) / (most.across * 8)),
    height: Math.ceil((height * component.down * own) / (most.down * 8)),
    across: (most.across * side) / (component.across * own),
    down: (most.down * side) / (component.down * own),
  };
}

// --- enlarging chroma ---

function enlarged(plane, smooth, size) {
  if (plane.across === 1 && plane.down === 1) return plane;
  if (smooth && plane.across === 2 && plane.down === 1 && plane.width > 2) return wider(plane);
  if (smooth && plane.across === 1 && plane.down === 2) return taller(plane);
  return repeated(plane, size);
}

/** Twice the width: 3/4 of the nearer sample, 1/4 of the other. */
function wider({ samples, row, width, height }) {
  const out = new Uint8Array(2 * width * height);
  for (let line = 0; line < height; line++) {
    const from = line * row, to = 2 * width * line;
    for (let column = 0; column < width; column++) {
      const own = samples[from + column], left = column ? samples[from + column - 1] : own;
      const right = column < width - 1 ? samples[from + column + 1] : own;
      out[to + 2 * column] = column ? (3 * own + left + 1) >> 2 : own;
      out[to + 2 * column + 1] = column < width - 1 ? (3 * own + right + 2) >> 2 : own;
    }
  }
  return { samples: out, row: 2 * width };
}

/** Twice the height, in the same way. */
function taller({ samples, row, width, height }) {
  const out = new Uint8Array(2 * width * height);
  for (let line = 0; line < 2 * height; line++) {
    const near = line >> 1, far = Math.min(Math.max(line % 2 ? near + 1 : near - 1, 0), height - 1), bias = 1 + (line % 2);
    for (let column = 0; column < width; column++) {
      out[line * width + column] = (3 * samples[near * row + column] + samples[far * row + column] + bias) >> 2;
    }
  }
  return { samples: out, row: width };
}

function repeated({ samples, row, across, down }, [width, height]) {
  const out = new Uint8Array(width * height);
  for (let line = 0; line < height; line++) {
    const from = Math.floor(line / down) * row;
    for (let column = 0; column < width; column++) out[line * width + column] = samples[from + Math.floor(column / across)];
  }
  return { samples: out, row: width };
}

// --- colours ---

const HALF = 1 << 15;
const fixed = (factor) => Math.trunc(factor * 65536 + 0.5);
const shifted = (factor, rounding) => Int32Array.from({ length: 256 }, (_, value) => fixed(factor) * (value - 128) + rounding);
const RED = shifted(1.402, HALF).map((value) => value >> 16), BLUE = shifted(1.772, HALF).map((value) => value >> 16);
const GREEN_RED = shifted(0.71414, 0).map((value) => -value), GREEN_BLUE = shifted(0.34414, 0).map((value) => HALF - value);

function coloured(planes, [width, height], colour) {
  const image = new ImageData(width, height), out = image.data;
  const [one, two, three] = planes.length === 1 ? [planes[0], planes[0], planes[0]] : planes;
  for (let line = 0, to = 0; line < height; line++) {
    for (let column = 0; column < width; column++, to += 4) {
      const y = one.samples[line * one.row + column], cb = two.samples[line * two.row + column], cr = three.samples[line * three.row + column];
      const ycc = colour === "ycc";
      out[to] = ycc ? y + RED[cr] : y;
      out[to + 1] = ycc ? y + ((GREEN_BLUE[cb] + GREEN_RED[cr]) >> 16) : cb;
      out[to + 2] = ycc ? y + BLUE[cb] : cr;
      out[to + 3] = 255;
    }
  }
  return image;
}
