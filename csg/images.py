"""Pixels for inference: decode, resize, crop. The only place where they are prepared.

Validation during training, the client and the server all call `prepare`, or `prepare_segmentation` for a segmenter,
so that they can't differ. Shape letters: H W of the model's input.
"""

from __future__ import annotations

import io
import math
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from csg.card import STRIDE, ClassificationInput, Colour, SegmentationInput
from csg.errors import InputError, one_line

ImageSource = Path | bytes | Image.Image  # a file, the bytes of one, or an image that is decoded already
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff"})
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "PPM", "TIFF")  # none of these starts another program
MAX_SIDE = 8192
MAX_PIXELS = 89_478_485  # 256 MiB of RGB, Pillow's own limit
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # `decode` refuses such images


def decode(source: ImageSource, name: str | None = None) -> Image.Image:
    """An image as 8-bit RGB, upright (EXIF orientation applied), first frame, alpha over black.

    It may be called from several threads at once: Pillow lets go of Python's lock while it decodes.

    Args:
        source: a file, the bytes of one, or an image of Pillow's.
        name: what to call it in an error; the path by default.

    Raises:
        InputError: it can't be read as an image, or is too large to be one in good faith.
    """
    name = name or (str(source) if isinstance(source, Path) else "from memory")
    try:
        if isinstance(source, Image.Image):
            return _to_rgb(ImageOps.exif_transpose(source))
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels, and {MAX_PIXELS} are the most")
            image.load()
            with suppress(Exception):  # an unreadable EXIF block says nothing of the orientation
                ImageOps.exif_transpose(image, in_place=True)
            return _to_rgb(image)
    except FileNotFoundError:
        raise InputError(f"image {name} is not there", "check the path") from None
    except UnidentifiedImageError:
        raise InputError(f"image {name} can't be read: not an image file", "repair or remove it") from None
    except Exception as error:  # decoders meet what they were not written for in many ways
        raise InputError(f"image {name} can't be read: {one_line(error)}", "repair or remove it") from None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":  # more than 8 bits a channel: Pillow's own conversion clips
        wide = np.nan_to_num(np.asarray(image, np.float32))
        if image.mode.startswith("I;16") or wide.max(initial=0) > 255:
            wide = wide * np.float32(255 / 65535)
        return Image.fromarray(wide.round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def prepare(image: Image.Image, spec: ClassificationInput) -> np.ndarray:
    """The model's input for one RGB image: uint8 (H, W, 3).

    The shorter side is brought to `resize_shorter_side` and the centre H x W cut out (docs/method.md section 6,
    test view), in one bilinear, antialiased step over the part of the image that stays: an extreme strip
    costs no more memory than a square.
    """
    scale = min(image.size) / spec.resize_shorter_side
    width, height = spec.width * scale, spec.height * scale
    left, top = (image.width - width) / 2, (image.height - height) / 2
    box = (left, top, min(left + width, image.width), min(top + height, image.height))
    return np.asarray(image.resize((spec.width, spec.height), Image.Resampling.BILINEAR, box=box), np.uint8)


def load(source: ImageSource, spec: ClassificationInput) -> np.ndarray:
    """Decode and prepare one image: uint8 (H, W, 3)."""
    return prepare(decode(source), spec)


@dataclass(frozen=True)
class PaddedImage:
    """A segmenter's input for one image: `pixels` uint8 (H, W, 3), in whose upper left corner the image of original
    size (width, height) stands, `scaled` to (width, height).
    """

    pixels: np.ndarray
    scaled: tuple[int, int]
    original: tuple[int, int]

    def restore(self, label_map: np.ndarray) -> np.ndarray:
        """The label map, uint8 (H, W), of the image alone in its original size, by nearest neighbour."""
        width, height = self.scaled
        cut = Image.fromarray(label_map[:height, :width])
        return np.asarray(cut.resize(self.original, Image.Resampling.NEAREST), np.uint8)


def prepare_segmentation(image: Image.Image, spec: SegmentationInput) -> PaddedImage:
    """The segmenter's input for one RGB image.

    It is scaled to the shorter side that the card names, or further down until it fits a graph of fixed size, and
    padded at the right and the bottom to that size, or to the next multiples of 8. No side is enlarged beyond 8192
    pixels: a strip of 1000 x 3 would take gigabytes.
    """
    scale = spec.resize_shorter_side / min(image.size) if spec.resize_shorter_side else 1.0
    scale = min(scale, max(1.0, MAX_SIDE / max(image.size)))
    if spec.width and spec.height:
        scale = min(scale, spec.width / image.width, spec.height / image.height)
    original = image.size
    width, height = (max(1, round(side * scale)) for side in original)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pad_to = (spec.height or _next(height), spec.width or _next(width))
    return PaddedImage(padded(np.asarray(image), *pad_to, spec.pad_colour), (width, height), original)


def padded(pixels: np.ndarray, height: int, width: int, colour: Colour) -> np.ndarray:
    """The pixels, uint8 (h, w, 3), in the upper left corner of an area (height, width) of `colour`."""
    area = np.empty((height, width, 3), np.uint8)
    area[:] = colour
    area[: pixels.shape[0], : pixels.shape[1]] = pixels
    return area


def _next(side: int) -> int:
    return math.ceil(side / STRIDE) * STRIDE
