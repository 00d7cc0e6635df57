// The inverse DCT of a block of 8 x 8 coefficients at 8, 4, 2 or 1 samples a side, in libjpeg's fixed point: 13 bits of
// fractions in the constants, 2 more between the columns and the rows.

const BITS = 13, EXTRA = 2;
const round = (value, shift) => (value + (1 << (shift - 1))) >> shift;

/** A function (blocks, place, out, to, row) that writes the samples of the block at `place`. */
export function inverse(side, quantisation) {
  if (side === 1) return (blocks, place, out, to) => (out[to] = round(blocks[place] * quantisation[0], 3) + 128);
  const [transform, columns, rest] = { 8: [eight, ALL, 0], 4: [four, ALL.filter((c) => c !== 4), 1], 2: [two, [0, 1, 3, 5, 7], 2] }[side];
  const middle = new Int32Array(64), line = new Int32Array(8), result = new Int32Array(8);
  return (blocks, place, out, to, row) => {
    for (const column of columns) {
      for (let v = 0; v < 8; v++) line[v] = blocks[place + 8 * v + column] * quantisation[8 * v + column];
      transform(line, result, BITS - EXTRA + rest);
      for (let v = 0; v < side; v++) middle[8 * v + column] = result[v];
    }
    for (let v = 0; v < side; v++) {
      transform(middle.subarray(8 * v, 8 * v + 8), result, BITS + EXTRA + 3 + rest);
      for (let h = 0; h < side; h++) out[to + v * row + h] = result[h] + 128;
    }
  };
}

const ALL = [0, 1, 2, 3, 4, 5, 6, 7];

function two(x, out, shift) {
  const even = x[0] << (BITS + 2);
  const odd = x[7] * -5906 + x[5] * 6967 + x[3] * -10426 + x[1] * 29692;
  out[0] = round((even + odd) | 0, shift);
  out[1] = round((even - odd) | 0, shift);
}

function four(x, out, shift) {
  const even = x[0] << (BITS + 1), turn = x[2] * 15137 + x[6] * -6270;
  const a = even + turn, b = even - turn;
  const c = x[7] * -1730 + x[5] * 11893 + x[3] * -17799 + x[1] * 8697;
  const d = x[7] * -4176 + x[5] * -4926 + x[3] * 7373 + x[1] * 20995;
  out[0] = round((a + d) | 0, shift);
  out[3] = round((a - d) | 0, shift);
  out[1] = round((b + c) | 0, shift);
  out[2] = round((b - c) | 0, shift);
}

function eight(x, out, shift) {
  const common = (x[2] + x[6]) * 4433, p = common + x[6] * -15137, q = common + x[2] * 6270;
  const sum = (x[0] + x[4]) << BITS, difference = (x[0] - x[4]) << BITS;
  const even = [sum + q, difference + p, difference - p, sum - q];
  const all = (x[7] + x[3] + x[5] + x[1]) * 9633;
  const z1 = (x[7] + x[1]) * -7373, z2 = (x[5] + x[3]) * -20995;
  const z3 = (x[7] + x[3]) * -16069 + all, z4 = (x[5] + x[1]) * -3196 + all;
  const odd = [x[1] * 12299 + z1 + z4, x[3] * 25172 + z2 + z3, x[5] * 16819 + z2 + z4, x[7] * 2446 + z1 + z3];
  for (let index = 0; index < 4; index++) {
    out[index] = round((even[index] + odd[index]) | 0, shift);
    out[7 - index] = round((even[index] - odd[index]) | 0, shift);
  }
}
