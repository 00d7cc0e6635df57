"""What decoding an image file will cost, read from the file's structure before anything is decoded.

A file of a few bytes can ask for gigabytes or minutes: by its size in pixels, the scans of a progressive JPEG, the
chunks of a PNG, the strips of a TIFF. Decoders follow it. So what is out of proportion is refused here, with a
ValueError of one line. A file that is damaged but cheap is left to the decoder, which says what is wrong.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from csg.image_tags import at_most, check_tags

MAX_PIXELS = 89_478_485
"""Maximum number of pixels of an image: Pillow's own limit."""
MAX_PARTS = 1000
"""Maximum number of segments, chunks or blocks beside those that hold pixels."""
MAX_PIXEL_CHUNKS = 100_000
"""Maximum number of a PNG's IDAT chunks."""
MAX_FRAMES = 10_000
"""Maximum number of chunks, one for each frame, of a WebP."""
MAX_SCANS = 100
"""Maximum number of scans of a JPEG. Encoders write 1 to 15."""
MAX_SCAN_PIXELS = 1_500_000_000
"""Maximum number of pixels times scans of a JPEG: 15 scans of the largest image."""
ARITHMETIC = 2
"""An arithmetic-coded scan counts as this many: it costs work even where it has no data."""
MAX_METADATA = 2**24
"""Maximum number of bytes before a JPEG's pixels, which Pillow joins piece by piece."""
MAX_JUNK = 2**16
"""Maximum number of bytes before the pixels that Pillow passes over one by one."""
MAX_RLE_PIXELS = 2**24
"""Maximum number of pixels of a run-length encoded BMP, which Pillow decodes in Python."""
MAX_COMMENTS = 1000
"""Maximum number of comments in a plain PPM: Pillow copies the rest of a block at each."""
LOSSLESS_TABLES = 6000
"""Bytes of one group of a lossless WebP's Huffman tables; a group takes 20 bits of the file."""


