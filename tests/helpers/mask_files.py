"""Images with masks on disk."""

import struct
import zlib

import numpy as np
from PIL import Image

CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Mask values of Cityscapes' 19 classes (docs/method.md section 7)."""


def save_image(path, pixels):
    """Write an array as an image file, and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


INTERLACED = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""The seven parts of an interlaced PNG file (Adam7): the first column and row, and the steps."""


def png(values, bits, palette=False, interlaced=False):
    """The bytes of a PNG file whose samples have this number of bits, written by hand so that none is changed.

    Args:
        values: grey levels or palette indices, int (H, W), or RGB, int (H, W, 3).
    """
    parts = [values[y::dy, x::dx] for x, y, dx, dy in INTERLACED] if interlaced else [values]
    rows = b"".join(b"\0" + _packed(row.ravel(), bits) for part in parts if part.size for row in part)
    kind = 2 if values.ndim == 3 else 3 if palette else 0
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, kind, 0, 0, interlaced)
    colours = [(b"PLTE", bytes(index * 5 % 256 for index in range(3 * 2**bits)))] if palette else []
    chunks = [(b"IHDR", header), *colours, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    framed = (struct.pack(">I", len(c)) + name + c + struct.pack(">I", zlib.crc32(name + c)) for name, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def _packed(row, bits):
    digits = "".join(f"{int(value):0{bits}b}" for value in row)
    return bytes(int(digits[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(digits), 8))


def write_gta5(folder, count=2):
    """Write images as GTA5 stores them: images/00001.png, labels/00001.png with a palette and Cityscapes' ids."""
    rng = np.random.default_rng(0)
    for number in range(1, count + 1):
        save_image(folder / "images" / f"{number:05d}.png", rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))
        mask = Image.fromarray(rng.choice([*CITYSCAPES_IDS, 0, 4], (40, 60)).astype(np.uint8))
        mask.putpalette(list(range(256)) * 3)
        (folder / "labels").mkdir(exist_ok=True)
        mask.save(folder / "labels" / f"{number:05d}.png")
    return folder


def touch(folder, *names):
    """Create empty files below a folder, and return the folder; pairs are made by names alone."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def pairs_of(scenes, root):
    """The pairs of a dataset as `{image: mask}`, with paths relative to a folder."""
    relative = [[str(path.absolute().relative_to(root)) for path in paths] for paths in (scenes.paths, scenes.masks)]
    return dict(zip(*relative, strict=True))
