"""Preprocessing for inference: decode, resize, crop, pad.

Evaluation during training, the client and the server all use these functions, so their pixels are identical.
Shape letters: H W height and width of the model's input.
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

ImageSource = Path | bytes | Image.Image
"""An image file, the content of one, or a decoded image."""
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff"}
)
"""File names that end so are read as images."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "PPM", "TIFF")
"""Formats to decode; Pillow decodes all of them without starting another program."""
MAX_SIDE = 8192
"""Maximum side in pixels to which a segmenter's image is enlarged."""
MAX_PIXELS = 89_478_485
"""Maximum number of pixels of an image: 256 MiB of RGB, Pillow's own limit."""
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # `decode` refuses such images


def decode(source: ImageSource, name: str | None = None) -> Image.Image:
    """Decode an image to 8-bit RGB: the first frame, with EXIF orientation applied and alpha over black.

    Pillow releases the GIL while it decodes, so threads decode in parallel.

    Args:
        source: a file, the content of one, or an image of Pillow's.
        name: the image's name in an error; by default the path.

    Raises:
        InputError: the image can't be decoded, or has more than MAX_PIXELS pixels.
    """
    name = name or (str(source) if isinstance(source, Path) else "from memory")
    try:
        if isinstance(source, Image.Image):
            return _to_rgb(ImageOps.exif_transpose(source))
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels, the maximum is {MAX_PIXELS}")
            image.load()
            with suppress(Exception):  # a broken EXIF block: no orientation
                ImageOps.exif_transpose(image, in_place=True)
            return _to_rgb(image)
    except FileNotFoundError:
        raise InputError(f"image {name} does not exist", "check the path") from None
    except UnidentifiedImageError:
        raise InputError(f"image {name} can't be read: not an image file", "repair or remove it") from None
    except Exception as error:  # decoders fail on malformed files in many ways
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
    """The input of a classifier for one RGB image, uint8 (H, W, 3).

    The shorter side is resized to `resize_shorter_side` and the centre H x W is cropped (docs/method.md section 6,
    test view). Both happen in one bilinear, antialiased step on the pixels that are kept, so that a very long image
    needs no more memory than a square one.
    """
    scale = min(image.size) / spec.resize_shorter_side
    width, height = spec.width * scale, spec.height * scale
    left, top = (image.width - width) / 2, (image.height - height) / 2
    box = (left, top, min(left + width, image.width), min(top + height, image.height))
    return np.asarray(image.resize((spec.width, spec.height), Image.Resampling.BILINEAR, box=box), np.uint8)


def load(source: ImageSource, spec: ClassificationInput) -> np.ndarray:
    """Decode an image and prepare it for a classifier: uint8 (H, W, 3)."""
    return prepare(decode(source), spec)


@dataclass(frozen=True)
class PaddedImage:
    """The input of a segmenter for one image."""

    pixels: np.ndarray
    """uint8 (H, W, 3); the image is in the upper left corner, the rest is padding."""
    scaled: tuple[int, int]
    """Width and height of the image in `pixels`."""
    original: tuple[int, int]
    """Width and height of the image as it was decoded."""

    def restore(self, label_map: np.ndarray) -> np.ndarray:
        """Remove the padding from a label map, uint8 (H, W), and resize it to the original size (nearest neighbour)."""
        width, height = self.scaled
        cut = Image.fromarray(label_map[:height, :width])
        return np.asarray(cut.resize(self.original, Image.Resampling.NEAREST), np.uint8)


def prepare_segmentation(image: Image.Image, spec: SegmentationInput) -> PaddedImage:
    """The input of a segmenter for one RGB image.

    The shorter side is resized to `resize_shorter_side`, or smaller if the graph has a fixed size that is smaller. The
    image is then padded at the right and the bottom, to the fixed size or to multiples of 8. No side is enlarged beyond
    MAX_SIDE: an image of 1000 x 3 pixels would need gigabytes.
    """
    scale = spec.resize_shorter_side / min(image.size) if spec.resize_shorter_side else 1.0
    scale = min(scale, max(1.0, MAX_SIDE / max(image.size)))
    if spec.width and spec.height:
        scale = min(scale, spec.width / image.width, spec.height / image.height)
    original = image.size
    width, height = (max(1, round(side * scale)) for side in original)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pad_to = (spec.height or _round_up(height), spec.width or _round_up(width))
    return PaddedImage(pad(np.asarray(image), *pad_to, spec.pad_colour), (width, height), original)


def pad(pixels: np.ndarray, height: int, width: int, colour: Colour) -> np.ndarray:
    """Pad pixels, uint8 (h, w, 3), at the right and the bottom with a colour, to uint8 (height, width, 3)."""
    area = np.empty((height, width, 3), np.uint8)
    area[:] = colour
    area[: pixels.shape[0], : pixels.shape[1]] = pixels
    return area


def _round_up(side: int) -> int:
    return math.ceil(side / STRIDE) * STRIDE
