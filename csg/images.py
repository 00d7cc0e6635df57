"""Preprocessing for inference: decode, resize, crop, pad.

Evaluation during training, the client and the server all use these functions, so their pixels are identical.
Shape letters: H W height and width of the model's input.
"""

from __future__ import annotations

import math
import os
import stat
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ExifTags import Base

from csg.card import STRIDE, ClassificationInput, Colour, SegmentationInput
from csg.errors import InputError, one_line
from csg.image_budget import BUDGET, TimedFile
from csg.image_headers import MAX_PIXELS as MAX_PIXELS
from csg.image_headers import FileHeader, read_header

ImageSource = Path | bytes | Image.Image
"""An image file, the content of one, or a decoded image."""
InputSpec = ClassificationInput | SegmentationInput
"""How an image becomes the input of a model."""
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff"}
)
"""File names that end so are read as images."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "PPM", "TIFF")
"""Formats to decode; Pillow decodes all of them without starting another program."""
MAX_SIDE = 8192
"""Maximum side in pixels to which a segmenter's image is enlarged."""
MAX_PROFILE = 2**17
"""Maximum length of EXIF data as hexadecimal text, twice of what fits into a JPEG."""
MAX_FILE = 2**30
"""Maximum size of a file in bytes."""
STRIP = 2**20
"""Pixels that are converted to RGB at a time, where that needs more memory than the image."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What to do for an EXIF orientation; from 5 on width and height are swapped."""
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # such images are refused


def decode(source: ImageSource, name: str | None = None, formats: Sequence[str] = FORMATS) -> Image.Image:
    """Decode an image to 8-bit RGB: the first frame, with EXIF orientation applied and alpha over black.

    Pillow releases the GIL while it decodes, so threads decode in parallel.

    Args:
        source: a file, the content of one, or an image of Pillow's.
        name: the image's name in an error; by default the path.
        formats: the formats of files to decode, of FORMATS.

    Raises:
        InputError: the image can't be decoded, or that would take more memory or time than `csg.image_headers` and
            `csg.image_budget` allow.
    """
    with decoded(source, None, name=name, formats=formats) as (image, _):
        return image


@contextmanager
def decoded(
    source: ImageSource, spec: InputSpec | None, *, name: str | None = None, formats: Sequence[str] = FORMATS
) -> Iterator[tuple[Image.Image, tuple[int, int]]]:
    """As `decode`, for an input: a JPEG file that is much larger than needed may come at a reduced scale.

    Args:
        source, name, formats: as for `decode`.
        spec: the input; None: the image in its own size.

    Yields:
        The RGB image, and the size (width, height) that it has in the file. It counts in the memory budget until the
        context ends.
    """
    name = name or (str(source) if isinstance(source, Path) else "from memory")
    with ExitStack() as held:
        with _errors_of(name):
            if isinstance(source, Image.Image):
                image = _to_rgb(ImageOps.exif_transpose(source))
                found = image, image.size
            else:
                found = _read(_content(source), spec, formats, held)
        yield found


