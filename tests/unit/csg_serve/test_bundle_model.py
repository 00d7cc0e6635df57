"""A bundle answers in this process, in order and in the size of the images, and refuses what it can't vouch for."""

import asyncio
from contextlib import aclosing

import numpy as np
import pytest
from PIL import Image

from csg.errors import VerificationError
from csg_serve import open_bundle, stream
from tests.helpers.tiny_bundle import write_colour_bundle, write_scene_bundle, write_wrong_bundle

COLOURS = ("red", "lime", "blue", "red", "blue") * 5


def answers(bundle, images):
    async def ask():
        async with open_bundle(bundle.path) as model, aclosing(stream(model, images)) as found:
            return [answer async for answer in found]

    return asyncio.run(ask())


def test_a_classifier_answers_every_image_in_order(tmp_path):
    images = [Image.new("RGB", (40, 32), colour) for colour in COLOURS]
    classes = [int(answer.argmax()) for answer in answers(write_colour_bundle(tmp_path / "b"), images)]
    assert classes == [{"red": 0, "lime": 1, "blue": 2}[colour] for colour in COLOURS]


def test_a_segmenter_answers_in_the_size_of_the_image(tmp_path):
    (label_map,) = answers(write_scene_bundle(tmp_path / "b"), [Image.new("RGB", (30, 20), "lime")])
    assert label_map.dtype == np.uint8
    assert label_map.shape == (20, 30)
    assert (label_map == 1).all()


def test_a_bundle_whose_answers_differ_from_the_golden_ones_is_refused(tmp_path):
    with pytest.raises(VerificationError, match="answers wrongly here"):
        answers(write_wrong_bundle(tmp_path / "b"), [])
