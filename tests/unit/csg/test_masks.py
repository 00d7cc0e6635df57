"""Masks: their values are those that the file means, whatever its bit depth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from csg.datasets.masks import read_mask
from csg.errors import InputError
from tests.helpers.mask_files import png

KINDS = [(bits, palette) for bits in (1, 2, 4, 8) for palette in (False, True)] + [(16, False)]


@given(st.data(), st.sampled_from(KINDS), st.booleans(), st.integers(1, 19), st.integers(1, 11))
@settings(max_examples=60, deadline=None)
def test_a_masks_values_are_those_that_were_written(tmp_path_factory, data, kind, interlaced, width, height):
    (bits, palette), count = kind, width * height
    values = data.draw(st.lists(st.integers(0, min(2**bits - 1, 255)), min_size=count, max_size=count))
    values = np.array(values).reshape(height, width)
    path = tmp_path_factory.mktemp("mask") / "mask.png"
    path.write_bytes(png(values, bits, palette, interlaced))
    found = read_mask(path)
    assert found.dtype == np.uint8
    assert np.array_equal(found, values)


@pytest.mark.parametrize("mode", ["L", "P", "1"])
@pytest.mark.parametrize("optimised", [False, True])
def test_pillows_own_masks_are_read_back(tmp_path, mode, optimised):
    values = np.arange(12).reshape(3, 4) % 2
    mask = Image.fromarray(values.astype(bool) if mode == "1" else values.astype(np.uint8))
    if mode == "P":
        mask.putpalette([9, 9, 9, 200, 0, 0])
    mask.save(tmp_path / "mask.png", optimize=optimised, **({"bits": 1} if mode == "P" else {}))
    assert np.array_equal(read_mask(tmp_path / "mask.png"), values)


GREY = np.arange(12, dtype=np.uint8).reshape(3, 4)
RGB = np.stack([GREY, GREY * 2, GREY], -1)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.stack([GREY] * 3, -1), "channels RGB, and a mask has one; its colours are grey: .*getchannel"),
        (np.stack([GREY] * 4, -1), "channels RGBA, and a mask has one; its colours are grey"),
        (np.stack([GREY] * 2, -1), "channels LA, and a mask has one; its colours are grey"),
        (RGB, "channels RGB, and a mask has one; its colours stand for classes"),
        (GREY.astype(np.uint16) * 100, "holds the value 1100, the largest is 255"),
    ],
)
def test_a_mask_that_is_none_says_how_to_make_it_one(tmp_path, pixels, message):
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match=message):
        read_mask(tmp_path / "mask.png")


def test_channels_of_16_bits_are_not_cut_to_8(tmp_path):
    """SYNTHIA's GT/LABELS: Pillow would read the upper half of each value, which is 0."""
    (tmp_path / "mask.png").write_bytes(png(RGB.astype(int), 16))
    with pytest.raises(InputError, match=r"have 16 bits.*; save the channel that holds the class"):
        read_mask(tmp_path / "mask.png")


def test_other_formats_and_damaged_files_are_named(tmp_path):
    path = tmp_path / "mask.png"
    Image.fromarray(GREY).save(path, "JPEG")
    with pytest.raises(InputError, match=r"not a PNG file .JPEG would change the values"):
        read_mask(path)
    whole = png(GREY.astype(int), 8)
    for length in range(whole.index(b"IDAT") + 12):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"mask .*mask\.png can't be read"):
            read_mask(path)
    for other in (tmp_path, tmp_path / "none.png"):
        with pytest.raises(InputError, match=r"can't be read|does not exist"):
            read_mask(other)