@contextmanager
def _errors_of(name: str) -> Iterator[None]:
    """Whatever happens while an image is decoded becomes an InputError with its name."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"image {name} does not exist", "check the path") from None
    except UnidentifiedImageError:
        raise InputError(f"image {name} can't be read: not an image file", "repair or remove it") from None
    except Exception as error:  # decoders fail on malformed files in many ways
        raise InputError(f"image {name} can't be read: {one_line(error)}", "repair or remove it") from None


def _content(source: Path | bytes) -> bytes:
    if isinstance(source, bytes):
        return source
    with source.open("rb") as file:
        status = os.fstat(file.fileno())
        content = (
            file.read() if stat.S_ISREG(status.st_mode) and status.st_size <= MAX_FILE else file.read(MAX_FILE + 1)
        )
    if len(content) > MAX_FILE:
        raise ValueError(f"it has more than {MAX_FILE} bytes")
    return content


def _read(
    content: bytes, spec: InputSpec | None, formats: Sequence[str], held: ExitStack
) -> tuple[Image.Image, tuple[int, int]]:
    """Decode a file to an upright RGB image, whose memory is held until `held` ends; and its size in the file."""
    header = _header(content, formats)
    jpeg = header.format == "JPEG"
    if not jpeg:
        held.enter_context(BUDGET.hold(header.memory()))
    with _open(content, header) as image:
        size = (image.height, image.width) if jpeg and _orientation(image) >= 5 else image.size
        if jpeg:  # whose pixels take no memory yet
            reduction = _reduction(size, spec)
            held.enter_context(BUDGET.hold(header.memory(reduction)))
            if reduction > 1:
                image.draft(None, (image.width // reduction, image.height // reduction))
        image.load()
        upright = _upright(image)
        return _to_rgb(upright), size if jpeg else upright.size


def _header(content: bytes, formats: Sequence[str]) -> FileHeader:
    """The header of an image file that does not cost too much."""
    header = read_header(content)
    if header is None:
        raise UnidentifiedImageError
    if header.format not in formats:
        raise ValueError(f"{header.format} files are not read here, only {', '.join(formats)}")
    return header


def _open(content: bytes, header: FileHeader) -> Image.Image:
    """Open an image file without decoding it (of a WebP, the decoder allocates its memory)."""
    image = Image.open(TimedFile(content), formats=(header.format,))
    stored = 1 if image.mode in ("1", "L", "P") else 2 if image.mode.startswith("I;16") else 4
    if image.width * image.height > header.width * header.height or stored > header.stored:
        raise ValueError("its header contradicts itself")
    return image


@contextmanager
def opened(content: bytes, formats: Sequence[str] = FORMATS) -> Iterator[Image.Image]:
    """An image file as Pillow has opened it, not decoded yet. It counts in the memory budget until the context ends.

    Raises:
        UnidentifiedImageError: it is no image file.
        ValueError: decoding it would cost too much, or it is of another format.
    """
    header = _header(content, formats)
    with BUDGET.hold(header.memory()), _open(content, header) as image:
        yield image


def _reduction(size: tuple[int, int], spec: InputSpec | None) -> int:
    """8, 4 or 2, the largest with which an image still has twice the sides that it will be resized to; otherwise 1."""
    if spec is None or not spec.jpeg_scaling:
        return 1
    scale = scale_of(size, spec)
    return next((reduction for reduction in (8, 4, 2) if 2 * scale * reduction <= 1), 1)


def scale_of(size: tuple[int, int], spec: InputSpec) -> float:
    """The factor by which an image of a size (width, height) is resized for an input.

    A classifier's image gets the shorter side `resize_shorter_side`. So does a segmenter's, or a smaller one if the
    graph has a fixed size that is smaller; but no side is enlarged beyond MAX_SIDE: an image of 1000 x 3 pixels would
    need gigabytes.
    """
    scale = spec.resize_shorter_side / min(size) if spec.resize_shorter_side else 1.0
    if isinstance(spec, ClassificationInput):
        return scale
    scale = min(scale, max(1.0, MAX_SIDE / max(size)))
    if spec.width and spec.height:
        scale = min(scale, spec.width / size[0], spec.height / size[1])
    return scale


def _orientation(image: Image.Image) -> int:
    with suppress(Exception):  # a broken EXIF block: no orientation
        profile = image.info.get("Raw profile type exif", "")
        if len(profile) <= MAX_PROFILE and (found := image.getexif().get(Base.Orientation)) in TURNS:
            return int(found)
    return 1


def _upright(image: Image.Image) -> Image.Image:
    """The image with its EXIF orientation applied, and without it in its data."""
    method = TURNS.get(_orientation(image))
    if method is None:
        return image
    turned = image.transpose(method)
    turned.info = {key: value for key, value in image.info.items() if key == "transparency"}
    return turned


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":  # more than 8 bits a channel: Pillow's own conversion clips
        wide = image.mode.startswith("I;16") or any(_numbers(part).max(initial=0) > 255 for _, part in _strips(image))
        return _by_strips(image, partial(_narrowed, factor=255 / 65535 if wide else 1.0))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return _by_strips(image, _over_black)
    return image if image.mode == "RGB" else image.convert("RGB")


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Parts of an image of about STRIP pixels from top to bottom, each with its first row."""
    rows = max(1, STRIP // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _by_strips(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    rgb = Image.new("RGB", image.size)
    for top, part in _strips(image):
        rgb.paste(convert(part), (0, top))
    return rgb


def _numbers(image: Image.Image) -> np.ndarray:
    return np.asarray(np.nan_to_num(np.asarray(image, np.float32)))


def _narrowed(image: Image.Image, factor: float) -> Image.Image:
    values = _numbers(image) * np.float32(factor)
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8)).convert("RGB")


def _over_black(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image).convert("RGB")


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


def load(
    source: ImageSource, spec: ClassificationInput, name: str | None = None, formats: Sequence[str] = FORMATS
) -> np.ndarray:
    """Decode an image and prepare it for a classifier: uint8 (H, W, 3). Arguments and errors as for `decode`."""
    with decoded(source, spec, name=name, formats=formats) as (image, _):
        return prepare(image, spec)


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


def prepare_segmentation(
    image: Image.Image, spec: SegmentationInput, original: tuple[int, int] | None = None
) -> PaddedImage:
    """The input of a segmenter for one RGB image.

    It is resized as `scale_of` says and padded at the right and the bottom, to the fixed size or to multiples of 8.

    Args:
        image: the RGB image.
        spec: the input.
        original: its width and height in the file, if it was decoded at a reduced scale.
    """
    original = original or image.size
    scale = scale_of(original, spec)
    width, height = (max(1, round(side * scale)) for side in original)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pad_to = (spec.height or _round_up(height), spec.width or _round_up(width))
    return PaddedImage(pad(np.asarray(image), *pad_to, spec.pad_colour), (width, height), original)


def load_segmentation(
    source: ImageSource, spec: SegmentationInput, name: str | None = None, formats: Sequence[str] = FORMATS
) -> PaddedImage:
    """Decode an image and prepare it for a segmenter. Arguments and errors as for `decode`."""
    with decoded(source, spec, name=name, formats=formats) as (image, original):
        return prepare_segmentation(image, spec, original)


def pad(pixels: np.ndarray, height: int, width: int, colour: Colour) -> np.ndarray:
    """Pad pixels, uint8 (h, w, 3), at the right and the bottom with a colour, to uint8 (height, width, 3)."""
    area = np.empty((height, width, 3), np.uint8)
    area[:] = colour
    area[: pixels.shape[0], : pixels.shape[1]] = pixels
    return area


def _round_up(side: int) -> int:
    return math.ceil(side / STRIDE) * STRIDE
