"""Regions of shared memory."""

import numpy as np
import pytest

from csg_serve.client.shared_memory import FOLDER, Region
from tests.helpers.client import regions


def test_a_region_carries_tensors():
    region = Region(2**16)
    try:
        assert (FOLDER / region.name).stat().st_size == region.size
        tensor = np.arange(12, dtype=np.uint8).reshape(3, 4)
        region.write(tensor)
        read = region.read((2, 4), np.uint8, offset=4)
    finally:
        region.unlink()
    np.testing.assert_array_equal(read, tensor[1:])
    assert not (FOLDER / region.name).exists()
    region.unlink()


def test_more_than_there_is_memory_is_refused_and_leaves_nothing():
    with pytest.raises(OSError):
        Region(2**50)
    assert not regions()
