"""Preprocessing for inference: decode, resize, crop, pad.

Evaluation during training, the client and the server all use these functions, so their pixels are identical.
Shape letters: H W height and width of the model's input.
"""

from __future__ import annotations

import math
import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from csg.card import STRIDE, ClassificationInput, Colour, SegmentationInput
from csg.errors import InputError, one_line
from csg.image_budget import BUDGET, TimedFile
from csg.image_headers import MAX_PIXELS as MAX_PIXELS
from csg.image_headers import FileHeader, read_header
from csg.rgb import orientation, to_rgb, upright

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
MAX_FILE = 2**30
"""Maximum size of a file in bytes."""
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
    with decoded(source, None, name=name, formats=formats) as found:
        return found.pixels


Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class DecodedImage:
    """An RGB image, which may be smaller than in its file."""

    pixels: Image.Image
    """The pixels, upright."""
    original: tuple[int, int]
    """Width and height in the file, upright."""
    box: Box
    """Left, top, right and bottom of the image in `pixels`. At a reduced scale, the last row and column of a file whose
    sides are no multiples of the scale are only partly of the image."""

    @classmethod
    def whole(cls, image: Image.Image) -> DecodedImage:
        """An image in its own size."""
        return cls(image, image.size, (0, 0, *image.size))

    def resized(self, size: tuple[int, int], box: Box | None = None) -> Image.Image:
        """The image, or a part of `pixels`, in another size (width, height): bilinear, with antialiasing."""
        return self.pixels.resize(size, Image.Resampling.BILINEAR, box=box or self.box)


@contextmanager
def decoded(
    source: ImageSource, spec: InputSpec | None, *, name: str | None = None, formats: Sequence[str] = FORMATS
) -> Iterator[DecodedImage]:
    """As `decode`, for an input: a JPEG file that is much larger than needed may come at a reduced scale.

    Args:
        source, name, formats: as for `decode`.
        spec: the input; None: the image in its own size.

    Yields:
        The image, which counts in the memory budget until the context ends.
    """
    name = name or (str(source) if isinstance(source, Path) else "from memory")
    with ExitStack() as held:
        with _errors_of(name):
            if isinstance(source, Image.Image):
                found = DecodedImage.whole(to_rgb(ImageOps.exif_transpose(source)))
            else:
                found = _read(source if isinstance(source, bytes) else read_file(source), spec, formats, held)
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


def read_file(path: Path) -> bytes:
    """The content of a file of at most MAX_FILE bytes.

    Raises:
        ValueError: it has more.
    """
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        content = (
            file.read() if stat.S_ISREG(status.st_mode) and status.st_size <= MAX_FILE else file.read(MAX_FILE + 1)
        )
    if len(content) > MAX_FILE:
        raise ValueError(f"it has more than {MAX_FILE} bytes")
    return content


