"""Sizes and batches as the command line takes them."""

import pytest

from csg.errors import UsageError


def test_sizes_are_multiples_of_eight():
    from csg_export.command import parse_size

    assert parse_size("240x320") == (240, 320)
    for wrong in ("240", "240x321", "0x8", "x", "axb", "8x-8"):
        with pytest.raises(UsageError, match="HEIGHTxWIDTH"):
            parse_size(wrong)
