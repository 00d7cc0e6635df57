"""Options and samples of `csg bench`."""

from types import SimpleNamespace

import numpy as np
import pytest

from csg.card import SegmentationInput
from csg.errors import UsageError
from csg_serve.bench.command import parse_concurrency, parse_scenarios
from csg_serve.bench.samples import read_samples, stack_images
from tests.helpers.tiny_bundle import tiny_card


def test_concurrency_and_scenarios():
    assert parse_concurrency("1,2,16") == (1, 2, 16)
    for nonsense in ("", "1,", "a", "-1", "0,2", "1.5", "100000"):
        with pytest.raises(UsageError, match="not a list of numbers"):
            parse_concurrency(nonsense)
    assert parse_scenarios(["offline", "offline"]) == ("offline",)


def test_random_pixels_have_the_cards_size():
    samples = read_samples(tiny_card(), ())
    assert samples.pixels(0).shape == (32, 32, 3)
    assert not np.array_equal(samples.pixels(0), samples.pixels(1))
    np.testing.assert_array_equal(samples.pixels(1), samples.pixels(1))
    free = SimpleNamespace(input=SegmentationInput())
    assert read_samples(free, ()).pixels(0).shape == (512, 1024, 3)


def test_images_of_two_sizes_are_no_batch():
    with pytest.raises(UsageError, match="different sizes"):
        stack_images([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 16, 3), np.uint8)])