def _read(content: bytes, spec: InputSpec | None, formats: Sequence[str], held: ExitStack) -> DecodedImage:
    """Decode a file; its memory is held until `held` ends."""
    header = _header(content, formats)
    if header.format != "JPEG":
        held.enter_context(BUDGET.hold(header.memory()))
        with _open(content, header) as image:
            image.load()
            return DecodedImage.whole(to_rgb(upright(image)))
    with _open(content, header) as image:  # whose pixels take no memory yet
        turned = orientation(image)
        original = (image.height, image.width) if turned >= 5 else image.size
        reduction = _reduction(original, spec)
        held.enter_context(BUDGET.hold(header.memory(reduction)))
        if reduction > 1:
            image.draft(None, (image.width // reduction, image.height // reduction))
        image.load()
        pixels = to_rgb(upright(image))
    return DecodedImage(pixels, original, _box(pixels.size, original, reduction, turned))


def _box(size: tuple[int, int], original: tuple[int, int], reduction: int, turned: int) -> Box:
    """Where an image is in its pixels. What they have beyond it was at the right and the bottom before the turn."""
    width, height = (side / reduction for side in original)
    left = size[0] - width if turned in (2, 3, 6, 7) else 0
    top = size[1] - height if turned in (3, 4, 7, 8) else 0
    return left, top, min(left + width, size[0]), min(top + height, size[1])


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


def prepare(image: Image.Image | DecodedImage, spec: ClassificationInput) -> np.ndarray:
    """The input of a classifier for one RGB image, uint8 (H, W, 3).

    The shorter side is resized to `resize_shorter_side` and the centre H x W is cropped (docs/method.md section 6,
    test view). Both happen in one bilinear, antialiased step on the pixels that are kept, so that a very long image
    needs no more memory than a square one.
    """
    found = image if isinstance(image, DecodedImage) else DecodedImage.whole(image)
    first, top, end, bottom = found.box
    across, down = end - first, bottom - top
    scale = min(across, down) / spec.resize_shorter_side
    width, height = spec.width * scale, spec.height * scale
    left, upper = first + (across - width) / 2, top + (down - height) / 2
    box = (left, upper, min(left + width, end), min(upper + height, bottom))
    return np.asarray(found.resized((spec.width, spec.height), box), np.uint8)


def load(
    source: ImageSource, spec: ClassificationInput, name: str | None = None, formats: Sequence[str] = FORMATS
) -> np.ndarray:
    """Decode an image and prepare it for a classifier: uint8 (H, W, 3). Arguments and errors as for `decode`."""
    with decoded(source, spec, name=name, formats=formats) as found:
        return prepare(found, spec)


@dataclass(frozen=True)
class PaddedImage:
    """The input of a segmenter for one image."""

    pixels: np.ndarray
    """uint8 (H, W, 3); the image is in the upper left corner, the rest is padding."""
    scaled: tuple[int, int]
    """Width and height of the image in `pixels`."""
    original: tuple[int, int]
    """Width and height of the image in its file, upright."""

    def restore(self, label_map: np.ndarray) -> np.ndarray:
        """Remove the padding from a label map, uint8 (H, W), and resize it to the original size (nearest neighbour)."""
        width, height = self.scaled
        cut = Image.fromarray(label_map[:height, :width])
        return np.asarray(cut.resize(self.original, Image.Resampling.NEAREST), np.uint8)


def prepare_segmentation(image: Image.Image | DecodedImage, spec: SegmentationInput) -> PaddedImage:
    """The input of a segmenter for one RGB image.

    It is resized as `scale_of` says and padded at the right and the bottom, to the fixed size or to multiples of 8.
    """
    found = image if isinstance(image, DecodedImage) else DecodedImage.whole(image)
    scale = scale_of(found.original, spec)
    width, height = (max(1, round(side * scale)) for side in found.original)
    pixels = found.pixels if (width, height) == found.pixels.size else found.resized((width, height))
    pad_to = (spec.height or _round_up(height), spec.width or _round_up(width))
    return PaddedImage(pad(np.asarray(pixels), *pad_to, spec.pad_colour), (width, height), found.original)


def load_segmentation(
    source: ImageSource, spec: SegmentationInput, name: str | None = None, formats: Sequence[str] = FORMATS
) -> PaddedImage:
    """Decode an image and prepare it for a segmenter. Arguments and errors as for `decode`."""
    with decoded(source, spec, name=name, formats=formats) as found:
        return prepare_segmentation(found, spec)


def pad(pixels: np.ndarray, height: int, width: int, colour: Colour) -> np.ndarray:
    """Pad pixels, uint8 (h, w, 3), at the right and the bottom with a colour, to uint8 (height, width, 3)."""
    area = np.empty((height, width, 3), np.uint8)
    area[:] = colour
    area[: pixels.shape[0], : pixels.shape[1]] = pixels
    return area


def _round_up(side: int) -> int:
    return math.ceil(side / STRIDE) * STRIDE
