"""Masks: PNG files with one value for each pixel, grey levels or palette indices."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from PIL import Image

from csg.errors import InputError, one_line
from csg.images import opened, read_file

SIGNATURE = b"\x89PNG\r\n\x1a\n"
LARGEST = 255
"""The largest value of a mask."""
STRETCHED = {2: 85, 4: 17}
"""By the bits of a grey level: the factor by which Pillow multiplies it, so that white is 255."""


def read_mask(path: Path) -> np.ndarray:
    """The values of a mask, uint8 (H, W), as the file means them: grey levels or palette indices of any bit depth.

    Raises:
        InputError: the file can't be read or is not PNG, has several channels, or holds a value above 255.
    """
    try:
        content = read_file(path)
        bits = _bit_depth(content[:29])
        with opened(content, ("PNG",)) as mask:
            return _values(path, mask, bits)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"mask {path} does not exist", "check the path") from None
    except Exception as error:  # decoders fail on malformed files in many ways
        raise InputError(f"mask {path} can't be read: {one_line(error)}", "repair or remove it") from None


def _bit_depth(start: bytes) -> int:
    """The bits of a sample, from the start of a PNG file: the signature, then the chunk IHDR."""
    if not start.startswith(SIGNATURE):
        raise ValueError("not a PNG file (JPEG would change the values)")
    kind, bits = struct.unpack(">12x4s8xB4x", start)
    if kind != b"IHDR":
        raise ValueError("its header is damaged")
    return int(bits)


def _values(path: Path, mask: Image.Image, bits: int) -> np.ndarray:
    if len(mask.getbands()) > 1:
        raise _several_channels(path, mask, bits)
    values = np.asarray(mask)
    if bits > 8 and (largest := int(values.max(initial=0))) > LARGEST:
        raise InputError(
            f"mask {path} holds the value {largest}, the largest is {LARGEST}",
            "save the class of each pixel as a value from 0 to 255",
        )
    if mask.mode == "L" and bits in STRETCHED:
        values = values // STRETCHED[bits]
    return values.astype(np.uint8)


def _several_channels(path: Path, mask: Image.Image, bits: int) -> InputError:
    """What is wrong with a mask of several channels, and how to save it with one."""
    names = "".join(mask.getbands())
    message = f"mask {path} has the channels {names}, and a mask has one"
    if bits > 8:
        return InputError(f"{message} (here they have 16 bits)", "save the channel that holds the class, as 8-bit PNG")
    colours = [np.asarray(band) for name, band in zip(names, mask.split(), strict=True) if name != "A"]
    if all(np.array_equal(colours[0], other) for other in colours[1:]):
        hint = "its colours are grey: save the first channel alone, Image.open(path).getchannel(0).save(path) in Pillow"
        return InputError(message, hint)
    return InputError(
        message, "its colours stand for classes: replace each colour by the value of its class in a label set"
    )
