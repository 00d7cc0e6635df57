"""Label maps as images."""

import numpy as np
from PIL import Image

from csg.datasets.label_sets import IGNORED, read_label_set
from csg.images import decode
from csg.overlays import overlay, palette_png
from tests.helpers.mask_files import save_image


def test_masks_and_overlays_show_the_class_colours(tmp_path):
    colours = read_label_set("camvid11").colours
    label_map = np.random.default_rng(0).integers(0, 11, (20, 30), dtype=np.uint8)
    label_map[0] = IGNORED
    (tmp_path / "m.png").write_bytes(palette_png(label_map, colours))
    with Image.open(tmp_path / "m.png") as mask:
        assert mask.mode == "P"
        assert np.array_equal(np.asarray(mask), label_map)
        assert tuple(np.asarray(mask.convert("RGB"))[5, 5]) == colours[label_map[5, 5]]
    image = decode(save_image(tmp_path / "i.png", np.full((20, 30, 3), 100, np.uint8)))
    laid = np.asarray(overlay(image, label_map, colours))
    assert (laid[0] == 100).all()
    assert np.allclose(laid[5, 5], 0.45 * 100 + 0.55 * np.array(colours[label_map[5, 5]]), atol=1)