@dataclass(frozen=True)
class FileHeader:
    """What a file says about its first image."""

    format: str
    """Pillow's name of the format."""
    width: int
    """Width in pixels, as stored."""
    height: int
    """Height in pixels, as stored."""
    stored: int
    """Bytes of a pixel in Pillow's memory; the largest that the format allows if it is not known yet."""
    working: int = 0
    """Bytes that the decoder needs beside the image."""

    def memory(self, reduction: int = 1) -> int:
        """Bytes needed at the most until the image is RGB and prepared, if it is decoded at 1/`reduction` of its size.

        Pillow keeps a pointer for each row. While a file is decoded the decoder's own buffers are there; then the RGB
        image beside the stored one; then the RGB image beside a segmenter's two arrays of 3 bytes a pixel.
        """
        width, rows = -(-self.width // reduction), -(-self.height // reduction)
        pixels, pointers = width * rows, 8 * rows
        image, rgb = pixels * self.stored + pointers, pixels * 4 + pointers
        return max(image + max(self.working, rgb), rgb + 6 * pixels)


def read_header(content: bytes) -> FileHeader | None:
    """Read the structure of an image file.

    Args:
        content: the whole file.

    Returns:
        What it says, or None if it is not a file of a known format.

    Raises:
        ValueError: it would cost too much.

    Example:
        >>> read_header(Path("photo.jpg").read_bytes())
        FileHeader(format='JPEG', width=4032, height=3024, stored=4, working=0)
    """
    for start, read in READERS:
        if re.match(start, content, re.DOTALL):
            try:
                header = read(content)
            except (struct.error, IndexError):  # the file ends in the middle of its header
                return None
            at_most(header.width * header.height, MAX_PIXELS, f"{header.width} x {header.height} pixels")
            return header
    return None


# --- JPEG ---

_MARKER = re.compile(rb"\xff[\xc0-\xc7\xc9-\xcf\xd9-\xef\xfe]")
"""A marker that matters: the end, or one with a length; restart markers belong to the pixels."""
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SCAN, _END = 0xDA, 0xD9


def _jpeg(content: bytes) -> FileHeader:
    """JPEG: the size is in the frame's header, the scans are counted if the decoder would read more than one."""
    width = height = components = samples = 0
    several = arithmetic = False
    exif, place, parts, junk = list[bytes](), 2, 0, 0
    for marker, start, body in _segments(content, 2):
        junk += start - place
        place, parts = body.stop, parts + 1
        at_most(parts, MAX_PARTS, f"{parts} segments before its pixels")
        at_most(body.stop, MAX_METADATA, f"{body.stop} bytes before its pixels")
        at_most(junk, MAX_JUNK, f"{junk} bytes that are no segment")
        data = content[body]
        if marker in _FRAMES:
            tall, wide, components = struct.unpack_from(">HHB", data, 1)
            width, height = max(width, wide), max(height, tall)
            several, arithmetic = several or marker & 3 == 2, arithmetic or marker >= 0xC9
            samples = max(samples, _samples(data))
        elif marker == 0xE1 and data.startswith(b"Exif\0\0"):
            exif.append(data[6:])
        elif marker == _SCAN:
            several = several or data[0] < components
            if several:
                _check_scans(content, body.stop, width * height, arithmetic)
            break
    check_tags(b"".join(exif))
    stored = 1 if components == 1 else 4
    return FileHeader("JPEG", width, height, stored, working=2 * samples if several else 0)


def _segments(content: bytes, place: int) -> Iterator[tuple[int, int, slice]]:
    """Each marker from a place on: its code, where it starts, and where its content is."""
    while found := _MARKER.search(content, place):
        marker, place = content[found.end() - 1], found.end()
        length = 0 if marker == _END else max(2, struct.unpack_from(">H", content, place)[0])
        body = slice(place + min(length, 2), place + length)
        yield marker, found.start(), body
        place = body.stop


def _check_scans(content: bytes, place: int, pixels: int, arithmetic: bool) -> None:
    """Count the scans that follow the first one, as the decoder finds them: whatever comes before the next marker."""
    scans, parts = 1, 0
    try:
        for marker, _, _ in _segments(content, place):
            if marker == _END:
                break
            scans, parts = scans + (marker == _SCAN), parts + 1
            at_most(scans, MAX_SCANS, f"{scans} scans")
            at_most(parts, MAX_PARTS, f"{parts} segments")
    except struct.error:  # it ends in the middle of a segment
        pass
    work = scans * pixels * (ARITHMETIC if arithmetic else 1)
    at_most(work, MAX_SCAN_PIXELS, f"{scans} scans of {pixels} pixels{', arithmetic-coded' if arithmetic else ''}")


def _samples(frame: bytes) -> int:
    """The number of samples of all components, of which a decoder of several scans keeps 2 bytes each."""
    height, width, components = struct.unpack_from(">HHB", frame, 1)
    factors = [(frame[7 + 3 * i] >> 4, frame[7 + 3 * i] & 15) for i in range(components)]
    widest, tallest = (max((factor[axis] for factor in factors), default=1) or 1 for axis in (0, 1))
    share = sum(across * down for across, down in factors) / (widest * tallest)
    return int((width + 64) * (height + 64) * share)


# --- PNG ---


def _png(content: bytes) -> FileHeader:
    """PNG: every chunk that Pillow reads; an APNG's frames after the first are not read."""
    width, height = struct.unpack_from(">II", content, 16)
    exif, place, parts, pixel_chunks = b"", 8, 0, 0
    while place + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        if kind == b"IEND" or (kind == b"fcTL" and pixel_chunks):
            break
        if kind == b"eXIf":
            exif = content[place + 8 : place + 8 + length]
        pixel_chunks += kind == b"IDAT"
        parts += kind != b"IDAT"
        at_most(parts, MAX_PARTS, f"{parts} chunks beside its pixels")
        at_most(pixel_chunks, MAX_PIXEL_CHUNKS, f"{pixel_chunks} chunks of pixels")
        place += 12 + length
    check_tags(exif)
    depth, colour = content[24], content[25]
    stored = 2 if depth == 16 and colour == 0 else 1 if colour in (0, 3) else 4
    return FileHeader("PNG", width, height, stored)


# --- WebP ---


def _webp(content: bytes) -> FileHeader:
    """WebP: opening it makes two RGBA canvases; the decoder returns a third, which becomes the image."""
    width = height = 0
    exif, place, parts = b"", 12, 0
    while place + 8 <= len(content):
        kind, length = struct.unpack_from("<4sI", content, place)
        body, parts = place + 8, parts + 1
        at_most(parts, MAX_FRAMES, f"{parts} chunks")
        if parts == 1:
            width, height = _webp_size(kind, content)
        if kind == b"EXIF":
            exif = exif or content[body : body + length]
        place = body + length + length % 2
    check_tags(exif)
    tables = 0
    if b"VP8L" in content or b"ALPH" in content:
        tables = LOSSLESS_TABLES * min(2**16, width * height // 16, len(content) * 8 // 20)
    return FileHeader("WEBP", width, height, 4, working=3 * 4 * width * height + tables)


def _webp_size(kind: bytes, content: bytes) -> tuple[int, int]:
    if kind == b"VP8X":
        wide, tall = (int.from_bytes(content[start : start + 3], "little") for start in (24, 27))
        return wide + 1, tall + 1
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", content, 21)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    wide, tall = struct.unpack_from("<HH", content, 26)
    return wide & 0x3FFF, tall & 0x3FFF


# --- formats that are read from local files ---


def _gif(content: bytes) -> FileHeader:
    """GIF: the size is that of the screen, or larger if the first image reaches beyond it."""
    width, height, flags = struct.unpack_from("<HHB", content, 6)
    place, parts = 13 + (3 << (flags & 7) + 1 if flags & 128 else 0), 0
    while content[place] != ord(","):
        if content[place] == ord("!"):
            place += 1
            while length := content[place + 1]:
                place, parts = place + 1 + length, parts + 1
                at_most(parts, MAX_PIXEL_CHUNKS, f"{parts} blocks before its pixels")
            place += 1
        place, parts = place + 1, parts + 1
        at_most(parts, MAX_PIXEL_CHUNKS, f"{parts} blocks before its pixels")
    left, top, across, down = struct.unpack_from("<4H", content, place + 1)
    width, height = max(width, left + across), max(height, top + down)
    return FileHeader("GIF", width, height, 1, working=width * height)


def _bmp(content: bytes) -> FileHeader:
    return _bitmap(content, "BMP", 14)


def _dib(content: bytes) -> FileHeader:
    return _bitmap(content, "DIB", 0)


def _bitmap(content: bytes, name: str, start: int) -> FileHeader:
    """BMP, or DIB without the file's header: Pillow decodes run lengths in Python, into an array and a copy of it."""
    if struct.unpack_from("<I", content, start)[0] == 12:
        width, height, _, bits = struct.unpack_from("<4H", content, start + 4)
        return FileHeader(name, width, height, 1 if bits <= 8 else 4)
    width, height, _, bits, compression = struct.unpack_from("<IiHHI", content, start + 4)
    pixels, height = width * abs(height), abs(height)
    if compression in (1, 2):
        at_most(pixels, MAX_RLE_PIXELS, f"{width} x {height} run-length encoded pixels")
    return FileHeader(name, width, height, 1 if bits <= 8 else 4, working=2 * pixels)


_TOKEN = re.compile(rb"(?:\s|#[^\r\n]*[\r\n])*([^\s#]+)")


def _ppm(content: bytes) -> FileHeader:
    """PPM: Pillow reads the header byte by byte, and the plain forms in Python, into an array and a copy of it."""
    place, sides = re.match(rb"\S{1,6}", content).end(), []  # type: ignore[union-attr]
    for _ in range(2):
        token = _TOKEN.match(content, place, MAX_JUNK)
        if token is None:
            raise ValueError(f"no size in its first {MAX_JUNK} bytes")
        place = token.end()
        sides.append(int(token[1][:11]))
    width, height = sides
    if content[1:2] in b"123":
        comments = content.count(b"#")
        at_most(comments, MAX_COMMENTS, f"{comments} comments")
    return FileHeader("PPM", width, height, 4, working=8 * width * height)


def _tiff(content: bytes) -> FileHeader:
    """TIFF: libtiff needs room for a strip, which may be the whole image, or for a tile."""
    values = check_tags(content)
    width, height = values.get(256, 0), values.get(257, 0)
    tile = values.get(322, 0) * values.get(323, 0)
    at_most(tile, MAX_PIXELS, f"tiles of {tile} pixels")
    strip = width * min(height, values.get(278, height))
    sample = -(-values.get(258, 1) // 8) * values.get(277, 4)
    if values.get(259) in (6, 7):  # JPEG inside
        scans = content.count(b"\xff\xda")
        at_most(scans * max(tile, strip), MAX_SCAN_PIXELS, f"{scans} scans")
    return FileHeader("TIFF", width, height, 4, working=max(tile, strip) * max(4, sample))


READERS = (
    (rb"\xff\xd8\xff", _jpeg),
    (rb"\x89PNG\r\n\x1a\n", _png),
    (rb"RIFF....WEBPVP8[ LX]", _webp),
    (rb"GIF8[79]a", _gif),
    (rb"BM", _bmp),
    (rb"[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", _dib),
    (rb"P[0123456fy]", _ppm),
    (rb"II[\x2a\x2b]\0|MM\0[\x2a\x2b]|II\0\x2a|MM\x2a\0|MM\0\x2b|II\x2b\0", _tiff),
)
"""How each format starts, in the order in which Pillow tries them, and what reads it."""
