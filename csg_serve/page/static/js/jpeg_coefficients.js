// The coefficients of a JPEG file: headers, Huffman codes, baseline and progressive scans (ITU-T T.81).
// Browsers decode JPEG files too, but only at their full size, and csg.images decodes large ones at a reduced size.

import { jpegSegments } from "./image_file.js";

const ZIGZAG = Uint8Array.of(
  0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
  35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55,
  62, 63,
);

/** The size of a JPEG file in pixels, as stored; null if it has no frame. */
export function jpegSize(bytes) {
  for (const { marker, start } of jpegSegments(bytes)) {
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
      return [word(bytes, start + 7), word(bytes, start + 5)];
    }
  }
  return null;
}

/**
 * Read a JPEG file with Huffman codes, 8 bits a sample, and one or three components.
 * @returns width, height, components (blocks of 64 coefficients in natural order, quantisation), colour: "grey", "rgb"
 *   or "ycc"
 * @throws Error if it is of another kind, or damaged
 */
export function readCoefficients(bytes) {
  const state = { quantisation: [], huffman: {}, interval: 0, frame: null, jfif: false, adobe: null };
  for (let place = 2; ; ) {
    const { value: segment } = jpegSegments(bytes.subarray(place - 2)).next();
    if (!segment) break;
    const start = place - 2 + segment.start, end = place - 2 + segment.end, body = bytes.subarray(start + 4, end);
    if (segment.marker === 0xda) {
      if (!state.frame) throw new Error("a scan without a frame");
      place = readScan(bytes, end, body, state);
    } else {
      readSegment(segment.marker, body, state);
      place = end;
    }
  }
  if (!state.frame) throw new Error("no frame");
  const { width, height, components } = state.frame;
  for (const component of components) component.quantisation = state.quantisation[component.table];
  return { width, height, components, colour: colourOf(components, state) };
}

function readSegment(marker, body, state) {
  if (marker === 0xdb) readQuantisation(body, state);
  else if (marker === 0xc4) readHuffman(body, state);
  else if (marker === 0xdd) state.interval = word(body, 0);
  else if (marker === 0xe0) state.jfif ||= latin(body, 5) === "JFIF\0";
  else if (marker === 0xee && latin(body, 5) === "Adobe") state.adobe = body[11];
  else if (marker >= 0xc0 && marker <= 0xc2 && !state.frame) state.frame = readFrame(marker, body);
  else if (marker >= 0xc0 && marker <= 0xcf) throw new Error("another kind of JPEG");
}

function readQuantisation(body, { quantisation }) {
  for (let place = 0; place < body.length; ) {
    const wide = body[place] >> 4, table = new Int32Array(64), start = place + 1;
    for (let index = 0; index < 64; index++) {
      table[ZIGZAG[index]] = wide ? word(body, start + 2 * index) : body[start + index];
    }
    quantisation[body[place] & 15] = table;
    place = start + (wide ? 128 : 64);
  }
}

/** For each code of up to 16 bits, left-aligned, its length and value: one look-up a symbol. */
function readHuffman(body, { huffman }) {
  for (let place = 0; place < body.length; ) {
    const table = new Uint16Array(1 << 16), values = place + 17;
    let code = 0, index = 0;
    for (let length = 1; length <= 16; length++) {
      for (let count = body[place + length]; count > 0; count--, index++) {
        const next = code + (1 << (16 - length));
        table.fill((length << 8) | body[values + index], code, next);
        code = next;
      }
    }
    huffman[body[place]] = table;
    place = values + index;
  }
}

function readFrame(marker, body) {
  const [bits, height, width, count] = [body[0], word(body, 1), word(body, 3), body[5]];
  if (bits !== 8 || !width || !height || (count !== 1 && count !== 3)) throw new Error("another kind of JPEG");
  const components = Array.from({ length: count }, (_, index) => {
    const [id, factors, table] = body.subarray(6 + 3 * index);
    return { id, across: factors >> 4, down: factors & 15, table };
  });
  const most = { across: Math.max(...components.map((c) => c.across)), down: Math.max(...components.map((c) => c.down)) };
  const units = [Math.ceil(width / (8 * most.across)), Math.ceil(height / (8 * most.down))];
  for (const component of components) {
    component.columns = Math.ceil((width * component.across) / most.across / 8);
    component.rows = Math.ceil((height * component.down) / most.down / 8);
    component.stride = units[0] * component.across;
    component.blocks = new Int16Array(64 * component.stride * units[1] * component.down);
  }
  return { width, height, components, units, most, progressive: marker === 0xc2 };
}

function colourOf(components, { jfif, adobe }) {
  if (components.length === 1) return "grey";
  const names = String.fromCharCode(...components.map(({ id }) => id));
  const rgb = !jfif && (adobe === null ? names === "RGB" : adobe === 0);
  return rgb ? "rgb" : "ycc";
}

// --- scans ---

/** Read a scan; returns the place behind it. */
function readScan(bytes, place, header, { frame, huffman, interval }) {
  const chosen = Array.from({ length: header[0] }, (_, index) => {
    const component = frame.components.find(({ id }) => id === header[1 + 2 * index]);
    const tables = header[2 + 2 * index];
    return Object.assign(component, { dc: huffman[tables >> 4], ac: huffman[0x10 | (tables & 15)], last: 0 });
  });
  const [first, end, bits] = header.subarray(1 + 2 * header[0]);
  const reader = new BitReader(bytes, place);
  const decode = blockDecoder(reader, frame.progressive, { first, end, high: bits >> 4, low: bits & 15 });
  let left = interval || Infinity;
  for (const blocks of units(frame, chosen)) {
    if (left === 0) {
      reader.restart();
      decode.restart();
      for (const component of chosen) component.last = 0;
      left = interval;
    }
    for (let index = 0; index < blocks.length; index += 2) decode.block(blocks[index], blocks[index + 1]);
    left -= 1;
  }
  return reader.end();
}

