"""Image files of every kind, whole and broken."""

import io

import numpy as np
from PIL import Image

from csg.images import MAX_PIXELS
from tests.helpers.tiny_bundle import COLOURS

RNG = np.random.default_rng(0)


def encoded(image, kind="PNG", **options):
    """The bytes of an image file; the options are Pillow's."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def colour_folders(folder, count, colour=lambda name, number: name):
    """A folder for each class of a colour bundle, with `count` images of the colour that `colour` says."""
    for name in COLOURS:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (40, 40), colour(name, number)).save(folder / name / f"{number}.png")
    return folder


def noise(mode="RGB", size=(37, 23)):
    """An image of random pixels; size is width and height."""
    channels = len(Image.new(mode, (1, 1)).getbands())
    return Image.fromarray(RNG.integers(0, 256, (*size[::-1], channels), np.uint8).squeeze(), mode)


def turned(orientation=6):
    """EXIF data of a camera that was turned; from 5 on width and height are swapped."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


KINDS = {
    "jpeg": encoded(noise(), "JPEG"),
    "png": encoded(noise()),
    "webp": encoded(noise(), "WEBP"),
    "turned": encoded(noise(), "JPEG", exif=turned()),
    "turned png": encoded(noise("RGBA"), exif=turned()),
    "grey": encoded(noise("L"), "JPEG"),
    "cmyk": encoded(noise("CMYK"), "JPEG"),
    "alpha": encoded(noise("RGBA")),
    "alpha webp": encoded(noise("RGBA"), "WEBP", lossless=True),
    "palette": encoded(noise().quantize(16)),
    "16 bit": encoded(Image.fromarray(RNG.integers(0, 65536, (23, 37), np.uint16))),
    "animated gif": encoded(noise("P"), "GIF", save_all=True, append_images=[noise("P")]),
    "animated webp": encoded(noise(), "WEBP", save_all=True, append_images=[noise()]),
    "large": encoded(noise(size=(1200, 900)), "JPEG"),
    "strip": encoded(noise(size=(900, 2))),
}
BROKEN = {
    "empty": (b"", "not an image file"),
    "text": (b"hello", "not an image file"),
    "truncated jpeg": (KINDS["jpeg"][: len(KINDS["jpeg"]) // 2], "truncated"),
    "truncated png": (KINDS["png"][: len(KINDS["png"]) // 2], "can't be read"),
    "truncated webp": (KINDS["webp"][: len(KINDS["webp"]) // 2], "can't be read"),
    "bomb": (encoded(Image.new("1", (1000, MAX_PIXELS // 1000 + 1))), f"the maximum is {MAX_PIXELS}"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image file"),
}
