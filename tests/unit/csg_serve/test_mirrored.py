"""Requests with mirror images: the class of both, the same as in a training, and what is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from csg.errors import UsageError
from csg.mirrored import classes_of_both, mirror_images
from csg_serve.client.requests import PLAIN, Sending, check_sending
from csg_train.tasks.base import of_both
from tests.helpers.tiny_bundle import tiny_card, write_scene_bundle

SHAPES = st.sampled_from([(3, 4), (2, 5, 3, 4)])


@given(SHAPES, st.floats(0.1, 200), st.floats(-300, 300), st.integers(0, 2**16))
def test_client_and_training_give_the_same_classes(shape, scale, offset, seed):
    """Of logits of any size, without overflow."""
    noise = np.random.default_rng(seed).standard_normal((2, *shape))
    logits, of_mirror_images = (scale * noise + offset).astype(np.float32)
    expected = of_both(torch.from_numpy(logits), torch.from_numpy(of_mirror_images)).numpy()
    found = np.take_along_axis(expected, classes_of_both(logits, of_mirror_images)[:, None], 1)[:, 0]
    np.testing.assert_allclose(found, expected.max(1), atol=1e-6)  # of equal ones, rounding decides


def test_pixels_are_mirrored_there_and_back():
    """A segmenter that returns its input: image and mirror image agree."""
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 3), np.uint8)
    logits, of_mirror_images = (np.moveaxis(one, 3, 1).astype(np.float32) for one in (images, mirror_images(images)))
    np.testing.assert_array_equal(classes_of_both(logits, of_mirror_images), logits.argmax(1))


def test_label_maps_alone_are_refused(tmp_path):
    check_sending(tiny_card(), Sending(mirrored=True))
    segmenter = write_scene_bundle(tmp_path / "scenes").card
    check_sending(segmenter, PLAIN)
    with pytest.raises(UsageError, match=r"scenes returns label maps only.*; export it with --logits, or leave out"):
        check_sending(segmenter, Sending(mirrored=True))
