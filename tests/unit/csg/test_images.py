"""Decoding and preprocessing of every kind of image."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import csg.images
from csg.card import ClassificationInput, SegmentationInput
from csg.errors import InputError
from csg.images import decode, load, prepare, prepare_segmentation
from tests.helpers.image_files import encoded, turned

SPEC = ClassificationInput(height=24, width=24, resize_shorter_side=32)


def test_an_image_of_the_input_size_passes_untouched():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    spec = ClassificationInput(height=32, width=32, resize_shorter_side=32)
    assert np.array_equal(prepare(Image.fromarray(pixels), spec), pixels)


def test_prepare_is_resize_then_centre_crop():
    ramp = Image.linear_gradient("L").resize((128, 64)).convert("RGB")
    slow = np.asarray(ramp.resize((64, 32), Image.Resampling.BILINEAR).crop((20, 4, 44, 28)), int)
    assert np.abs(prepare(ramp, SPEC).astype(int) - slow).max() <= 1


@given(st.integers(1, 300), st.integers(1, 300))
def test_any_size_gives_the_input_shape(width, height):
    grey = Image.new("RGB", (width, height), (7, 130, 250))
    assert np.array_equal(prepare(grey, SPEC), np.tile(np.uint8([7, 130, 250]), (24, 24, 1)))


def test_a_very_long_image_is_prepared():
    assert prepare(Image.new("RGB", (60_000, 1)), SPEC).shape == (24, 24, 3)
    tall = prepare_segmentation(Image.new("RGB", (3, 1000)), SegmentationInput(resize_shorter_side=240))
    assert (tall.scaled, tall.pixels.shape) == ((25, 8192), (8192, 32, 3))
    large = prepare_segmentation(Image.new("RGB", (9000, 20)), SegmentationInput(resize_shorter_side=240))
    assert large.scaled == (9000, 20), "what is larger already keeps its size"


def test_exif_orientation_is_applied():
    image = Image.new("RGB", (40, 20), "red")
    assert decode(encoded(image, "JPEG", exif=turned())).size == (20, 40)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(mode):
    kind = "JPEG" if mode == "CMYK" else "PNG"
    if mode == "I;16":
        image = Image.fromarray(np.full((8, 8), 65535, np.uint16))
    else:
        image = Image.new("RGBA", (8, 8), "white").convert("LA" if mode == "LA" else "RGB").convert(mode)
    pixels = np.asarray(decode(encoded(image, kind)))
    assert pixels.shape == (8, 8, 3)
    assert pixels.min() >= 250


def test_transparent_pixels_are_black():
    assert np.asarray(decode(encoded(Image.new("RGBA", (2, 2), (255, 255, 255, 0))))).max() == 0


def test_the_first_frame_of_an_animation_is_decoded():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    moving = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(moving).getpixel((0, 0)) == (255, 0, 0)


def test_a_file_that_is_not_an_image_is_named(tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"broken\.jpg"):
        load(broken, SPEC)
    with pytest.raises(InputError, match="does not exist"):
        load(tmp_path / "missing.jpg", SPEC)


def test_a_truncated_image_is_refused():
    whole = encoded(Image.effect_noise((64, 64), 50).convert("RGB"), "JPEG")
    with pytest.raises(InputError, match="can't be read"):
        decode(whole[: len(whole) // 2])


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_is_refused():
    with pytest.raises(InputError, match=f"1000 x 89479 pixels, the maximum is {csg.images.MAX_PIXELS}"):
        decode(encoded(Image.new("1", (1000, 89_479))))
    assert decode(encoded(Image.new("1", (500, 500)))).size == (500, 500)


def test_sixteen_bits_keep_their_scale():
    """Even if the image is so dark that its values would fit into 8 bits."""
    ramp = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    assert np.array_equal(np.asarray(decode(encoded(Image.fromarray(ramp))))[..., 0].ravel(), np.arange(256))
    assert np.asarray(decode(encoded(Image.fromarray(np.full((8, 8), 255, np.uint16))))).max() == 1


def test_a_broken_exif_block_is_ignored():
    image = Image.new("RGB", (40, 20), "red")
    assert decode(encoded(image, "JPEG", exif=b"Exif\0\0no TIFF header here")).size == (40, 20)


def test_formats_that_start_another_program_are_refused():
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    with pytest.raises(InputError, match="not an image file"):
        decode(postscript)


def test_threads_decode_in_parallel():
    """Each broken image raises an error, and no other one does: no state is shared."""
    whole = encoded(Image.effect_noise((64, 64), 50).convert("RGB"), "JPEG")
    files = [whole if place % 3 else whole[: len(whole) // 2] for place in range(90)]

    def size(file):
        try:
            return decode(file).size
        except InputError:
            return None

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(size, files)) == [(64, 64) if place % 3 else None for place in range(90)]


FORMS = ("RGB JPEG", "CMYK JPEG", "RGBA PNG", "P PNG", "RGBA WEBP", "P GIF", "RGB TIFF")
SAMPLES = [
    encoded(Image.effect_noise((20, 12), 60).convert(mode), kind, exif=turned()) for mode, kind in map(str.split, FORMS)
]


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(st.sampled_from(SAMPLES), st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=8), st.data())
def test_damaged_bytes_give_an_image_or_an_input_error(whole, changes, data):
    damaged = bytearray(whole)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    try:
        image = decode(bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert image.mode == "RGB"
