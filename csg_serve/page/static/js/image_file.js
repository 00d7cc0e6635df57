// Image files, as csg.images reads them: which formats there are, and which way up an image is.
//
// A browser would apply colour profiles and orientations, each in its own way; csg applies no profile, and its own rule
// for orientations. So a file is copied without everything that does not hold pixels before the browser decodes it.

const ASCII = new TextDecoder("latin1");
const XMP_ORIENTATION = /tiff:Orientation(?:="|>)([0-9])/;
const READABLE = "this page reads JPEG, PNG, WebP, GIF and BMP";

export class ImageError extends Error {}

/** The file's type, its orientation (EXIF, 1 to 8), and a copy of it that holds pixels alone. */
export function readImageFile(bytes) {
  const found = FORMATS.find(([start]) => start.every((byte, place) => byte === null || bytes[place] === byte));
  if (!found) throw new ImageError(`not an image that csg reads; ${READABLE}`);
  const [, type, read] = found;
  if (!read) throw new ImageError(`${type} files can't be decoded in a browser; ${READABLE}`);
  const { parts, exif = new Uint8Array(), xmp = "" } = read(bytes);
  return { type, orientation: orientation(exif, xmp), clean: new Blob(parts, { type }) };
}

function jpeg(bytes) {
  const parts = [bytes.subarray(0, 2)], exif = [];
  let xmp = "";
  for (const { marker, start, end } of jpegSegments(bytes)) {
    const body = bytes.subarray(start + 4, end);
    if (marker === 0xda) {
      parts.push(bytes.subarray(start));
      break;
    }
    if (marker === 0xe1 && startsWith(body, "Exif\0\0")) exif.push(body.subarray(6));
    if (marker === 0xe1 && startsWith(body, "http://ns.adobe.com/xap/1.0/\0")) xmp = ASCII.decode(body);
    const metadata = (marker > 0xe0 && marker <= 0xef && marker !== 0xee) || marker === 0xfe; // 0xee: the colour model
    if (!metadata) parts.push(bytes.subarray(start, end));
  }
  return { parts, exif: joined(exif), xmp };
}

/** The segments of a JPEG file up to its pixels: marker, and where each starts and ends. */
export function* jpegSegments(bytes) {
  for (let place = 2; place + 4 <= bytes.length; ) {
    const marker = bytes[place + 1];
    if (bytes[place] === 0xff && marker === 0xd9) return; // the end of the image
    if (bytes[place] !== 0xff || marker === 0xff || marker < 0xc0 || (marker >= 0xd0 && marker <= 0xd8)) {
      place += 1;
      continue;
    }
    const end = place + 2 + Math.max(2, (bytes[place + 2] << 8) | bytes[place + 3]);
    yield { marker, start: place, end: Math.min(end, bytes.length) };
    place = end;
  }
}

function png(bytes) {
  const view = viewOf(bytes), parts = [bytes.subarray(0, 8)];
  let exif, xmp = "";
  for (let place = 8; place + 12 <= bytes.length; ) {
    const end = Math.min(place + 12 + view.getUint32(place), bytes.length);
    const kind = ASCII.decode(bytes.subarray(place + 4, place + 8)), body = bytes.subarray(place + 8, end - 4);
    if (["IHDR", "PLTE", "tRNS", "IDAT", "IEND"].includes(kind)) parts.push(bytes.subarray(place, end));
    if (kind === "eXIf") exif = body;
    if (kind === "iTXt" && startsWith(body, "XML:com.adobe.xmp\0")) xmp = ASCII.decode(body);
    place = end;
  }
  return { parts, exif, xmp };
}

function webp(bytes) {
  const view = viewOf(bytes), parts = [];
  let exif, xmp = "";
  for (let place = 12; place + 8 <= bytes.length; ) {
    const length = view.getUint32(place + 4, true), end = Math.min(place + 8 + length + (length % 2), bytes.length);
    const kind = ASCII.decode(bytes.subarray(place, place + 4)), body = bytes.subarray(place + 8, place + 8 + length);
    if (kind === "EXIF") exif ??= body;
    else if (kind === "XMP ") xmp = ASCII.decode(body);
    else if (kind !== "ICCP") parts.push(kind === "VP8X" ? withoutFlags(bytes.slice(place, end)) : bytes.subarray(place, end));
    place = end;
  }
  const head = bytes.slice(0, 12);
  viewOf(head).setUint32(4, 4 + parts.reduce((sum, part) => sum + part.length, 0), true);
  return { parts: [head, ...parts], exif, xmp };
}

/** A WebP's VP8X chunk that announces no profile, EXIF or XMP. */
function withoutFlags(chunk) {
  chunk[8] &= ~(0x20 | 0x08 | 0x04);
  return chunk;
}

const asItIs = (bytes) => ({ parts: [bytes] });

const text = (start) => [...start].map((character) => (character === "." ? null : character.charCodeAt(0)));

const FORMATS = [
  [[0xff, 0xd8, 0xff], "image/jpeg", jpeg],
  [[0x89, ...text("PNG\r\n\x1a\n")], "image/png", png],
  [text("RIFF....WEBPVP8"), "image/webp", webp],
  [text("GIF8"), "image/gif", asItIs],
  [text("BM"), "image/bmp", asItIs],
  [text("II*\0"), "TIFF", null],
  [text("MM\0*"), "TIFF", null],
  [text("P4\n"), "PBM", null],
  [text("P5\n"), "PGM", null],
  [text("P6\n"), "PPM", null],
];

/** The EXIF orientation, or that of XMP where EXIF has none, as Pillow finds it. */
function orientation(exif, xmp) {
  const found = exifOrientation(exif) ?? Number(XMP_ORIENTATION.exec(xmp)?.[1] ?? 1);
  return found >= 2 && found <= 8 ? found : 1;
}

function exifOrientation(exif) {
  const data = startsWith(exif, "Exif\0\0") ? exif.subarray(6) : exif;
  const little = startsWith(data, "II"), view = viewOf(data);
  if (data.length < 14 || (!little && !startsWith(data, "MM"))) return undefined;
  const first = view.getUint32(4, little);
  if (first + 2 > data.length) return undefined;
  const count = view.getUint16(first, little);
  for (let place = first + 2; place < first + 2 + 12 * count && place + 12 <= data.length; place += 12) {
    if (view.getUint16(place, little) !== 0x112) continue;
    const type = view.getUint16(place + 2, little);
    return type === 3 ? view.getUint16(place + 8, little) : type === 4 ? view.getUint32(place + 8, little) : 1;
  }
  return undefined;
}

const viewOf = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

const startsWith = (bytes, start) => ASCII.decode(bytes.subarray(0, start.length)) === start;

function joined(parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let place = 0;
  for (const part of parts) {
    whole.set(part, place);
    place += part.length;
  }
  return whole;
}
