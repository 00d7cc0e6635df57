"""Small image files whose decoding would take gigabytes or minutes, and large ones that people really have."""

import struct
import zlib

import numpy as np
from PIL import Image, ImageChops

from tests.helpers.image_files import encoded

# --- PNG ---


def png_chunk(kind, data=b""):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, *chunks, depth=8, colour=0, interlace=0):
    """A PNG file: its header, then some chunks, then the end."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + b"".join(chunks) + png_chunk(b"IEND")


def zeros(count):
    """A zlib stream of so many zeros, made without holding them."""
    packer, block = zlib.compressobj(9), bytes(2**20)
    parts = [packer.compress(block) for _ in range(count >> 20)]
    return b"".join([*parts, packer.compress(bytes(count & 0xFFFFF)), packer.flush()])


def idat(size):
    return png_chunk(b"IDAT", zeros(size))


SMALL = zlib.compress(b"\0" + bytes(3) + b"\0" + bytes(3))
TEXT = b"k\0\0" + zlib.compress(bytes(2**20))
PROFILE = b"k\0\0" + zlib.compress(bytes(2**20 - 1))


# --- JPEG ---


def segment(code, data=b""):
    return b"\xff" + bytes([code]) + struct.pack(">H", len(data) + 2) + data


def frame(code, width, height, components=3, factors=0x22, bits=8):
    parts = b"".join(bytes([i + 1, factors if i == 0 else 0x11, 0]) for i in range(components))
    return segment(code, struct.pack(">BHHB", bits, height, width, components) + parts)


QUANTISATION = segment(0xDB, b"\0" + bytes([1] * 64))
ONE_CODE = bytes([1] + [0] * 15) + b"\0"  # a single Huffman code of one bit, for the value 0
HUFFMAN = segment(0xC4, b"\0" + ONE_CODE + b"\x10" + ONE_CODE)
ALL_COEFFICIENTS = bytes([0, 63, 0])


def scan(components, spectrum, data=b"\0"):
    chosen = b"".join(bytes([component, 0]) for component in components)
    return segment(0xDA, bytes([len(components)]) + chosen + spectrum) + data


def jpeg(*parts):
    return b"\xff\xd8" + QUANTISATION + HUFFMAN + b"".join(parts) + b"\xff\xd9"


def progressive(scans, width=9000, height=9000, code=0xC2):
    """A JPEG whose scans have no data: the decoder still visits each block of each scan."""
    later = b"".join(scan([1], bytes([1 + n % 63, 1 + n % 63, 0])) for n in range(scans - 1))
    return jpeg(frame(code, width, height), scan([1, 2, 3], bytes([0, 0, 0])), later)


def exif(entries, data, orientation=6):
    """EXIF data whose tags all point to the same numbers."""
    first = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    count, place = entries + 1, 8 + 2 + 12 * (entries + 1) + 4
    tags = b"".join(struct.pack("<HHII", 0x8000 + n, 5, len(data) // 8, place) for n in range(entries))
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", count) + first + tags + bytes(4) + data


OVERLAPPING = exif(3000, bytes(2**20))


# --- WebP ---


def riff(*chunks):
    body = b"".join(kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for kind, data in chunks)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def three(number):
    return number.to_bytes(3, "little")


def lossless(width, height):
    """A WebP image of one colour: five Huffman codes of one symbol, so that no pixel takes a bit."""
    bits, place = 0x2F, 8
    fields = [(width - 1, 14), (height - 1, 14), (0, 1), (0, 3), (0, 1), (0, 1), (0, 1)]
    fields += [(0b0001, 4)] * 5  # simple, one symbol, of one bit: 0
    for value, size in fields:
        bits |= value << place
        place += size
    return b"VP8L", bits.to_bytes(place // 8 + 9, "little")


def canvas(width, height, *chunks, flags=0):
    return riff((b"VP8X", bytes([flags, 0, 0, 0]) + three(width - 1) + three(height - 1)), *chunks)


def webp_frame(width, height):
    kind, data = lossless(width, height)
    place = three(0) * 2 + three(width - 1) + three(height - 1) + three(100) + b"\0"
    return b"ANMF", place + kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


ANIMATION = (b"ANIM", bytes(6))


# --- BMP, PPM, GIF, TIFF ---


def bmp(width, height, data, bits=8, compression=1):
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(data), 0, 0, 2, 0)
    palette = bytes([0, 0, 0, 0, 9, 80, 200, 0])
    start = 14 + len(info) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + info + palette + data


def gif(width, height, *blocks, image=(0, 0, 1, 1), disposal=0):
    control = b"!\xf9\x04" + bytes([disposal << 2, 0, 0, 0, 0])
    pixels = b"," + struct.pack("<4H", *image) + b"\0\x02\x02\x44\x01\0;"
    return b"GIF89a" + struct.pack("<HH", width, height) + bytes(3) + b"".join(blocks) + control + pixels


def tiff(width, height, *tags, data=b"", compression=1, following=0):
    """A TIFF file; each tag is (number, type, count, value)."""
    first = [(256, 4, 1, width), (257, 4, 1, height), (259, 3, 1, compression), (262, 3, 1, 2), (277, 3, 1, 4)]
    entries = sorted({tag[0]: tag for tag in (*first, *tags)}.values())
    directory = b"".join(struct.pack("<HHII", *tag) for tag in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + directory + struct.pack("<I", following) + data


def packed_tiff(width, height, bits=16):
    """A TIFF file of one strip, whose content is nothing but zeros, compressed."""
    end = 8 + 2 + 12 * 10 + 4
    samples = struct.pack("<4H", *[bits] * 4)
    pixels = zeros(1000)
    tags = [(258, 3, 4, end), (273, 4, 1, end + 8), (278, 4, 1, height), (279, 4, 1, len(pixels)), (338, 3, 1, 2)]
    return tiff(width, height, *tags, data=samples + pixels, compression=8)


def many_strips(count):
    end = 8 + 2 + 12 * 9 + 4
    numbers = struct.pack(f"<{count}I", *[end] * count)
    tags = [(258, 3, 1, 8), (273, 4, count, end), (278, 4, 1, 1), (279, 4, count, end)]
    return tiff(1, count, *tags, data=numbers)


def mpo(frames):
    """A JPEG that announces many more."""
    table = b"II*\0\x08\0\0\0" + struct.pack("<H", 3)
    table += struct.pack("<HHI4s", 0xB000, 7, 4, b"0100") + struct.pack("<HHII", 0xB001, 4, 1, frames)
    table += struct.pack("<HHII", 0xB002, 7, 16 * 3000, 50) + bytes(4) + bytes(16 * 3000)
    whole = encoded(Image.new("RGB", (16, 16)), "JPEG")
    return whole[:2] + segment(0xE2, b"MPF\0" + table) + whole[2:]


COSTLY = {
    # 34 bytes, and what is like it
    "webp, 34 bytes": lambda: riff(lossless(13_377, 13_377))[:34],
    "webp, huge canvas": lambda: canvas(2**24, 255, lossless(1, 1)),
    "webp, canvas of the most pixels": lambda: canvas(9459, 9459, lossless(9459, 9459)),
    "webp, animated, huge canvas": lambda: canvas(9459, 9459, ANIMATION, webp_frame(1, 1), webp_frame(1, 1), flags=2),
    "webp, 100,000 frames": lambda: canvas(1, 1, ANIMATION, *[webp_frame(1, 1)] * 100_000, flags=2),
    "webp, 200,000 chunks": lambda: canvas(1, 1, lossless(1, 1), *[(b"zzzz", b"")] * 200_000),
    "webp, exif of overlapping tags": lambda: canvas(
        1, 1, lossless(1, 1), (b"EXIF", exif(30_000, bytes(2**20))), flags=8
    ),
    # scans and segments
    "jpeg, 20,000 scans": lambda: progressive(20_000),
    "jpeg, 473 kB of scans": lambda: progressive(43_000, 4000, 4000),
    "jpeg, sequential, 5,000 scans": lambda: jpeg(
        frame(0xC0, 9000, 9000), *[scan([1 + n % 3], ALL_COEFFICIENTS) for n in range(5000)]
    ),
    "jpeg, scans behind comments": lambda: jpeg(
        frame(0xC2, 9000, 9000),
        scan([1, 2, 3], bytes([0, 0, 0])),
        *[segment(0xFE, b"\xff\xd9") + scan([1], bytes([1, 63, 0])) for _ in range(5000)],
    ),
    "jpeg, arithmetic, 90 scans": lambda: progressive(90, code=0xCA),
    "jpeg, 200,000 comments": lambda: jpeg(*[segment(0xFE)] * 200_000, frame(0xC0, 16, 16)),
    "jpeg, 60,000 comments between scans": lambda: jpeg(
        frame(0xC2, 16, 16), scan([1, 2, 3], bytes(3)), *[segment(0xFE)] * 60_000
    ),
    "jpeg, exif in 1,000 segments": lambda: jpeg(
        *[segment(0xE1, b"Exif\0\0" + bytes(65_000))] * 1000, frame(0xC0, 16, 16), scan([1, 2, 3], ALL_COEFFICIENTS)
    ),
    "jpeg, exif of overlapping tags": lambda: jpeg(
        segment(0xE1, exif(2000, bytes(40_000))), frame(0xC0, 16, 16), scan([1, 2, 3], ALL_COEFFICIENTS)
    ),
    "jpeg, 30 MB of junk": lambda: jpeg(bytes(30_000_000), frame(0xC0, 16, 16)),
    "jpeg, cmyk, progressive, 4:4:4:4": lambda: jpeg(
        frame(0xC2, 65500, 1366, 4, 0x11), scan([1, 2, 3, 4], bytes([0, 0, 0]))
    ),
    # chunks
    "png, 100,000 chunks": lambda: png(2, 2, *[png_chunk(b"teSt")] * 100_000, png_chunk(b"IDAT", SMALL)),
    "png, 300,000 chunks of no pixels": lambda: png(2, 2, *[png_chunk(b"IDAT")] * 300_000, png_chunk(b"IDAT", SMALL)),
    "png, 100,000 chunks behind the pixels": lambda: png(
        2, 2, png_chunk(b"IDAT", SMALL), *[png_chunk(b"teSt")] * 100_000
    ),
    "png, 2,000 packed texts": lambda: png(2, 2, *[png_chunk(b"zTXt", TEXT)] * 2000, png_chunk(b"IDAT", SMALL)),
    "png, 5,000 packed profiles": lambda: png(2, 2, *[png_chunk(b"iCCP", PROFILE)] * 5000, png_chunk(b"IDAT", SMALL)),
    "png, one pixel wide": lambda: png(1, 89_000_000, idat(99)),
    "png, exif of overlapping tags": lambda: png(2, 2, png_chunk(b"eXIf", OVERLAPPING[6:]), png_chunk(b"IDAT", SMALL)),
    "png, two headers": lambda: png(
        2, 2, png_chunk(b"IHDR", struct.pack(">IIBBBBB", 12_000, 12_000, 8, 6, 0, 0, 0)), idat(99)
    ),
    # others
    "bmp, 1 kB of ends of lines": lambda: bmp(357_000, 250, b"\1\1\0\0" * 250),
    "bmp, jumps": lambda: bmp(9000, 9000, b"\0\2\xff\xff" * 40),
    "bmp, runs of 4 bits": lambda: bmp(9000, 9000, b"\xff\x11" * 400_000, bits=4, compression=2),
    "dib, ends of lines": lambda: bmp(357_000, 250, b"\1\1\0\0" * 250)[14:],
    "ppm, 1 MB of comments": lambda: b"P3\n9 9\n255\n" + b"#\n" * 500_000,
    "ppm, bitmap of comments": lambda: b"P1\n999 999\n" + b"#\n0" * 330_000,
    "ppm, comments before the size": lambda: b"P5\n" + b"#" * 20_000_000 + b"\n9 9\n255\n",
    "ppm, two numbers in one": lambda: b"P6\n1#\n2000 9000\n255\n" + bytes(99),
    "gif, huge screen": lambda: gif(65535, 65535),
    "gif, huge image in a small screen": lambda: gif(1, 1, image=(0, 0, 13_000, 13_000), disposal=2),
    "gif, 400,000 blocks": lambda: gif(1, 1, *[b"!\xfe\x01a\0"] * 400_000),
    "png, exif of 30,000 tags": lambda: png(2, 2, png_chunk(b"eXIf", exif(30_000, b"")[6:]), png_chunk(b"IDAT", SMALL)),
    "tiff, tags that overlap": lambda: tiff(
        9, 9, *[(40_000 + n, 5, 100_000, 8) for n in range(4000)], data=bytes(10**6)
    ),
    "tiff, 2,000,000 strips": lambda: many_strips(2_000_000),
    "tiff, huge tile": lambda: tiff(
        9, 9, (322, 4, 1, 2**20), (323, 4, 1, 2**20), (324, 4, 1, 8), (325, 4, 1, 8), compression=8
    ),
    "tiff, 250 bytes": lambda: packed_tiff(9459, 9459),
}
"""Files that are refused: each by its name, made when it is called."""

BOUNDED = {
    "png, zeros": lambda: png(9459, 9459, idat(9459 * 9460)),
    "png, zeros, 16 bits": lambda: png(9000, 9000, idat(9000 * (9000 * 8 + 1)), depth=16, colour=6),
    "png, zeros, interlaced": lambda: png(9000, 9000, idat(9000 * 9001 * 2), interlace=1),
    "png, exif of nothing but prefixes": lambda: png(
        2, 2, png_chunk(b"eXIf", b"Exif\0\0" * 10**6), png_chunk(b"IDAT", SMALL)
    ),
    "png, many frames": lambda: png(
        2,
        2,
        png_chunk(b"acTL", struct.pack(">II", 100_000, 0)),
        png_chunk(b"IDAT", SMALL),
        *[png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", n, 2, 2, 0, 0, 1, 1, 0, 0)) for n in range(100_000)],
    ),
    "jpeg, 60,000 restart markers": lambda: jpeg(
        segment(0xDD, b"\0\1"),
        frame(0xC0, 8000, 8000),
        scan([1, 2, 3], ALL_COEFFICIENTS, b"".join(b"\0\xff" + bytes([0xD0 + n % 8]) for n in range(60_000))),
    ),
    "jpeg, 15 scans of the most pixels": lambda: progressive(15, 9459, 9459),
    "jpeg, arithmetic": lambda: jpeg(frame(0xC9, 9459, 9459), scan([1, 2, 3], ALL_COEFFICIENTS, b"\x5a" * 1000)),
    "jpeg, no data": lambda: jpeg(frame(0xC0, 9459, 9459), scan([1, 2, 3], ALL_COEFFICIENTS)),
    "jpeg, 12 bits": lambda: jpeg(frame(0xC1, 9000, 9000, bits=12), scan([1, 2, 3], ALL_COEFFICIENTS)),
    "jpeg, no height": lambda: jpeg(
        frame(0xC0, 9000, 0), scan([1, 2, 3], ALL_COEFFICIENTS), segment(0xDC, struct.pack(">H", 9000))
    ),
    "jpeg, cmyk, 65,500 x 1,300": lambda: encoded(Image.new("CMYK", (65500, 1300)), "JPEG"),
    "jpeg, many frames": lambda: mpo(2**31),
    "webp, lossless": lambda: riff(lossless(8000, 8000)),
    "webp, cut off": lambda: canvas(8000, 8000, lossless(8000, 8000))[:50],
    "bmp, cut off": lambda: bmp(9000, 9000, b"", bits=24, compression=0),
    "gif, cut off": lambda: gif(9000, 9000, image=(0, 0, 9000, 9000))[:-5],
    "tiff, cut off": lambda: packed_tiff(7000, 7000)[:200],
    "tiff, pages": lambda: tiff(9, 9, following=8),
}
"""Files that are decoded, or fail, at a cost that their size in pixels bounds."""


def photograph(width, height, **options):
    """A JPEG file of a phone: smooth areas, edges and noise."""
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8)).resize((width, height))
    tile = Image.fromarray(random.integers(0, 24, (256, 256, 3), np.uint8))
    grain = Image.new("RGB", (width, height))
    for left in range(0, width, 256):
        for top in range(0, height, 256):
            grain.paste(tile, (left, top))
    return encoded(ImageChops.add(coarse, grain), "JPEG", quality=90, **options)
