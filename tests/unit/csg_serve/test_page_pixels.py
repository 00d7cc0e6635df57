"""The page prepares images as csg.images does: the same pixels in headless Chromium as in Python."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image

from csg.card import ClassificationInput, SegmentationInput
from csg.images import load, load_segmentation
from csg_serve.page.write import STATIC
from tests.conftest import SHARED
from tests.helpers.browser import needs_chromium, started
from tests.helpers.page_files import opened, prepared, served

pytestmark = needs_chromium
SPECS = {
    "classifier": ClassificationInput(height=96, width=80, resize_shorter_side=100),
    "small classifier": ClassificationInput(height=40, width=40, resize_shorter_side=40, jpeg_scaling=True),
    "segmenter": SegmentationInput(),
    "segmenter, resized": SegmentationInput(resize_shorter_side=77, jpeg_scaling=True),
    "segmenter of fixed size": SegmentationInput(height=64, width=160, resize_shorter_side=80),
}
PROFILE = b"\0\0\0\x0cno profile at all"


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    folder = shutil.copytree(STATIC, tmp_path_factory.mktemp("page") / "static")
    (folder / "empty.html").write_text('<!doctype html><link rel="icon" href="icon.svg">')
    with (
        served(folder) as address,
        started() as browser,
        opened(browser, f"{address}empty.html", own=address) as (found, _),
    ):
        yield found


def noisy(width, height, seed=0):
    """Smooth shapes with noise on them, as of a camera."""
    made = np.random.default_rng(seed)
    coarse = Image.fromarray(made.integers(0, 256, (height // 9 + 2, width // 9 + 2, 3), np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int64)
    return Image.fromarray((smooth + made.integers(-20, 20, smooth.shape)).clip(0, 255).astype(np.uint8))


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    return exif


def largest_difference(tab, content, spec):
    pixels, scaled = prepared(tab, content, spec)
    if isinstance(spec, ClassificationInput):
        expected = load(content, spec)
    else:
        padded = load_segmentation(content, spec)
        expected = padded.pixels
        assert scaled == padded.scaled
    assert pixels.shape == expected.shape
    return int(np.abs(pixels.astype(int) - expected).max())


def check(tab, content, at_most=0):
    found = {name: largest_difference(tab, content, spec) for name, spec in SPECS.items()}
    assert max(found.values()) <= at_most, found


@pytest.mark.parametrize("size", [(173, 121), (17, 3), (1, 1), (400, 9)])
def test_any_size(tab, size):
    check(tab, encoded(noisy(*size), "PNG"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations(tab, orientation):
    """Odd sides: of a JPEG at a reduced scale, the last row and column are only partly of the image."""
    image = noisy(233, 171)
    for kind, options in (("JPEG", {"quality": 90}), ("PNG", {}), ("WEBP", {"lossless": True})):
        check(tab, encoded(image, kind, exif=turned(orientation), **options))


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize(
    "options", [{"quality": 95}, {"progressive": True}, {"quality": 20, "restart_marker_blocks": 5}]
)
def test_jpeg_files_at_a_reduced_scale(tab, subsampling, options):
    """Half and a quarter of the size; at an eighth, once."""
    for size in [(173, 211), (331, 353)] + [(650, 641)] * ("progressive" in options):
        content = encoded(noisy(*size), "JPEG", subsampling=subsampling, **options)
        assert largest_difference(tab, content, SPECS["small classifier"]) == 0
        assert largest_difference(tab, content, SPECS["segmenter, resized"]) == 0


def test_other_jpeg_files(tab):
    image = noisy(333, 231)
    check(tab, encoded(image.convert("L"), "JPEG"))
    check(tab, encoded(image, "JPEG", keep_rgb=True))
    check(tab, encoded(image, "JPEG", icc_profile=PROFILE, comment=b"a comment"))
    check(tab, encoded(image, "JPEG") + b"what a camera appends \xff\xd8\xff\xe0")


def test_an_orientation_in_xmp(tab):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    check(tab, encoded(noisy(130, 121), "JPEG", xmp=xmp))
    check(tab, encoded(noisy(130, 121), "JPEG", xmp=xmp, exif=turned(1)))


def test_kinds_of_pixels(tab):
    image = noisy(140, 101)
    with_alpha = image.copy()
    with_alpha.putalpha(noisy(140, 101, 1).convert("L"))
    for mode in ("L", "P", "1"):
        check(tab, encoded(image.convert(mode), "PNG"))
    check(tab, encoded(with_alpha, "PNG"), 1)
    check(tab, encoded(with_alpha.convert("LA"), "PNG"), 1)
    check(tab, encoded(with_alpha, "WEBP", lossless=True), 1)
    check(tab, encoded(image.quantize(32), "PNG", transparency=3), 1)
    check(tab, encoded(Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 251), "PNG"), 1)
    check(tab, encoded(image, "PNG", icc_profile=PROFILE))


def test_other_formats(tab):
    image, second = noisy(140, 121), noisy(140, 121, 1)
    for options in ({"quality": 80}, {"lossless": True}, {"icc_profile": PROFILE, "exif": turned(8), "lossless": True}):
        check(tab, encoded(image, "WEBP", **options))
    check(tab, encoded(image.quantize(64), "GIF", save_all=True, append_images=[second.quantize(64)]))
    check(tab, encoded(image, "PNG", save_all=True, append_images=[second]))
    check(tab, encoded(image, "BMP"))


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real images in {SHARED}")
def test_200_photos(tab):
    photos = [*sorted(SHARED.glob("pacs/photo/*/*"))[::7], *sorted(SHARED.glob("imagenet_sample/*/*"))[::8]]
    photos += sorted(SHARED.glob("camvid/images/*"))[::2]
    assert len(photos) > 200
    for photo in photos:
        content = photo.read_bytes()
        assert largest_difference(tab, content, SPECS["classifier"]) <= 1, photo
        assert largest_difference(tab, content, SPECS["small classifier"]) <= 1, photo
