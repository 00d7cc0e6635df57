// Pillow's bilinear resizing with antialiasing, to the bit: weights in fixed point, first along rows, then along columns.
// A canvas scales in another way in each browser. (From version 13 on, Pillow takes the columns of some tall images first;
// then a value may differ by 1.)

const BITS = 22; // of the weights' fractions
const HALF = 1 << (BITS - 1);

/** The weights of one axis: for each output pixel where its inputs start, how many there are, and their weights. */
function axisWeights(inputs, first, end, outputs) {
  const scale = Math.fround(end - first) / outputs, support = Math.max(scale, 1);
  const width = Math.ceil(support) * 2 + 1, inverse = 1 / support;
  const starts = new Int32Array(outputs), counts = new Int32Array(outputs), weights = new Int32Array(outputs * width);
  for (let output = 0; output < outputs; output++) {
    const centre = first + (output + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - support + 0.5));
    const count = Math.min(inputs, Math.trunc(centre + support + 0.5)) - start;
    const triangle = Array.from({ length: count }, (_, place) =>
      Math.max(0, 1 - Math.abs((place + start - centre + 0.5) * inverse)),
    );
    const sum = triangle.reduce((total, weight) => total + weight, 0) || 1;
    triangle.forEach((weight, place) => {
      weights[output * width + place] = Math.trunc(0.5 + (weight / sum) * (1 << BITS));
    });
    starts[output] = start;
    counts[output] = count;
  }
  return { starts, counts, weights, width };
}

/**
 * Resize a part of an image.
 * @param image its width, height and strips of RGBA
 * @param size width and height of the result
 * @param box left, top, right and bottom of the part, in pixels; they may be fractions
 * @returns Uint8Array (height, width, 3)
 */
export function resample(image, size, box) {
  const [width, height] = size, [left, top, right, bottom] = box.map(Math.fround);
  const across = width !== image.width || left !== 0 || right !== width;
  const down = height !== image.height || top !== 0 || bottom !== height;
  const rows = axisWeights(image.height, top, bottom, height);
  const first = down ? rows.starts[0] : 0;
  const end = down ? rows.starts[height - 1] + rows.counts[height - 1] : height;
  const columns = across ? axisWeights(image.width, left, right, width) : null;
  const middle = new Uint8Array((end - first) * width * 3);
  for (const { top: start, count, rgba } of image.strips(first, end)) {
    for (let row = 0; row < count; row++) {
      const to = (start - first + row) * width * 3;
      if (columns) resizeRow(rgba, row * image.width * 4, columns, middle, to);
      else copyRow(rgba, row * width * 4, width, middle, to);
    }
  }
  return down ? resizeColumns(middle, rows, first, size) : middle;
}

function resizeRow(rgba, from, { starts, counts, weights, width }, out, to) {
  for (let column = 0; column < starts.length; column++) {
    let red = HALF, green = HALF, blue = HALF;
    let place = from + starts[column] * 4;
    const start = column * width, end = start + counts[column];
    for (let index = start; index < end; index++, place += 4) {
      const weight = weights[index];
      red = (red + Math.imul(rgba[place], weight)) | 0;
      green = (green + Math.imul(rgba[place + 1], weight)) | 0;
      blue = (blue + Math.imul(rgba[place + 2], weight)) | 0;
    }
    out[to++] = byte(red);
    out[to++] = byte(green);
    out[to++] = byte(blue);
  }
}

function copyRow(rgba, from, width, out, to) {
  for (let column = 0; column < width; column++, from += 4, to += 3) {
    out[to] = rgba[from];
    out[to + 1] = rgba[from + 1];
    out[to + 2] = rgba[from + 2];
  }
}

function resizeColumns(middle, { starts, counts, weights, width }, first, [across, height]) {
  const stride = across * 3, out = new Uint8Array(height * stride), sums = new Int32Array(stride);
  for (let row = 0; row < height; row++) {
    sums.fill(HALF);
    for (let index = 0; index < counts[row]; index++) {
      const weight = weights[row * width + index], from = (starts[row] - first + index) * stride;
      for (let place = 0; place < stride; place++) sums[place] += Math.imul(middle[from + place], weight);
    }
    for (let place = 0; place < stride; place++) out[row * stride + place] = byte(sums[place]);
  }
  return out;
}

function byte(sum) {
  const value = sum >> BITS;
  return value < 0 ? 0 : value > 255 ? 255 : value;
}
