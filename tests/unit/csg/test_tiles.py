"""Inputs of segmenters: padded images and tiles, and the label maps restored from them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from csg.card import SegmentationInput
from csg.images import prepare_segmentation
from csg.tiles import load_tiles

sizes = st.tuples(st.integers(1, 70), st.integers(1, 70))


@given(sizes, st.sampled_from([None, 16, 40]), st.sampled_from([None, (32, 48)]), st.integers(0, 2**16))
def test_a_prepared_image_is_whole_and_its_label_map_is_restored(size, shorter, fixed, seed):
    image = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))
    spec = SegmentationInput(height=fixed and fixed[0], width=fixed and fixed[1], resize_shorter_side=shorter)
    scene = prepare_segmentation(image, spec)
    height, width = scene.pixels.shape[:2]
    assert (height, width) == fixed if fixed else (height % 8, width % 8) == (0, 0)
    assert scene.scaled[0] <= width
    assert scene.scaled[1] <= height
    outside = scene.pixels.copy()
    outside[: scene.scaled[1], : scene.scaled[0]] = spec.pad_colour
    assert (outside == spec.pad_colour).all()
    if not fixed and not shorter:
        assert np.array_equal(scene.pixels[: size[0], : size[1]], np.asarray(image))
        label_map = np.random.default_rng(seed).integers(0, 9, (height, width), dtype=np.uint8)
        assert np.array_equal(scene.restore(label_map), label_map[: size[0], : size[1]])
    assert scene.restore(np.zeros((height, width), np.uint8)).shape == size


@given(st.tuples(st.integers(1, 200), st.integers(1, 200)), st.sampled_from([32, 48, 64]))
def test_tiles_cover_an_image_exactly(size, side):
    """Tiles whose labels depend on each pixel alone join to the labels of the whole image."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    tiles = load_tiles(image, SegmentationInput(), side)
    assert all(tile.shape == (side, side, 3) for tile in tiles.tiles)
    label_map = tiles.restore([tile[..., 0] for tile in tiles.tiles])
    assert np.array_equal(label_map, np.asarray(image)[..., 0])
    if min(size) > side:
        assert all(b - a <= side * 3 / 4 + 8 for a, b in zip(tiles.tops, tiles.tops[1:], strict=False))