/** The blocks of each unit of a scan: component, place of its first coefficient, and so on. */
function* units({ units: [across, down] }, chosen) {
  const blocks = [];
  if (chosen.length === 1) {
    const [component] = chosen;
    blocks[0] = component;
    for (let row = 0; row < component.rows; row++) {
      for (let column = 0; column < component.columns; column++) {
        blocks[1] = 64 * (row * component.stride + column);
        yield blocks;
      }
    }
    return;
  }
  for (let unit = 0; unit < across * down; unit++) {
    const left = unit % across, top = Math.floor(unit / across);
    let index = 0;
    for (const component of chosen) {
      for (let v = 0; v < component.down; v++) {
        for (let h = 0; h < component.across; h++) {
          blocks[index++] = component;
          blocks[index++] = 64 * ((top * component.down + v) * component.stride + left * component.across + h);
        }
      }
    }
    yield blocks;
  }
}

/** What decodes the blocks of a scan, by the kind of scan. */
function blockDecoder(reader, progressive, { first, end, high, low }) {
  let run = 0; // blocks that are still to be skipped: their band ends here

  function dcFirst(component, place) {
    component.last += reader.signed(reader.symbol(component.dc));
    component.blocks[place] = component.last << low;
  }

  function dcNext({ blocks }, place) {
    if (reader.bits(1)) blocks[place] |= 1 << low;
  }

  function whole(component, place) {
    dcFirst(component, place);
    band(component, place, 1, 63);
  }

  function band({ blocks, ac }, place, from, to) {
    for (let index = from; index <= to; index++) {
      const symbol = reader.symbol(ac), zeros = symbol >> 4, size = symbol & 15;
      if (size) {
        index += zeros;
        blocks[place + ZIGZAG[index & 63]] = reader.signed(size) << low;
      } else if (zeros === 15) index += 15;
      else {
        if (progressive) run = (1 << zeros) + reader.bits(zeros) - 1;
        return;
      }
    }
  }

  function acFirst(component, place) {
    if (run > 0) run -= 1;
    else band(component, place, first, end);
  }

  function acNext({ blocks, ac }, place) {
    const bit = 1 << low;
    let index = first;
    while (run === 0 && index <= end) {
      const symbol = reader.symbol(ac), size = symbol & 15;
      let zeros = symbol >> 4, value = 0;
      if (size) value = reader.bits(1) ? bit : -bit;
      else if (zeros < 15) {
        run = (1 << zeros) + reader.bits(zeros);
        break;
      }
      for (; index <= end; index++) {
        const at = place + ZIGZAG[index];
        if (blocks[at]) refine(blocks, at, bit);
        else if (zeros-- === 0) {
          blocks[at] = value;
          index++;
          break;
        }
      }
    }
    if (run === 0) return;
    for (; index <= end; index++) if (blocks[place + ZIGZAG[index]]) refine(blocks, place + ZIGZAG[index], bit);
    run -= 1;
  }

  function refine(blocks, at, bit) {
    if (reader.bits(1) && !(Math.abs(blocks[at]) & bit)) blocks[at] += blocks[at] > 0 ? bit : -bit;
  }

  const [onDc, onAc] = high ? [dcNext, acNext] : [dcFirst, acFirst];
  return { block: progressive ? (first ? onAc : onDc) : whole, restart: () => (run = 0) };
}

/** The bits of a scan, without the bytes that are stuffed after 0xff. */
class BitReader {
  constructor(bytes, place) {
    Object.assign(this, { bytes, place, held: 0, count: 0, past: 0 });
  }

  /** Have at least 16 bits; behind the end of the scan they are zeros, as for libjpeg. */
  fill() {
    while (this.count <= 16) {
      let byte = this.bytes[this.place] ?? 0xff;
      if (byte === 0xff && this.bytes[this.place + 1] !== 0) {
        byte = 0;
        if (++this.past > 64) throw new Error("it ends early");
      } else this.place += byte === 0xff ? 2 : 1;
      this.held = ((this.held << 8) | byte) & 0xffffff;
      this.count += 8;
    }
  }

  symbol(table) {
    this.fill();
    const entry = table[(this.held >> (this.count - 16)) & 0xffff];
    if (!entry) throw new Error("no such code");
    this.count -= entry >> 8;
    return entry & 255;
  }

  bits(number) {
    if (!number) return 0;
    this.fill();
    this.count -= number;
    return (this.held >> this.count) & ((1 << number) - 1);
  }

  /** A coefficient of so many bits. */
  signed(size) {
    const value = this.bits(size);
    return size && value < 1 << (size - 1) ? value - (1 << size) + 1 : value;
  }

  /** Go on behind the next restart marker. */
  restart() {
    this.place = this.end() + 2;
    this.count = this.past = 0;
  }

  /** The place of the next marker. */
  end() {
    let place = this.place;
    while (place + 1 < this.bytes.length && !(this.bytes[place] === 0xff && this.bytes[place + 1] > 0 && this.bytes[place + 1] < 0xff)) place++;
    return place;
  }
}

const word = (bytes, place) => (bytes[place] << 8) | bytes[place + 1];

const latin = (bytes, length) => String.fromCharCode(...bytes.subarray(0, length));
