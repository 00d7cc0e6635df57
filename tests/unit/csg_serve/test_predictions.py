"""`csg predict` of a segmenter: masks and overlays never take the place of others."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from csg.images import decode
from csg_serve.client.named_image import named
from csg_serve.evaluate.predict import mask_prediction
from tests.helpers.image_files import encoded, noise
from tests.helpers.tiny_bundle import write_scene_bundle


@pytest.fixture
def card(tmp_path):
    return write_scene_bundle(tmp_path / "bundle").card


def predicted(image, card, value=0):
    image.parent.mkdir(parents=True, exist_ok=True)
    image.write_bytes(encoded(noise(size=(16, 16))))
    return mask_prediction(named(image), np.full((16, 16), value, np.uint8), card, Path("masks"))


def test_images_of_one_name_predicted_at_the_same_time_have_files_of_their_own(card):
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: predicted(Path(f"{n}/a.png"), card, n % 2), range(16)))
    assert len({one.mask for one in found} | {one.overlay for one in found}) == 32
    for number, one in enumerate(found):
        assert np.array(decode(one.mask)).any() or number % 2 == 0 or card.colours[1] == (0, 0, 0)
        assert one.mask.name.replace("mask", "overlay") == one.overlay.name


def test_mask_and_overlay_have_the_same_number(card):
    Path("masks").mkdir()
    Path("masks/a-mask.png").write_bytes(b"mine")
    Path("masks/a-overlay-2.png").write_bytes(b"mine")
    one = predicted(Path("a.png"), card)
    assert (one.mask.name, one.overlay.name) == ("a-mask-3.png", "a-overlay-3.png")
    assert Path("masks/a-mask.png").read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["x" * 251, "é" * 125, "a\nb", "caf\udce9", "[red]", "-rf", "<b>"])
def test_every_name_of_an_image_is_taken(card, name):
    one = predicted(Path(f"{name}.png"), card)
    assert one.mask.is_file()
    assert one.overlay.is_file()
